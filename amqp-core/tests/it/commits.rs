//! What a channel queues behind a `tx.commit` waits for the reply. RabbitMQ closes the connection if a frame of the channel
//! arrives meanwhile.

use amqp_core::proto::method::{basic, channel, connection, tx};
use amqp_core::requests::{TxCommit, TxSelect};
use amqp_core::{
    BasicConsume, BasicQos, Call, ChannelId, CloseCause, ConsumerKey, Event, Publish, Transmit,
};
use bytes::Bytes;

use crate::contents::consuming;
use crate::peer::Peer;

/// Two channels, the first in transaction mode, with a consumer that has two deliveries.
fn transactional() -> (Peer, ChannelId, ChannelId, ConsumerKey) {
    let mut peer = Peer::open();
    let (id, consumer) = consuming(&mut peer, &BasicConsume::new("q"));
    let other = peer.channel(2);
    peer.session.channel(id).call(peer.now, &TxSelect::default()).unwrap();
    peer.send(1, &tx::SelectOk::default());
    (1..=2).for_each(|tag| peer.deliver(1, tag, b""));
    peer.methods();
    (peer, id, other, consumer)
}

fn commit(peer: &mut Peer, id: ChannelId) -> Call<()> {
    peer.session.channel(id).call(peer.now, &TxCommit::default()).unwrap()
}

fn publish(peer: &mut Peer, id: ChannelId, body: &[u8]) {
    peer.session.channel(id).publish(&Publish::new("", "q", body)).unwrap();
}

#[test]
fn what_follows_a_commit_waits_for_the_reply_in_order() {
    let (mut peer, id, other, consumer) = transactional();
    let tags = [(); 2].map(|()| peer.session.channel(id).next_delivery(consumer).unwrap().tag);
    publish(&mut peer, id, b"first");
    peer.session.channel(id).ack(tags[0], false).unwrap();
    let committing = commit(&mut peer, id);
    let queued = ["basic.Publish", "Header", "Body", "basic.Ack", "tx.Commit"];
    assert_eq!(peer.methods(), queued);
    // The ack does not join the one before the commit.
    peer.session.channel(id).ack(tags[1], false).unwrap();
    publish(&mut peer, id, b"second");
    let large = Bytes::from(vec![0; 10_000]);
    peer.session.channel(id).publish(&Publish::new("", "q", &large)).unwrap();
    let qos = peer.session.channel(id).call(peer.now, &BasicQos::new(1)).unwrap();
    publish(&mut peer, other, b"beside");
    assert_eq!(peer.methods(), ["basic.Publish", "Header", "Body"], "of the other channel");
    assert!(!peer.session.connection().wants_transmit());
    peer.send(1, &tx::CommitOk::default());
    assert!(peer.session.take_reply(&committing).unwrap().is_ok());
    let frames = peer.methods();
    let (small, rest) = frames.split_at(4);
    assert_eq!(small, ["basic.Ack", "basic.Publish", "Header", "Body"]);
    assert_eq!(rest, ["basic.Publish", "Header", "Body", "Body", "Body", "basic.Qos"]);
    peer.send(1, &basic::QosOk::default());
    assert!(peer.session.take_reply(&qos).unwrap().is_ok());
}

#[test]
fn commits_wait_for_each_other_and_for_a_message_before_them() {
    let (mut peer, id, ..) = transactional();
    let large = Bytes::from(vec![0; 10_000]);
    peer.session.channel(id).publish(&Publish::new("", "q", &large)).unwrap();
    let first = commit(&mut peer, id);
    publish(&mut peer, id, b"of the second");
    let second = commit(&mut peer, id);
    peer.session.channel(id).publish(&Publish::new("", "q", &large)).unwrap();
    let message = ["basic.Publish", "Header", "Body", "Body", "Body"];
    let frames = peer.methods();
    assert_eq!(
        (&frames[..5], &frames[5..]),
        (&message.map(String::from)[..], &["tx.Commit".to_owned()][..])
    );
    peer.send(1, &tx::CommitOk::default());
    assert!(peer.session.take_reply(&first).unwrap().is_ok());
    assert_eq!(peer.methods(), ["basic.Publish", "Header", "Body", "tx.Commit"]);
    assert!(peer.session.take_reply(&second).is_none());
    peer.send(1, &tx::CommitOk::default());
    assert!(peer.session.take_reply(&second).unwrap().is_ok());
    assert_eq!(peer.methods(), message);
    // Nothing waits any more.
    publish(&mut peer, id, b"at once");
    assert_eq!(peer.methods(), ["basic.Publish", "Header", "Body"]);
}

