//! URIs: what is read, and what is refused rather than guessed.

use std::time::Duration;

use amqp_core::errors::{SettingError, UriErrorKind};
use amqp_core::types::RecoveryMode;
use amqp_core::{AmqpUri, Config, Credentials, Endpoint, Heartbeat, HostOrder, TlsSettings};
use proptest::prelude::*;

#[track_caller]
fn reads(uri: &str, expected: &str) {
    let uri: AmqpUri = uri.parse().unwrap();
    let hosts: Vec<String> =
        uri.hosts.iter().map(|(host, port)| format!("{host}|{port}")).collect();
    let scheme = if uri.tls { "amqps" } else { "amqp" };
    assert_eq!(format!("{scheme} {} {}", hosts.join(","), uri.virtual_host), expected);
}

/// It is refused at this character, counted from 1.
#[track_caller]
fn refuses(uri: &str, position: usize, expected: impl Into<UriErrorKind>) {
    let error = uri.parse::<AmqpUri>().unwrap_err();
    assert_eq!((&error.kind, error.position), (&expected.into(), position));
    let shown = error.to_string();
    assert!(!shown.contains("secret"), "{shown}");
    assert!(shown.ends_with(&format!("(at character {position})")), "{shown}");
}

const fn unencoded(character: char, part: &'static str) -> UriErrorKind {
    UriErrorKind::UnencodedCharacter { character, part }
}

#[test]
fn hosts_ports_and_virtual_hosts() {
    for uri in ["amqp://", "amqp:///", "amqp://localhost", "AMQP://LocalHost/%2F"] {
        reads(uri, "amqp localhost|5672 /");
    }
    reads("amqp://h", "amqp h|5672 /");
    reads("amqp://h/", "amqp h|5672 /");
    reads("amqp://h/%2f", "amqp h|5672 /");
    reads("amqp://h/%2fabc", "amqp h|5672 /abc");
    reads("amqp://h/%2f%2f", "amqp h|5672 //");
    reads("amqp://h/v%2fh", "amqp h|5672 v/h");
    reads("amqp://a:b@c:1/d", "amqp c|1 d");
    reads("amqps://h", "amqps h|5671 /");
    reads("amqp://user%61:%61pass@ho%61st:10000/v%2fhost", "amqp hoast|10000 v/host");
    reads("amqp://HOST", "amqp host|5672 /");
    reads("amqp://[::1]:5673/x", "amqp ::1|5673 x");
    reads("amqp://[::1]", "amqp ::1|5672 /");
    reads("amqp://h/a+b", "amqp h|5672 a+b");
    reads("amqp://h1,h2:7,[::1]/v", "amqp h1|5672,h2|7,::1|5672 v");
    reads("amqp://:5673", "amqp localhost|5673 /");
    reads("amqp://10.0.0.1:1", "amqp 10.0.0.1|1 /");
    reads("amqp://[2001:DB8::1]", "amqp 2001:db8::1|5672 /");
    reads("amqps://h1,[::1]:7,:8", "amqps h1|5671,::1|7,localhost|8 /");
}

/// What is written is read as the same URI, and what is shown lacks the password alone.
#[test]
fn written_and_shown() {
    for (uri, shown, written) in [
        ("amqp://", "amqp://localhost:5672/%2f", "amqp://localhost:5672/%2f"),
        ("AMQPS://H", "amqps://h:5671/%2f", "amqps://h:5671/%2f"),
        ("amqp://u:hunter2@h/v", "amqp://u@h:5672/v", "amqp://u:hunter2@h:5672/v"),
        ("amqp://u:@h/v", "amqp://u@h:5672/v", "amqp://u:@h:5672/v"),
        (
            "amqp://u%40%3a:h%2funter2%25@h/%2fa%20b",
            "amqp://u%40%3a@h:5672/%2fa%20b",
            "amqp://u%40%3a:h%2funter2%25@h:5672/%2fa%20b",
        ),
        ("amqp://h1,h2:7,[::1]/v", "amqp://h1:5672,h2:7,[::1]:5672/v", ""),
        ("amqp://%c3%bc:%c3%a4@h/%c3%b6", "amqp://%c3%bc@h:5672/%c3%b6", ""),
        ("amqp://h?heartbeat=0&frame_max=4096", "amqp://h:5672/%2f?heartbeat=0&frame_max=4096", ""),
        (
            "amqp://h?connection_timeout=1500&blocked_connection_timeout=7&channel_max=9",
            "amqp://h:5672/%2f?channel_max=9&connection_timeout=1500&blocked_connection_timeout=7",
            "",
        ),
    ] {
        let parsed: AmqpUri = uri.parse().unwrap();
        assert_eq!(parsed.to_string(), shown);
        let whole = parsed.to_string_with_password();
        if !written.is_empty() {
            assert_eq!(whole, written);
        }
        assert_eq!(whole.parse(), Ok(parsed), "{whole}");
    }
    // Shown with a user, it cannot be taken for the whole.
    refuses("amqp://u@h:5672/v", 9, UriErrorKind::MissingPassword);
}

