//! The examples, as a user runs them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

use super::tls_node::NODE;
use crate::support::rabbitmq;

#[test]
fn on_the_embedded_broker() {
    quickstart_runs(None);
}

#[test]
fn on_rabbitmq() {
    quickstart_runs(Some(&rabbitmq().uri()));
}

/// NA-39, PK-115: on the embedded broker and on RabbitMQ they print the same.
macro_rules! examples {
    ($(fn $name:ident() -> $printed:expr;)*) => {
        $(
            #[test]
            fn $name() {
                for url in [None, Some(rabbitmq().uri())] {
                    let name = stringify!($name);
                    let ids =
                        ["gr_24_", "na_39_", "pk_115_", "na_4_", "na_5_", "na_6_", "np_12_", "pk_90_", "pk_91_", "pu_5_"];
                    let name = ids
                        .iter()
                        .fold(name, |name, id| name.trim_start_matches(id));
                    prints(name, url.as_deref(), $printed);
                }
            }
        )*
    };
}

fn prints(name: &str, url: Option<&str>, expected: &str) {
    let output = example(name, url).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert_eq!(text, expected);
}

const NEWS: &str = "subscriber 0: first\nsubscriber 0: second\nsubscriber 1: first\n\
                    subscriber 1: second\nsubscriber 2: first\nsubscriber 2: second\n";
const TOPICS: &str = "*.critical: kernel.critical mail.critical\n\
                      kernel.*: kernel.critical kernel.info\n\
                      #: kernel.critical kernel.info mail.critical mail.info\n";
const MANDATORY: &str = "one: 312 NO_ROUTE\ntwo: confirmed\nthree: 312 NO_ROUTE\n";
const RECONNECT: &str = "received 0\n\
                         lost\nthe queue has another name\nrecovered, 0 not declared again\nreceived 1\n\
                         lost\nthe queue has another name\nrecovered, 0 not declared again\nreceived 2\n";
const BY_HAND: &str = "9 tasks done over 3 connections\n";
const ON_CONNECT: &str = "connection 1 is set up\ntask 1\nconnection 2 is set up\ntask 2\n\
                          connection 3 is set up\ntask 3\n";
const WITH_BACKON: &str = "3 tasks done over connection 3\n";
const FAILOVER: &str = "node 1 is down: served by node 0\nnode 0 is down: served by node 1\n\
                        node 1 is down: served by node 0\nnode 0 is down: served by node 1\n";
const NUCLEON: &str = "WithHello2 sent: Ok(())\nWithHello3 sent: Ok(())\ntaken: WithHello1\n\
                       received: WithHello2\nreceived: WithHello3\nlistening\nstopping\n10 handled\n";
const FILES: &str = "2 files sent\n\
                     stored: example.files/first.xml (text/xml): <order id='1'/>\n\
                     stored: example.files/second.xml (text/xml): <order id='2'/>\n\
                     2 messages stored\n";
const REQUESTS: &str = "100 prices add up to 600950 cents\n\
                        the request reached no queue (exchange \"\", routing key \"example-no-service\")\n\
                        0 requests wait\n";
const GET: &str = "one, and 2 behind it\ntwo, and 1 behind it\nthree, and 0 behind it\nempty\n";
const SQUARES: &str = "100 requests answered; the squares add up to 328350\n";
const CALLS: &str = "100 requests answered; the squares add up to 328350\n0 calls are waiting\n";

