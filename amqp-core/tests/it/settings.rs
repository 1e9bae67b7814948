//! Every setting is the same from code, from a URI and from a configuration file.

use std::time::Duration;

use amqp_core::{
    Backoff, Config, Credentials, Endpoint, Heartbeat, HostOrder, Recovery, TcpOptions, TlsSettings,
};

/// A setting by a URI, by a file in JSON and in TOML, and by code.
#[cfg_attr(not(feature = "serde"), allow(dead_code, reason = "files are read with that feature"))]
struct Setting {
    uri: &'static str,
    json: &'static str,
    toml: &'static str,
    code: fn(Config) -> Config,
}

/// One for each setting that a URI can have.
fn settings() -> Vec<Setting> {
    macro_rules! settings {
        ($($uri:literal, $json:literal, $toml:literal, $code:expr;)*) => {
            vec![$(Setting { uri: $uri, json: $json, toml: $toml, code: $code }),*]
        };
    }
    settings! {
        "amqp://", "{}", "", |it| it;
        "amqp://h", r#"{"host": "h"}"#, "host = 'h'", |it| it.host("h");
        "amqp://a,b", r#"{"hosts": ["a", "B"]}"#, "hosts = ['a', 'b']", |it| it.hosts(["a", "b"]);
        "amqp://h:7", r#"{"host": "h", "port": 7}"#, "port = 7\nhost = 'h'", |it| it.host("h").port(7);
        "amqp://a:7,[::1]:8", r#"{"hosts": ["a:7", "[::1]"], "port": 8}"#,
            "hosts = ['a', '[::1]:8']\nport = 7",
            |it| it.endpoints([Endpoint::new("a", 7), Endpoint::new("::1", 8)]);
        "amqps://h", r#"{"tls": true, "host": "h"}"#, "tls = true\nhost = 'h'",
            |it| it.endpoints([Endpoint::new("h", 5671).tls(true)]);
        "amqp://u%40:p%2f@", r#"{"user": "u@", "password": "p/"}"#, "user = 'u@'\npassword = 'p/'",
            |it| it.credentials(Credentials::plain("u@", "p/"));
        "amqp://u:p@h?auth_mechanism=amqplain&auth_mechanism=PLAIN",
            r#"{"host": "h", "user": "u", "password": "p", "auth_mechanism": ["amqplain", "plain"]}"#,
            "host = 'h'\nuser = 'u'\npassword = 'p'\nauth_mechanism = ['amqplain', 'plain']",
            |it| it.host("h").credentials(
                Credentials::amqplain("u", "p").or(Credentials::plain("u", "p")),
            );
        "amqp://?auth_mechanism=external", r#"{"auth_mechanism": "external"}"#,
            "auth_mechanism = 'EXTERNAL'", |it| it.credentials(Credentials::external());
        "amqp://?initial_frame_max=8192", r#"{"initial_frame_max": 8192}"#,
            "initial_frame_max = 8192", |it| it.initial_frame_max(8_192);
        "amqp:///v%2f", r#"{"virtual_host": "v/"}"#, "virtual_host = 'v/'", |it| it.virtual_host("v/");
        "amqp://?heartbeat=7", r#"{"heartbeat": 7}"#, "heartbeat = 7",
            |it| it.heartbeat(Heartbeat::Seconds(7));
        "amqp://?channel_max=7", r#"{"channel_max": 7}"#, "channel_max = 7", |it| it.channel_max(7);
        "amqp://?frame_max=8000", r#"{"frame_max": 8000}"#, "frame_max = 8000",
            |it| it.frame_max(8_000);
        "amqp://?connection_timeout=700", r#"{"connection_timeout": 700}"#, "stack_timeout = 0.7",
            |it| it.connect_timeout(Duration::from_millis(700));
        "amqp://?socket_timeout=0.7", r#"{"socket_timeout": 0.7}"#, "socket_timeout = 0.7",
            |it| it.address_timeout(Duration::from_millis(700));
        "amqp://?connection_attempts=7", r#"{"connection_attempts": 7}"#, "connection_attempts = 7",
            |it| it.connection_attempts(7);
        "amqp://?retry_delay=7", r#"{"retry_delay": 7.0}"#, "retry_delay = 7",
            |it| it.retry_delay(Duration::from_secs(7));
        "amqp://?host_order=shuffled", r#"{"host_order": "shuffled"}"#, "host_order = 'shuffled'",
            |it| it.host_order(HostOrder::Shuffled);
        "amqp://?blocked_connection_timeout=7", r#"{"blocked_connection_timeout": 7}"#,
            "blocked_connection_timeout = 7", |it| it.blocked_timeout(Duration::from_secs(7));
        "amqp://?call_timeout=7", r#"{"call_timeout": 7}"#, "call_timeout = 7",
            |it| it.call_timeout(Duration::from_secs(7));
        "amqp://?close_timeout=7", r#"{"close_timeout": 7}"#, "close_timeout = 7",
            |it| it.close_timeout(Duration::from_secs(7));
        "amqp://?hook_timeout=7", r#"{"hook_timeout": 7}"#, "hook_timeout = 7",
            |it| it.hook_timeout(Duration::from_secs(7));
        "amqp://?recovery=never", r#"{"recovery": "never"}"#, "recovery = 'never'",
            |it| it.recovery(Recovery::never());
        "amqp://?recovery=unless_closed_by_broker&recovery_delay=0.5&recovery_max_delay=7&recovery_attempts=9",
            r#"{"recovery": "unless_closed_by_broker", "recovery_delay": 0.5, "recovery_max_delay": 7,
                "recovery_attempts": 9}"#,
            "recovery = 'unless_closed_by_broker'\nrecovery_delay = 0.5\nrecovery_max_delay = 7\n\
             recovery_attempts = '9'",
            |it| {
                let delay = Duration::from_millis(500);
                let backoff = Backoff::exponential(delay, Duration::from_secs(7));
                it.recovery(Recovery::unless_closed_by_broker().backoff(backoff).attempts(9))
            };
        "amqp://?locale=de", r#"{"locale": "de"}"#, "locale = 'de'", |it| it.locale("de");
        "amqp://?client_properties.connection_name=me",
            r#"{"client_properties": {"connection_name": "me"}}"#,
            "client_properties.connection_name = 'me'", |it| it.connection_name("me");
        "amqp://?cacertfile=/ca&certfile=/cert&keyfile=/key&server_name_indication=n&verify=verify_peer",
            r#"{"cacertfile": "/ca", "certfile": "/cert", "keyfile": "/key",
                "server_name_indication": "n", "verify": "verify_peer"}"#,
            "cacertfile = '/ca'\ncertfile = '/cert'\nkeyfile = '/key'\nserver_name_indication = 'n'",
            |it| {
                let settings = TlsSettings::default().ca_file("/ca").server_name("n");
                it.tls_settings(settings.client_certificate("/cert", "/key"))
            };
        "amqp://?tcp_options.TCP_KEEPIDLE=7&tcp_options.TCP_KEEPINTVL=8&tcp_options.TCP_KEEPCNT=9\
         &tcp_options.TCP_USER_TIMEOUT=10&tcp_options.SO_SNDBUF=11&tcp_options.SO_RCVBUF=12\
         &tcp_options.local_address=::1",
            r#"{"tcp_options": {"TCP_KEEPIDLE": 7, "TCP_KEEPINTVL": 8, "TCP_KEEPCNT": 9,
                "TCP_USER_TIMEOUT": 10, "SO_SNDBUF": 11, "SO_RCVBUF": 12, "local_address": "::1"}}"#,
            "[tcp_options]\nTCP_KEEPIDLE = 7\nTCP_KEEPINTVL = 8\nTCP_KEEPCNT = 9\n\
             TCP_USER_TIMEOUT = 10\nSO_SNDBUF = 11\nSO_RCVBUF = 12\nlocal_address = '::1'",
            |it| it.tcp_options(
                TcpOptions::default()
                    .keepalive_idle(Duration::from_secs(7))
                    .keepalive_interval(Duration::from_secs(8))
                    .keepalive_retries(9)
                    .user_timeout(Duration::from_millis(10))
                    .send_buffer_bytes(11)
                    .receive_buffer_bytes(12)
                    .local_address(std::net::Ipv6Addr::LOCALHOST),
            );
        "amqps://u:p@h:1/v?heartbeat=7", r#"{"uri": "amqps://u:p@h:1/v?heartbeat=7"}"#,
            "uri = 'amqps://u:p@h:1/v?heartbeat=7'",
            |it| it
                .endpoints([Endpoint::new("h", 1).tls(true)])
                .credentials(Credentials::plain("u", "p"))
                .virtual_host("v")
                .heartbeat(Heartbeat::Seconds(7));
    }
}

