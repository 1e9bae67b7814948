//! The configuration files of nucleon and of gocept.amqprun.

use super::{Folder, SECRET, mutated, pools, url};
use crate::config::{Config, ConfigError, ConfigOptions, Format, LogLevel};

const INI: &str = include_str!("nucleon.ini");
const ZCONFIG: &str = include_str!("amqprun.conf");

fn ini(environment: &str) -> Result<Config, ConfigError> {
    ConfigOptions::new().environment(environment).parse(Format::Ini, INI)
}

fn zconfig(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Format::ZConfig, text)
}

#[test]
fn np_1_an_ini_file_has_a_url_and_a_size_for_each_kind() {
    let config = Config::parse(Format::Ini, INI).unwrap();
    let local = "amqp://localhost:5672/%2f".to_owned();
    assert_eq!(
        pools(&config),
        [
            (
                "audit".to_owned(),
                "amqp://app:hunter2@audit.example:5672/%2fv?heartbeat=10".into(),
                1
            ),
            ("listen".into(), local.clone(), 5),
            ("publish".into(), local.clone(), 5),
        ]
    );
    // An application of them all has two kinds of pools, as it is delivered.
    let empty = Config::parse(Format::Ini, "[default]\n").unwrap();
    assert_eq!(pools(&empty), [("listen".into(), local.clone(), 5), ("publish".into(), local, 5)]);
}

#[test]
fn np_2_the_sections_of_an_ini_file_are_environments() {
    let config = Config::parse(Format::Ini, INI).unwrap();
    assert_eq!(config.environment(), Some("default"));
    assert_eq!(
        config.settings().get("database"),
        Some("host=db.example\nuser=app password=hunter2")
    );
    assert_eq!(config.settings().get("name"), Some("Ümläuten"));

    let test = ini("test").unwrap();
    assert_eq!(test.environment(), Some("test"));
    assert_eq!(pools(&test)[1].1, "amqp://localhost:5672/test");
    assert_eq!((test.settings().get("database"), test.settings().get("name")), (Some(""), None));
    let error = test.settings().require("name").unwrap_err();
    assert_eq!(error.to_string(), "settings: no value for \"name\"");

    let error = ini("prod").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no such environment \"prod\": the configuration has \"default\" and \"test\""
    );
    let variables = [("NUCLEON_CONFIGURATION", "test"), ("AMQP_APP__POOLS__PUBLISH__SIZE", "2")];
    let options = ConfigOptions::new().environment("default").variables(variables);
    let config = options.parse(Format::Ini, INI).unwrap();
    assert_eq!((config.environment(), pools(&config)[1].2), (Some("test"), 2));

    // As in Python's files, one section is in all others.
    let text = "[DEFAULT]\nkey = all\nother = all\n[default]\n[test]\nother = \"\"\n";
    for (environment, other) in [("default", "all"), ("test", "")] {
        let options = ConfigOptions::new().environment(environment);
        let config = options.parse(Format::Ini, text).unwrap();
        let settings = config.settings();
        assert_eq!((settings.get("key"), settings.get("other")), (Some("all"), Some(other)));
    }
}

#[test]
fn gr_20_a_file_of_gocept_amqprun_says_the_same_as_toml() {
    let config = zconfig(ZCONFIG).unwrap();
    assert_eq!(url(&config), "amqp://app:hunter2@broker.example:5673/%2fv?heartbeat=60");
    assert_eq!(config.worker_amount(), Some(10));
    assert_eq!(config.log_level(), Some(LogLevel::Debug));
    let ignored: Vec<_> = config.ignored().iter().map(ToString::to_string).collect();
    assert_eq!(
        ignored,
        [
            "line 4, column 3: a section of <eventlog> has no meaning here: the program chooses where its logs go",
            "line 10, column 1: <logger> has no meaning here: the program chooses the levels of its parts",
            "line 26, column 3: component-configuration has no meaning here: handlers are registered by the program",
        ]
    );

    let config =
        zconfig("<AMQP-Server>\n\tHostName localhost\n</amqp-SERVER>\n<worker/>\n").unwrap();
    assert_eq!(url(&config), "amqp://localhost:5672/%2f");
    assert_eq!((config.worker_amount(), config.ignored().len()), (None, 0));
    let later = "<amqp-server>\r\n  hostname h\r\n  heartbeat 5\r\n  password a$$b\r\n  username u\r\n</amqp-server>\r\n";
    assert_eq!(url(&zconfig(later).unwrap()), "amqp://u:a%24b@h:5672/%2f?heartbeat=5");
    let options = ConfigOptions::new().variables([("AMQP_APP__WORKER__AMOUNT", "3")]);
    assert_eq!(options.parse(Format::ZConfig, ZCONFIG).unwrap().worker_amount(), Some(3));
}

#[test]
fn gr_21_settings_of_gocept_amqprun_keep_their_case_and_their_characters() {
    let config = zconfig(ZCONFIG).unwrap();
    for (key, value) in [
        ("your.custom.settings", Some("here")),
        ("Your.Custom.Settings", Some("there, with   spaces")),
        ("Ümläuten", Some("$ ünd")),
        ("empty", Some("")),
        ("umläuten", None),
    ] {
        assert_eq!(config.settings().get(key), value, "{key}");
    }
}

#[test]
fn gr_20_what_is_wrong_in_files_of_the_original_systems_is_named() {
    let mut cases = 0;
    for case in include_str!("compat.txt").split("----\n").skip(1) {
        let (text, expected) = case.split_once("\n=> ").unwrap();
        let format = if text.contains('<') { Format::ZConfig } else { Format::Ini };
        let error = Config::parse(format, text).map(drop).unwrap_err();
        assert_eq!(error.to_string(), expected.trim_end(), "{text}");
        assert!(!format!("{error:?}").contains(SECRET), "{text}");
        cases += 1;
    }
    assert!(cases >= 30, "{cases}");
}

#[test]
fn gr_20_sections_that_are_nested_too_deeply_are_an_error() {
    let error = zconfig(&"<a>\n".repeat(100_000)).unwrap_err();
    assert_eq!(error.to_string(), "line 81, column 1: sections are nested too deeply");
}

#[test]
fn the_format_of_a_file_follows_from_its_name_and_its_beginning() {
    let folder = Folder::new();
    for (name, text, amount) in [
        ("a.toml", "[worker]\namount = 1", Some(1)),
        ("a.conf", "# < no section\n\n[worker]\namount = 2", Some(2)),
        ("b.conf", "# ini?\n\n  <worker>\namount 3\n</worker>", Some(3)),
        ("c.conf", "", None),
        ("a.ini", "[default]\namount = 4", None),
        ("a.CFG", "[default]\namount = 5", None),
    ] {
        let config = Config::load(folder.write(name, text)).unwrap();
        assert_eq!(config.worker_amount(), amount, "{name}");
        assert_eq!(
            config.settings().get("amount").is_some(),
            name.starts_with("a.") && amount.is_none()
        );
    }
    let path = folder.write("d.conf", "%define name value");
    let error = Config::load(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}:1:1: %define, %include and %import are not supported", path.display())
    );
    let ignored =
        Config::load(folder.write("e.conf", "<logger/>")).unwrap().ignored()[0].to_string();
    assert!(ignored.starts_with(&folder.path("e.conf:1:1: ").display().to_string()), "{ignored}");
}

#[test]
fn gr_20_no_slip_in_a_file_of_the_original_systems_panics_or_shows_a_secret() {
    mutated::slips(Format::Ini, INI);
    mutated::slips(Format::ZConfig, ZCONFIG);
}