examples! {
    fn na_39_work_queue() -> "2 workers did 10 tasks\n";
    fn na_39_publish_subscribe() -> NEWS;
    fn na_39_topics() -> TOPICS;
    fn na_39_rpc() -> CALLS;
    fn pk_115_confirms() -> "5 taken, 7 refused\n";
    fn pk_115_mandatory() -> MANDATORY;
    fn pk_115_get() -> GET;
    fn pk_115_ack_from_another_thread() -> "5 deliveries acknowledged elsewhere; they add up to 10\n";
    fn na_39_blocking_work_queue() -> "2 workers did 10 tasks\n";
    fn na_39_blocking_publish_subscribe() -> NEWS;
    fn na_39_blocking_topics() -> TOPICS;
    fn na_39_blocking_rpc() -> SQUARES;
    fn pk_115_blocking_confirms() -> "5 taken, 7 refused\n";
    fn pk_115_blocking_mandatory() -> MANDATORY;
    fn pk_115_blocking_get() -> GET;
    fn pk_115_blocking_iterate() -> "one\ntwo\nthree\nfour\nfive\nsilence\n0 given back\n";
    fn pk_115_blocking_callbacks() -> "3 deliveries dispatched\none\ntwo\nthree\n";
    fn pk_115_blocking_ack_from_another_thread() -> "20 deliveries acknowledged by 3 threads; they add up to 190\n";
    fn na_4_reconnect() -> RECONNECT;
    fn na_4_blocking_reconnect() -> RECONNECT;
    fn pk_90_pk_91_recover_by_hand() -> BY_HAND;
    fn pk_90_pk_91_blocking_recover_by_hand() -> BY_HAND;
    fn na_4_failover() -> FAILOVER;
    fn na_5_on_connect() -> ON_CONNECT;
    fn na_6_on_close() -> "lost\nrecovered\nclosed: by this client\n";
    fn pk_90_recover_with_backon() -> WITH_BACKON;
    fn unit_test() -> "2 moved\nno queue to move to\n";
    fn smol() -> "one\ntwo\nthree\n";
    fn async_std() -> "one\ntwo\nthree\n";
    fn np_12_nucleon() -> NUCLEON;
    fn outbox() -> "placed: order 1\nplaced: order 2\nplaced: order 3\n3 sent, 0 left\n";
    fn gr_24_files() -> FILES;
    fn requests() -> REQUESTS;
    fn pu_5_own_event_loop() -> "100 deliveries acknowledged from elsewhere; they add up to 4950\n";
}

/// What the model broker lacks.
#[test]
fn examples_for_rabbitmq_alone() {
    let url = rabbitmq().uri();
    let retried =
        "good: done\nbad: attempt 1 failed\nbad: attempt 2 failed\nbad: attempt 3 failed, parked\n";
    prints("delayed_retry", Some(&url), retried);
    let read = "First: one at offset 0\nFirst: two at offset 1\nFirst: three at offset 2\n\
                Offset(1): two at offset 1\nOffset(1): three at offset 2\n";
    prints("stream_reader", Some(&url), read);
    for name in ["delayed_retry", "stream_reader"] {
        let output = example(name, None).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("AMQP_URL"));
    }
}

#[test]
fn pu_16_the_tls_examples_log_in_by_a_certificate() {
    for name in ["tls", "blocking_tls"] {
        let output = example(name, None).args(NODE.arguments()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "encrypted\n");
        assert!(!example(name, None).output().unwrap().status.success(), "without arguments");
    }
}

#[test]
fn a_worker_stops_gracefully() {
    for url in [None, Some(rabbitmq().uri())] {
        let mut worker = Running::start("worker", url.as_deref());
        assert_eq!(worker.line(), "working; stop with Ctrl-C\n");
        worker.interrupt();
        let last = worker.line();
        let done =
            last.strip_prefix("stopped: ").and_then(|rest| rest.strip_suffix(" tasks done\n"));
        assert!(done.unwrap().parse::<u32>().unwrap() <= 20, "{last}");
        assert!(worker.child.wait().unwrap().success());
    }
}

#[test]
fn applications_handle_what_they_get() {
    for url in [None, Some(rabbitmq().uri())] {
        for (name, expected) in [
            ("smallest", vec!["one", "two"]),
            (
                "billing",
                vec![
                    "2 handled, 1 parked",
                    "billing; stop with Ctrl-C",
                    "invoice of order 1: 119",
                    "invoice of order 2: 238",
                    "order 0: order 0 does not exist",
                    r#"parked: {"id":0,"net":5}"#,
                ],
            ),
            (
                "billing_threads",
                vec![
                    "2 handled, 1 parked",
                    "billing; stop with Ctrl-C",
                    "invoice of order 1: 119",
                    "invoice of order 2: 238",
                    r#"parked: {"id":0,"net":5}"#,
                ],
            ),
        ] {
            demonstrates(name, url.as_deref(), &expected);
        }
    }
}

#[test]
fn gr_24_a_program_on_gocept_amqprun_runs_with_its_own_configuration_file() {
    let thanks = ["Thank you for your message."; 3];
    let expected = [&["3 handled"], &thanks[..], &["first", "second", "third"]].concat();
    for url in [None, Some(rabbitmq().uri())] {
        demonstrates("amqprun", url.as_deref(), &expected);
    }
}

