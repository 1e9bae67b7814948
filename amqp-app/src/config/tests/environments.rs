//! Environments of a file, and what variables of the process change.

use std::ffi::OsString;

use super::{WHOLE, parsed, pools, url};
use crate::config::{Config, ConfigError, ConfigOptions, Format};

fn with(variables: &[(&str, &str)], text: &str) -> Result<Config, ConfigError> {
    let variables = variables.iter().map(|(name, value)| (*name, *value));
    ConfigOptions::new().variables(variables).parse(Format::Toml, text)
}

fn of(environment: &str, text: &str) -> Result<Config, ConfigError> {
    ConfigOptions::new().environment(environment).parse(Format::Toml, text)
}

#[test]
fn np_2_an_environment_takes_precedence_over_the_rest_of_the_file() {
    let test = of("test", WHOLE).unwrap();
    assert_eq!((test.environment(), test.worker_amount()), (Some("test"), Some(1)));
    // A URL replaces the parts of an address, and keeps what is beside it.
    assert_eq!(url(&test), "amqp://app:hunter2@127.0.0.1:5672/test?heartbeat=60&recovery_delay=1");
    assert_eq!(test.settings().get("nested.key"), Some("1"));
    assert_eq!(test.0.schema.sources["orders"].concurrency, Some(4));

    let file = "[connection]\nurl = \"amqp://a:b@h/v\"\n[pools.audit]\nurl = \"amqp://one\"\n\
                [environments.parts.connection]\nhostname = \"other\"\n\
                [environments.user.connection]\nusername = \"u\"\npassword = \"p\"\n\
                [environments.pool.pools.audit]\nurl = \"amqp://two\"\nsize = 2\n\
                [environments.more.settings]\nkey = \"v\"\n";
    assert_eq!(url(&of("parts", file).unwrap()), "amqp://other:5672/%2f");
    assert_eq!(url(&of("user", file).unwrap()), "amqp://u:p@localhost:5672/%2f");
    assert_eq!(pools(&of("pool", file).unwrap())[0].1, "amqp://two:5672/%2f");
    assert_eq!(of("more", file).unwrap().settings().get("key"), Some("v"));
    assert_eq!(parsed(file).settings().get("key"), None);
    assert_eq!(parsed(file).environment(), None);
}

#[test]
fn np_2_variables_choose_the_environment_before_the_code() {
    let file = "[environments.default.settings]\nkey = \"default\"\n[environments.one.settings]\nkey = \"one\"\n\
                [environments.two.settings]\nkey = \"two\"\n[environments.three.worker]\namount = 3\n";
    let key = |options: &ConfigOptions| {
        let config = options.parse(Format::Toml, file).unwrap();
        (config.environment().map(str::to_owned), config.settings().get("key").map(str::to_owned))
    };
    let same = |name: &str| (Some(name.to_owned()), Some(name.to_owned()));
    let code = ConfigOptions::new().environment("one");
    assert_eq!(key(&ConfigOptions::new()), same("default"));
    assert_eq!(key(&code), same("one"));
    let nucleon = ("NUCLEON_CONFIGURATION", "two");
    assert_eq!(key(&code.clone().variables([nucleon])), same("two"));
    let both = code.clone().variables([nucleon, ("AMQP_APP_ENVIRONMENT", "default")]);
    assert_eq!(key(&both), same("default"));
    assert_eq!(key(&code.variables([("AMQP_APP_ENVIRONMENT", ""), nucleon])), same("two"));
    // One environment takes nothing from the default one.
    let three = ConfigOptions::new().environment("three");
    assert_eq!(key(&three), (Some("three".into()), None));
}

#[test]
fn np_2_an_environment_that_is_not_there_is_an_error() {
    let error = of("prod", "").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no such environment \"prod\": the configuration has no environments"
    );
    let error = of("tests", WHOLE).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no such environment \"tests\": did you mean \"test\"? the configuration has \"test\""
    );
    assert_eq!(of("default", WHOLE).unwrap().environment(), Some("default"));
}

