//! The invariants of ARCHITECTURE.md: what must not be in the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, MetadataCommand};

/// The longest that a file may be.
const LINES_MAX: usize = 600;

/// The prefixes of the ids that tests carry in their names.
const SYSTEMS: [&str; 7] = ["na", "pk", "br", "np", "pu", "gr", "u"];

/// The adapters' folders.
const ADAPTERS: [&str; 4] =
    ["adapter-async-std", "adapter-blocking", "adapter-smol", "adapter-tokio"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file of ours below `folder` with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                found.extend(files(&path, ending));
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// Lines of code of a crate's `src` without comments, and without tests: those at a file's end, and files
/// of this name.
fn code_lines(crate_name: &str) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let sources = files(&root().join(crate_name).join("src"), ".rs");
    let is_test = |path: &&PathBuf| {
        let within = path.strip_prefix(root()).unwrap();
        within.ends_with("tests.rs") || within.components().any(|it| it.as_os_str() == "tests")
    };
    for path in sources.iter().filter(|path| !is_test(path)) {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap();
            lines.push((format!("{}:{}", path.display(), number + 1), line.to_owned()));
        }
    }
    assert!(!lines.is_empty(), "{crate_name} has code");
    lines
}

#[track_caller]
fn never_in(crate_name: &str, forbidden: &[&str]) {
    let found: Vec<_> = code_lines(crate_name)
        .into_iter()
        .filter(|(_, line)| forbidden.iter().any(|word| line.contains(word)))
        .collect();
    assert!(found.is_empty(), "{crate_name} must not know {forbidden:?}:\n{found:#?}");
}

#[test]
fn proto_and_core_know_no_clock_socket_thread_lock_or_waker() {
    let impure = [
        "Instant::now",
        "SystemTime",
        "TcpStream",
        "UdpSocket",
        "std::thread",
        "Mutex",
        "RwLock",
        "Condvar",
        "Atomic",
        "Waker",
        "async ",
        ".await;",
        ".await?",
        ".await.",
        ".await)",
        "HashMap",
        "HashSet",
        "println!",
    ];
    never_in("amqp-proto", &impure);
    never_in("amqp-core", &impure);
}

#[test]
fn no_runtime_above_an_adapter() {
    let runtimes = ["tokio", "async_std", "smol", "mio::", "Instant::now", "thread::"];
    for crate_name in ["amqp-proto", "amqp-core", "amqp-async", "amqp-tls"] {
        never_in(crate_name, &runtimes);
    }
}

#[test]
fn one_function_locks() {
    let locks: Vec<_> =
        code_lines("amqp-async").into_iter().filter(|(_, line)| line.contains(".lock()")).collect();
    assert_eq!(locks.len(), 1, "{locks:#?}");
    assert!(locks[0].0.contains("shared.rs"));
}

/// An action that a later core adds is not taken for one that is known, such as to disconnect.
#[test]
fn the_driver_names_each_action() {
    let read = |path| fs::read_to_string(root().join(path)).unwrap();
    let (events, driver) = (read("amqp-core/src/event.rs"), read("amqp-async/src/driver.rs"));
    let actions = events.split("pub enum Action {").nth(1).unwrap().split("\n}").next().unwrap();
    let variants = actions.lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" {"));
    let mut expected: Vec<_> = variants.map(|name| format!("Action::{name}")).collect();
    assert!(expected.len() >= 3, "{actions}");
    expected.push("_".to_owned());
    expected.sort_unstable();

    let act = driver.split("    fn act(").nth(1).unwrap().split("\n    }").next().unwrap();
    let arms = act.lines().filter_map(|line| line.strip_prefix("            ")?.split_once(" => "));
    let arms: Vec<_> = arms.filter(|(pattern, _)| !pattern.starts_with([' ', '/'])).collect();
    let mut names: Vec<_> = arms.iter().map(|(it, _)| it.split(" {").next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, expected, "{act}");
    assert!(arms.contains(&("_", "{}")), "an unknown action does nothing: {act}");
}

