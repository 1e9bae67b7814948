//! Losses: which of them are recovered, when, and what a loss during recovery does.

use std::time::Duration;

use amqp_core::errors::{ConnectFailure, TransportError};
use amqp_core::proto::ShortStr;
use amqp_core::proto::method::connection;
use amqp_core::{
    Action, Backoff, BasicConsume, CloseCause, Config, ConnectError, Event, PublishRefused,
    QueuePurge, Recovery, TimeoutReason,
};

use super::{grant, has_recovered, recover, recovering, wire};
use crate::peer::{Peer, start};

fn close_by_broker(peer: &mut Peer, code: u16) {
    let reply_text = ShortStr::new("CONNECTION_FORCED - test").unwrap();
    let close = connection::Close { reply_code: code, reply_text, class_id: 0, method_id: 0 };
    peer.send(0, &close);
}

fn has_lost(events: &[Event], expected: impl Fn(&CloseCause) -> bool) -> bool {
    events.iter().any(|event| matches!(event, Event::Lost(cause) if expected(cause)))
}

#[test]
fn a_close_by_the_broker_is_answered_and_recovered() {
    let mut peer = recovering();
    close_by_broker(&mut peer, 320);
    assert_eq!(peer.methods(), ["connection.CloseOk"], "written before the transport is dropped");
    peer.session.handle_disconnected(peer.now, peer.attempt, TransportError::end_of_file(), 0);
    assert!(recover(&mut peer).is_empty());
    assert!(has_recovered(&peer.events()));

    let policy = Recovery::unless_closed_by_broker();
    let mut peer = Peer::open_with(Config::default().recovery(policy));
    close_by_broker(&mut peer, 320);
    assert!(matches!(peer.cause(), CloseCause::ByBroker(_)));
}

#[test]
fn silence_and_violations_are_recovered() {
    let mut peer = recovering();
    peer.pass(Duration::from_secs(20));
    let events = peer.events();
    assert!(has_lost(&events, |cause| matches!(cause, CloseCause::HeartbeatTimeout { .. })));
    assert!(recover(&mut peer).is_empty());
    peer.send_bytes(&[1, 0, 0, 0, 0, 0, 1, 0, 0]);
    let events = peer.events();
    assert!(has_lost(&events, |cause| matches!(cause, CloseCause::Protocol(_))), "{events:?}");
    assert_eq!(peer.methods(), ["connection.Close"], "the broker is told why");
    assert!(recover(&mut peer).is_empty());
}

#[test]
fn r2_nothing_comes_back_after_a_close() {
    // While the session waits, dials, shakes hands, restores.
    for step in 0..4 {
        let mut peer = recovering();
        let id = peer.channel(1);
        let call = peer.session.channel(id).call(peer.now, &QueuePurge::new("q")).unwrap();
        peer.lose();
        peer.events();
        match step {
            0 => {}
            1 => peer.redial(),
            2 => {
                peer.redial();
                peer.send(0, &start(b"PLAIN"));
            }
            _ => peer.reconnect(),
        }
        peer.methods();
        peer.session.close(peer.now);
        if step == 3 {
            assert_eq!(peer.methods(), ["connection.Close"]);
            peer.send(0, &connection::CloseOk::default());
        }
        assert_eq!(peer.cause(), CloseCause::ByClient, "{step}");
        assert!(peer.session.take_reply(&call).unwrap().is_err());
        assert_eq!(peer.events().last(), Some(&Event::Closed(CloseCause::ByClient)));
        let actions: Vec<_> = std::iter::from_fn(|| peer.session.poll_action()).collect();
        assert!(matches!(actions.last(), Some(Action::Finish { .. })), "{actions:?}");
        assert_eq!(peer.session.poll_timeout(), None);
    }
}

/// Nothing of our close is written yet.
#[test]
fn r2_a_close_by_the_broker_does_not_undo_ours() {
    let mut peer = recovering();
    let id = peer.channel(1);
    peer.session.close(peer.now);
    close_by_broker(&mut peer, 320);
    assert_eq!(peer.cause(), CloseCause::ByClient);
    assert!(!peer.session.channel(id).is_open());
    assert_eq!(peer.methods(), ["connection.CloseOk"]);
    assert_eq!(peer.session.poll_timeout(), None);
}

