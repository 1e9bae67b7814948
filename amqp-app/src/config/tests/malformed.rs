//! What is wrong in a configuration, and the whole text that says so.

use std::fs;

use super::{Folder, SECRET};
use crate::config::{Config, ConfigOptions};

const SECTIONS: &str = "a configuration has the sections \"connection\", \"consume\", \"environments\", \"health\", \"log\", \
     \"pools\", \"settings\", \"shutdown\", \"topology\" and \"worker\"";

#[test]
fn gr_20_what_is_wrong_is_named_with_its_place_and_with_what_is_legal() {
    let (mut cases, folder) = (0, Folder::new());
    for case in include_str!("malformed.txt").split("----\n").skip(1) {
        let (text, expected) = case.split_once("\n=> ").unwrap();
        let error = text.parse::<Config>().map(drop).unwrap_err();
        assert_eq!(error.to_string(), expected.trim_end().replace("SECTIONS", SECTIONS), "{text}");
        assert!(!format!("{error:?}").contains(SECRET), "{text}");
        assert!(error.line().is_some() && error.column().is_some(), "{text}");
        assert!(error.to_string().ends_with(error.message()), "{text}");

        // The same file on the disk: its path is named too.
        let path = folder.write("app.toml", text);
        let of_file = Config::load(&path).map(drop).unwrap_err();
        let place = (error.line().unwrap(), error.column().unwrap());
        assert_eq!(
            of_file.to_string(),
            format!("{}:{}:{}: {}", path.display(), place.0, place.1, error.message())
        );
        let named = (of_file.path(), of_file.line().zip(of_file.column()));
        assert_eq!(named, (Some(&*path), Some(place)), "{text}");
        assert!(!format!("{of_file:?}").contains(SECRET), "{text}");
        cases += 1;
    }
    assert!(cases >= 60, "{cases}");
}

#[test]
fn gr_20_files_that_cannot_be_read_are_named() {
    let folder = Folder::new();
    let path =
        folder.write("app.toml", "[connection]\nusername = \"app\"\npassword_file = \"none\"\n");
    let error = Config::load(&path).unwrap_err();
    let [file, secret] = [&path, &folder.path("none")].map(|path| path.display().to_string());
    let missing = "No such file or directory (os error 2)";
    assert_eq!(
        error.to_string(),
        format!("{file}:3:17: connection.password_file cannot be read: {secret}: {missing}")
    );
    assert_eq!((error.path(), error.line(), error.column()), (Some(&*path), Some(3), Some(17)));

    fs::write(folder.path("none"), [b'a', 0xff]).unwrap();
    let error = Config::load(&path).unwrap_err();
    assert!(error.message().ends_with("none: it is not text in UTF-8"), "{error}");
    fs::write(folder.path("none"), vec![b'a'; 70_000]).unwrap();
    let error = Config::load(&path).unwrap_err();
    assert!(error.message().ends_with("none: it has more than 65536 bytes"), "{error}");

    for (name, contents, expected) in [
        ("app.json", &b"{}"[..], ": unknown format: the name of a configuration ends with"),
        ("noname", b"", ": unknown format: the name of a configuration ends with"),
        ("bytes.toml", b"# \xc3\xbc\n  \xff", ":2:3: the configuration is not text in UTF-8"),
        ("bytes2.toml", b"\xff", ":1:1: the configuration is not text in UTF-8"),
    ] {
        let path = folder.path(name);
        fs::write(&path, contents).unwrap();
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}{expected}", path.display())), "{error}");
    }
    let large = folder.path("large.toml");
    fs::write(&large, vec![b'\n'; (1 << 20) + 1]).unwrap();
    let error = Config::load(&large).unwrap_err().to_string();
    assert!(error.ends_with("cannot be read: it has more than 1048576 bytes"), "{error}");
    let error = Config::load(folder.path("missing.toml")).unwrap_err();
    assert_eq!(error.message(), format!("the configuration cannot be read: {missing}"));
    assert_eq!((error.line(), error.column(), error.variable()), (None, None, None));
}

#[test]
fn gr_20_variables_that_are_wrong_are_named() {
    let file = "[worker]\namount = 1\n[consume.'a.b']\nprefetch = 1\n[consume.a-b]\nprefetch = 1\n\
                [environments.test.log]\nlevel = \"info\"\n[settings]\na.b = 1\n";
    let several = "the name of the variable fits several keys: \"a-b\" and \"a.b\"";
    for (name, value, expected) in [
        ("AMQP_APP__WORKER__AMOUNT", SECRET, "worker.amount takes a whole number from 1 to 65535"),
        (
            "AMQP_APP__WORKER__AMONT",
            "1",
            "unknown key \"amont\" in [worker]: did you mean \"amount\"? [worker] has the keys \"amount\", \"commit\" and \
             \"prefetch\"",
        ),
        ("AMQP_APP__WORKER", "1", "the name of a variable has the form AMQP_APP__SECTION__KEY"),
        ("AMQP_APP__", "1", "the name of a variable has the form AMQP_APP__SECTION__KEY"),
        ("AMQP_APP____X", "1", "the name of a variable has the form AMQP_APP__SECTION__KEY"),
        ("AMQP_APP__CONSUME__A_B__PREFETCH", "1", several),
        ("AMQP_APP__CONSUME__A_B", "1", several),
        ("AMQP_APP__SETTINGS__A", "1", "\"a\" is a table: name a key of it"),
        ("AMQP_APP__WORKER__AMOUNT__X", "1", "\"amount\" is a value and has no keys"),
        (
            "AMQP_APP__ENVIRONMENTS__TEST__LOG",
            "1",
            "a variable cannot change an environment: it sets the value in all of them, without ENVIRONMENTS__NAME in \
             its name",
        ),
        (
            "AMQP_APP__TOPOLOGY__QUEUES",
            "q",
            "an item of topology.queues is a table in braces, such as { key = \"text\" }",
        ),
        (
            "AMQP_APP__CONNECTION__URL",
            SECRET,
            "the URL is invalid: the scheme is neither amqp nor amqps (at character 1)",
        ),
        (
            "AMQP_APP_ENVIRONMENT",
            "tset",
            "no such environment \"tset\": did you mean \"test\"? the configuration has \"test\"",
        ),
        (
            "NUCLEON_CONFIGURATION",
            "prod",
            "no such environment \"prod\": the configuration has \"test\"",
        ),
    ] {
        let options = ConfigOptions::new().variables([(name, value)]);
        let error = options.parse(crate::config::Format::Toml, file).map(drop).unwrap_err();
        assert_eq!(error.to_string(), format!("{name}: {expected}"));
        assert_eq!((error.variable(), error.line(), error.path()), (Some(name), None, None));
        assert!(!format!("{error:?}{options:?}").contains(SECRET), "{name}");
    }
}
