//! Heartbeats, deadlines of calls, closes that are not answered: in virtual time.

use std::time::Duration;

use amqp_core::proto::method::{basic, connection, queue};
use amqp_core::proto::{ShortStr, frame};
use amqp_core::{
    BasicQos, CloseCause, Config, Error, Event, Heartbeat, QueueDeclare, Recovery, TimeoutReason,
};

use crate::peer::Peer;

const SECOND: Duration = Duration::from_secs(1);

/// K7: a sign of life at least every half interval, and none where there was output.
#[test]
fn heartbeats_go_out_when_nothing_else_does() {
    let mut peer = Peer::open();
    peer.channel(1);
    peer.pass(5 * SECOND - Duration::from_millis(1));
    assert_eq!(peer.methods(), [] as [&str; 0]);
    peer.pass(Duration::from_millis(1));
    assert_eq!(peer.methods(), ["Heartbeat"]);
    peer.send_bytes(&frame::HEARTBEAT);
    peer.pass(3 * SECOND);
    let id = peer.session.open_channel(peer.now).unwrap().0;
    assert_eq!(peer.methods(), ["channel.Open"]);
    peer.pass(3 * SECOND);
    assert_eq!(peer.methods(), [] as [&str; 0], "3 s after output, {id:?}");
    peer.pass(2 * SECOND);
    assert_eq!(peer.methods(), ["Heartbeat"]);
}

/// K6: any byte is a sign of life; two silent intervals are death.
#[test]
fn silence_of_two_intervals_ends_the_connection() {
    let mut peer = Peer::open();
    peer.pass(19 * SECOND);
    // Not even a whole frame.
    peer.send_bytes(&frame::HEARTBEAT[..1]);
    peer.pass(20 * SECOND - Duration::from_millis(1));
    assert_eq!(peer.session.cause(), None);
    peer.pass(Duration::from_millis(1));
    assert_eq!(peer.cause(), CloseCause::HeartbeatTimeout { silence: 20 * SECOND });
}

/// K6: a driver hands the rest of a frame in again and again; that is no sign of life.
#[test]
fn half_a_frame_is_a_sign_of_life_once() {
    let mut peer = Peer::open();
    peer.send_bytes(&frame::HEARTBEAT[..5]);
    for _ in 0..19 {
        peer.pass(SECOND);
        peer.send_bytes(&[]);
        assert_eq!(peer.session.cause(), None);
    }
    peer.pass(SECOND);
    assert_eq!(peer.cause(), CloseCause::HeartbeatTimeout { silence: 20 * SECOND });
}

/// The usual way to say "no time-out" must not overflow.
#[test]
fn the_longest_time_outs_are_harmless() {
    let config = Config::default()
        .connect_timeout(Duration::MAX)
        .address_timeout(Duration::MAX)
        .call_timeout(Duration::MAX)
        .close_timeout(Duration::MAX);
    let mut peer = Peer::open_with(config);
    peer.channel(1);
    peer.session.close(peer.now);
    assert_eq!(peer.methods(), ["connection.Close"]);
}

/// K8
#[test]
fn without_heartbeats_there_is_no_timer() {
    let config = Config::default().heartbeat(Heartbeat::Seconds(0));
    let mut peer = Peer::open_with(config);
    assert_eq!(peer.session.poll_timeout(), None);
}

/// H1: the late reply is consumed, and the next call gets its own.
#[test]
fn a_late_reply_does_no_harm() {
    let config = Config::default().heartbeat(Heartbeat::Seconds(0));
    let mut peer = Peer::open_with(config);
    let channel = peer.channel(1);
    let slow = peer.session.channel(channel).call(peer.now, &BasicQos::new(1)).unwrap();
    let (deadline, reason) = peer.session.poll_timeout().unwrap();
    assert_eq!((deadline - peer.now, reason), (30 * SECOND, TimeoutReason::Call));
    peer.pass(30 * SECOND);
    assert_eq!(peer.events(), [Event::CallDone(slow.key())]);
    let error = peer.session.take_reply(&slow).unwrap().unwrap_err();
    assert!(matches!(error, Error::Deadline { method, .. } if method.to_string() == "basic.qos"));
    assert!(peer.session.take_reply(&slow).is_none());

    let declare = QueueDeclare::new("q");
    let next = peer.session.channel(channel).call(peer.now, &declare).unwrap();
    peer.send(1, &basic::QosOk::default());
    assert_eq!(peer.events(), []);
    let queue = ShortStr::new("q").unwrap();
    peer.send(1, &queue::DeclareOk { queue, message_count: 7, consumer_count: 0 });
    assert_eq!(peer.events(), [Event::CallDone(next.key())]);
    assert_eq!(peer.session.take_reply(&next).unwrap().unwrap().message_count, 7);
}

