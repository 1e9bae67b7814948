//! Deliveries that lie in the input whole: the conditions of the one-step path, and that it has the
//! same outcome as the path that takes contents frame by frame.

use amqp_core::proto::frame::{self, FRAME_END};
use amqp_core::proto::method::{basic, channel, connection};
use amqp_core::proto::{RawProperties, ShortStr};
use amqp_core::requests::BasicRecover;
use amqp_core::{ChannelId, CloseCause, ConsumerKey};
use bytes::BytesMut;

use crate::contents::{
    consume, consume_on, consuming, content, content_in_frames, each_way, header, to,
};
use crate::peer::Peer;

const NONE: &[u8] = RawProperties::NONE.as_bytes();

/// Tags and bodies of what the consumer may read.
fn read(peer: &mut Peer, id: ChannelId, consumer: ConsumerKey) -> Vec<(u64, Vec<u8>)> {
    let mut channel = peer.session.channel(id);
    std::iter::from_fn(|| channel.next_delivery(consumer))
        .map(|delivery| (delivery.tag.number(), delivery.message.body().to_vec()))
        .collect()
}

/// Every part of a message and every count.
#[test]
fn a_delivery_is_the_same_whichever_way_it_comes() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        let before = peer.session.connection().stats();
        let deliver = basic::Deliver {
            exchange: ShortStr::new("exchange").unwrap(),
            routing_key: ShortStr::new("a.b").unwrap(),
            redelivered: true,
            ..to("t", 7)
        };
        let persistent = [0x10, 0, 2];
        // An empty body has no frame; from 4,096 bytes on it is taken without copying.
        let sizes = [0, 1, 4_088, 4_095, 4_096, 10_000];
        for (tag, size) in (7..).zip(sizes) {
            let body: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let deliver = basic::Deliver { delivery_tag: tag, ..deliver };
            peer.send_content(1, &deliver, &persistent, &body);
            let delivery = peer.session.channel(id).next_delivery(consumer).unwrap();
            assert_eq!((delivery.tag.number(), delivery.redelivered), (tag, true));
            assert_eq!(delivery.message.exchange(), *"exchange");
            assert_eq!(delivery.message.routing_key(), *"a.b");
            assert_eq!(delivery.message.raw_properties().as_bytes(), persistent);
            assert!(delivery.message.body() == body, "{size} bytes");
            assert_eq!(delivery.fault(), None);
            assert!(delivery.message.into_body() == body, "{size} bytes");
        }
        let stats = peer.session.connection().stats();
        assert_eq!(stats.delivered - before.delivered, 6);
        // Twice a method and a header, four bodies of one or two frames, one of three.
        assert_eq!(stats.frames_received - before.frames_received, 12 + 1 + 1 + 2 + 2 + 3);
        assert_eq!((stats.unread_bytes, stats.unacked), (0, 6));
    });
}

/// The bytes of a frame that is read past are not frames.
#[test]
fn nothing_is_delivered_out_of_a_frame_that_is_read_past() {
    let mut peer = Peer::open();
    let (id, consumer) = consuming(&mut peer, &consume());
    peer.send(1, &to("t", 1));
    let size = 2_usize << 20;
    let mut head = vec![2, 0, 1];
    head.extend((size as u32).to_be_bytes());
    // Class, weight, body size and flags are read; the trap stands where reading past begins.
    head.extend([0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    peer.send_bytes(&head);
    let trap = content(1, &to("t", 2), NONE, b"trap").concat();
    peer.send_bytes(&trap);
    peer.send_bytes(&vec![0; size - 14 - trap.len()]);
    peer.send_bytes(&[FRAME_END]);
    peer.deliver(1, 3, b"next");
    assert_eq!(read(&mut peer, id, consumer), [(1, vec![]), (3, b"next".to_vec())]);
    assert_eq!(peer.session.cause(), None);
}

/// What arrives behind our `connection.close` is read like before, until the answer.
#[test]
fn a_connection_that_closes_still_takes_deliveries() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.session.close(peer.now);
        peer.deliver(1, 1, b"one");
        assert_eq!(peer.methods(), ["connection.Close"]);
        peer.deliver(1, 2, b"two");
        assert_eq!(read(&mut peer, id, consumer), [(1, b"one".to_vec()), (2, b"two".to_vec())]);
        peer.send(0, &connection::CloseOk::default());
        assert_eq!(peer.cause(), CloseCause::ByClient);
        peer.deliver(1, 3, b"three");
        assert_eq!(read(&mut peer, id, consumer), []);
    });
}

/// What is to be acknowledged goes back to its queue with the channel.
#[test]
fn a_channel_that_closes_takes_no_deliveries_to_be_acknowledged() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.session.channel(id).close(peer.now);
        peer.deliver(1, 1, b"late");
        assert_eq!(read(&mut peer, id, consumer), []);
        assert_eq!(peer.session.connection().stats().unread_bytes, 0);
        peer.send(1, &channel::CloseOk::default());
        assert_eq!(peer.methods(), ["channel.Close"]);
        // Its number is not in use.
        peer.deliver(1, 2, b"later");
        assert_eq!((read(&mut peer, id, consumer), peer.session.cause()), (vec![], None));
    });
}