#[test]
fn r3_a_loss_during_recovery_begins_anew() {
    let mut peer = recovering();
    let id = peer.confirming();
    let consume = BasicConsume::new("q").consumer_tag("t");
    let call = peer.session.channel(id).consume(peer.now, &consume).unwrap();
    let frames = wire(&mut peer);
    grant(&mut peer, &frames);
    peer.session.take_reply(&call).unwrap().unwrap();
    let expected = ["1 channel.Open", "1 confirm.Select", "1 qos 256", "1 consume q as t"];
    for answered in 0..4 {
        peer.lose();
        peer.reconnect();
        assert_eq!(wire(&mut peer), expected);
        grant(&mut peer, &frames_of(&expected[..answered]));
        assert!(!has_recovered(&peer.events()));
        let refused = peer.session.channel(id).publish(&amqp_core::Publish::new("", "q", b"hi"));
        assert_eq!(refused, Err(PublishRefused::Full));
    }
    // Also before the connection is open.
    peer.lose();
    peer.redial();
    peer.lose();
    peer.reconnect();
    assert_eq!(wire(&mut peer), expected);
    grant(&mut peer, &frames_of(&expected));
    let events = peer.events();
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Recovered(_))).count(), 1);
    assert_eq!(peer.session.connection().stats().consumers, 1);
}

fn frames_of(frames: &[&str]) -> Vec<String> {
    frames.iter().map(|frame| (*frame).to_owned()).collect()
}

#[test]
fn r10_attempts_have_growing_delays_and_a_limit() {
    let backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(4)).jitter(0.0);
    let policy = Recovery::automatic().backoff(backoff).attempts(4);
    let mut peer = Peer::open_with(Config::default().recovery(policy));
    peer.lose();
    let mut delays = Vec::new();
    while peer.session.cause().is_none() {
        let (due, reason) = peer.session.poll_timeout().unwrap();
        assert_eq!(reason, TimeoutReason::Retry);
        delays.push((due - peer.now).as_secs());
        peer.redial();
        peer.lose();
    }
    assert_eq!(delays, [1, 2, 4, 4]);
    let CloseCause::Connect(error) = peer.cause() else { panic!("{:?}", peer.cause()) };
    assert!(matches!(&*error, ConnectError::Failed { attempts } if attempts.len() == 1));

    // Once the connection was recovered, the delays begin anew.
    let backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(4)).jitter(0.0);
    let mut peer =
        Peer::open_with(Config::default().recovery(Recovery::automatic().backoff(backoff)));
    for _ in 0..3 {
        peer.lose();
        assert_eq!(peer.session.poll_timeout().unwrap().0, peer.now + Duration::from_secs(1));
        recover(&mut peer);
    }
}

#[test]
fn r12_a_refused_login_is_not_tried_again_unless_asked() {
    let refuse = |peer: &mut Peer| {
        peer.redial();
        peer.send(0, &start(b"PLAIN"));
        peer.methods();
        close_by_broker(peer, 403);
    };
    let mut peer = recovering();
    peer.lose();
    refuse(&mut peer);
    assert!(matches!(peer.failure(), ConnectFailure::Authentication(_)));

    let policy = Recovery::automatic().retry_refused(true);
    let mut peer = Peer::open_with(Config::default().recovery(policy));
    peer.lose();
    for _ in 0..3 {
        refuse(&mut peer);
        assert_eq!(peer.session.cause(), None);
    }
    assert!(recover(&mut peer).is_empty());
}

/// The first connection that fails returns its error, whatever the policy says.
#[test]
fn a_first_connection_that_fails_starts_no_recovery() {
    let mut peer = Peer::connected(Config::default().recovery(Recovery::automatic()));
    peer.lose();
    assert!(matches!(peer.failure(), ConnectFailure::Lost { .. }));
}

/// A broker that accepts the login, and then answers nothing.
#[test]
fn a_broker_that_restores_nothing_is_left() {
    let mut peer = recovering();
    peer.channel(1);
    peer.lose();
    peer.reconnect();
    assert_eq!(wire(&mut peer), ["1 channel.Open"]);
    peer.events();
    for _ in 0..30 {
        peer.send_bytes(&amqp_core::proto::frame::HEARTBEAT);
        peer.pass(Duration::from_secs(1));
    }
    let events = peer.events();
    assert!(has_lost(&events, |cause| matches!(cause, CloseCause::Transport(_))), "{events:?}");
    recover(&mut peer);
    assert!(has_recovered(&peer.events()));
}