/// The fields of a URI are those of the configuration.
#[test]
fn a_configuration_from_code_is_that_of_the_uri() {
    let uri = "amqps://u:p@h1:7,h2/v?heartbeat=5&blocked_connection_timeout=60";
    let config = Config::default()
        .endpoints([Endpoint::new("h1", 7).tls(true), Endpoint::new("h2", 5671).tls(true)])
        .credentials(Credentials::plain("u", "p"))
        .virtual_host("v")
        .heartbeat(Heartbeat::Seconds(5))
        .blocked_timeout(Duration::from_secs(60));
    assert_eq!(Config::from_uri(uri).unwrap(), config);
    assert!(config.wants_tls());

    let config = Config::from_uri("amqp://a:9,b:9").unwrap();
    assert!(!config.wants_tls());
    for same in
        [Config::default().port(9).hosts(["a", "b"]), Config::default().hosts(["a", "b"]).port(9)]
    {
        assert_eq!(same, config);
    }
    let one = Config::default().host("::1").port(9);
    assert_eq!(one, Config::from_uri("amqp://[::1]:9").unwrap());
    assert_eq!(Config::default(), Config::from_uri("amqp://").unwrap());
}

#[test]
fn credentials() {
    let equals = |uri: &str, user: &str, password: &str| {
        let config = Config::from_uri(uri).unwrap();
        let same = Config::from_uri("amqp://h").unwrap();
        assert_eq!(config, same.credentials(Credentials::plain(user, password)), "{uri}");
    };
    equals("amqp://h", "guest", "guest");
    equals("amqp://user:@h", "user", "");
    equals("amqp://:@h", "", "");
    equals("amqp://us%40er:p%2fw%3a@h", "us@er", "p/w:");
    equals("amqp://a+b:c+d@h", "a+b", "c+d");
    equals("amqp://a:b:c@h", "a", "b:c");
}

