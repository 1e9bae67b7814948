//! The launcher against the RabbitMQ that is installed.

mod proxy;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use amqp_testkit::RabbitMq;

#[test]
fn a_node_starts_stops_crashes_and_comes_back() {
    let node = RabbitMq::start().unwrap_or_else(|error| panic!("{error}"));
    node.ctl(&["add_vhost", "kept"]).unwrap();
    node.restart().unwrap();
    assert!(node.ctl(&["list_vhosts"]).unwrap().contains("kept"));
    node.kill().unwrap();
    assert!(node.ctl(&["list_vhosts"]).is_err());
    node.launch().unwrap();
    assert!(node.ctl(&["list_vhosts"]).unwrap().contains("kept"));
    let error = node.ctl(&["no_such_command"]).unwrap_err();
    assert!(error.to_string().contains("no_such_command"), "{error}");
}

#[test]
fn two_nodes_do_not_disturb_each_other() {
    let one = RabbitMq::start().unwrap_or_else(|error| panic!("{error}"));
    let other = RabbitMq::start_with("channel_max = 7").unwrap();
    assert_ne!(one.port(), other.port());
    assert!(other.ctl(&["environment"]).unwrap().contains("{channel_max,7}"));
    drop(one);
    other.ctl(&["status"]).unwrap();
}

/// However the process that started it ends, at whatever moment, nothing of a node stays.
#[test]
fn a_killed_test_leaves_nothing_behind() {
    for delay in [300, 1_500, 8_000] {
        let mut process = Command::new(node_example())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let name = format!("testkit-{}-0", process.id());
        std::thread::sleep(Duration::from_millis(delay));
        process.kill().unwrap();
        process.wait().unwrap();
        let folder = std::env::temp_dir().join(format!("amqp-{name}"));
        let begun = Instant::now();
        while folder.exists() || processes_with(&name) > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{delay} ms: something is left");
        }
    }
}

/// Processes that have `name` on their command line.
fn processes_with(name: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(name)).count()
}

/// The example stands beside this test's own binary once it is built.
fn node_example() -> PathBuf {
    let build = ["build", "--quiet", "--package", "amqp-testkit", "--example", "node"];
    assert!(Command::new(env!("CARGO")).args(build).status().unwrap().success());
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples/node")
}
