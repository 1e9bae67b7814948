//! What configurations say.

#[cfg(feature = "compat")]
mod compat;
mod environments;
mod malformed;
mod mutated;

use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use amqp_async::{ConnectError, FieldTable, FieldValue, QueueDeclare};

use super::{Config, LogLevel};
use crate::app::shutdown::Shutdown;
use crate::consume::Consume;
use crate::retry::{LastResort, Retry};

/// The password of every configuration here. No text of an error has it.
const SECRET: &str = "hunter2";

/// A configuration with everything that one can have.
const WHOLE: &str = include_str!("whole.toml");

/// A folder of a test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("amqp-app-{}-{number}", process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn parsed(text: &str) -> Config {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// The URI with which the application connects.
fn url(config: &Config) -> String {
    config.connector(str::to_owned)
}

/// The kinds of pools, their URIs and sizes.
fn pools(config: &Config) -> Vec<(String, String, usize)> {
    let schema = &config.0.schema;
    let pools = schema.pools.iter().map(|(kind, rules)| {
        let address = rules.address.as_ref().unwrap_or(&schema.connection);
        (kind.clone(), address.with_password(), rules.size)
    });
    pools.collect()
}

#[test]
fn gr_20_a_configuration_says_everything_that_an_application_has() {
    let config = parsed(WHOLE);
    assert_eq!(
        url(&config),
        "amqp://app:hunter2@broker.example:5673/%2fv?heartbeat=60&recovery_delay=1"
    );
    assert_eq!(config.worker_amount(), Some(10));
    assert_eq!(config.within(), Some(Duration::from_secs(90)));
    assert_eq!(config.health_address(), Some(([127, 0, 0, 1], 8080).into()));
    assert_eq!(config.log_level(), Some(LogLevel::Info));
    let pools = pools(&config);
    let kinds: Vec<_> = pools.iter().map(|(kind, _, size)| (kind.as_str(), *size)).collect();
    assert_eq!(kinds, [("audit", 1), ("listen", 3), ("publish", 5)]);
    assert_eq!(pools[0].1, "amqps://app:hunter2@audit.example:5671/%2f");
    assert_eq!(pools[1].1, url(&config));

    let topology = config.topology();
    assert_eq!(topology.exchanges.len(), 2);
    assert_eq!(
        (topology.exchanges[0].kind.as_str(), topology.exchanges[0].durable),
        ("direct", true)
    );
    assert_eq!((topology.exchanges[1].internal, topology.exchanges[1].durable), (true, false));
    let mut arguments = FieldTable::new();
    arguments.insert("x-max-length", 10_i64);
    arguments.insert("x-nested", {
        let mut nested = FieldTable::new();
        nested.insert(
            "list",
            FieldValue::Array(vec![1_i64.into(), true.into(), 0.5_f64.into(), "a".into()]),
        );
        FieldValue::Table(nested)
    });
    arguments.insert("x-queue-type", "quorum");
    let mut queue = QueueDeclare::new("listener1").durable();
    queue.arguments = arguments;
    assert_eq!(topology.queues, [queue]);
    assert_eq!(topology.bindings.len(), 2);

    // What it does not say stays as it is.
    let config = parsed("");
    assert_eq!(url(&config), "amqp://localhost:5672/%2f");
    assert_eq!((config.worker_amount(), config.within(), config.log_level()), (None, None, None));
    assert_eq!(config.environment(), None);
}

#[test]
fn gr_20_the_time_of_a_shutdown_is_that_of_the_code_or_else_that_of_the_file() {
    let file = parsed(WHOLE).within();
    let [ten, ninety, one] = [10, 90, 1].map(Duration::from_secs);
    assert_eq!(Shutdown::never().within_or(None), ten);
    assert_eq!(Shutdown::never().within_or(file), ninety);
    assert_eq!(Shutdown::never().within(one).within_or(file), one);
}

#[test]
fn gr_20_user_and_password_are_set_together_or_not_at_all() {
    for (text, expected) in [
        ("hostname = \"h\"", "amqp://h:5672/%2f"),
        ("hostname = \"::1\"\nport = 7", "amqp://[::1]:7/%2f"),
        ("username = \"a@b\"\npassword = \"/?#\"", "amqp://a%40b:%2f%3f%23@localhost:5672/%2f"),
        ("username = \"a\"\npassword = \"\"", "amqp://a:@localhost:5672/%2f"),
        ("heartbeat = 0", "amqp://localhost:5672/%2f?heartbeat=0"),
        (
            "url = \"amqps://a:b@h1,h2:7/v?channel_max=9\"\nheartbeat = 5\nrecover_after = \"2m\"",
            "amqps://a:b@h1:5671,h2:7/v?heartbeat=5&channel_max=9&recovery_delay=120",
        ),
    ] {
        assert_eq!(url(&parsed(&format!("[connection]\n{text}"))), expected, "{text}");
    }
}

