//! Unacknowledged deliveries: each is acked once. The effects of recover, rollback and streams.

use amqp_core::proto::RawProperties;
use amqp_core::proto::method::basic;
use amqp_core::requests::{BasicRecover, TxCommit, TxRollback, TxSelect};
use amqp_core::{AckError, BasicConsume, BasicGet, Event};

use crate::contents::{consume, consuming, each_way};

/// N3: RabbitMQ would close the channel.
#[test]
fn a_delivery_is_acked_once() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        (1..=5).for_each(|tag| peer.deliver(1, tag, b""));
        let mut channel = peer.session.channel(id);
        let tags: Vec<_> =
            std::iter::from_fn(|| channel.next_delivery(consumer)).map(|it| it.tag).collect();
        channel.ack(tags[1], false).unwrap();
        assert_eq!(channel.nack(tags[1], false, true), Err(AckError::AlreadyAcked(2)));
        assert_eq!(channel.ack(tags[1], true), Err(AckError::AlreadyAcked(2)));
        channel.ack(tags[3], true).unwrap();
        // Nothing below is open: both acks are one.
        for tag in [0, 1, 2, 3] {
            assert!(matches!(channel.reject(tags[tag], true), Err(AckError::AlreadyAcked(_))));
        }
        channel.reject(tags[4], true).unwrap();
        assert_eq!(peer.methods(), ["basic.Ack", "basic.Reject"]);
    });
}

/// N4: nothing is sent, and it is told and counted.
#[test]
fn a_delivery_that_is_given_up_is_told() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.deliver(1, 1, b"");
        peer.events();
        let delivery = peer.session.channel(id).next_delivery(consumer).unwrap();
        assert_eq!(peer.session.connection().stats().unacked, 1);
        assert!(peer.session.channel(id).drop_unacked(delivery.tag));
        assert!(!peer.session.channel(id).drop_unacked(delivery.tag));
        assert_eq!(peer.events(), [Event::Dropped(id)]);
        let stats = peer.session.connection().stats();
        assert_eq!((stats.unacked, stats.dropped), (0, 1));
        assert!(peer.methods().is_empty());
        // It can still be acked by its tag.
        peer.session.channel(id).ack(delivery.tag, false).unwrap();
        assert!(!peer.session.channel(id).drop_unacked(delivery.tag));
        assert!(peer.events().is_empty());
    });
}

#[test]
fn a_rollback_lets_deliveries_be_acked_again() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.session.channel(id).call(peer.now, &TxSelect::default()).unwrap();
        peer.deliver(1, 1, b"");
        let mut channel = peer.session.channel(id);
        let tag = channel.next_delivery(consumer).unwrap().tag;
        channel.ack(tag, false).unwrap();
        assert_eq!(channel.ack(tag, false), Err(AckError::AlreadyAcked(1)));
        channel.call(peer.now, &TxRollback::default()).unwrap();
        channel.nack(tag, false, true).unwrap();
        channel.call(peer.now, &TxCommit::default()).unwrap();
        channel.call(peer.now, &TxRollback::default()).unwrap();
        assert_eq!(channel.ack(tag, false), Err(AckError::AlreadyAcked(1)));
    });
}

/// BR-2: what was delivered before the answer is requeued, and comes again.
#[test]
fn recover_makes_earlier_deliveries_stale() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.deliver(1, 1, b"");
        peer.deliver(1, 2, b"");
        let first = peer.session.channel(id).next_delivery(consumer).unwrap();
        let call = peer.session.channel(id).call(peer.now, &BasicRecover::default()).unwrap();
        assert_eq!(peer.session.channel(id).ack(first.tag, false), Err(AckError::Recovered(1)));
        peer.deliver(1, 3, b"");
        peer.send(1, &basic::RecoverOk::default());
        assert_eq!(peer.session.take_reply(&call), Some(Ok(())));
        assert_eq!(peer.session.channel(id).ack(first.tag, false), Err(AckError::Recovered(1)));
        peer.session.channel(id).drop_unacked(first.tag);
        assert!(!peer.events().contains(&Event::Dropped(id)), "it is requeued");
        (4..=6).for_each(|tag| peer.deliver(1, tag, b""));
        peer.methods();
        let mut tags = Vec::new();
        while let Some(delivery) = peer.session.channel(id).next_delivery(consumer) {
            tags.push(delivery.tag.number());
            peer.session.channel(id).ack(delivery.tag, false).unwrap();
            assert_eq!(peer.methods(), ["basic.Ack"]);
        }
        assert_eq!(tags, [4, 5, 6]);
    });
}