#[test]
fn a_setting_is_the_same_from_code_and_from_a_uri() {
    for Setting { uri, code, .. } in settings() {
        let config = code(Config::default());
        assert_eq!(Config::from_uri(uri).unwrap(), config, "{uri}");
        // Each is another one than the default.
        assert!(uri == "amqp://" || config != Config::default(), "{uri}");
    }
}

#[test]
fn na_4_every_loss_is_recovered_by_default() {
    let default = Config::default();
    assert_eq!(default, default.clone().recovery(Recovery::automatic()));
    assert_eq!(default, Config::from_uri("amqp://?recovery=automatic").unwrap());
}

/// A URI can set what code can set, except values that are not texts. A field without a setting fails this test.
#[test]
fn every_field_of_a_configuration_has_its_setting() {
    let all = settings().into_iter().fold(Config::default(), |config, it| (it.code)(config));
    let field = |line: &str| {
        let field = line.strip_prefix("    ")?.split_once(": ")?.0;
        field.starts_with(|first: char| first.is_ascii_lowercase()).then(|| field.to_owned())
    };
    let fields = |config: &Config| {
        let shown = format!("{config:#?}");
        let mut values = Vec::new();
        for line in shown.lines() {
            match field(line) {
                Some(name) => values.push((name, line.to_owned())),
                None => values.last_mut().into_iter().for_each(|(_, value)| value.push_str(line)),
            }
        }
        values
    };
    let (default, changed) = (fields(&Config::default()), fields(&all));
    assert!(default.len() > 15, "{default:#?}");
    for (before, after) in default.iter().zip(&changed) {
        assert_eq!(before.0, after.0);
        // Whether a provider is asked, a hook runs, or a function decides is up to the connector.
        if ["fetch_credentials", "runs_hook", "asks_to_recover"].contains(&before.0.as_str()) {
            continue;
        }
        // The password alone is not shown.
        assert!(before.1 != after.1, "{} has no setting", before.0);
    }
}