#[test]
fn what_waits_behind_a_commit_that_is_refused_is_dropped() {
    let (mut peer, id, ..) = transactional();
    let committing = commit(&mut peer, id);
    publish(&mut peer, id, b"never");
    let qos = peer.session.channel(id).call(peer.now, &BasicQos::new(1)).unwrap();
    assert_eq!(peer.methods(), ["tx.Commit"]);
    peer.send(1, &channel::Close { reply_code: 406, ..Default::default() });
    assert_eq!(peer.methods(), ["channel.CloseOk"]);
    assert!(peer.session.take_reply(&committing).unwrap().is_err());
    assert!(peer.session.take_reply(&qos).unwrap().is_err());
    assert!(!peer.session.connection().wants_transmit());
}

#[test]
fn closes_wait_for_the_commit() {
    let (mut peer, id, ..) = transactional();
    commit(&mut peer, id);
    publish(&mut peer, id, b"behind it");
    peer.session.channel(id).close(peer.now);
    assert_eq!(peer.methods(), ["tx.Commit"]);
    peer.session.close(peer.now);
    assert!(peer.methods().is_empty());
    peer.send(1, &tx::CommitOk::default());
    let frames = ["basic.Publish", "Header", "Body", "channel.Close", "connection.Close"];
    assert_eq!(peer.methods(), frames);
    peer.send(0, &connection::CloseOk::default());
    assert_eq!(peer.cause(), CloseCause::ByClient);
}

/// The event loop of an application polls the output after each input, and need not poll it twice.
#[test]
fn a_close_follows_the_last_commit_at_once() {
    let (mut peer, id, ..) = transactional();
    commit(&mut peer, id);
    commit(&mut peer, id);
    peer.session.close(peer.now);
    assert_eq!(peer.methods(), ["tx.Commit"]);
    peer.send(1, &tx::CommitOk::default());
    assert_eq!(peer.methods(), ["tx.Commit"]);
    peer.send(1, &tx::CommitOk::default());
    let mut out = Transmit::new();
    assert!(peer.session.poll_transmit(peer.now, &mut out));
    assert!(!out.is_empty());
}

#[test]
fn what_waits_behind_a_commit_stops_neither_reading_nor_other_channels() {
    let (mut peer, id, other, consumer) = transactional();
    let deliveries = 80_000;
    let mut tags = Vec::new();
    for number in 1..=deliveries {
        if number > 2 {
            peer.deliver(1, number, b"");
        }
        tags.push(peer.session.channel(id).next_delivery(consumer).unwrap().tag);
    }
    let committing = commit(&mut peer, id);
    assert_eq!(peer.methods(), ["tx.Commit"]);
    // Publishes fill the space of the channel, and nacks more than that of all output.
    let body = Bytes::from(vec![0; 10_000]);
    let mut publishes = 0;
    while peer.session.channel(id).publish(&Publish::new("", "q", &body)).is_ok() {
        publishes += 1;
    }
    assert!((100..200).contains(&publishes), "about 1 MiB: {publishes}");
    for tag in tags {
        peer.session.channel(id).nack(tag, false, true).unwrap();
    }
    assert!(peer.session.wants_input(), "the reply has to be read");
    peer.session.channel(other).publish(&Publish::new("", "q", &body)).unwrap();
    assert_eq!(peer.methods(), ["basic.Publish", "Header", "Body", "Body", "Body"]);
    peer.events();
    peer.send(1, &tx::CommitOk::default());
    assert!(peer.session.take_reply(&committing).unwrap().is_ok());
    assert_eq!(peer.methods().len(), publishes * 5 + deliveries as usize);
    assert!(peer.events().contains(&Event::BufferSpace), "the channel may publish again");
    peer.session.channel(id).publish(&Publish::new("", "q", &body)).unwrap();
}
