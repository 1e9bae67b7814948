//! Signals of the process, with 50 messages in the queue.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixDatagram;
use std::process::{self, Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::at::{At, Client};

/// What `signalled` is started with: it runs on tokio and on threads, and acknowledges its messages behind their handlers or in transactions.
const MODES: [&[&str]; 4] =
    [&[], &["--threads"], &["--transactional"], &["--threads", "--transactional"]];

/// The program `signalled`.
struct Signalled {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Signalled {
    /// Starts it, and waits until its three workers have a message each.
    fn start(uri: &str, queue: &str, mode: &[&str]) -> Self {
        Self::start_with(uri, queue, mode, &[])
    }

    fn start_with(uri: &str, queue: &str, mode: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut program = Command::new(env!("CARGO_BIN_EXE_signalled"));
        program.args([uri, queue]).args(mode).stdin(Stdio::piped()).stdout(Stdio::piped());
        program.env_remove("NOTIFY_SOCKET").envs(variables.iter().copied());
        let mut child = program.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut signalled = Self { child, input, output: BufReader::new(output) };
        for _ in 0..3 {
            let line = signalled.line();
            assert!(line.starts_with("began "), "{line}");
        }
        signalled
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// The last line, and the exit code.
    fn end(mut self) -> (String, Option<i32>) {
        (self.line(), self.child.wait().unwrap().code())
    }
}

impl Drop for Signalled {
    fn drop(&mut self) {
        // It has ended unless the test has failed.
        let _ = self.child.kill();
    }
}

/// Runs a script beside RabbitMQ, with a queue of 50 messages.
fn with_fifty(script: impl AsyncFnOnce(&At<amqp_tokio::Connector>, &Client, &str)) {
    crate::at::on_tokio_current_thread(async {
        let at = At::rabbitmq();
        let client = at.client().await;
        let queue = client.queue("signalled").await;
        for number in 0..50 {
            client.send(&queue, number.to_string()).await;
        }
        script(&at, &client, &queue).await;
    });
}

/// Waits until this many messages are ready: what a process that has ended had not handled.
async fn ready(client: &Client, queue: &str, expected: u32) {
    crate::at::until("the messages that are left", async || client.ready(queue).await == expected)
        .await;
}

#[test]
fn gr_23_a_signal_lets_the_messages_in_work_finish_and_leaves_the_others() {
    let signals = [("TERM", 0), ("INT", 0), ("HUP", 0), ("USR1", 1)];
    for (mode, (signal, code)) in MODES.iter().flat_map(|mode| signals.map(|it| (mode, it))) {
        with_fifty(async |at, client, queue| {
            let mut signalled = Signalled::start(&at.uri, queue, mode);
            signalled.signal(signal);
            assert_eq!(signalled.line(), "stopping\n");
            signalled.input.write_all(b"go on\n").unwrap();
            let ended = signalled.end();
            let expected = ("3 handled, 0 abandoned\n".to_owned(), Some(code));
            assert_eq!(ended, expected, "SIG{signal} {mode:?}");
            ready(client, queue, 47).await;
        });
    }
}

#[test]
fn gr_23_a_second_signal_ends_at_once_and_loses_nothing() {
    let signals = [("TERM", 0), ("USR1", 0)];
    for (mode, (second, code)) in MODES.iter().flat_map(|mode| signals.map(|it| (mode, it))) {
        with_fifty(async |at, client, queue| {
            let mut signalled = Signalled::start(&at.uri, queue, mode);
            signalled.signal("TERM");
            assert_eq!(signalled.line(), "stopping\n");
            signalled.signal(second);
            let ended = signalled.end();
            assert_eq!(ended, ("0 handled, 3 abandoned\n".to_owned(), Some(code)), "{mode:?}");
            ready(client, queue, 50).await;
        });
    }
}

/// As systemd does for a unit with `Type=notify` and `WatchdogSec=`.
#[test]
fn systemd_hears_when_a_service_is_ready_lives_and_stops() {
    let path = std::env::temp_dir().join(format!("amqp-app-notify-{}", process::id()));
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let heard = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap().trim_end().to_owned()
    };
    with_fifty(async |at, _, queue| {
        let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "20000")];
        let mut signalled = Signalled::start_with(&at.uri, queue, &[], &variables);
        assert_eq!([heard(), heard(), heard()], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
        signalled.signal("TERM");
        while heard() != "STOPPING=1" {}
        // It lives while its last messages are handled.
        assert_eq!(heard(), "WATCHDOG=1");
        assert_eq!(signalled.line(), "stopping\n");
        signalled.input.write_all(b"go on\n").unwrap();
        assert_eq!(signalled.end().1, Some(0));
    });
    fs::remove_file(&path).unwrap();
}
