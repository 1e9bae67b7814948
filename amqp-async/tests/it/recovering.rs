//! Connections that are lost and recovered: what the driver does with the transports, and what the handles return.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use amqp_async::core::errors::TransportError;
use amqp_async::core::proto::PropertiesRef;
use amqp_async::core::proto::ShortStr;
use amqp_async::core::proto::frame::{self, FrameHead, FrameLimits};
use amqp_async::core::proto::method::{MethodId, basic, channel, confirm, connection};
use amqp_async::core::{AckError, BasicConsume, CloseCause, Error, Publish, PublishError};
use amqp_async::{Connection, ConnectionEvent, Consumer, Plugins, TryRecvError, TrySendError};

use crate::played::Peer;

/// A waker that counts.
#[derive(Default)]
struct Wakes(Arc<Count>);

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Wakes {
    fn poll<F: Future>(&self, future: &mut Pin<Box<F>>) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(&self.0));
        future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn count(&self) -> usize {
        self.0.0.load(Ordering::Relaxed)
    }
}

/// The methods that were written to the transport that was dialled last, after the protocol header.
fn methods(peer: &Peer) -> Vec<String> {
    let limits = FrameLimits { body: u32::MAX, header: u32::MAX, method: u32::MAX };
    let written = std::mem::take(&mut peer.state().written);
    let mut bytes = written.strip_prefix(b"AMQP\0\0\x09\x01").unwrap_or(&written);
    let mut methods = Vec::new();
    while let Some(head) = FrameHead::parse(bytes, limits).unwrap() {
        let end = frame::FRAME_OVERHEAD + head.size as usize;
        if let Ok((method, _)) = MethodId::split(&bytes[frame::FRAME_HEAD..end]) {
            methods.push(format!("{} {method}", head.channel));
        }
        bytes = &bytes[end..];
    }
    assert!(bytes.is_empty(), "half a frame");
    methods
}

/// How many sockets were dialled, and how many of them dropped.
fn sockets(peer: &Peer) -> (u32, u32) {
    let state = peer.state();
    (state.dialled, state.dropped)
}

/// The broker closes the connection.
fn closes(peer: &Peer) {
    peer.sends(0, &connection::Close { reply_code: 320, ..Default::default() });
}

#[test]
fn the_last_bytes_are_written_and_nothing_more_is_read() {
    let (mut peer, connection) = Peer::recovering();
    methods(&peer);
    closes(&peer);
    peer.run();
    assert_eq!(methods(&peer), ["0 connection.close-ok"]);
    assert_eq!(sockets(&peer), (1, 1));

    peer.is_dialled_again();
    peer.state().room = 0;
    closes(&peer);
    peer.run();
    assert_eq!(peer.state().dropped, 1, "it lingers");
    peer.sends(0, &connection::CloseOk::default());
    peer.time_passes(Duration::from_millis(999));
    peer.run();
    assert!(!peer.state().readable.is_empty(), "it is not read");
    peer.state().room = usize::MAX;
    peer.run();
    // The last poll registered the task with the socket.
    peer.poll_driver();
    assert!(methods(&peer).contains(&"0 connection.close-ok".to_owned()));
    assert_eq!(peer.state().dropped, 2);
    assert!(!connection.is_open() && connection.close_cause().is_none());
}

#[test]
fn a_transport_that_takes_nothing_is_dropped_after_a_second() {
    let (mut peer, connection) = Peer::recovering();
    peer.state().room = 0;
    closes(&peer);
    peer.run();
    peer.time_passes(Duration::from_millis(999));
    peer.run();
    assert_eq!(peer.state().dropped, 0);
    peer.time_passes(Duration::from_millis(1));
    peer.run();
    assert_eq!(sockets(&peer), (1, 1));
    peer.is_dialled_again();
    assert!(connection.is_open());
    assert_eq!(
        methods(&peer),
        ["0 connection.start-ok", "0 connection.tune-ok", "0 connection.open"]
    );
}

/// The socket panics if it is used when another was dialled.
#[test]
fn a_transport_that_lingers_is_dropped_when_the_next_is_dialled() {
    let (mut peer, connection) = Peer::recovering();
    peer.state().room = 0;
    closes(&peer);
    peer.run();
    // The driver sleeps through both deadlines.
    peer.is_dialled_again();
    assert_eq!(sockets(&peer), (2, 1));
    assert!(connection.is_open());
}

#[test]
fn a_connection_that_waits_is_closed_at_once() {
    for linger in [false, true] {
        let (mut peer, connection) = Peer::recovering();
        peer.state().room = 0;
        match linger {
            true => closes(&peer),
            false => peer.state().hung_up = true,
        }
        peer.run();
        let drained = peer.resolves(connection.drain(Duration::MAX)).unwrap_err();
        assert!(matches!(drained, Error::Interrupted { maybe_executed: false, .. }), "{drained:?}");
        assert_eq!(peer.resolves(connection.close()), CloseCause::ByClient);
        assert_eq!(peer.poll_driver(), !linger, "what is left is written for a second");
        peer.time_passes(Duration::from_secs(1));
        peer.run();
        assert_eq!(sockets(&peer), (1, 1));
    }
}

