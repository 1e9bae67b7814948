//! URIs: what is read, and what is refused rather than guessed.

use std::time::Duration;

use amqp_core::errors::UriError;
use amqp_core::{AmqpUri, Config, Credentials, Endpoint, Heartbeat, TlsSettings};

#[track_caller]
fn reads(uri: &str, expected: &str) {
    let uri: AmqpUri = uri.parse().unwrap();
    let hosts: Vec<String> =
        uri.hosts.iter().map(|(host, port)| format!("{host}|{port}")).collect();
    let scheme = if uri.tls { "amqps" } else { "amqp" };
    assert_eq!(format!("{scheme} {} {}", hosts.join(","), uri.virtual_host), expected);
}

#[track_caller]
fn refuses(uri: &str, expected: &UriError) {
    let error = uri.parse::<AmqpUri>().unwrap_err();
    assert_eq!(error, *expected);
    assert!(!error.to_string().contains("secret"), "{error}");
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
    refuses("amqp://u@h:5672/v", &UriError::MissingPassword);
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
    // Key, unit and range are named, the value and the URI are not.
    for (key, wanted, values) in [
        ("heartbeat", "seconds from 0 to 65535", ["-1", "soon", "", "65536", "1.5", "+1"]),
        ("frame_max", "bytes from 4096 to 131072", ["4095", "131073", "4k", "", "-1", "0"]),
        ("channel_max", "channels from 1 to 65535", ["0", "65536", "many", "", "-1", "1.0"]),
        (
            "connection_timeout",
            "milliseconds from 1 to 86400000",
            ["0", "86400001", "1s", "", "-1", "0x1"],
        ),
        (
            "blocked_connection_timeout",
            "seconds from 0 to 86400",
            ["86401", "never", "1s", "", "-1", "1e3"],
        ),
    ] {
        for value in values {
            let uri = format!("amqp://u:secret@h?{key}={value}");
            let error = uri.parse::<AmqpUri>().unwrap_err();
            let expected = format!("the query parameter {key} takes a number of {wanted}");
            assert_eq!(error.to_string(), expected, "{value:?}");
        }
    }
    refuses("amqp://h?heartbeat=1&heartbeat=1", &UriError::RepeatedKey("heartbeat".into()));
    refuses("amqp://h?bogus=1", &UriError::UnknownKey("bogus".into()));
    refuses(
        "amqp://h?backpressure_detection=t",
        &UriError::UnknownKey("backpressure_detection".into()),
    );
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

    refuses("amqps://h?verify=verify_none", &UriError::VerifyNone);
    refuses("amqps://h?verify=none", &UriError::Verify);
    refuses("amqps://h?certfile=", &UriError::EmptyValue("certfile"));
    refuses("amqps://h?keyfile=%f", &UriError::PercentEncoding("query"));
    refuses("amqps://h?keyfile=a&keyfile=b", &UriError::RepeatedKey("keyfile".into()));
    for uri in ["amqps://u:secret?keyfile=/x@h", "amqps://h?server_name_indication=a/secret"] {
        refuses(uri, &UriError::UnencodedCharacter);
    }
}

#[test]
fn refusals() {
    for uri in ["", "//", "h", "ftp://h", "http://h", "https://h", "amqp:h"] {
        refuses(uri, &UriError::Scheme);
    }
    refuses("amqp://user@h", &UriError::MissingPassword);
    refuses("amqp://h/a/b", &UriError::SecondPathSegment);
    refuses("amqp://h//", &UriError::SecondPathSegment);
    for uri in ["amqp://h:99999", "amqp://h:abc", "amqp://h:0", "amqp://h:", "amqp://h:1:2"] {
        refuses(uri, &UriError::Port);
    }
    for uri in ["amqp://[::1", "amqp://[nope]", "amqp://[::1]x", "amqp://höst", "amqp://a,,b"] {
        refuses(uri, &UriError::Host);
    }
    for uri in [
        "amqp://u:secret@pass@h",
        "amqp://u:sec/secret@h",
        "amqp://u:sec#secret@h",
        "amqp://u:12?secret@h/v",
        "amqp://u:sec?ret@h",
        "amqp://h/v host",
        "amqp://h\n",
    ] {
        refuses(uri, &UriError::UnencodedCharacter);
    }
    refuses("amqp://h/%2", &UriError::PercentEncoding("virtual host"));
    refuses("amqp://u:%zz@h", &UriError::PercentEncoding("password"));
    refuses("amqp://u:%ff@h", &UriError::PercentEncoding("password"));
}

#[test]
fn a_password_is_never_shown() {
    let config = Config::from_uri("amqp://user:hunter2@h").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let uri: AmqpUri = "amqp://user:hunter2@h".parse().unwrap();
    assert!(!format!("{uri} {uri:?}").contains("hunter2"));
}