#[test]
fn query() {
    let uri = "amqp://h?heartbeat=0&frame_max=4096&channel_max=1&connection_timeout=1500";
    let expected = Config::from_uri("amqp://h")
        .unwrap()
        .heartbeat(Heartbeat::Seconds(0))
        .frame_max(4_096)
        .channel_max(1)
        .connect_timeout(Duration::from_millis(1_500));
    assert_eq!(Config::from_uri(uri).unwrap(), expected);
    // Key, unit, range and place are named; the value and the URI are not.
    let seconds = |low: &str| format!("seconds from {low} to 86400, with at most three decimals");
    let no_seconds = ["86401", "86400.001", "1s", "", "-1", "1e3", "1.", ".5", "0.0001", "1.5.5"];
    for (key, wanted, values) in [
        (
            "heartbeat",
            "seconds from 0 to 65535".into(),
            &["-1", "soon", "", "65536", "1.5", "+1"][..],
        ),
        ("frame_max", "bytes from 4096 to 131072".into(), &["4095", "131073", "4k", "", "-1", "0"]),
        (
            "channel_max",
            "channels from 1 to 65535".into(),
            &["0", "65536", "many", "", "-1", "1.0"],
        ),
        (
            "connection_timeout",
            "milliseconds from 1 to 86400000".into(),
            &["0", "86400001", "1s", "", "-1", "0x1"],
        ),
        (
            "connection_attempts",
            "attempts from 1 to 65535".into(),
            &["0", "65536", "x", "-1", "1.0"],
        ),
        ("retry_delay", seconds("0"), &no_seconds),
        ("recovery_delay", seconds("0.001"), &["0", "0.0", "86401", "soon"]),
        ("recovery_max_delay", seconds("0.001"), &["0", "-1", "86400.001"]),
        (
            "recovery_attempts",
            "attempts from 1 to 4294967295".into(),
            &["0", "4294967296", "1.5", "many"],
        ),
        ("socket_timeout", seconds("0.001"), &no_seconds),
        ("socket_timeout", seconds("0.001"), &["0", "0.0", "99999999999999999999"]),
        ("stack_timeout", seconds("0.001"), &["0", "18446744073709551615"]),
        ("call_timeout", seconds("0.001"), &["0"]),
        ("hook_timeout", seconds("0.001"), &["0"]),
        ("close_timeout", seconds("0.001"), &["0"]),
        ("blocked_connection_timeout", seconds("0"), &no_seconds),
        ("tcp_options.TCP_KEEPIDLE", "seconds from 1 to 32767".into(), &["0", "32768", "1.5", ""]),
        ("tcp_options.TCP_KEEPINTVL", "seconds from 1 to 32767".into(), &["0", "32768", "-1"]),
        ("tcp_options.TCP_KEEPCNT", "probes from 1 to 127".into(), &["0", "128"]),
        (
            "tcp_options.TCP_USER_TIMEOUT",
            "milliseconds from 0 to 86400000".into(),
            &["86400001", "1.5", "-1"],
        ),
        ("tcp_options.SO_SNDBUF", "bytes from 1 to 2147483647".into(), &["0", "2147483648", "1k"]),
        ("tcp_options.SO_RCVBUF", "bytes from 1 to 2147483647".into(), &["0", "2147483648", "1k"]),
    ] {
        for value in values {
            let uri = format!("amqp://u:secret@h?{key}={value}");
            let error = uri.parse::<AmqpUri>().unwrap_err();
            let at = format!("amqp://u:secret@h?{key}=").len() + 1;
            let expected = format!("{key} takes a number of {wanted} (at character {at})");
            assert_eq!(error.to_string(), expected, "{value:?}");
        }
    }
    refuses("amqp://h?heartbeat=1&heartbeat=1", 22, SettingError::Repeated("heartbeat".into()));
    refuses("amqp://h?bogus=1", 10, SettingError::Unknown("bogus".into()));
    refuses("amqp://h?Heartbeat=1", 10, SettingError::Unknown("Heartbeat".into()));
    refuses("amqp://h?tcp_options=1", 10, SettingError::Unknown("tcp_options".into()));
    refuses(
        "amqp://h?client_properties.=1",
        10,
        SettingError::Unknown("client_properties.".into()),
    );
    let unknown = "backpressure_detection";
    refuses(
        "amqp://h?heartbeat=1&backpressure_detection=t",
        22,
        SettingError::Unknown(unknown.into()),
    );
    refuses("amqp://h?locale=", 17, SettingError::Empty("locale"));
    let form = |key: &str, expected| SettingError::Form { key: key.into(), expected };
    let orders = "listed, which is the default, or shuffled";
    refuses("amqp://h?host_order=random", 21, form("host_order", orders));
    let modes = "automatic, never or unless_closed_by_broker";
    refuses("amqp://h?recovery=Automatic", 19, form("recovery", modes));
    let address = form("tcp_options.local_address", "an IP address");
    refuses("amqp://h?tcp_options.local_address=h", 36, address);
    let both = || SettingError::Both("connection_timeout", "stack_timeout");
    refuses("amqp://h?connection_timeout=1&stack_timeout=1", 31, both());
    refuses("amqp://h?stack_timeout=1&connection_timeout=1", 26, both());
}

/// One timeout, in the units of RabbitMQ and of pika.
#[test]
fn times_may_have_decimals() {
    let timeout = |uri: &str| uri.parse::<AmqpUri>().unwrap().connection_timeout.unwrap();
    for uri in [
        "amqp://h?stack_timeout=2.5",
        "amqp://h?connection_timeout=2500",
        "amqp://h?stack_timeout=2.500",
    ] {
        assert_eq!(timeout(uri), Duration::from_millis(2_500));
    }
    for (text, shown) in [("0", "0"), ("00.25", "0.25"), ("10", "10"), ("100.010", "100.01")] {
        let uri: AmqpUri = format!("amqp://h?retry_delay={text}").parse().unwrap();
        assert_eq!(uri.to_string(), format!("amqp://h:5672/%2f?retry_delay={shown}"));
    }
}

