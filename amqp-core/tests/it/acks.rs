//! Acks that merge: fewer frames, and never one that covers what is open.

use std::collections::BTreeSet;

use amqp_core::proto::frame::{self, FrameKind, FrameLimits, Peek};
use amqp_core::proto::method::{Method, basic};
use amqp_core::proto::{RawProperties, ShortStr};
use amqp_core::requests::BasicRecover;
use amqp_core::{BasicConsume, BasicGet, ChannelId, ConsumerKey, DeliveryTag, Publish};
use proptest::prelude::{any, prop_assert, proptest};
use proptest::sample::Index;

use crate::contents::{header, to};
use crate::peer::Peer;

/// A broker that knows what is unacknowledged on channel 1, and an application that holds deliveries.
struct Play {
    peer: Peer,
    channel: ChannelId,
    other: ChannelId,
    consumer: ConsumerKey,
    next: u64,
    unacked: BTreeSet<u64>,
    /// Its content has not come.
    half: bool,
    held: Vec<DeliveryTag>,
    acked: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    frames: usize,
}

impl Play {
    fn new() -> Self {
        let mut peer = Peer::open();
        let channel = peer.channel(1);
        let other = peer.channel(2);
        let consumer = consume(&mut peer, channel, &BasicConsume::new("q").consumer_tag("t"));
        consume(&mut peer, channel, &BasicConsume::new("n").consumer_tag("n").no_ack());
        peer.methods();
        Self {
            peer,
            channel,
            other,
            consumer,
            next: 1,
            unacked: BTreeSet::new(),
            half: false,
            held: Vec::new(),
            acked: BTreeSet::new(),
            refused: BTreeSet::new(),
            frames: 0,
        }
    }