/// What the broker has taken back cannot be given back: it would close the channel.
#[test]
fn nothing_is_nacked_behind_recover() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.deliver(1, 1, b"");
        peer.deliver(1, 2, b"");
        let taken = peer.session.channel(id).next_delivery(consumer).unwrap().tag;
        peer.session.channel(id).call(peer.now, &BasicRecover::default()).unwrap();
        let getting = peer.session.channel(id).call(peer.now, &BasicGet::new("q")).unwrap();
        peer.session.channel(id).release_consumer(peer.now, consumer, [taken]);
        peer.session.channel(id).requeue(taken);
        assert_eq!(peer.methods(), ["basic.Recover", "basic.Get", "basic.Cancel"]);
        peer.deliver(1, 3, b"");
        peer.send(1, &basic::RecoverOk::default());
        assert!(peer.methods().is_empty());
        // What comes behind the answer counts.
        peer.session.forget(peer.now, getting.key());
        let got = basic::GetOk { delivery_tag: 4, ..Default::default() };
        peer.send_content(1, &got, RawProperties::NONE.as_bytes(), b"");
        assert_eq!(peer.methods(), ["basic.Nack"]);
    });
}

/// A rollback leaves nothing to wait for that nobody holds.
#[test]
fn what_was_requeued_for_nobody_is_nobodys_after_a_rollback() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.session.channel(id).call(peer.now, &TxSelect::default()).unwrap();
        peer.send(1, &amqp_core::proto::method::tx::SelectOk::default());
        peer.deliver(1, 1, b"");
        let tag = peer.session.channel(id).next_delivery(consumer).unwrap().tag;
        peer.session.channel(id).requeue(tag);
        peer.session.channel(id).call(peer.now, &TxRollback::default()).unwrap();
        assert_eq!(peer.methods(), ["tx.Select", "basic.Nack", "tx.Rollback"]);
        assert_eq!(peer.session.connection().stats().unacked, 0);
    });
}

/// A stream takes no message back.
#[test]
fn what_a_stream_delivered_is_acknowledged_when_nobody_reads_it() {
    each_way(|mut peer| {
        let streaming = BasicConsume::new("s").stream_offset(amqp_core::StreamOffset::First);
        let (id, consumer) = consuming(&mut peer, &streaming);
        (1..=3).for_each(|tag| peer.deliver(1, tag, b""));
        let taken = peer.session.channel(id).next_delivery(consumer).unwrap().tag;
        peer.methods();
        peer.session.channel(id).release_consumer(peer.now, consumer, [taken]);
        assert_eq!(peer.methods(), ["basic.Cancel", "basic.Ack", "basic.Ack", "basic.Ack"]);
    });
}

/// However it is refused; what cannot be told apart is not sent at all.
#[test]
fn what_a_stream_delivered_is_never_written_as_refused() {
    each_way(|mut peer| {
        let streaming = BasicConsume::new("s").stream_offset(amqp_core::StreamOffset::Next);
        let (id, consumer) = consuming(&mut peer, &streaming);
        (1..=4).for_each(|tag| peer.deliver(1, tag, b""));
        peer.methods();
        let mut channel = peer.session.channel(id);
        let [first, second, third, fourth] =
            std::array::from_fn(|_| channel.next_delivery(consumer).unwrap().tag);
        channel.nack(first, false, true).unwrap();
        channel.reject(second, false).unwrap();
        assert_eq!(peer.methods(), ["basic.Ack"], "merged");
        let mut channel = peer.session.channel(id);
        channel.requeue(third);
        assert_eq!(channel.nack(fourth, true, true), Err(AckError::Stream(4)));
        channel.ack(fourth, true).unwrap();
        assert_eq!(channel.nack(fourth, false, true), Err(AckError::AlreadyAcked(4)));
        assert_eq!(peer.methods(), ["basic.Ack"; 2]);
    });
}

/// Nothing could come after it.
#[test]
fn the_highest_delivery_tag_is_refused() {
    each_way(|mut peer| {
        consuming(&mut peer, &consume());
        peer.deliver(1, u64::MAX, b"");
        assert_eq!(peer.breach(), 503);
    });
}
