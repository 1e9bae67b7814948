//! Peers that stop reading, or stop in the middle: played on a socket, frame by frame.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use adapter_tokio::{CloseCause, Connection, Connector, Publish, PublishError, Publisher};
use amqp_proto::frame::{self, FrameLimits, Peek};
use amqp_proto::method::{Method, WireMethod, basic, channel, confirm, connection};

use crate::support::within;

/// A broker that opens a connection and a channel in confirm mode, then does as it is told.
fn peer(act: impl FnOnce(Script) + Send + 'static) -> (Connector, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("amqp://{}?heartbeat=0", listener.local_addr().unwrap());
    let playing = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut script = Script { stream, input: Vec::new() };
        let mut header = [0; 8];
        script.stream.read_exact(&mut header).unwrap();
        let start = connection::Start {
            version_minor: 9,
            mechanisms: b"PLAIN",
            locales: b"en_US",
            ..Default::default()
        };
        script.send(0, &start);
        script.expect("connection.StartOk");
        script.send(0, &connection::Tune { channel_max: 9, frame_max: 131_072, heartbeat: 0 });
        script.expect("connection.Open");
        script.send(0, &connection::OpenOk::default());
        script.expect("channel.Open");
        script.send(1, &channel::OpenOk::default());
        script.expect("confirm.Select");
        script.send(1, &confirm::SelectOk::default());
        act(script);
    });
    (Connector::new(&uri).unwrap(), playing)
}

struct Script {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Script {
    fn send<'a>(&mut self, channel: u16, method: &impl WireMethod<'a>) {
        let mut bytes = Vec::new();
        frame::write_method(&mut bytes, channel, method);
        self.stream.write_all(&bytes).unwrap();
    }

    /// Reads up to a method of this name.
    fn expect(&mut self, name: &str) {
        loop {
            match frame::peek(&self.input, FrameLimits::default()).unwrap() {
                Peek::Complete(found) => {
                    let length = found.frame_len();
                    let method = Method::decode(found.payload).ok();
                    let found = method.is_some_and(|method| method.id().to_string() == name);
                    self.input.drain(..length);
                    if found {
                        return;
                    }
                }
                Peek::Incomplete(_) => {
                    let mut buffer = [0; 4096];
                    let count = self.stream.read(&mut buffer).unwrap();
                    assert!(count > 0, "the client left before {name}");
                    self.input.extend_from_slice(&buffer[..count]);
                }
            }
        }
    }
}

/// Counts how often a driver is polled.
struct Counting<F>(F, Arc<AtomicU32>);

impl<F: Future + Unpin> Future for Counting<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll(cx)
    }
}

async fn publisher(connector: &Connector) -> (Connection, Publisher, Arc<AtomicU32>) {
    let (connecting, driver) = connector.driver().unwrap();
    let polls = Arc::new(AtomicU32::new(0));
    tokio::spawn(Counting(driver, Arc::clone(&polls)));
    let connection = within("a connection", connecting).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    (connection, channel.confirm_select().await.unwrap(), polls)
}

/// Publishes until nothing more is let in.
async fn fill(publisher: &Publisher) {
    let body = vec![0; 3_000];
    loop {
        let sending = publisher.send(Publish::new("", "q", &body));
        match tokio::time::timeout(Duration::from_millis(300), sending).await {
            Ok(confirm) => drop(confirm.unwrap()),
            Err(_) => return,
        }
    }
}

/// A peer that reads nothing costs no time, and publishers wait.
#[tokio::test]
async fn a_blocked_write_does_not_spin() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (connector, playing) = peer(move |script| {
        let _ = released.recv();
        drop(script);
    });
    let (connection, publisher, polls) = publisher(&connector).await;
    fill(&publisher).await;
    let before = polls.load(Ordering::Relaxed);
    let waiting = tokio::time::timeout(
        Duration::from_millis(500),
        publisher.publish(Publish::new("", "q", b"waits")),
    );
    assert!(waiting.await.is_err());
    let polled = polls.load(Ordering::Relaxed) - before;
    assert!(polled < 20, "{polled} polls in half a second of nothing to do");

    // Waiting publishers hear of a close that goes no further.
    let blocked = publisher.publish(Publish::new("", "q", b"waits"));
    let closing = async {
        tokio::task::yield_now().await;
        let closing = tokio::time::timeout(Duration::from_millis(1), connection.close());
        let _ = closing.await;
    };
    let (outcome, ()) = within("an end", async { tokio::join!(blocked, closing) }).await;
    assert!(matches!(outcome, Err(PublishError::Closed(_))), "{outcome:?}");
    release.send(()).unwrap();
    playing.join().unwrap();
    within("the end", connection.closed()).await;
}

/// K14: what the broker sent before its socket closed counts, even where a write fails first.
#[tokio::test]
async fn input_that_has_arrived_counts_before_a_failed_write_does() {
    let (connector, playing) = peer(|mut script| {
        script.expect("basic.Publish");
        let ack = basic::Ack { delivery_tag: 1, multiple: false };
        script.send(1, &ack);
        let close = connection::Close { reply_code: 320, ..Default::default() };
        script.send(0, &close);
        // The rest is never read.
    });
    let (connection, publisher, _) = publisher(&connector).await;
    let first = publisher.send(Publish::new("", "q", b"first")).await.unwrap();
    let large = vec![0; 4 << 20];
    let second = publisher.send(Publish::new("", "q", &large)).await.unwrap();
    let cause = within("the end", connection.closed()).await;
    assert!(matches!(cause, CloseCause::ByBroker(_)), "{cause:?}");
    first.await.unwrap();
    assert!(matches!(second.await, Err(PublishError::Unknown(_) | PublishError::NotSent(_))));
    playing.join().unwrap();
}

/// K12: close-ok goes out behind a write in progress.
#[tokio::test]
async fn a_close_is_answered_behind_a_write_in_progress() {
    let (connector, playing) = peer(|mut script| {
        script.expect("basic.Publish");
        script.send(0, &connection::Close { reply_code: 320, ..Default::default() });
        // The client's write waits for room; then the answer must be the last thing it sends.
        std::thread::sleep(Duration::from_millis(100));
        script.expect_close_ok();
    });
    let (connection, publisher, _) = publisher(&connector).await;
    let large = vec![0; 16 << 20];
    let sent = publisher.send(Publish::new("", "q", &large)).await.unwrap();
    within("the end", connection.closed()).await;
    drop(sent);
    tokio::task::spawn_blocking(|| playing.join().unwrap()).await.unwrap();
}

impl Script {
    /// Reads to the end, which must be a close-ok; the content before it may be cut short.
    fn expect_close_ok(mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        let mut close_ok = Vec::new();
        frame::write_method(&mut close_ok, 0, &connection::CloseOk::default());
        assert!(rest.ends_with(&close_ok), "{:?}", &rest[rest.len().saturating_sub(20)..]);
    }
}
