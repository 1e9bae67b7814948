//! Deadlines and failed writes, against what the socket holds.

use std::time::Duration;

use amqp_async::core::errors::TlsErrorKind;
use amqp_async::core::proto::frame::{self, HEARTBEAT};
use amqp_async::core::proto::method::queue;
use amqp_async::core::{CloseCause, Error, Publish, QueuePurge};

use crate::played::Peer;

/// A process that was suspended: time has passed, and the runtime's timer is told before its sockets.
fn suspended(peer: &mut Peer, unnoticed: &[u8]) {
    peer.time_passes(Duration::from_secs(35));
    let mut state = peer.state();
    state.unnoticed.extend_from_slice(unnoticed);
    state.rescheduled = 0;
}

#[test]
fn a_suspended_process_asks_its_sockets_before_it_declares_a_peer_dead() {
    let (mut peer, connection) = Peer::open(10);
    for _ in 0..3 {
        suspended(&mut peer, &HEARTBEAT);
        peer.run();
        assert_eq!(connection.close_cause(), None);
        assert!(peer.state().rescheduled > 0, "the runtime was asked");
    }
}

/// The application goes on too, and wakes the driver before the runtime has looked.
#[test]
fn another_wake_does_not_count_as_a_look_at_the_sockets() {
    let (mut peer, connection) = Peer::open(10);
    let channel = peer.open_channel(&connection);
    suspended(&mut peer, &HEARTBEAT);
    peer.poll_driver();
    for _ in 0..3 {
        peer.resolves(channel.basic_publish(Publish::new("", "q", b"x"))).unwrap();
        peer.poll_driver();
        assert_eq!(connection.close_cause(), None);
    }
    peer.run();
    assert_eq!(connection.close_cause(), None);
}

#[test]
fn a_silent_peer_is_dead_one_poll_later() {
    let (mut peer, connection) = Peer::open(10);
    suspended(&mut peer, b"");
    assert!(!peer.poll_driver());
    assert_eq!((connection.close_cause(), peer.state().rescheduled), (None, 1));
    peer.look();
    assert!(peer.is_woken());
    peer.poll_driver();
    let cause = connection.close_cause();
    assert!(matches!(cause, Some(CloseCause::HeartbeatTimeout { .. })), "{cause:?}");
}

#[test]
fn a_reply_that_has_come_counts_before_its_deadline() {
    for replied in [true, false] {
        let (mut peer, connection) = Peer::open(0);
        let channel = peer.open_channel(&connection);
        let mut purging = channel.queue_purge(QueuePurge::new("q"));
        assert!(peer.poll(&mut purging).is_pending());
        peer.run();
        let mut reply = Vec::new();
        if replied {
            let purged = queue::PurgeOk { message_count: 7 };
            frame::write_method(&mut reply, 1, &purged);
        }
        suspended(&mut peer, &reply);
        peer.run();
        match peer.resolves(purging) {
            Ok(count) => assert!(replied && count.message_count == 7),
            Err(error) => assert!(!replied && matches!(error, Error::Deadline { .. }), "{error}"),
        }
        assert_eq!(peer.state().rescheduled, 1, "one poll more for one deadline");
    }
}

/// A server that refuses a client resets the socket behind its alert. The client may write before it reads the alert.
#[test]
fn an_alert_says_more_than_the_reset_behind_it() {
    for (kind, reported) in [
        (TlsErrorKind::ClientCertificateMissing, Some(TlsErrorKind::ClientCertificateMissing)),
        // Only that the end came without a farewell: the reset says why.
        (TlsErrorKind::Truncated, None),
    ] {
        let (mut peer, connection) = Peer::open(0);
        let channel = peer.open_channel(&connection);
        peer.state().refused = Some(kind);
        // The driver writes before it reads.
        peer.state().hidden = true;
        peer.resolves(channel.basic_publish(Publish::new("", "q", b"x"))).unwrap();
        peer.poll_driver();
        assert_eq!(connection.close_cause(), None, "it goes on to read");
        peer.state().hidden = false;
        peer.poll_driver();
        match connection.close_cause() {
            Some(CloseCause::Transport(error)) => assert_eq!(error.tls, reported, "{error}"),
            other => panic!("{other:?}"),
        }
    }
}

/// A deadline does not wait for the end of what never ends.
#[test]
fn a_peer_that_never_stops_sending_puts_off_no_deadline() {
    let (mut peer, connection) = Peer::open(0);
    let channel = peer.open_channel(&connection);
    let mut purging = channel.queue_purge(QueuePurge::new("q"));
    assert!(peer.poll(&mut purging).is_pending());
    peer.run();
    peer.state().endless.extend_from_slice(&HEARTBEAT);
    suspended(&mut peer, b"");
    for _ in 0..3 {
        peer.poll_driver();
        peer.look();
    }
    let error = peer.resolves(purging).unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
}
