//! What a drain waits for: each condition alone.

use std::time::Duration;

use amqp_core::proto::ShortStr;
use amqp_core::proto::method::{basic, confirm, connection, tx};
use amqp_core::requests::{ConfirmSelect, TxRollback, TxSelect};
use amqp_core::types::Secret;
use amqp_core::{BasicQos, Call, Error, Event, Publish};

use crate::contents::{consume, consuming, each_way};
use crate::peer::Peer;

fn drain(peer: &mut Peer) -> Call<()> {
    peer.session.drain(peer.now, Duration::from_secs(30)).unwrap()
}

/// Whether the drain is done, once all that is to be written has been.
fn is_done(peer: &mut Peer, drain: &Call<()>) -> bool {
    peer.methods();
    peer.write();
    peer.events();
    peer.session.take_reply(drain).is_some()
}

fn cancelled(peer: &mut Peer) {
    peer.send(1, &basic::CancelOk { consumer_tag: ShortStr::new("t").unwrap() });
}

#[test]
fn publishes_are_waited_for_until_their_confirms() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    peer.session.channel(id).call(peer.now, &ConfirmSelect::default()).unwrap();
    peer.send(1, &confirm::SelectOk::default());
    peer.session.channel(id).publish(&Publish::new("", "q", b"x")).unwrap();
    let draining = drain(&mut peer);
    assert!(!is_done(&mut peer, &draining));
    peer.send(1, &basic::Ack { delivery_tag: 1, multiple: false });
    assert!(is_done(&mut peer, &draining));
}

#[test]
fn calls_are_waited_for_until_their_answers() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    peer.session.channel(id).call(peer.now, &BasicQos::new(1)).unwrap();
    let draining = drain(&mut peer);
    assert!(!is_done(&mut peer, &draining));
    peer.send(1, &basic::QosOk::default());
    assert!(is_done(&mut peer, &draining));

    peer.session.update_secret(peer.now, &Secret::new("s"), "r").unwrap();
    let draining = drain(&mut peer);
    assert!(!is_done(&mut peer, &draining));
    peer.send(0, &connection::UpdateSecretOk::default());
    assert!(is_done(&mut peer, &draining));

    // The cancels of the drain itself are calls too.
    let mut peer = Peer::open();
    consuming(&mut peer, &consume());
    let draining = drain(&mut peer);
    assert!(!is_done(&mut peer, &draining));
    cancelled(&mut peer);
    assert!(is_done(&mut peer, &draining));
}

#[test]
fn deliveries_are_waited_for_until_they_are_acked_or_dropped() {
    for drop in [false, true] {
        each_way(|mut peer| {
            let (id, consumer) = consuming(&mut peer, &consume());
            peer.deliver(1, 1, b"");
            let held = peer.session.channel(id).next_delivery(consumer).unwrap().tag;
            let draining = drain(&mut peer);
            cancelled(&mut peer);
            assert!(!is_done(&mut peer, &draining));
            match drop {
                true => assert!(peer.session.channel(id).drop_unacked(held)),
                false => peer.session.channel(id).ack(held, false).unwrap(),
            }
            assert!(is_done(&mut peer, &draining));
        });
    }
}

#[test]
fn what_needs_no_acknowledgement_is_waited_for_until_it_is_read() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume().no_ack());
        peer.deliver(1, 1, b"");
        let draining = drain(&mut peer);
        cancelled(&mut peer);
        assert!(!is_done(&mut peer, &draining));
        peer.session.channel(id).next_delivery(consumer).unwrap();
        assert!(is_done(&mut peer, &draining));
    });
}

#[test]
fn bytes_are_waited_for_until_they_are_written() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    peer.methods();
    peer.session.channel(id).publish(&Publish::new("", "q", b"x")).unwrap();
    let draining = drain(&mut peer);
    peer.events();
    assert!(peer.session.take_reply(&draining).is_none(), "they wait");
    let mut out = amqp_core::Transmit::new();
    assert!(peer.session.poll_transmit(peer.now, &mut out));
    peer.events();
    assert!(peer.session.take_reply(&draining).is_none(), "they are on their way");
    let written = peer.written_in_all + out.to_vec().len() as u64;
    peer.session.handle_written(peer.now, peer.attempt, written);
    peer.events();
    assert!(peer.session.take_reply(&draining).is_some());
}