/// RabbitMQ's parameters for TLS. A `/` in a path need not be encoded.
#[test]
fn query_of_tls() {
    let uri = "amqps://h?cacertfile=/etc/ca.pem&certfile=%2ftmp%2Fa%20b.pem&keyfile=k&verify=verify_peer\
               &server_name_indication=broker.example";
    let settings = TlsSettings::default()
        .ca_file("/etc/ca.pem")
        .client_certificate("/tmp/a b.pem", "k")
        .server_name("broker.example");
    let config = Config::from_uri(uri).unwrap();
    assert_eq!(config.tls(), &settings);
    let parsed: AmqpUri = uri.parse().unwrap();
    assert_eq!(parsed.to_string().parse(), Ok(parsed));

    refuses("amqps://h?verify=verify_none", 18, SettingError::VerifyNone);
    let expected = "verify_peer, which is the default";
    refuses("amqps://h?verify=none", 18, SettingError::Form { key: "verify".into(), expected });
    refuses("amqps://h?certfile=", 20, SettingError::Empty("certfile"));
    refuses("amqps://h?keyfile=a%f", 20, UriErrorKind::PercentEncoding("query"));
    refuses("amqps://h?keyfile=a&keyfile=b", 21, SettingError::Repeated("keyfile".into()));
    refuses("amqps://u:secret?keyfile=/x@h", 28, unencoded('@', "query"));
    refuses("amqps://h?server_name_indication=a/secret", 35, unencoded('/', "query"));
}

/// Each refusal says where it is. Characters count, not bytes.
#[test]
fn refusals() {
    for uri in ["", "//", "h", "ftp://h", "http://h", "https://h", "amqp:h"] {
        refuses(uri, 1, UriErrorKind::Scheme);
    }
    refuses("amqp://user@h", 12, UriErrorKind::MissingPassword);
    refuses("amqp://h/a/b", 11, UriErrorKind::SecondPathSegment);
    refuses("amqp://h//", 10, UriErrorKind::SecondPathSegment);
    refuses("amqp://h/%2F/", 13, UriErrorKind::SecondPathSegment);
    for uri in ["amqp://h:99999", "amqp://h:abc", "amqp://h:0", "amqp://h:", "amqp://h:1:2"] {
        refuses(uri, 10, UriErrorKind::Port);
    }
    refuses("amqp://h1,[::1]:-1", 17, UriErrorKind::Port);
    refuses("amqp://[::1", 8, UriErrorKind::Ipv6Address);
    refuses("amqp://h,[nope]", 11, UriErrorKind::Ipv6Address);
    refuses("amqp://::1", 8, UriErrorKind::Ipv6Address);
    refuses("amqp://[fe80::1%25eth0]:5672", 16, UriErrorKind::Ipv6Zone);
    refuses("amqp://[fe80::1%eth0]", 16, UriErrorKind::Ipv6Zone);
    refuses("amqp://[::1]x", 13, UriErrorKind::HostCharacter('x'));
    refuses("amqp://[::1]x:1", 13, UriErrorKind::HostCharacter('x'));
    refuses("amqp://höst", 9, UriErrorKind::HostCharacter('ö'));
    refuses("amqp://a,h!", 11, UriErrorKind::HostCharacter('!'));
    refuses("amqp://h%40st", 8, UriErrorKind::HostCharacter('@'));
    refuses("amqp://a,,b", 10, UriErrorKind::EmptyHost);
    refuses("amqp://ü:é@h!", 13, UriErrorKind::HostCharacter('!'));
    refuses("amqp://u:secret@pass@h", 21, unencoded('@', "hosts"));
    refuses("amqp://u:sec/secret@h", 20, unencoded('@', "path"));
    refuses("amqp://u:sec#secret@h", 13, unencoded('#', "URI"));
    refuses("amqp://u:12?secret@h/v", 19, unencoded('@', "query"));
    refuses("amqp://u:sec?ret@h", 17, unencoded('@', "query"));
    refuses("amqp://h?locale=a?b", 18, unencoded('?', "query"));
    refuses("amqp://h/v host", 11, unencoded(' ', "URI"));
    refuses("amqp://h\n", 9, unencoded('\n', "URI"));
    refuses("amqp://h/%2", 10, UriErrorKind::PercentEncoding("virtual host"));
    refuses("amqp://u:a%zz@h", 11, UriErrorKind::PercentEncoding("password"));
    refuses("amqp://u:%c3%a4%ff@h", 16, UriErrorKind::PercentEncoding("password"));
    refuses("amqp://%ff:p@h", 8, UriErrorKind::PercentEncoding("user"));
    let texts = [
        ("amqp://h h", "white space in the URI must be percent-encoded"),
        ("amqp://h\u{7}", "a control character in the URI must be"),
        ("amqp://h#", "'#' in the URI must be"),
    ];
    for (uri, text) in texts {
        let error = uri.parse::<AmqpUri>().unwrap_err().to_string();
        assert!(error.starts_with(text), "{error}");
    }
}