#[test]
fn gr_20_secrets_come_from_files_and_are_never_shown() {
    let folder = Folder::new();
    folder.write("password", &format!("{SECRET}\n"));
    folder.write("windows", &format!("{SECRET}\r\n"));
    folder.write("kept", &format!("\n{SECRET} \n\n"));
    folder.write("url", &format!("amqp://app:{SECRET}@h/\n"));
    let of = |text: &str| Config::load(folder.write("app.toml", text)).unwrap();
    for (file, password) in
        [("password", "hunter2"), ("windows", "hunter2"), ("kept", "%0ahunter2%20%0a")]
    {
        let config = of(&format!("[connection]\nusername = \"app\"\npassword_file = \"{file}\""));
        assert_eq!(url(&config), format!("amqp://app:{password}@localhost:5672/%2f"));
        assert!(!format!("{config:?}").contains(SECRET), "{config:?}");
    }
    let absolute = folder.path("url");
    let config =
        of(&format!("[connection]\nurl_file = {absolute:?}\n[pools.audit]\nurl_file = \"url\""));
    assert_eq!(url(&config), "amqp://app:hunter2@h:5672/%2f");
    assert_eq!(pools(&config)[0].1, "amqp://app:hunter2@h:5672/%2f");
    assert!(!format!("{config:?} {:?}", config.0.schema).contains(SECRET), "{config:?}");

    folder.write("url", &format!("amqp://{SECRET}"));
    folder.write("bad", &format!("amqp://app:{SECRET}@h:x\n"));
    let path = folder.write("app.toml", "[connection]\nurl_file = \"bad\"");
    let error = Config::load(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}:2:12: the URL is invalid: the port is not a number from 1 to 65535 (at character 22)",
            path.display()
        )
    );
}

#[test]
fn levels_of_logs_are_those_of_filters() {
    for (name, level) in LogLevel::NAMES {
        let config = parsed(&format!("[log]\nlevel = \"{name}\""));
        assert_eq!((config.log_level(), level.as_str()), (Some(level), name));
        #[cfg(feature = "tracing")]
        {
            use tracing::level_filters::LevelFilter;
            assert_eq!(Ok(LevelFilter::from(level)), name.parse().map_err(drop));
        }
    }
}

#[test]
fn np_1_each_kind_of_pool_has_a_url_and_a_size() {
    let local = "amqp://localhost:5672/%2f";
    let three = |listen: (&str, usize), publish: (&str, usize)| {
        let (listen, publish) = (
            ("listen".into(), listen.0.into(), listen.1),
            ("publish".into(), publish.0.into(), publish.1),
        );
        vec![listen, publish]
    };
    assert_eq!(pools(&parsed("")), three((local, 5), (local, 5)));
    let config = parsed(
        "[pools.publish]\nurl = \"amqp:///\"\nsize = 2\n[pools.listen]\nurl = \"amqp:///test\"",
    );
    assert_eq!(pools(&config), three(("amqp://localhost:5672/test", 5), (local, 2)));
    let config = parsed("[connection]\nhostname = \"h\"\n[pools.audit]\nsize = 1");
    assert_eq!(pools(&config)[0], ("audit".into(), "amqp://h:5672/%2f".into(), 1));
    assert_eq!(pools(&config).len(), 3);
}

#[test]
fn gr_20_the_file_takes_precedence_over_the_code_source_by_source() {
    let config = parsed(
        "[worker]\namount = 10\nprefetch = 50\ncommit = \"confirm\"\n\
         [consume.a]\nconcurrency = 4\nprefetch = 9\ntimeout = \"30s\"\n\
         retry.now = 2\nretry.after = [\"10s\", \"1m\"]\nretry.then = \"dead_letter\"\n\
         batch.size = 20\nbatch.within = \"2s\"\n\
         [consume.b]\nretry.then = \"stop\"\nbatch = { size = 1, within = \"1s\" }\n",
    );
    let code = |queue: &str| {
        let policy = Retry::now(7).and_after([Duration::from_secs(1)]);
        let consume = Consume::new(queue).concurrency(3).timeout(Duration::from_secs(1));
        consume.on_failure(policy).batches(5, Duration::from_secs(1))
    };
    let mut sources = [(code("a"), ()), (code("b"), ()), (Consume::new("c"), ())];
    config.change(&mut sources).unwrap();
    let [a, b, c] = sources.map(|(consume, ())| consume);
    let batch = |it: &Consume| it.batching.map(|it| (it.size, it.within.as_secs()));
    assert_eq!([batch(&a), batch(&b), batch(&c)], [Some((20, 2)), None, None]);
    assert_eq!(
        (a.concurrency, a.prefetch_of(0), a.timeout),
        (4, 80, Some(Duration::from_secs(30)))
    );
    assert_eq!((a.retry.now, &a.retry.delays[..]), (2, &[10, 60].map(Duration::from_secs)[..]));
    assert_eq!(a.retry.last, LastResort::DeadLetter);
    assert_eq!((b.concurrency, b.prefetch_of(0), b.timeout), (3, 50, Some(Duration::from_secs(1))));
    assert_eq!((b.retry.now, b.retry.delays.len(), &b.retry.last), (7, 1, &LastResort::Stop));
    assert_eq!((c.concurrency, c.prefetch_of(0), c.timeout), (10, 50, None));
    assert_eq!(c.retry.attempts(), Retry::default().attempts());
}