#[cfg(feature = "serde")]
mod files {
    use amqp_core::{AmqpUri, Config};

    use super::{Setting, settings};

    fn from_json(text: &str) -> Result<Config, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    fn from_toml(text: &str) -> Result<Config, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn a_setting_is_the_same_from_a_file() {
        for Setting { uri, json, toml, .. } in settings() {
            let config = Config::from_uri(uri).unwrap();
            assert_eq!(from_json(json).as_ref(), Ok(&config), "{json}");
            assert_eq!(from_toml(toml).as_ref(), Ok(&config), "{toml}");
        }
    }

    /// A configuration that is a URI, alone or as a part of a larger file.
    #[test]
    fn a_uri_is_a_string() {
        #[derive(serde::Deserialize)]
        struct File {
            broker: Config,
            uri: AmqpUri,
        }
        let uri = "amqp://u:secret@h/v";
        let file: File = toml::from_str(&format!("broker = '{uri}'\nuri = '{uri}'")).unwrap();
        assert_eq!(file.broker, Config::from_uri(uri).unwrap());
        assert_eq!(file.uri, uri.parse().unwrap());
        let error = serde_json::from_str::<AmqpUri>("\"amqp://u:secret@h:0\"").unwrap_err();
        let text = "the port is not a number from 1 to 65535 (at character 19)";
        assert!(error.to_string().starts_with(text), "{error}");
    }

