//! The examples, as a user runs them.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::rabbitmq;

#[test]
fn on_the_embedded_broker() {
    quickstart_runs(None);
}

#[test]
fn on_rabbitmq() {
    quickstart_runs(Some(&rabbitmq().uri()));
}

#[test]
fn requests_are_answered() {
    for url in [None, Some(rabbitmq().uri())] {
        let output = example("rpc", url.as_deref()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(text, "100 requests answered; the squares add up to 328350\n");
    }
}

#[test]
fn a_broker_that_is_not_there_is_a_failure() {
    let output = example("quickstart", Some("amqp://127.0.0.1:1")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("refused"));
}

#[test]
fn ctrl_c_ends_it_with_a_failure() {
    let mut command = example("quickstart", Some(&rabbitmq().uri()));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut first_line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first_line).unwrap();
    assert!(first_line.starts_with("connected to RabbitMQ"), "{first_line}");
    let pid = child.id().to_string();
    Command::new("sh").args(["-c", &format!("kill -INT {pid}")]).status().unwrap();
    let status = child.wait().unwrap();
    assert!(matches!(status.code(), Some(1)), "{status}");
}

fn quickstart_runs(url: Option<&str>) {
    let output = example("quickstart", url).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("100000 confirmed, 100000 consumed, 0 not acknowledged, 0 repeated"));
    let overlap = text.lines().find_map(|line| line.strip_prefix("overlap of the two: "));
    let overlap: u32 = overlap.unwrap().trim_end_matches(" %").parse().unwrap();
    assert!(overlap > 50, "{text}");
}

/// An example stands beside this test's own binary once it is built.
fn example(name: &str, url: Option<&str>) -> Command {
    let build = ["build", "--quiet", "--package", "examples", "--example", name];
    let built = Command::new(env!("CARGO")).args(build).status().unwrap();
    assert!(built.success());
    let test: PathBuf = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    let mut command = Command::new(program);
    command.env_remove("AMQP_URL").envs(url.map(|url| ("AMQP_URL", url)));
    command
}