#[test]
fn a_password_is_never_shown() {
    let config = Config::from_uri("amqp://user:hunter2@h").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let uri: AmqpUri = "amqp://user:hunter2@h".parse().unwrap();
    assert!(!format!("{uri} {uri:?}").contains("hunter2"));
}

/// What pika and nucleon.amqp take or refuse, and what this parser makes of it.
#[test]
fn pk_16_the_uris_of_other_clients() {
    let accepted = [
        ("amqp://", "amqp localhost|5672 /"),
        ("amqp:///", "amqp localhost|5672 /"),
        ("amqp://h", "amqp h|5672 /"),
        ("amqp://h/", "amqp h|5672 /"),
        ("amqp://h/%2f", "amqp h|5672 /"),
        ("amqp://h/%2fabc", "amqp h|5672 /abc"),
        ("amqp://h/%2f%2f", "amqp h|5672 //"),
        ("amqp://a:b@c:1/d", "amqp c|1 d"),
        ("amqps://h", "amqps h|5671 /"),
        ("amqp://h/v%2fh", "amqp h|5672 v/h"),
        ("amqp://user%61:%61pass@ho%61st:10000/v%2fhost", "amqp hoast|10000 v/host"),
        ("amqp://HOST", "amqp host|5672 /"),
        ("amqp://[::1]:5673/x", "amqp ::1|5673 x"),
        ("amqp://user:@h", "amqp h|5672 /"),
        ("amqp://:@h", "amqp h|5672 /"),
        ("amqp://h?heartbeat=0", "amqp h|5672 /"),
        ("amqp://h?stack_timeout=3", "amqp h|5672 /"),
        ("amqp://h?blocked_connection_timeout=0", "amqp h|5672 /"),
    ];
    for (uri, expected) in accepted {
        reads(uri, expected);
    }
    let refused = [
        "",
        "//",
        "amqp://h/a/b",
        "amqp://h/%2F/",
        "amqp://user@h",
        "amqp://h?heartbeat=-1",
        "amqp://h?heartbeat=a",
        "amqp://h?heartbeat=1&heartbeat=2",
        "amqp://h?frame_max=4095",
        "amqp://h?frame_max=131073",
        "amqp://h?channel_max=0",
        "amqp://h?channel_max=65536",
        "amqp://h?socket_timeout=0",
        "amqp://h?blocked_connection_timeout=-1",
        "amqp://h?connection_attempts=0",
        "amqp://h?retry_delay=-1",
        "amqp://h?bogus=1",
        "amqp://h?backpressure_detection=t",
        "amqps://h?ssl_options=None",
        "ftp://h",
        "http://h",
        "https://h",
        "amqp://h:99999",
        "amqp://h:abc",
        "amqp://h:0",
    ];
    for uri in refused {
        let parsed = uri.parse::<AmqpUri>();
        assert!(parsed.is_err(), "{uri}: {parsed:?}");
    }
}

