//! What a drain waits for: each condition alone.

use std::time::Duration;

use amqp_core::proto::frame;
use amqp_core::proto::method::{basic, confirm, connection, tx};
use amqp_core::proto::{ContentHeader, RawProperties, ShortStr};
use amqp_core::{
    BasicConsume, BasicQos, Call, ChannelId, ConfirmSelect, ConsumerKey, Publish, Secret,
    TxRollback, TxSelect,
};

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

fn consuming(peer: &mut Peer, consume: &BasicConsume) -> (ChannelId, ConsumerKey) {
    let id = peer.channel(1);
    let call = peer.session.channel(id).consume(peer.now, consume).unwrap();
    if !consume.is_no_ack() {
        peer.send(1, &basic::QosOk::default());
    }
    let consumer_tag = ShortStr::new("t").unwrap();
    peer.send(1, &basic::ConsumeOk { consumer_tag });
    (id, peer.session.take_reply(&call).unwrap().unwrap().consumer)
}

fn deliver(peer: &mut Peer, tag: u64) {
    let consumer_tag = ShortStr::new("t").unwrap();
    let mut bytes = Vec::new();
    let deliver = basic::Deliver { consumer_tag, delivery_tag: tag, ..Default::default() };
    frame::write_method(&mut bytes, 1, &deliver);
    let header = ContentHeader { class_id: 60, body_size: 0, properties: RawProperties::NONE };
    frame::write_header(&mut bytes, 1, &header);
    peer.send_bytes(&bytes);
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
    consuming(&mut peer, &BasicConsume::new("q").consumer_tag("t"));
    let draining = drain(&mut peer);
    assert!(!is_done(&mut peer, &draining));
    cancelled(&mut peer);
    assert!(is_done(&mut peer, &draining));
}

#[test]
fn deliveries_are_waited_for_until_they_are_settled_or_dropped() {
    for drop in [false, true] {
        let mut peer = Peer::open();
        let (id, consumer) = consuming(&mut peer, &BasicConsume::new("q").consumer_tag("t"));
        deliver(&mut peer, 1);
        let held = peer.session.channel(id).next_delivery(consumer).unwrap().tag;
        let draining = drain(&mut peer);
        cancelled(&mut peer);
        assert!(!is_done(&mut peer, &draining));
        match drop {
            true => peer.session.channel(id).give_up(held),
            false => peer.session.channel(id).ack(held, false).unwrap(),
        }
        assert!(is_done(&mut peer, &draining));
    }
}

#[test]
fn what_needs_no_acknowledgement_is_waited_for_until_it_is_read() {
    let mut peer = Peer::open();
    let consume = BasicConsume::new("q").consumer_tag("t").no_ack();
    let (id, consumer) = consuming(&mut peer, &consume);
    deliver(&mut peer, 1);
    let draining = drain(&mut peer);
    cancelled(&mut peer);
    assert!(!is_done(&mut peer, &draining));
    peer.session.channel(id).next_delivery(consumer).unwrap();
    assert!(is_done(&mut peer, &draining));
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

/// What was settled is out of its holder's hands, and a rollback gives it to nobody: it can be settled
/// again by tag, and is not waited for.
#[test]
fn what_a_rollback_opens_again_is_not_waited_for() {
    let mut peer = Peer::open();
    let (id, consumer) = consuming(&mut peer, &BasicConsume::new("q").consumer_tag("t"));
    peer.session.channel(id).call(peer.now, &TxSelect::default()).unwrap();
    peer.send(1, &tx::SelectOk::default());
    (1..=4).for_each(|tag| deliver(&mut peer, tag));
    let mut channel = peer.session.channel(id);
    let tags: [_; 4] = std::array::from_fn(|_| channel.next_delivery(consumer).unwrap().tag);
    // One is settled, one dropped, one settled after it was dropped, one is held.
    channel.ack(tags[0], false).unwrap();
    channel.give_up(tags[1]);
    channel.give_up(tags[2]);
    channel.nack(tags[2], false, true).unwrap();
    channel.call(peer.now, &TxRollback::default()).unwrap();
    peer.send(1, &tx::RollbackOk::default());
    assert_eq!(peer.session.connection().stats().unsettled, 1);
    let draining = drain(&mut peer);
    cancelled(&mut peer);
    assert!(!is_done(&mut peer, &draining));
    let mut channel = peer.session.channel(id);
    channel.ack(tags[3], false).unwrap();
    assert!(is_done(&mut peer, &draining), "settled, committed or not");
    for tag in &tags[..3] {
        peer.session.channel(id).ack(*tag, false).unwrap();
    }
    assert!(peer.session.channel(id).ack(tags[3], false).is_err());
}