/// The future of a connection that is lost again before it is polled.
#[test]
fn connecting_resolves_once_the_connection_was_open() {
    let (mut peer, connecting) = Peer::dialling(Plugins::default());
    peer.run();
    peer.greets(0);
    peer.hangs_up();
    let connection = peer.resolves(connecting).unwrap();
    assert!(!connection.is_open());
    peer.is_dialled_again();
    assert!(connection.is_open());
}

#[test]
fn listeners_hear_of_losses_and_recoveries() {
    let (mut peer, connection) = Peer::recovering();
    let mut events = connection.events();
    let cause = CloseCause::Transport(TransportError::end_of_file());
    for _ in 0..2 {
        peer.hangs_up();
        assert_eq!(events.try_next(), Some(ConnectionEvent::Lost(cause.clone())));
        let (attempt, delay) = (1, Duration::from_secs(5));
        let retrying = ConnectionEvent::Retrying { attempt, delay, cause: cause.clone() };
        assert_eq!(events.try_next(), Some(retrying));
        assert_eq!(events.try_next(), None);
        peer.is_dialled_again();
        assert_eq!(events.try_next(), Some(ConnectionEvent::Recovered { failed: Vec::new() }));
    }
}

/// A consumer of deliveries 1 to 3, which have arrived, on channel 1.
fn consuming(peer: &mut Peer, connection: &Connection, no_ack: bool) -> Consumer {
    let consume = BasicConsume::new("q").consumer_tag("c");
    let mut opening = connection.consume(if no_ack { consume.no_ack() } else { consume });
    assert!(peer.poll(&mut opening).is_pending());
    peer.run();
    peer.sends(1, &channel::OpenOk::default());
    if !no_ack {
        peer.sends(1, &basic::QosOk::default());
    }
    peer.sends(1, &basic::ConsumeOk { consumer_tag: ShortStr::new("c").unwrap() });
    for tag in 1..=3 {
        deliver(peer, tag);
    }
    peer.run();
    peer.resolves(opening).unwrap()
}

fn deliver(peer: &Peer, delivery_tag: u64) {
    let consumer_tag = ShortStr::new("c").unwrap();
    peer.sends(1, &basic::Deliver { consumer_tag, delivery_tag, ..Default::default() });
    let (mut state, body) = (peer.state(), delivery_tag.to_string());
    frame::write_header_ref(&mut state.readable, 1, body.len() as u64, &PropertiesRef::default());
    frame::write_body(&mut state.readable, 1, body.as_bytes());
}

/// The broker restores the channel and its consumer.
fn restores(peer: &mut Peer, no_ack: bool) {
    peer.sends(1, &channel::OpenOk::default());
    if !no_ack {
        peer.sends(1, &basic::QosOk::default());
    }
    peer.sends(1, &basic::ConsumeOk { consumer_tag: ShortStr::new("c").unwrap() });
    peer.run();
}

#[test]
fn deliveries_of_a_lost_transport_are_not_returned() {
    let (mut peer, connection) = Peer::recovering();
    let mut consumer = consuming(&mut peer, &connection, false);
    // The handle has taken all three.
    let first = consumer.try_recv().unwrap();
    peer.hangs_up();
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    assert!(first.is_stale());
    let lost = Error::ConnectionLost(CloseCause::Transport(TransportError::end_of_file()));
    assert_eq!(first.ack(), Err(AckError::Stale(lost)));

    peer.is_dialled_again();
    restores(&mut peer, false);
    methods(&peer);
    deliver(&peer, 1);
    peer.run();
    let again = consumer.try_recv().unwrap();
    assert_eq!((again.body(), again.is_stale()), (&b"1"[..], false));
    again.ack().unwrap();
    peer.run();
    assert_eq!(methods(&peer), ["1 basic.ack"]);
}

#[test]
fn deliveries_without_acknowledgement_outlive_their_transport() {
    let (mut peer, connection) = Peer::recovering();
    let mut consumer = consuming(&mut peer, &connection, true);
    assert_eq!(consumer.try_recv().unwrap().body(), b"1");
    peer.hangs_up();
    assert_eq!(consumer.try_recv().unwrap().body(), b"2");
    peer.is_dialled_again();
    restores(&mut peer, true);
    deliver(&peer, 1);
    peer.run();
    let bodies = [(); 2].map(|()| consumer.try_recv().unwrap().body().to_vec());
    assert_eq!(bodies, [b"3", b"1"]);
}