/// Any URI with the settings of one.
fn any_uri() -> impl Strategy<Value = AmqpUri> {
    let millis = |low: u64| (low..=86_400_000).prop_map(Duration::from_millis);
    let host = prop_oneof![
        "[a-z0-9._-]{1,20}",
        any::<std::net::Ipv6Addr>().prop_map(|address| address.to_string()),
    ];
    let optional = proptest::option::of::<BoxedStrategy<Duration>>;
    let parts = (
        any::<bool>(),
        proptest::collection::vec((host, 1_u16..), 1..4),
        proptest::option::of((any::<String>(), any::<String>())),
        ".+",
    );
    let numbers = (
        proptest::option::of(any::<u16>()),
        proptest::option::of(1_u16..),
        proptest::option::of(4_096_u32..=131_072),
        proptest::option::of(1_u16..),
        proptest::option::of(prop_oneof![Just(HostOrder::Listed), Just(HostOrder::Shuffled)]),
    );
    let times = (
        optional(millis(1).boxed()),
        optional(millis(1).boxed()),
        optional(millis(0).boxed()),
        optional(millis(0).boxed()),
        optional(millis(1).boxed()),
        optional(millis(1).boxed()),
    );
    let modes = prop_oneof![
        Just(RecoveryMode::Automatic),
        Just(RecoveryMode::Never),
        Just(RecoveryMode::UnlessClosedByBroker),
    ];
    let recovery = (
        proptest::option::of(modes),
        optional(millis(1).boxed()),
        optional(millis(1).boxed()),
        proptest::option::of(1_u32..),
    );
    let texts = (
        proptest::option::of(".+"),
        proptest::collection::btree_map(".+", ".*", 0..3),
        proptest::option::of(".+"),
        proptest::option::of((".+", ".+")),
        proptest::option::of(".+"),
    );
    let sockets = (
        proptest::option::of(1_u64..=32_767),
        proptest::option::of(1_u64..=32_767),
        proptest::option::of(1_u32..=127),
        proptest::option::of(0_u64..=86_400_000),
        proptest::option::of(1_u32..=i32::MAX as u32),
        proptest::option::of(any::<std::net::IpAddr>()),
    );
    let all = (parts, numbers, times, recovery, texts, sockets);
    all.prop_map(|(parts, numbers, times, recovery, texts, sockets)| {
        let mut uri = AmqpUri::default();
        (uri.tls, uri.hosts) = (parts.0, parts.1);
        uri.credentials = parts.2.map(|(user, password)| Credentials::plain(user, password));
        uri.virtual_host = parts.3;
        (uri.heartbeat, uri.channel_max, uri.frame_max) = (numbers.0, numbers.1, numbers.2);
        (uri.connection_attempts, uri.host_order) = (numbers.3, numbers.4);
        (uri.connection_timeout, uri.socket_timeout) = (times.0, times.1);
        (uri.retry_delay, uri.blocked_connection_timeout) = (times.2, times.3);
        (uri.call_timeout, uri.close_timeout) = (times.4, times.5);
        (uri.recovery, uri.recovery_delay) = (recovery.0, recovery.1);
        (uri.recovery_max_delay, uri.recovery_attempts) = (recovery.2, recovery.3);
        (uri.locale, uri.client_properties) = (texts.0, texts.1);
        uri.tls_settings.ca_file = texts.2.map(Into::into);
        if let Some((certificate, key)) = texts.3 {
            uri.tls_settings = uri.tls_settings.client_certificate(certificate, key);
        }
        uri.tls_settings.server_name = texts.4.map(Into::into);
        let tcp = &mut uri.tcp_options;
        tcp.keepalive_idle = sockets.0.map(Duration::from_secs);
        tcp.keepalive_interval = sockets.1.map(Duration::from_secs);
        tcp.keepalive_retries = sockets.2;
        tcp.user_timeout = sockets.3.map(Duration::from_millis);
        (tcp.send_buffer_bytes, tcp.receive_buffer_bytes) = (sockets.4, sockets.4);
        tcp.local_address = sockets.5;
        uri
    })
}

proptest! {
    /// What is written is read as the same, whatever it holds.
    #[test]
    fn any_uri_is_read_as_it_was_written(uri in any_uri()) {
        let text = uri.to_string_with_password();
        prop_assert_eq!(text.parse(), Ok(uri), "{}", text);
    }

    /// Nor does an error show what is in the password, wherever the URI is cut or spoilt.
    #[test]
    fn no_error_shows_a_password(at in 0_usize..60, spoilt in any::<char>()) {
        let mut text: Vec<char> = "amqp://user:hunter2@host:5672/vhost?heartbeat=10&locale=de".chars().collect();
        let at = at.min(text.len());
        text.insert(at, spoilt);
        if let Err(error) = text.into_iter().collect::<String>().parse::<AmqpUri>() {
            let shown = format!("{error} {error:?}");
            prop_assert!(!shown.contains("hunter") && !shown.contains("user:"), "{}", shown);
        }
    }
}