/// `basic.recover` requeues what was sent before its answer.
#[test]
fn what_comes_before_recover_ok_is_not_read() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.session.channel(id).call(peer.now, &BasicRecover::default()).unwrap();
        peer.deliver(1, 1, b"stale");
        assert_eq!(read(&mut peer, id, consumer), []);
        peer.send(1, &basic::RecoverOk::default());
        peer.deliver(1, 2, b"fresh");
        assert_eq!(read(&mut peer, id, consumer), [(2, b"fresh".to_vec())]);
    });
}

/// A delivery begins where another content of its channel has not ended; on other channels it may.
#[test]
fn a_delivery_in_the_middle_of_a_content_is_a_breach() {
    each_way(|mut peer| {
        consuming(&mut peer, &consume());
        let other = peer.channel(2);
        let consumer = consume_on(&mut peer, 2, other, &consume());
        peer.send(1, &to("t", 1));
        peer.send_bytes(&header(1, NONE, 5));
        peer.deliver(2, 1, b"other");
        assert_eq!(read(&mut peer, other, consumer), [(1, b"other".to_vec())]);
        peer.deliver(1, 2, b"early");
        assert_eq!(peer.breach(), 505);
    });
}

/// Its handle is gone, and the broker has not heard of it yet.
#[test]
fn a_delivery_to_a_released_consumer_is_requeued() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.session.channel(id).release_consumer(peer.now, consumer, []);
        peer.deliver(1, 1, b"unread");
        assert_eq!(peer.methods(), ["basic.Cancel", "basic.Nack"]);
        let stats = peer.session.connection().stats();
        assert_eq!((stats.unread_bytes, stats.unacked), (0, 0));
    });
}

/// Also by one whose consumer is known to the broker alone.
#[test]
fn a_delivery_to_an_unknown_consumer_is_requeued() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume());
        peer.deliver(1, 1, b"known");
        peer.send_content(1, &to("u", 2), NONE, b"unknown");
        peer.deliver(1, 3, b"known");
        assert_eq!(peer.methods(), ["basic.Cancel", "basic.Nack"]);
        let tags: Vec<_> = read(&mut peer, id, consumer).into_iter().map(|it| it.0).collect();
        assert_eq!(tags, [1, 3]);
    });
}

/// RabbitMQ repeats one tag for all direct replies.
#[test]
fn tags_without_acknowledgement_are_not_looked_at() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer, &consume().no_ack());
        for body in [b"one", b"two"] {
            peer.deliver(1, 1, body);
        }
        assert_eq!(read(&mut peer, id, consumer), [(1, b"one".to_vec()), (1, b"two".to_vec())]);
        assert_eq!(peer.session.connection().stats().unacked, 0);
    });
}

/// Whichever way it comes, a tag that does not follow the one before it is a breach.
#[test]
fn tags_to_be_acknowledged_rise() {
    each_way(|mut peer| {
        consuming(&mut peer, &consume());
        peer.deliver(1, 2, b"");
        peer.deliver(1, 2, b"");
        assert_eq!(peer.breach(), 503);
    });
}

/// A body that is longer than its header says, or comes on another channel, is left to the path that
/// knows the error.
#[test]
fn contents_that_do_not_fit_are_breaches() {
    for (size, channel, code) in [(2, 1, 501), (4, 2, 505)] {
        each_way(|mut peer| {
            consuming(&mut peer, &consume());
            peer.channel(2);
            let mut frames = content(1, &to("t", 1), NONE, b"");
            frames[1] = header(1, NONE, size);
            frames.push(Vec::new());
            frame::write_body(&mut frames[2], channel, b"body");
            peer.send_frames(&frames);
            assert_eq!(peer.breach(), code);
        });
    }
}

#[test]
fn a_content_of_another_class_is_a_breach() {
    each_way(|mut peer| {
        consuming(&mut peer, &consume());
        let mut frames = content(1, &to("t", 1), NONE, b"body");
        frames[1][frame::FRAME_HEAD + 1] = 50;
        peer.send_frames(&frames);
        assert_eq!(peer.breach(), 505);
    });
}

/// From 4,096 bytes on, a body that fills its frame is taken without copying.
#[test]
fn a_large_body_stays_where_it_was_read() {
    for (size, stays) in [(4_095, false), (4_096, true)] {
        let mut peer = Peer::open_with_frames(131_072);
        let (id, consumer) = consuming(&mut peer, &consume());
        let frames = content_in_frames(131_072, 1, &to("t", 1), NONE, &vec![7; size]).concat();
        let mut input = BytesMut::from(&frames[..]);
        let memory = input.as_ptr_range();
        assert!(!peer.session.handle_input(peer.now, &mut input));
        let delivery = peer.session.channel(id).next_delivery(consumer).unwrap();
        assert_eq!(delivery.message.body().len(), size);
        assert_eq!(memory.contains(&delivery.message.body().as_ptr()), stays, "{size} bytes");
    }
}