#[test]
fn nom_stays_inside_the_codec() {
    let users: BTreeSet<String> = code_lines("amqp-proto")
        .into_iter()
        .filter(|(_, line)| line.contains("nom::"))
        .map(|(place, _)| place.split(':').next().unwrap().to_owned())
        .collect();
    let wire = root().join("amqp-proto/src/wire.rs").display().to_string();
    assert_eq!(users, BTreeSet::from([wire]));
    for crate_name in ["amqp-core", "amqp-async"].iter().chain(&ADAPTERS) {
        never_in(crate_name, &["nom::"]);
    }
}

#[test]
fn proto_and_core_deny_what_can_panic() {
    for crate_name in ["amqp-proto", "amqp-core"] {
        let path = root().join(crate_name).join("src/lib.rs");
        let text: String = fs::read_to_string(path).unwrap().split_whitespace().collect();
        for lint in ["unwrap_used", "expect_used", "indexing_slicing", "panic"] {
            assert!(text.contains(&format!("clippy::{lint}")), "{crate_name} denies {lint}");
        }
        never_in(
            crate_name,
            &["unreachable!", "todo!", "unimplemented!", " assert!", " assert_eq!"],
        );
    }
}

/// Limits stand in the `limits.rs` of the crate that they bind.
#[test]
fn every_limit_has_its_unit_and_its_reason() {
    let crates = [("amqp-core", 40), ("amqp-async", 9), ("adapter-blocking", 3), ("amqp-app", 13)];
    for (crate_name, least) in crates {
        let path = root().join(crate_name).join("src/limits.rs");
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let mut limits = 0;
        for (number, line) in lines.iter().enumerate() {
            let Some(limit) = line.strip_prefix("pub const ") else { continue };
            limits += 1;
            assert!(lines[number - 1].starts_with("///"), "{limit} has no reason");
            let name = limit.split(':').next().unwrap();
            let has_unit = limit.contains("Duration")
                || [
                    "_BYTES",
                    "_CONNECTIONS",
                    "_FRACTION",
                    "_MESSAGES",
                    "_SPAN",
                    "_MAX",
                    "PREFETCH",
                ]
                .iter()
                .any(|unit| name.ends_with(unit));
            assert!(has_unit, "{name} does not say what it counts");
        }
        assert!(limits >= least, "{crate_name} has {limits} limits");

        let elsewhere: Vec<_> = code_lines(crate_name)
            .into_iter()
            .filter(|(place, line)| {
                let constant = line.trim_start_matches("pub ").starts_with("const ");
                let sized =
                    [": usize =", ": u64 =", ": Duration ="].iter().any(|it| line.contains(it));
                constant && sized && !place.contains("limits.rs")
            })
            .collect();
        assert!(elsewhere.is_empty(), "limits outside of limits.rs: {elsewhere:#?}");
    }
}

