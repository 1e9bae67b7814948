//! The quickstart, as a user runs it.

use std::path::PathBuf;
use std::process::Command;

use crate::support::rabbitmq;

#[test]
fn on_the_embedded_broker() {
    run(None);
}

#[test]
fn on_rabbitmq() {
    run(Some(&rabbitmq().uri()));
}

#[test]
fn a_broker_that_is_not_there_is_a_failure() {
    let output = quickstart(Some("amqp://127.0.0.1:1")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("refused"));
}

#[test]
fn ctrl_c_ends_it_with_a_failure() {
    let mut child = quickstart(Some(&rabbitmq().uri())).spawn().unwrap();
    // It has begun once the broker has its connection.
    let named = || rabbitmq().ctl(&["list_connections", "client_properties"]).unwrap();
    while !named().contains("quickstart") {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was interrupted");
    }
    let pid = child.id().to_string();
    Command::new("sh").args(["-c", &format!("kill -INT {pid}")]).status().unwrap();
    let status = child.wait().unwrap();
    assert!(matches!(status.code(), Some(1)), "{status}");
}

fn run(url: Option<&str>) {
    let output = quickstart(url).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("100000 confirmed, 100000 consumed, 0 not acknowledged, 0 repeated"));
    let overlap = text.lines().find_map(|line| line.strip_prefix("overlap of the two: "));
    let overlap: u32 = overlap.unwrap().trim_end_matches(" %").parse().unwrap();
    assert!(overlap > 50, "{text}");
}

/// The example beside this test's own binary: `cargo test --all-targets` builds both.
fn quickstart(url: Option<&str>) -> Command {
    let test: PathBuf = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples/quickstart");
    assert!(program.is_file(), "run `cargo build --examples` first");
    let mut command = Command::new(program);
    command.env_remove("AMQP_URL").envs(url.map(|url| ("AMQP_URL", url)));
    command
}