/// What a handle has taken is not requeued when it is dropped: its tags may be those of other deliveries.
#[test]
fn a_consumer_that_is_dropped_requeues_nothing_of_a_lost_transport() {
    let (mut peer, connection) = Peer::recovering();
    let mut consumer = consuming(&mut peer, &connection, false);
    let (channel, first) = (consumer.channel(), consumer.try_recv().unwrap());
    peer.hangs_up();
    peer.is_dialled_again();
    restores(&mut peer, false);
    deliver(&peer, 1);
    peer.run();
    methods(&peer);
    drop(first);
    drop(consumer);
    peer.run();
    assert_eq!(
        methods(&peer),
        ["1 basic.cancel", "1 basic.nack"],
        "the one that has arrived since"
    );
    assert_eq!(connection.stats().dropped, 0);
    drop(channel);
}

#[test]
fn a_channel_has_a_number_while_it_has_a_transport() {
    let (mut peer, connection) = Peer::recovering();
    let channel = peer.open_channel(&connection);
    assert_eq!(channel.number(), Some(1));
    peer.hangs_up();
    assert_eq!((channel.number(), channel.is_open(), channel.close_cause()), (None, false, None));
    let mut opening = connection.open_channel();
    assert!(peer.poll(&mut opening).is_pending());
    peer.is_dialled_again();
    peer.sends(1, &channel::OpenOk::default());
    peer.run();
    // It is opened when the first one is restored.
    peer.sends(2, &channel::OpenOk::default());
    peer.run();
    let second = peer.resolves(opening).unwrap();
    assert_eq!((channel.number(), second.number()), (Some(1), Some(2)));
    assert!(channel.is_open() && second.is_open());
}

#[test]
fn a_publish_waits_until_the_connection_is_recovered() {
    let (mut peer, connection) = Peer::recovering();
    let mut opening = connection.publisher();
    assert!(peer.poll(&mut opening).is_pending());
    peer.run();
    peer.sends(1, &channel::OpenOk::default());
    peer.sends(1, &confirm::SelectOk::default());
    peer.run();
    let publisher = peer.resolves(opening).unwrap();
    let publish = || Publish::new("", "q", b"x");
    let mut open = publisher.publish(publish());
    assert!(peer.poll(&mut open).is_pending());
    peer.run();
    let mut unsent = publisher.publish(publish());
    assert!(peer.poll(&mut unsent).is_pending());

    peer.hangs_up();
    let unknown = peer.resolves(open).unwrap_err();
    assert!(matches!(unknown, PublishError::Unknown(_)), "{unknown:?}");
    let not_sent = peer.resolves(unsent).unwrap_err();
    assert!(matches!(not_sent, PublishError::NotSent(_)), "{not_sent:?}");

    let woken = Wakes::default();
    let mut waiting = [(); 3].map(|()| Box::pin(publisher.publish(publish())));
    for publishing in &mut waiting {
        assert!(woken.poll(publishing).is_pending());
    }
    assert_eq!(publisher.try_send(publish()).unwrap_err(), TrySendError::Recovering);
    peer.is_dialled_again();
    assert_eq!(woken.count(), 0, "not before the channel is restored");
    peer.sends(1, &channel::OpenOk::default());
    peer.sends(1, &confirm::SelectOk::default());
    peer.run();
    for (number, publishing) in waiting.iter_mut().enumerate() {
        assert_eq!(woken.count(), number + 1, "one after the other");
        assert!(woken.poll(publishing).is_pending());
    }
    peer.run();
    peer.sends(1, &basic::Ack { delivery_tag: 3, multiple: true });
    peer.run();
    for publishing in &mut waiting {
        assert_eq!(woken.poll(publishing), Poll::Ready(Ok(())));
    }
}

/// Those in the driver and those in the core, whether the transport fails or the broker closes the connection.
#[test]
fn r13_publishes_that_were_not_written_are_reported_once() {
    for by_broker in [false, true] {
        let (mut peer, connection) = Peer::recovering();
        let channel = peer.open_channel(&connection);
        peer.state().room = 0;
        let publish = || channel.basic_publish(Publish::new("", "q", b"x"));
        for _ in 0..2 {
            peer.resolves(publish()).unwrap();
        }
        // The driver takes these, and not the next one.
        peer.run();
        peer.resolves(publish()).unwrap();
        match by_broker {
            true => closes(&peer),
            false => peer.state().hung_up = true,
        }
        peer.run();
        peer.is_dialled_again();
        peer.sends(1, &channel::OpenOk::default());
        peer.run();
        let lost = peer.resolves(publish()).unwrap_err();
        assert!(matches!(lost, Error::PublishesLost { count: 3, .. }), "{by_broker}: {lost:?}");
        peer.resolves(publish()).unwrap();
    }
}