/// How many calls it takes depends on how many orders come within the time of a batch.
#[test]
fn batches_store_all_orders_but_the_bad_one() {
    for url in [None, Some(rabbitmq().uri())] {
        let output = example("batch", url.as_deref()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        let (calls, last) = text.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(last, "99 handled, 1 parked");
        let stored = calls.lines().filter_map(|line| line.strip_suffix(": stored"));
        let sizes = stored.map(|line| line.strip_prefix("a batch of ").unwrap().parse::<u32>());
        assert_eq!(sizes.map(Result::unwrap).sum::<u32>(), 99, "{text}");
        assert_eq!(
            calls.lines().filter(|line| *line == "a batch of 1: refused").count(),
            1,
            "{text}"
        );
    }
}

/// Runs an example with the argument `demo`. `expected` is what it prints, sorted.
fn demonstrates(name: &str, url: Option<&str>, expected: &[&str]) {
    let output = example(name, url).arg("demo").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    // The application and the demonstration print at the same time.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, expected, "{name}");
}

#[test]
fn np_14_gr_23_a_signal_stops_an_application() {
    // In a separate virtual host: other tests run the same programs.
    let (node, host) = (rabbitmq(), "signals");
    node.ctl(&["add_vhost", host]).unwrap();
    node.ctl(&["set_permissions", "-p", host, "guest", ".*", ".*", ".*"]).unwrap();
    let on_rabbitmq = node.uri().replace("%2f", host);
    let signals = [("INT", 0), ("TERM", 0), ("HUP", 0), ("USR1", 1)];
    let programs = ["billing", "billing_threads"];
    let all = programs.iter().flat_map(|name| signals.map(|it| (name, it)));
    let all = all.flat_map(|it| [None, Some(on_rabbitmq.as_str())].map(|url| (it, url)));
    for ((name, (signal, code)), url) in all {
        let mut service = Running::start(name, url);
        assert_eq!(service.line(), "billing; stop with Ctrl-C\n");
        service.signal(signal);
        assert_eq!(service.line(), "0 handled, 0 parked\n");
        let ended = service.child.wait().unwrap().code();
        assert_eq!(ended, Some(code), "SIG{signal} {name} {url:?}");
    }
}

#[test]
fn a_web_service_publishes() {
    for url in [None, Some(rabbitmq().uri())] {
        let mut service = Running::start("axum_publisher", url.as_deref());
        let line = service.line();
        let address = line.trim_end().strip_prefix("listening on http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let request =
            "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
        service.interrupt();
        let last = service.line();
        assert!(last.ends_with(" orders taken\n") && !last.starts_with('0'), "{last}");
        assert!(service.child.wait().unwrap().success());
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
    let mut quickstart = Running::start("quickstart", Some(&rabbitmq().uri()));
    let first_line = quickstart.line();
    assert!(first_line.starts_with("connected to RabbitMQ"), "{first_line}");
    quickstart.interrupt();
    let status = quickstart.child.wait().unwrap();
    assert!(matches!(status.code(), Some(1)), "{status}");
}

/// An example that runs until it is stopped.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start(name: &str, url: Option<&str>) -> Self {
        let mut child = example(name, url).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    /// As Ctrl-C does.
    fn interrupt(&self) {
        self.signal("INT");
    }

    fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended unless the test has failed.
        let _ = self.child.kill();
    }
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

/// An example stands near this test's own binary once it is built.
fn example(name: &str, url: Option<&str>) -> Command {
    static BUILT: LazyLock<bool> = LazyLock::new(|| {
        // Of the whole workspace, as the tests are: other features would build everything again.
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--quiet",
            "--locked",
            "--workspace",
            "--examples",
            "--bin",
            "quickstart",
        ]);
        build.status().unwrap().success()
    });
    assert!(*BUILT);
    let test: PathBuf = std::env::current_exe().unwrap();
    let folder = test.parent().unwrap().parent().unwrap();
    let program = match name {
        "quickstart" => folder.join(name),
        _ => folder.join("examples").join(name),
    };
    let mut command = Command::new(program);
    command.env_remove("AMQP_URL").envs(url.map(|url| ("AMQP_URL", url)));
    command
}