    fn tag(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// A delivery whose content has not come yet.
    fn deliver_half(&mut self, consumer: &str) {
        let delivery_tag = self.tag();
        self.peer.send(1, &to(consumer, delivery_tag));
        self.delivered(consumer, delivery_tag);
        self.half = true;
    }

    fn deliver(&mut self, consumer: &str) {
        let delivery_tag = self.tag();
        let properties = RawProperties::NONE.as_bytes();
        self.peer.send_content(1, &to(consumer, delivery_tag), properties, b"");
        self.delivered(consumer, delivery_tag);
    }

    fn delivered(&mut self, consumer: &str, delivery_tag: u64) {
        if consumer == "t" {
            self.unacked.insert(delivery_tag);
        }
    }

    fn finish(&mut self) {
        if std::mem::take(&mut self.half) {
            self.peer.send_bytes(&header(1, RawProperties::NONE.as_bytes(), 0));
        }
    }

    fn get(&mut self) {
        let call = self.peer.session.channel(self.channel).call(self.peer.now, &BasicGet::new("q"));
        let delivery_tag = self.tag();
        let got = basic::GetOk { delivery_tag, ..Default::default() };
        self.peer.send_content(1, &got, RawProperties::NONE.as_bytes(), b"");
        self.unacked.insert(delivery_tag);
        let got = self.peer.session.take_reply(&call.unwrap()).unwrap().unwrap();
        self.held.push(got.unwrap().delivery.tag);
    }

    fn pull(&mut self) {
        let delivery = self.peer.session.channel(self.channel).next_delivery(self.consumer);
        self.held.extend(delivery.map(|delivery| delivery.tag));
    }

    /// Everything is requeued.
    fn recover(&mut self) {
        let recover = BasicRecover::default();
        self.peer.session.channel(self.channel).call(self.peer.now, &recover).unwrap();
        self.read();
        self.unacked.clear();
        self.held.clear();
        self.peer.send(1, &basic::RecoverOk::default());
    }

    /// The application acks or nacks one delivery, or all up to it.
    fn acknowledge(&mut self, index: Index, multiple: bool, ack: bool) {
        if self.held.is_empty() {
            return;
        }
        let tag = self.held.swap_remove(index.index(self.held.len()));
        let mut channel = self.peer.session.channel(self.channel);
        let result = match ack {
            true => channel.ack(tag, multiple),
            false => channel.nack(tag, multiple, true),
        };
        if result.is_err() {
            return;
        }
        let acknowledged = if ack { &mut self.acked } else { &mut self.refused };
        acknowledged.insert(tag.number());
        if multiple {
            acknowledged.extend(self.unacked.range(..tag.number()));
        }
    }

    /// The broker reads what was written, in its order.
    fn read(&mut self) {
        self.peer.write();
        let written = std::mem::take(&mut self.peer.written);
        let mut rest = written.as_slice();
        while let Ok(Peek::Complete(frame)) = frame::peek(rest, FrameLimits::default()) {
            rest = &rest[frame.frame_len()..];
            if frame.kind != FrameKind::Method || frame.channel != 1 {
                continue;
            }
            match Method::decode(frame.payload).unwrap() {
                Method::BasicAck(ack) => {
                    self.frames += 1;
                    let covered = self.cover(ack.delivery_tag, ack.multiple);
                    assert!(covered.is_subset(&self.acked), "{ack:?} covers {covered:?}");
                }
                Method::BasicNack(nack) => {
                    let covered = self.cover(nack.delivery_tag, nack.multiple);
                    let acknowledged = &self.refused | &self.acked;
                    assert!(covered.is_subset(&acknowledged), "{nack:?} covers {covered:?}");
                }
                _ => {}
            }
        }
    }

    /// RabbitMQ closes the channel if the tag itself is not unacknowledged.
    fn cover(&mut self, tag: u64, multiple: bool) -> BTreeSet<u64> {
        assert!(self.unacked.remove(&tag), "{tag} is not unacknowledged");
        let mut covered = BTreeSet::from([tag]);
        if multiple {
            let open = self.unacked.split_off(&tag);
            covered.extend(std::mem::replace(&mut self.unacked, open));
        }
        covered
    }

    fn publish(&mut self, channel: ChannelId) {
        self.peer.session.channel(channel).publish(&Publish::new("", "q", b"x")).unwrap();
    }
}

fn consume(peer: &mut Peer, channel: ChannelId, consume: &BasicConsume) -> ConsumerKey {
    let tag = if consume.no_ack { "n" } else { "t" };
    let call = peer.session.channel(channel).consume(peer.now, consume).unwrap();
    if !consume.no_ack {
        peer.send(1, &basic::QosOk::default());
    }
    peer.send(1, &basic::ConsumeOk { consumer_tag: ShortStr::new(tag).unwrap() });
    peer.session.take_reply(&call).unwrap().unwrap().consumer
}

fn held(count: usize) -> Play {
    let mut play = Play::new();
    for _ in 0..count {
        play.deliver("t");
        play.pull();
    }
    play
}

fn ack(play: &mut Play, tags: impl IntoIterator<Item = usize>) {
    let mut channel = play.peer.session.channel(play.channel);
    for tag in tags {
        let tag = play.held[tag - 1];
        channel.ack(tag, false).unwrap();
        play.acked.insert(tag.number());
    }
}

#[test]
fn acks_in_order_are_one_frame() {
    let mut play = held(1_000);
    ack(&mut play, 1..=1_000);
    play.read();
    assert_eq!((play.frames, play.unacked.len()), (1, 0));
}

/// Of a channel; what others send does not matter.
#[test]
fn any_other_frame_of_the_channel_is_a_barrier() {
    let mut play = held(30);
    ack(&mut play, 1..=10);
    play.publish(play.other);
    ack(&mut play, 11..=20);
    play.publish(play.channel);
    ack(&mut play, 21..=30);
    play.read();
    assert_eq!((play.frames, play.unacked.len()), (2, 0));
    // And what the driver has taken stays as it is.
    let mut play = held(3);
    for tag in 1..=3 {
        ack(&mut play, [tag]);
        play.read();
    }
    assert_eq!((play.frames, play.unacked.len()), (3, 0));
}

#[test]
fn acks_wait_for_what_is_open_below() {
    let mut play = held(10);
    ack(&mut play, [2, 3, 5]);
    play.read();
    assert_eq!((play.frames, play.unacked.len()), (3, 7));
    ack(&mut play, [4, 6, 1, 7]);
    play.read();
    // Two alone; the third, of 1, makes the last one cover both, and 7 joins.
    assert_eq!((play.frames, play.unacked.len()), (5, 3));
}

proptest! {
    /// Whatever is pulled, unread, got, half received, requeued or given up.
    #[test]
    fn no_open_tag_is_ever_covered(
        steps in proptest::collection::vec((0_u8..24, any::<Index>()), 1..300)
    ) {
        let mut play = Play::new();
        for (step, index) in steps {
            if step < 7 {
                play.finish();
            }
            match step {
                0 | 1 if index.index(2) == 0 => play.deliver_half("t"),
                0..=2 => play.deliver("t"),
                3 if index.index(2) == 0 => play.deliver_half("n"),
                3 => play.deliver("n"),
                4 => play.get(),
                5 if index.index(4) == 0 => play.recover(),
                6..=10 => play.pull(),
                11..=16 => play.acknowledge(index, false, true),
                17 => play.acknowledge(index, true, true),
                18 => play.acknowledge(index, index.index(2) == 0, false),
                19 if !play.held.is_empty() => {
                    let tag = play.held[index.index(play.held.len())];
                    play.peer.session.channel(play.channel).drop_unacked(tag);
                }
                20 => play.publish(play.channel),
                21 => play.publish(play.other),
                22 => play.read(),
                _ => play.finish(),
            }
        }
        play.read();
        let acknowledged = &play.acked | &play.refused;
        prop_assert!(play.unacked.is_disjoint(&acknowledged), "{:?} was not told", play.unacked);
    }
}