#[test]
fn np_2_an_error_in_an_environment_that_is_not_used_is_an_error() {
    let file = "[worker]\namount = 1\n[environments.one.worker]\namount = 2\n[environments.two.worker]\namont = 3\n";
    for error in [of("one", file).unwrap_err(), with(&[], file).unwrap_err()] {
        assert_eq!((error.line(), error.column()), (Some(6), Some(1)), "{error}");
    }
    // But its secrets need not be on this machine.
    let file = "[environments.one.connection]\nusername = \"u\"\npassword_file = \"/no/such/file\"\n\
                [environments.two.pools.p]\nurl_file = \"/no/such/file\"\n";
    assert!(with(&[], file).is_ok());
    let error = of("one", file).unwrap_err();
    assert_eq!(error.line(), Some(3), "{error}");
}

#[test]
fn gr_20_variables_take_precedence_over_the_file() {
    let config = with(
        &[
            ("AMQP_APP__WORKER__AMOUNT", "20"),
            ("AMQP_APP__CONSUME__ORDERS__RETRY__AFTER", "1s, 2s"),
            ("AMQP_APP__CONSUME__ORDERS__RETRY__NOW", "0"),
            ("AMQP_APP__CONSUME__NEW__TIMEOUT", "5s"),
            ("AMQP_APP__SETTINGS__YOUR_SETTINGS_KEY", "0x"),
            ("AMQP_APP__SETTINGS__NESTED__KEY", "two"),
            ("AMQP_APP__SETTINGS__NESTED__OTHER", "three"),
            ("AMQP_APP__LOG__LEVEL", "trace"),
            ("AMQP_APP__POOLS__LISTEN__SIZE", "7"),
            ("AMQP_APP__CONNECTION__PORT", "7"),
            ("AMQP_APP__CONNECTION__PASSWORD", "a b"),
            ("AMQP_APP", "x"),
            ("AMQP_APP_X", "x"),
            ("PATH", "x"),
        ],
        WHOLE,
    )
    .unwrap();
    assert_eq!(config.worker_amount(), Some(20));
    let orders = &config.0.schema.sources["orders"];
    assert_eq!((orders.after.as_deref().unwrap().len(), orders.now), (2, Some(0)));
    assert!(config.0.schema.sources["new"].timeout.is_some());
    for (key, value) in
        [("your.settings.key", "0x"), ("nested.key", "two"), ("nested.other", "three")]
    {
        assert_eq!(config.settings().get(key), Some(value));
    }
    assert_eq!(config.log_level().unwrap().to_string(), "trace");
    assert_eq!(pools(&config)[1].2, 7);
    assert_eq!(
        url(&config),
        "amqp://app:a%20b@broker.example:7/%2fv?heartbeat=60&recovery_delay=1"
    );

    // Over an environment too, and in any order.
    let variables = [
        ("NUCLEON_CONFIGURATION", "test"),
        ("AMQP_APP__CONNECTION__USERNAME", "u"),
        ("AMQP_APP__CONNECTION__PASSWORD", "p"),
        ("AMQP_APP__CONNECTION__HOSTNAME", "h"),
    ];
    let config = with(&variables, WHOLE).unwrap();
    assert_eq!(url(&config), "amqp://u:p@h:5672/%2f?heartbeat=60&recovery_delay=1");
    let config = with(&[("AMQP_APP__CONNECTION__URL", "amqp://x")], WHOLE).unwrap();
    assert_eq!(url(&config), "amqp://x:5672/%2f?heartbeat=60&recovery_delay=1");
    let two = [("AMQP_APP__CONNECTION__URL", "amqp://x"), ("AMQP_APP__CONNECTION__HOSTNAME", "h")];
    let error = with(&two, WHOLE).unwrap_err();
    assert_eq!(error.variable(), Some("AMQP_APP__CONNECTION__HOSTNAME"), "{error}");
}

#[cfg(unix)]
#[test]
fn gr_20_a_variable_that_is_not_text_is_an_error() {
    use std::os::unix::ffi::OsStringExt as _;

    let bytes = || OsString::from_vec(vec![b'a', 0xff]);
    let name = OsString::from("AMQP_APP__LOG__LEVEL");
    let options = ConfigOptions::new().variables([(name, bytes())]);
    let error = options.parse(Format::Toml, "").unwrap_err();
    assert_eq!(error.to_string(), "AMQP_APP__LOG__LEVEL: the value is not text in UTF-8");
    // Variables of other programs may be anything.
    let others =
        ConfigOptions::new().variables([(OsString::from("X"), bytes()), (bytes(), bytes())]);
    assert!(others.parse(Format::Toml, "").is_ok());
}
