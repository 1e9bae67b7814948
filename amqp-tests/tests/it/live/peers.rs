//! Peers that stop reading, or stop in the middle: played on a socket, frame by frame.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use amqp_proto::frame;
use amqp_proto::method::{basic, channel, confirm, connection};
use amqp_testkit::{RawConnection, Scripted};
use amqp_tokio::{CloseCause, Connection, Connector, Publish, PublishError, Publisher, Recovery};

use crate::support::within;

/// A broker that opens a connection and a channel in confirm mode, then does as it is told.
fn peer(act: impl FnOnce(RawConnection) + Send + 'static) -> Scripted {
    let script = |mut wire: RawConnection| {
        wire.expect("channel.Open");
        wire.send(1, &channel::OpenOk::default());
        wire.expect("confirm.Select");
        wire.send(1, &confirm::SelectOk::default());
        act(wire);
    };
    Scripted::open(script).unwrap()
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

async fn publisher(peer: &Scripted) -> (Connection, Publisher, Arc<AtomicU32>) {
    let connector = Connector::new(&peer.uri()).unwrap().recovery(Recovery::never());
    let (connecting, driver) = connector.driver().unwrap();
    let polls = Arc::new(AtomicU32::new(0));
    tokio::spawn(Counting(driver, Arc::clone(&polls)));
    let connection = within("a connection", connecting).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    (connection, channel.confirm_select().await.unwrap(), polls)
}

/// Publishes until nothing more is let in.
async fn fill(connection: &Connection, publisher: &Publisher) {
    let body = vec![0; 3_000];
    // A driver that was held up may look like a full socket: until nothing more is written.
    let mut sent = u64::MAX;
    while std::mem::replace(&mut sent, connection.stats().bytes_sent) != sent {
        let publish = || publisher.send(Publish::new("", "q", &body));
        while let Ok(confirm) = tokio::time::timeout(Duration::from_millis(300), publish()).await {
            drop(confirm.unwrap());
        }
    }
}

/// A peer that reads nothing costs no time, and publishers wait.
#[tokio::test]
async fn a_blocked_write_does_not_spin() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let peer = peer(move |wire| {
        let _ = released.recv();
        drop(wire);
    });
    let (connection, publisher, polls) = publisher(&peer).await;
    fill(&connection, &publisher).await;
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
    assert!(matches!(outcome, Err(PublishError::NotSent(_))), "{outcome:?}");
    release.send(()).unwrap();
    tokio::task::spawn_blocking(|| peer.join()).await.unwrap();
    within("the end", connection.closed()).await;
}

/// K14: what the broker sent before its socket closed counts, even where a write fails first.
#[tokio::test]
async fn input_that_has_arrived_counts_before_a_failed_write_does() {
    let peer = peer(|mut wire| {
        wire.expect("basic.Publish");
        let ack = basic::Ack { delivery_tag: 1, multiple: false };
        wire.send(1, &ack);
        let close = connection::Close { reply_code: 320, ..Default::default() };
        wire.send(0, &close);
        // The rest is never read.
    });
    let (connection, publisher, _) = publisher(&peer).await;
    let first = publisher.send(Publish::new("", "q", b"first")).await.unwrap();
    let large = vec![0; 4 << 20];
    let second = publisher.send(Publish::new("", "q", &large)).await.unwrap();
    let cause = within("the end", connection.closed()).await;
    assert!(matches!(cause, CloseCause::ByBroker(_)), "{cause:?}");
    first.await.unwrap();
    assert!(matches!(second.await, Err(PublishError::Unknown(_) | PublishError::NotSent(_))));
    tokio::task::spawn_blocking(|| peer.join()).await.unwrap();
}

/// K12: close-ok goes out behind a write in progress.
#[tokio::test]
async fn a_close_is_answered_behind_a_write_in_progress() {
    let peer = peer(|mut wire| {
        wire.expect("basic.Publish");
        wire.send(0, &connection::Close { reply_code: 320, ..Default::default() });
        // The client's write waits for room; then the answer must be the last thing it sends.
        std::thread::sleep(Duration::from_millis(100));
        expect_close_ok(wire);
    });
    let (connection, publisher, _) = publisher(&peer).await;
    let large = vec![0; 16 << 20];
    let sent = publisher.send(Publish::new("", "q", &large)).await.unwrap();
    within("the end", connection.closed()).await;
    drop(sent);
    tokio::task::spawn_blocking(|| peer.join()).await.unwrap();
}

/// Reads to the end, which must be a close-ok; the content before it may be cut short.
fn expect_close_ok(mut wire: RawConnection) {
    let rest = wire.read_to_end();
    let mut close_ok = Vec::new();
    frame::write_method(&mut close_ok, 0, &connection::CloseOk::default());
    assert!(rest.ends_with(&close_ok), "{:?}", &rest[rest.len().saturating_sub(20)..]);
}

/// BR-38: the model does as RabbitMQ does.
#[tokio::test]
async fn br_38_the_model_closes_as_an_operator_does() {
    let broker = amqp_testkit::ModelBroker::start().unwrap();
    let connector = Connector::new(&broker.uri()).unwrap().recovery(Recovery::never());
    let connection = connector.connect().await.unwrap();
    broker.close_all("because");
    let cause = within("the end", connection.closed()).await;
    let CloseCause::ByBroker(error) = &cause else { panic!("{cause:?}") };
    assert_eq!((error.code.code(), &*error.text), (320, "CONNECTION_FORCED - because"));
}