#[test]
fn gr_20_a_source_that_the_application_does_not_have_is_an_error() {
    let config = parsed("\n[consume.order]\nconcurrency = 4");
    let change = |queues: &[&str]| {
        let mut sources: Vec<_> = queues.iter().map(|queue| (Consume::new(*queue), ())).collect();
        config.change(&mut sources).unwrap_err().to_string()
    };
    let place = "line 2, column 10: no source consumes from \"order\": ";
    assert_eq!(
        change(&["orders", "texts"]),
        format!(
            "{place}did you mean \"orders\"? the application consumes from \"orders\" and \"texts\""
        )
    );
    assert_eq!(change(&["texts"]), format!("{place}the application consumes from \"texts\""));
    assert_eq!(change(&[]), format!("{place}the application has no sources"));
}

#[test]
fn gr_20_the_rules_of_a_group_are_those_of_one_section() {
    let change = |file: &str| {
        let mut sources = [(Consume::many(["a", "b", "c"]), ()), (Consume::new("d"), ())];
        parsed(file).change(&mut sources).map(|()| sources.map(|(consume, ())| consume.concurrency))
    };
    assert_eq!(change("[consume.b]\nconcurrency = 4"), Ok([4, 1]));
    let error = change("[consume.c]\nconcurrency = 4\n[consume.a]\nprefetch = 9").unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 3, column 10: queues \"c\" and \"a\" are of one source, which has one section: the rules of a source are \
         those of all its queues"
    );
}

#[test]
fn gr_21_settings_are_looked_up_as_written_and_then_as_paths() {
    let config = parsed(
        "[settings]\n\
         \"your.custom.settings\" = \"here\"\n\
         'Ümläuten.Ключ' = 'Ünïcödé ✓'\n\
         upper = \"a\"\nUpper = \"A\"\n\
         \"a.b\" = \"exact\"\na.b = \"nested\"\na.c = \"other\"\n\
         \"x.y\".z = \"after the longest key\"\nx.y.w = 1\n\
         whole = -7\nhex = 0xff\nreal = 1.50\nyes = true\nday = 1979-05-27\n\
         list = [\"one\", 2, true]\nempty = \"\"\n",
    );
    let settings = config.settings();
    for (key, expected) in [
        ("your.custom.settings", Some("here")),
        ("Ümläuten.Ключ", Some("Ünïcödé ✓")),
        ("upper", Some("a")),
        ("Upper", Some("A")),
        ("a.b", Some("exact")),
        ("a.c", Some("other")),
        ("x.y.z", Some("after the longest key")),
        ("whole", Some("-7")),
        ("hex", Some("255")),
        ("real", Some("1.50")),
        ("yes", Some("true")),
        ("day", Some("1979-05-27")),
        ("empty", Some("")),
        ("a", None),
        ("list", None),
        ("missing", None),
        ("a.b.c", None),
        ("", None),
        (".", None),
    ] {
        assert_eq!(settings.get(key), expected, "{key}");
    }
    assert_eq!(settings.list("list").collect::<Vec<_>>(), ["one", "2", "true"]);
    assert_eq!(settings.list("upper").collect::<Vec<_>>(), ["a"]);
    assert_eq!(settings.list("a").count() + settings.list("missing").count(), 0);
    assert_eq!(settings.parse::<i8>("whole").unwrap(), -7);
    assert_eq!(settings.require("a.c").unwrap(), "other");
    let shown = format!("{settings:?}");
    assert!(shown.contains("your.custom.settings") && !shown.contains("here"), "{shown}");
}

#[test]
fn gr_21_a_setting_that_is_missing_or_wrong_is_an_error_that_names_it() {
    let folder = Folder::new();
    let path = folder.write("app.toml", "[settings]\nport = \"hunter2\"\ndb.host = \"h\"\n");
    let config = Config::load(&path).unwrap();
    let (settings, path) = (config.settings(), path.display());
    for (error, expected) in [
        (
            settings.parse::<u16>("port").unwrap_err(),
            format!("{path}:2:8: settings: the value of \"port\" cannot be parsed as u16"),
        ),
        (
            settings.require("prt").map(drop).unwrap_err(),
            format!("{path}: settings: no value for \"prt\": did you mean \"port\"?"),
        ),
        (
            settings.require("user").map(drop).unwrap_err(),
            format!("{path}: settings: no value for \"user\""),
        ),
        (
            settings.require("db").map(drop).unwrap_err(),
            format!("{path}: settings: \"db\" is a list or a table, and not one value"),
        ),
    ] {
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn errors_of_the_function_that_connects_are_returned() {
    let fails =
        |_: &str| Err::<amqp_tokio::Connector, _>(amqp_tokio::Connector::new("").unwrap_err());
    let refused: [Result<(), crate::Error>; 2] = [
        crate::App::configured(&parsed(""), fails).map(drop),
        crate::Pools::from_config(&parsed(""), fails).map(drop),
    ];
    for result in refused {
        assert!(
            matches!(result, Err(crate::Error::Connect(ConnectError::InvalidUri(_)))),
            "{result:?}"
        );
    }
}