/// An acked delivery has no holder, and a rollback does not bring one back. It can be acked again by its tag,
/// and the drain does not wait for it.
#[test]
fn what_a_rollback_opens_again_is_not_waited_for() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.session.channel(id).call(peer.now, &TxSelect::default()).unwrap();
        peer.send(1, &tx::SelectOk::default());
        (1..=4).for_each(|tag| peer.deliver(1, tag, b""));
        let mut channel = peer.session.channel(id);
        let tags: [_; 4] = std::array::from_fn(|_| channel.next_delivery(consumer).unwrap().tag);
        // One is acked, one dropped, one acked after it was dropped, one is held.
        channel.ack(tags[0], false).unwrap();
        channel.drop_unacked(tags[1]);
        channel.drop_unacked(tags[2]);
        channel.nack(tags[2], false, true).unwrap();
        channel.call(peer.now, &TxRollback::default()).unwrap();
        peer.send(1, &tx::RollbackOk::default());
        assert_eq!(peer.session.connection().stats().unacked, 1);
        let draining = drain(&mut peer);
        cancelled(&mut peer);
        assert!(!is_done(&mut peer, &draining));
        let mut channel = peer.session.channel(id);
        channel.ack(tags[3], false).unwrap();
        assert!(is_done(&mut peer, &draining), "acked, committed or not");
        for tag in &tags[..3] {
            peer.session.channel(id).ack(*tag, false).unwrap();
        }
        assert!(peer.session.channel(id).ack(tags[3], false).is_err());
    });
}

#[test]
fn a_drain_ends_when_nothing_is_under_way() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.deliver(1, 1, b"");
        peer.events();
        let drain = peer.session.drain(peer.now, Duration::from_secs(30)).unwrap();
        assert_eq!(peer.methods(), ["basic.Cancel"]);
        let delivery = peer.session.channel(id).next_delivery(consumer).unwrap();
        cancelled(&mut peer);
        assert!(peer.session.take_reply(&drain).is_none());
        peer.session.channel(id).ack(delivery.tag, false).unwrap();
        peer.events();
        assert!(peer.session.take_reply(&drain).is_none(), "the ack is not written");
        peer.write();
        peer.write();
        assert_eq!(peer.events(), [Event::CallDone(drain.key())]);
        assert_eq!(peer.session.take_reply(&drain), Some(Ok(())));

        let drain = peer.session.drain(peer.now, Duration::from_secs(30)).unwrap();
        assert_eq!(peer.events(), [Event::CallDone(drain.key())], "there was nothing to do");
    });
}

#[test]
fn a_drain_ends_by_its_deadline() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.deliver(1, 1, b"");
        let delivery = peer.session.channel(id).next_delivery(consumer).unwrap();
        let drain = peer.session.drain(peer.now, Duration::from_secs(3)).unwrap();
        cancelled(&mut peer);
        peer.write();
        peer.pass(Duration::from_secs(2));
        assert_eq!(peer.session.take_reply(&drain), None);
        peer.pass(Duration::from_secs(1));
        let error = peer.session.take_reply(&drain).unwrap().unwrap_err();
        assert_eq!(error, Error::DrainTimeout { unconfirmed: 0, unacked: 1 });
        peer.session.channel(id).ack(delivery.tag, false).unwrap();
        assert_eq!(peer.session.connection().stats().open_calls, 0);
        // The next one does not wait for it.
        let drain = peer.session.drain(peer.now, Duration::from_secs(3)).unwrap();
        peer.write();
        peer.events();
        assert_eq!(peer.session.take_reply(&drain), Some(Ok(())));
        // One that the connection does not survive.
        let drain = peer.session.drain(peer.now, Duration::from_secs(3)).unwrap();
        peer.lose();
        assert!(matches!(peer.session.take_reply(&drain), Some(Err(Error::Connection(_)))));
    });
}

#[test]
fn a_drain_that_nobody_awaits_ends() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.deliver(1, 1, b"");
        let held = peer.session.channel(id).next_delivery(consumer).unwrap();
        for _ in 0..10 {
            let drain = peer.session.drain(peer.now, Duration::from_secs(3_600)).unwrap();
            peer.session.forget(peer.now, drain.key());
        }
        cancelled(&mut peer);
        assert_eq!(peer.session.connection().stats().open_calls, 0);
        let (_, reason) = peer.session.poll_timeout().unwrap();
        assert_ne!(reason, amqp_core::TimeoutReason::Call);
        peer.session.channel(id).ack(held.tag, false).unwrap();
    });
}