    /// Numbers may be strings, as environment variables are.
    #[test]
    fn values_may_be_strings() {
        let config = from_json(r#"{"heartbeat": "7", "tls": "true", "port": "1"}"#);
        assert_eq!(config, from_json(r#"{"heartbeat": 7, "tls": true, "port": 1}"#));
        assert!(config.unwrap().wants_tls());
        let number = from_json(r#"{"user": 7, "password": 8, "virtual_host": 9}"#);
        assert_eq!(number, Ok(Config::from_uri("amqp://7:8@/9").unwrap()));
    }

    /// They are those of a URI, and never show a value.
    #[test]
    fn errors_name_the_setting() {
        let cases = [
            (r#"{"bogus": "secret"}"#, "unknown setting bogus"),
            (r#"{"heartbeat": 65536}"#, "heartbeat takes a number of seconds from 0 to 65535"),
            (r#"{"heartbeat": -1}"#, "heartbeat takes a number of seconds from 0 to 65535"),
            (r#"{"heartbeat": 1.5}"#, "heartbeat takes a number of seconds from 0 to 65535"),
            (r#"{"retry_delay": 1e300}"#, "retry_delay takes a number of seconds from 0 to 86400"),
            (r#"{"heartbeat": [1]}"#, "heartbeat takes a single value"),
            (r#"{"heartbeat": 1, "heartbeat": 2}"#, "heartbeat is set twice"),
            (r#"{"host": "a", "hosts": ["b"]}"#, "host and hosts cannot both be set"),
            (r#"{"host": ["a"]}"#, "host takes a single value"),
            (r#"{"hosts": [["a"]]}"#, "hosts takes a list of texts"),
            (r#"{"hosts": ["h:99999"]}"#, "the port is not a number from 1 to 65535"),
            (r#"{"hosts": ["secret h"]}"#, "the host has white space"),
            (r#"{"hosts": "amqp://u:secret@h"}"#, "the port is not a number"),
            (r#"{"hosts": [""]}"#, "a host is empty"),
            (r#"{"auth_mechanism": "none"}"#, "auth_mechanism takes plain, amqplain or external"),
            (r#"{"auth_mechanism": [["plain"]]}"#, "auth_mechanism takes a list of texts"),
            (r#"{"password": 12345678901234567890123}"#, "password takes a text in quotes"),
            (r#"{"user": 1.0}"#, "user takes a text in quotes"),
            (r#"{"host": 1.5}"#, "host takes a text in quotes"),
            (r#"{"port": 1.5}"#, "the port is not a number from 1 to 65535"),
            (r#"{"tls": 1.5}"#, "tls takes true or false"),
            (r#"{"port": 0}"#, "the port is not a number from 1 to 65535"),
            (r#"{"tls": 1}"#, "tls takes true or false"),
            (r#"{"user": "u"}"#, "user is set without password"),
            (r#"{"password": "secret"}"#, "password is set without user"),
            (r#"{"password": {"secret": 1}}"#, "password takes a single value"),
            (r#"{"virtual_host": ""}"#, "virtual_host is empty"),
            (r#"{"verify": "verify_none"}"#, "verify_none is refused"),
            (r#"{"tcp_options": "secret"}"#, "tcp_options takes a map of settings"),
            (r#"{"tcp_options": {"TCP_NODELAY": 1}}"#, "unknown setting tcp_options.TCP_NODELAY"),
            (r#"{"tcp_options": {"a": {"b": 1}}}"#, "tcp_options.a takes a single value"),
            (
                r#"{"uri": "amqp://u:secret@h", "port": 1}"#,
                "uri and another setting cannot both be set",
            ),
            (r#"{"uri": "amqp://u:secret@h?x=1"}"#, "unknown setting x"),
            (
                r#"{"stack_timeout": 1, "connection_timeout": 1}"#,
                "connection_timeout and stack_timeout",
            ),
            (r#"["amqp://u:secret@h"]"#, "a configuration is a map of settings, or a URI"),
            (
                r#""amqp://u:secret@h:0""#,
                "the port is not a number from 1 to 65535 (at character 19)",
            ),
            (r#"{"password": null}"#, "invalid type: null"),
        ];
        for (json, expected) in cases {
            let error = from_json(json).unwrap_err();
            assert!(error.starts_with(expected), "{json}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let error = from_toml("heartbeat = 70000").unwrap_err();
        assert_eq!(error, "heartbeat takes a number of seconds from 0 to 65535");
    }

    /// The example of the guide.
    #[test]
    fn the_guide_shows_a_file() {
        #[derive(serde::Deserialize)]
        struct File {
            broker: Config,
        }
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../amqp-async/src/guide/connecting.md");
        let page = std::fs::read_to_string(page).unwrap();
        let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let File { broker } = toml::from_str(example).unwrap();
        let uri = "amqp://app:secret@rabbit1,rabbit2:5673/orders?heartbeat=10&socket_timeout=2.5\
                   &client_properties.connection_name=order-service&tcp_options.TCP_KEEPIDLE=60";
        assert_eq!(broker, Config::from_uri(uri).unwrap());
    }

    /// Nothing of a file that cannot be read comes out, whatever the format's library would quote.
    #[test]
    fn toml_quotes_no_password() {
        let text = "user = 'u'\npassword = 'secret'\nbogus = 1\n";
        let error = toml::from_str::<Config>(text).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