#[test]
fn no_file_is_too_long() {
    for path in files(&root(), ".rs") {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
}

/// The files of a crate use each other in one direction. The crate's root and its re-exports do not count.
#[test]
fn files_form_no_circle() {
    for crate_name in ADAPTERS.into_iter().chain(["amqp-async", "amqp-tls"]) {
        let mut uses = BTreeMap::<String, BTreeSet<String>>::new();
        for (place, line) in code_lines(crate_name) {
            let file = Path::new(&place).file_name().unwrap().to_str().unwrap();
            let used = uses.entry(file.split('.').next().unwrap().to_owned()).or_default();
            for path in line.split("crate::").skip(1) {
                let end = path.find(|it: char| !it.is_alphanumeric() && it != '_');
                used.insert(path[..end.unwrap_or(path.len())].to_owned());
            }
        }
        // What rests on nothing that is left is taken away.
        while let Some(file) = uses
            .iter()
            .find(|(_, used)| used.iter().all(|it| !uses.contains_key(it)))
            .map(|(file, _)| file.clone())
        {
            uses.remove(&file);
        }
        assert!(uses.is_empty(), "files of {crate_name} that use each other: {uses:#?}");
    }
}

#[test]
fn files_are_tidy() {
    for ending in [".rs", ".toml", ".md"] {
        for path in files(&root(), ending) {
            let text = fs::read_to_string(&path).unwrap();
            for (number, line) in text.lines().enumerate() {
                let place = format!("{}:{}", path.display(), number + 1);
                assert_eq!(line.trim_end(), line, "white space at the end of {place}");
                let this_file = path.ends_with("invariants.rs");
                let shirks = this_file || !line.contains("#[ignore");
                assert!(shirks, "an ignored test at {place}");
            }
        }
    }
}

/// A text with `{0}` prints what the variant holds: `source` must not return it too.
#[test]
fn no_error_prints_its_source() {
    for path in files(&root(), ".rs").into_iter().filter(|path| !path.ends_with("invariants.rs")) {
        let text = fs::read_to_string(&path).unwrap();
        for attribute in text.split("#[error(").skip(1) {
            // Up to the next variant's documentation.
            let variant = attribute.split("///").next().unwrap();
            let prints = !variant.starts_with("transparent") && variant.contains("{0}");
            let returns = variant.contains("#[from]") || variant.contains("#[source]");
            assert!(!prints || !returns, "{}: {variant}", path.display());
        }
    }
}

/// The arrows of ARCHITECTURE.md: what each crate may rest on, within the workspace and beyond.
#[test]
fn dependencies_point_down() {
    let roots = ["rustls-native-certs", "rustls-platform-verifier", "webpki-roots"];
    let tls = [&["amqp-async", "bytes", "rustls"][..], &roots].concat();
    let allowed = BTreeMap::from([
        (
            "amqp-app",
            vec![
                "amqp-async",
                "amqp-blocking",
                "amqp-testkit",
                "async-lock",
                "bytes",
                "ciborium",
                "deadpool",
                "event-listener",
                "httparse",
                "metrics",
                "opentelemetry",
                "rmp-serde",
                "serde",
                "serde_json",
                "sd-notify",
                "signal-hook",
                "thiserror",
                "toml",
                "tower-layer",
                "tower-service",
                "tracing",
            ],
        ),
        ("amqp-proto", vec!["nom", "serde", "thiserror"]),
        (
            "amqp-core",
            vec!["amqp-proto", "bytes", "serde", "serde_json", "thiserror", "twox-hash", "zeroize"],
        ),
        (
            "amqp-async",
            vec![
                "amqp-core",
                "bytes",
                "futures-core",
                "futures-io",
                "libc",
                "socket2",
                "thiserror",
                "tracing",
            ],
        ),
        ("amqp-async-std", vec!["amqp-async", "amqp-tls", "async-io", "async-std", "futures-io"]),
        ("amqp-blocking", vec!["amqp-async", "amqp-tls", "bytes", "mio", "thiserror"]),
        ("amqp-smol", vec!["amqp-async", "amqp-tls", "futures-io", "smol"]),
        ("amqp-tls", tls),
        ("amqp-tokio", vec!["amqp-async", "amqp-tls", "bytes", "tokio"]),
        ("amqp-testkit", vec!["amqp-proto", "regex-lite", "socket2", "stats_alloc", "thiserror"]),
    ]);
    let metadata =
        MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    let mut seen = 0;
    for package in &metadata.packages {
        let workspace_only = package.publish.as_deref() == Some(&[]);
        let Some(allowed) = allowed.get(package.name.as_str()) else {
            assert!(workspace_only, "{} has no entry here, and is published", package.name);
            continue;
        };
        seen += 1;
        let actual = |kind| {
            let dependencies = package.dependencies.iter().filter(move |it| it.kind == kind);
            dependencies.map(|it| it.name.as_str()).collect::<BTreeSet<_>>()
        };
        let normal = actual(DependencyKind::Normal);
        assert_eq!(normal, allowed.iter().copied().collect(), "{}", package.name);
        let upward = actual(DependencyKind::Development);
        // Examples of applications run on an adapter, which is below.
        let below = |name: &str| package.name.as_str() == "amqp-app" && name == "amqp-tokio";
        let ours = |name: &&&str| **name != "amqp-testkit" && is_ours(name) && !below(name);
        let upward: Vec<_> = upward.iter().filter(ours).collect();
        assert!(upward.is_empty(), "{} tests itself with {upward:?}", package.name);
    }
    assert_eq!(seen, allowed.len());
}

/// The guide of `amqp-app` says how many crates an application compiles on Linux, and how many each feature adds.
#[test]
fn an_application_has_as_few_dependencies_as_it_says() {
    let page = fs::read_to_string(root().join("amqp-app/src/guide/observing.md")).unwrap();
    let crates = |features: &[&str]| {
        let mut tree = Command::new(env!("CARGO"));
        tree.args(["tree", "--package", "amqp-app", "--package", "amqp-tokio", "--locked"]);
        tree.args(["--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
        tree.args(["--target", "x86_64-unknown-linux-gnu"]).args(features);
        let output = tree.current_dir(root()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        // What was printed before has a mark behind it.
        let names = printed.lines().map(|line| line.split(" (").next().unwrap().to_owned());
        names.filter(|name| !name.is_empty()).collect::<BTreeSet<_>>().len()
    };
    let alone = crates(&[]);
    assert!(page.contains(&format!("crates that it adds to the {alone} of")), "{alone}");
    let added = |feature: &str| crates(&["--features", &format!("amqp-app/{feature}")]) - alone;
    for feature in ["tracing", "metrics", "opentelemetry", "http", "systemd"] {
        let added = added(feature);
        assert!(page.contains(&format!("| `{feature}` | {added} |")), "{feature}: {added}");
    }
    let page = fs::read_to_string(root().join("amqp-app/src/guide/payloads.md")).unwrap();
    for feature in ["cbor", "msgpack"] {
        let added = added(feature);
        assert!(page.contains(&format!("| `{feature}` | {added} |")), "{feature}: {added}");
    }
    let page = fs::read_to_string(root().join("amqp-app/src/guide/configuration.md")).unwrap();
    let added = added("config");
    assert!(page.contains(&format!("feature `config` adds {added} crates")), "config: {added}");
}

fn is_ours(name: &str) -> bool {
    name.starts_with("amqp-")
}

/// Adapters are thin: what is not of their runtime stands once, above them.
#[test]
fn adapters_are_thin() {
    for adapter in ADAPTERS {
        let most = if adapter == "adapter-blocking" { 1_900 } else { 180 };
        let lines = code_lines(adapter).iter().filter(|(_, line)| !line.trim().is_empty()).count();
        assert!(lines <= most, "{adapter} has {lines} lines of code");
    }
    for adapter in ADAPTERS {
        never_in(adapter, &["amqp_proto", "proto::", "Session", "handle_input"]);
    }
}

/// docs/FEATURES.md lists every feature that a test carries in its name, with that test.
#[test]
fn features_and_tests_agree() {
    let page = fs::read_to_string(root().join("docs/FEATURES.md")).unwrap();
    let mut listed = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let columns: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [id, sentence, tests] = columns[..] else { panic!("three columns: {row}") };
        if matches!(id, "id" | "---") {
            continue;
        }
        assert!(sentence.ends_with('.'), "{id} is described by a sentence");
        for test in tests.split(", ") {
            listed.insert((id.replace('-', "_").to_lowercase(), test.trim_matches('`').to_owned()));
        }
    }
    let mut tested = BTreeSet::new();
    for path in files(&root(), ".rs").iter().filter(|path| path.iter().any(|it| it == "tests")) {
        let text = fs::read_to_string(path).unwrap();
        for name in text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next()) {
            let mut words = name.split('_');
            while let (Some(system), Some(number)) = (words.next(), words.next())
                && SYSTEMS.contains(&system)
            {
                tested.insert((format!("{system}_{number}"), name.to_owned()));
            }
        }
    }
    assert!(tested.len() > 100);
    let unlisted: Vec<_> = tested.difference(&listed).collect();
    assert!(unlisted.is_empty(), "missing in docs/FEATURES.md: {unlisted:#?}");
    let untested: Vec<_> = listed.difference(&tested).collect();
    assert!(untested.is_empty(), "docs/FEATURES.md names tests that do not exist: {untested:#?}");
}

/// Unsafe code is forbidden for the workspace, and every crate takes the workspace's lints.
#[test]
fn unsafe_code_is_forbidden() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    for path in files(&root(), "Cargo.toml") {
        let text = fs::read_to_string(&path).unwrap();
        let inherits = text.contains("[lints]\nworkspace = true") || text.contains("[workspace]");
        assert!(inherits, "{} does not take the workspace's lints", path.display());
    }
}

#[test]
fn credentials_are_in_no_debug() {
    let uri = "amqp://me:hunter2@h";
    for shown in [
        format!("{:?}", amqp_tokio::Connector::new(uri).unwrap()),
        format!("{:?}", amqp_blocking::Connector::new(uri).unwrap()),
        format!("{:?}", amqp_blocking::Connector::new(uri).unwrap().driver().unwrap()),
    ] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