/// K10
#[test]
fn a_close_that_is_not_answered_is_forced() {
    let mut peer = Peer::open();
    peer.session.close(peer.now);
    assert_eq!(peer.methods(), ["connection.Close"]);
    peer.pass(10 * SECOND - Duration::from_millis(1));
    assert_eq!(peer.session.cause(), None);
    peer.pass(Duration::from_millis(1));
    assert_eq!(peer.cause(), CloseCause::ByClientForced);
}

/// A spurious call changes nothing.
#[test]
fn handle_timeout_is_idempotent() {
    let mut peer = Peer::open();
    let before = peer.session.poll_timeout();
    peer.session.handle_timeout(peer.now);
    peer.session.handle_timeout(peer.now);
    assert_eq!(peer.session.poll_timeout(), before);
    assert_eq!(peer.methods(), [] as [&str; 0]);
}

/// PK-32: the first `blocked` counts, and `unblocked` ends the wait.
#[test]
fn a_connection_that_is_blocked_for_too_long_ends() {
    let config =
        || Config::default().blocked_timeout(Duration::from_secs(5)).recovery(Recovery::never());
    let blocked = connection::Blocked { reason: ShortStr::new("low on memory").unwrap() };
    let mut peer = Peer::open_with(config());
    peer.send(0, &blocked);
    peer.pass(Duration::from_secs(4));
    peer.send(0, &blocked);
    peer.send(0, &connection::Unblocked::default());
    peer.pass(Duration::from_secs(6));
    assert_eq!(peer.session.cause(), None);
    peer.send(0, &blocked);
    peer.pass(Duration::from_secs(4));
    peer.send(0, &blocked);
    peer.pass(Duration::from_secs(1));
    let cause = peer.cause();
    assert_eq!(cause.to_string(), "blocked by the broker for 5 s: low on memory");
}

/// Row 15 of the fault matrix.
#[test]
fn a_transport_that_takes_no_bytes_is_dead_unless_the_broker_has_said_so() {
    let stall = |peer: &mut Peer, blocked: bool| {
        if blocked {
            peer.send(0, &connection::Blocked::default());
        }
        let mut out = amqp_core::Transmit::new();
        let id = peer.session.open_channel(peer.now).unwrap().0;
        let _ = id;
        assert!(peer.session.poll_transmit(peer.now, &mut out));
        for _ in 0..6 {
            peer.pass(Duration::from_secs(6));
            // It lives, and talks.
            peer.send_bytes(&frame::HEARTBEAT);
        }
        peer.session.cause().cloned()
    };
    let cause = stall(&mut Peer::open(), false);
    let Some(CloseCause::WriteTimeout { stalled }) = cause else { panic!("{cause:?}") };
    assert_eq!(stalled, Duration::from_secs(20));
    assert_eq!(stall(&mut Peer::open(), true), None);

    // A slow one lives: some bytes are progress.
    let mut peer = Peer::open();
    let mut out = amqp_core::Transmit::new();
    peer.session.open_channel(peer.now).unwrap();
    let before = peer.written_in_all;
    assert!(peer.session.poll_transmit(peer.now, &mut out));
    for byte in 1..8 {
        peer.pass(Duration::from_secs(15));
        peer.send_bytes(&frame::HEARTBEAT);
        peer.session.handle_written(peer.now, peer.attempt, before + byte);
    }
    assert_eq!(peer.session.cause(), None);
}
