//! Consumers: their prefetch, the kinds of their tags, and how they end.

use amqp_core::errors::Misuse;
use amqp_core::proto::frame::{self, FrameKind, FrameLimits, Peek};
use amqp_core::proto::method::{Method, basic, channel};
use amqp_core::proto::{FieldTable, Properties, ShortStr};
use amqp_core::{
    AckError, BasicConsume, BasicGet, BasicQos, ChannelId, ConsumerKey, DeliveryTag, Error, Event,
    StreamOffset,
};

use crate::contents::{each_way, each_way_with, encoded, to};
use crate::peer::Peer;

/// What the session has written: the arguments that matter, of the methods that matter here.
fn wire(peer: &mut Peer) -> Vec<String> {
    peer.write();
    let written = std::mem::take(&mut peer.written);
    let mut rest = written.as_slice();
    let mut all = Vec::new();
    while let Ok(Peek::Complete(frame)) = frame::peek(rest, FrameLimits::default()) {
        rest = &rest[frame.frame_len()..];
        assert_eq!(frame.kind, FrameKind::Method);
        let no_wait = |no_wait| if no_wait { " nowait" } else { "" };
        all.push(match Method::decode(frame.payload).unwrap() {
            Method::BasicQos(qos) if qos.global => format!("qos {} global", qos.prefetch_count),
            Method::BasicQos(qos) => format!("qos {}", qos.prefetch_count),
            Method::BasicConsume(consume) => format!("consume {}", text(consume.consumer_tag)),
            Method::BasicCancel(cancel) => {
                format!("cancel {}{}", text(cancel.consumer_tag), no_wait(cancel.no_wait))
            }
            Method::BasicAck(ack) => format!("ack {}", ack.delivery_tag),
            Method::BasicNack(nack) => format!("nack {}", nack.delivery_tag),
            method => format!("{:?}", method.id()),
        });
    }
    all
}

fn text(tag: ShortStr<'_>) -> &str {
    tag.as_str().unwrap()
}

/// Starts a consumer, and answers what that has sent. Returns its key and the frames.
fn start(peer: &mut Peer, id: ChannelId, consume: &BasicConsume) -> (ConsumerKey, Vec<String>) {
    wire(peer);
    let call = peer.session.channel(id).consume(peer.now, consume).unwrap();
    let frames = wire(peer);
    for frame in &frames {
        match frame.strip_prefix("consume ") {
            Some(tag) => {
                peer.send(1, &basic::ConsumeOk { consumer_tag: ShortStr::new(tag).unwrap() });
            }
            None => peer.send(1, &basic::QosOk::default()),
        }
    }
    let consumer = peer.session.take_reply(&call).unwrap().unwrap().consumer;
    peer.events();
    assert_eq!(peer.session.connection().stats().open_calls, 0, "every answer was due");
    (consumer, frames)
}

fn consume(tag: &str) -> BasicConsume {
    BasicConsume::new("q").consumer_tag(tag)
}

fn qos(peer: &mut Peer, id: ChannelId, qos: BasicQos) {
    let call = peer.session.channel(id).call(peer.now, &qos).unwrap();
    peer.send(1, &basic::QosOk::default());
    assert_eq!(peer.session.take_reply(&call), Some(Ok(())));
}

/// The broker delivers a message with these properties.
fn deliver(peer: &mut Peer, tag: &str, number: u64, properties: &Properties) {
    peer.send_content(1, &to(tag, number), &encoded(properties), b"hi");
}

fn next(peer: &mut Peer, id: ChannelId, consumer: ConsumerKey) -> DeliveryTag {
    peer.session.channel(id).next_delivery(consumer).unwrap().tag
}

/// Direct replies repeat the tag of the delivery that comes next.
#[test]
fn a_tag_without_acknowledgement_acks_nothing() {
    each_way(|mut peer| {
        let id = peer.channel(1);
        let (counted, _) = start(&mut peer, id, &consume("t"));
        let (replies, _) = start(&mut peer, id, &consume("n").no_ack());
        let none = Properties::new();
        deliver(&mut peer, "n", 1, &none);
        deliver(&mut peer, "t", 1, &none);
        deliver(&mut peer, "n", 2, &none);
        let first = next(&mut peer, id, replies);
        let held = next(&mut peer, id, counted);
        let get = peer.session.channel(id).call(peer.now, &BasicGet::new("q").no_ack()).unwrap();
        wire(&mut peer);
        let got = basic::GetOk { delivery_tag: 1, ..Default::default() };
        peer.send_content(1, &got, &encoded(&none), b"hi");
        let got = peer.session.take_reply(&get).unwrap().unwrap().unwrap().delivery.tag;
        peer.events();
        for tag in [first, got] {
            assert!(!tag.needs_ack() && held.needs_ack());
            let mut channel = peer.session.channel(id);
            let refused = AckError::NoAck(1);
            for multiple in [false, true] {
                assert_eq!(channel.ack(tag, multiple).unwrap_err(), refused);
                assert_eq!(channel.nack(tag, multiple, true).unwrap_err(), refused);
            }
            assert_eq!(channel.reject(tag, false).unwrap_err(), refused);
            channel.requeue(tag);
            channel.drop_unacked(tag);
        }
        // And those that the application took from a consumer that it drops.
        peer.session.channel(id).release_consumer(peer.now, replies, [first]);
        assert_eq!(wire(&mut peer), ["cancel n"]);
        let dropped = peer.events().contains(&Event::Dropped(id));
        assert_eq!((dropped, peer.session.connection().stats().unacked), (false, 1));
        peer.session.channel(id).ack(held, false).unwrap();
        assert_eq!(wire(&mut peer), ["ack 1"]);
    });
}

/// An explicit prefetch wins; otherwise the channel's last `basic.qos` counts, otherwise 256.
#[test]
fn a_consumer_has_its_own_prefetch_or_the_channels() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let mut frames = |consume| start(&mut peer, id, &consume).1;
    assert_eq!(frames(consume("a")), ["qos 256", "consume a"]);
    assert_eq!(frames(consume("b")), ["consume b"], "it is set");
    assert_eq!(frames(consume("c").prefetch(3)), ["qos 3", "consume c"]);
    assert_eq!(frames(consume("d").prefetch(3)), ["consume d"]);
    assert_eq!(frames(consume("e").no_ack().prefetch(9)), ["consume e"], "it has no effect");
    assert_eq!(frames(consume("f")), ["qos 256", "consume f"]);
    qos(&mut peer, id, BasicQos::new(5));
    let mut frames = |consume| start(&mut peer, id, &consume).1;
    assert_eq!(frames(consume("g")), ["consume g"]);
    assert_eq!(frames(consume("h").prefetch(0)), ["qos 0", "consume h"]);
    assert_eq!(frames(consume("i")), ["qos 5", "consume i"]);
    qos(&mut peer, id, BasicQos::new(0));
    assert_eq!(start(&mut peer, id, &consume("j")).1, ["consume j"], "asked for no limit");
}

/// RabbitMQ before 4.3 ends a limit for the channel at the next `basic.qos` that is not `global`.
#[test]
fn a_limit_for_the_channel_survives_its_consumers() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    qos(&mut peer, id, BasicQos::new(10).global());
    let mut frames = |consume| start(&mut peer, id, &consume).1;
    assert_eq!(frames(consume("a")), ["consume a"]);
    assert_eq!(frames(consume("b").prefetch(3)), ["qos 3", "consume b", "qos 10 global"]);
    assert_eq!(frames(consume("n").no_ack()), ["consume n"]);
    // What was set for the one before is not this one's; RabbitMQ 4.3 has forgotten it.
    assert_eq!(frames(consume("c")), ["qos 0", "qos 10 global", "consume c"]);
    assert_eq!(frames(consume("d")), ["consume d"]);
    assert_eq!(frames(consume("e").prefetch(3)), ["qos 3", "consume e", "qos 10 global"]);
    assert_eq!(frames(consume("f").prefetch(3)), ["qos 3", "consume f", "qos 10 global"]);
    // The application's own ends the limit, and counts.
    qos(&mut peer, id, BasicQos::new(7));
    assert_eq!(start(&mut peer, id, &consume("g")).1, ["consume g"]);
    // Both: each consumer has 7, all together 10.
    qos(&mut peer, id, BasicQos::new(10).global());
    let mut frames = |consume| start(&mut peer, id, &consume).1;
    assert_eq!(frames(consume("h")), ["consume h"]);
    assert_eq!(frames(consume("i").prefetch(1)), ["qos 1", "consume i", "qos 10 global"]);
    assert_eq!(frames(consume("j")), ["qos 7", "qos 10 global", "consume j"]);
    // It is over: RabbitMQ 4.3 takes this one for all consumers to come.
    qos(&mut peer, id, BasicQos::new(0).global());
    let mut frames = |consume| start(&mut peer, id, &consume).1;
    assert_eq!(frames(consume("k")), ["qos 7", "consume k"]);
    assert_eq!(frames(consume("l")), ["consume l"]);
}

/// What was not sent has changed nothing; what was sent counts, whether it is awaited or not.
#[test]
fn refused_and_forgotten_consumers_leave_the_prefetch_as_it_is() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let long = "x".repeat(256);
    let refused = peer.session.channel(id).consume(peer.now, &consume(&long).prefetch(3));
    assert!(matches!(refused, Err(Error::InvalidArgument(_))));
    assert_eq!(start(&mut peer, id, &consume("a").prefetch(3)).1, ["qos 3", "consume a"]);
    let call = peer.session.channel(id).consume(peer.now, &consume("b").prefetch(4)).unwrap();
    peer.session.forget(peer.now, call.key());
    assert_eq!(wire(&mut peer), ["qos 4", "consume b"]);
    peer.send(1, &basic::QosOk::default());
    peer.send(1, &basic::ConsumeOk { consumer_tag: ShortStr::new("b").unwrap() });
    assert_eq!(wire(&mut peer), ["cancel b"]);
    peer.send(1, &basic::CancelOk { consumer_tag: ShortStr::new("b").unwrap() });
    assert_eq!(start(&mut peer, id, &consume("c").prefetch(4)).1, ["consume c"]);
    let asked = peer.session.channel(id).call(peer.now, &BasicQos::new(6)).unwrap();
    peer.session.forget(peer.now, asked.key());
    peer.send(1, &basic::QosOk::default());
    assert_eq!(start(&mut peer, id, &consume("d")).1, ["consume d"]);
}

/// RabbitMQ would close the channel, or the connection.
#[test]
fn a_stream_wants_acknowledgement_and_a_prefetch() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let stream = || consume("s").stream_offset(StreamOffset::First);
    let refused = |peer: &mut Peer, consume: &BasicConsume| {
        let refused = peer.session.channel(id).consume(peer.now, consume).unwrap_err();
        assert!(wire(peer).is_empty());
        refused
    };
    wire(&mut peer);
    assert_eq!(refused(&mut peer, &stream().no_ack()), Misuse::StreamNeedsAck.into());
    assert_eq!(refused(&mut peer, &stream().prefetch(0)), Misuse::StreamNeedsPrefetch.into());
    qos(&mut peer, id, BasicQos::new(0));
    wire(&mut peer);
    assert_eq!(refused(&mut peer, &stream()), Misuse::StreamNeedsPrefetch.into());
    assert_eq!(start(&mut peer, id, &stream().prefetch(1)).1, ["qos 1", "consume s"]);
}

/// A limit that all consumers of the channel share is no prefetch of its own.
#[test]
fn a_stream_needs_a_prefetch_beside_a_shared_limit() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let stream = |prefetch| consume("s").stream_offset(StreamOffset::First).prefetch(prefetch);
    qos(&mut peer, id, BasicQos::new(5).global());
    wire(&mut peer);
    let refused = peer.session.channel(id).consume(peer.now, &stream(0)).unwrap_err();
    assert_eq!(refused, Misuse::StreamNeedsPrefetch.into());
    assert!(wire(&mut peer).is_empty());
    let frames = ["qos 1", "consume s", "qos 5 global"];
    assert_eq!(start(&mut peer, id, &stream(1)).1, frames);
}

/// The second caller may rely on what the answer says: no more deliveries come.
#[test]
fn a_second_cancel_waits_for_the_answer_too() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let (consumer, _) = start(&mut peer, id, &consume("t"));
    let cancel = |peer: &mut Peer| peer.session.channel(id).cancel(peer.now, consumer).unwrap();
    let [first, second, forgotten] = [cancel(&mut peer), cancel(&mut peer), cancel(&mut peer)];
    peer.session.forget(peer.now, forgotten.key());
    assert_eq!(wire(&mut peer), ["cancel t"]);
    assert!(peer.events().is_empty());
    assert_eq!(peer.session.take_reply(&second), None);
    // The broker's own cancel crosses: ours is answered all the same.
    let consumer_tag = ShortStr::new("t").unwrap();
    peer.send(1, &basic::Cancel { consumer_tag, no_wait: true });
    assert_eq!(peer.session.take_reply(&second), None);
    peer.send(1, &basic::CancelOk { consumer_tag });
    let done = [first.key(), second.key()].map(Event::CallDone);
    let events = peer.events();
    assert!(done.iter().all(|event| events.contains(event)), "{events:?}");
    assert_eq!(peer.session.take_reply(&first), Some(Ok(())));
    assert_eq!(peer.session.take_reply(&second), Some(Ok(())));
    let third = cancel(&mut peer);
    assert_eq!(peer.session.take_reply(&third), Some(Ok(())), "it has ended");
    assert_eq!(peer.session.connection().stats().open_calls, 0);
    assert!(wire(&mut peer).is_empty());

    // A channel's end is the consumer's.
    let (consumer, _) = start(&mut peer, id, &consume("u"));
    let [_, second] =
        [(); 2].map(|()| peer.session.channel(id).cancel(peer.now, consumer).unwrap());
    peer.send(1, &channel::Close { reply_code: 404, ..Default::default() });
    assert_eq!(peer.session.take_reply(&second), Some(Ok(())));
}

/// Answers that name a consumer are matched by its tag and by their kind.
#[test]
fn answers_about_consumers_find_their_calls() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let (old, _) = start(&mut peer, id, &consume("old"));
    let mut begin = |tag| peer.session.channel(id).consume(peer.now, &consume(tag)).unwrap();
    let (a, b) = (begin("a"), begin("b"));
    let cancelling = peer.session.channel(id).cancel(peer.now, old).unwrap();
    let tag = |tag| ShortStr::new(tag).unwrap();
    peer.send(1, &basic::CancelOk { consumer_tag: tag("old") });
    assert_eq!(peer.session.take_reply(&cancelling), Some(Ok(())));
    peer.send(1, &basic::ConsumeOk { consumer_tag: tag("b") });
    assert_eq!(peer.session.take_reply(&b).unwrap().unwrap().consumer_tag, "b");
    assert!(peer.session.take_reply(&a).is_none());
    peer.send(1, &basic::ConsumeOk { consumer_tag: tag("a") });
    let a = peer.session.take_reply(&a).unwrap().unwrap();
    assert_eq!(a.consumer_tag, "a");
    // A drain cancels what is still starting: each answer finds its call, whichever comes first.
    let starting = peer.session.channel(id).consume(peer.now, &consume("s")).unwrap();
    peer.session.drain(peer.now, std::time::Duration::from_secs(9)).unwrap();
    peer.send(1, &basic::CancelOk { consumer_tag: tag("s") });
    assert!(peer.session.take_reply(&starting).is_none());
    peer.send(1, &basic::ConsumeOk { consumer_tag: tag("s") });
    assert_eq!(peer.session.take_reply(&starting).unwrap().unwrap().consumer_tag, "s");
    // An answer of the other kind is none.
    peer.session.channel(id).cancel(peer.now, a.consumer).unwrap();
    peer.send(1, &basic::ConsumeOk { consumer_tag: tag("a") });
    assert!(peer.session.cause().is_some());
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let (a, _) = start(&mut peer, id, &consume("a"));
    start(&mut peer, id, &consume("b"));
    let cancelling = peer.session.channel(id).cancel(peer.now, a).unwrap();
    // The consumer of this tag has ended, or has never been: that is no answer to the cancel of `a`.
    peer.send(1, &basic::CancelOk { consumer_tag: tag("c") });
    assert_eq!(peer.session.take_reply(&cancelling), None);
    assert_eq!(peer.session.cause(), None);
    peer.send(1, &basic::CancelOk { consumer_tag: tag("b") });
    assert!(peer.session.cause().is_some(), "nobody cancelled b");
}

/// A tag serves again once the broker has cancelled its consumer, be that before it was started.
#[test]
fn answers_about_consumers_of_one_tag_come_in_order() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let consumer_tag = ShortStr::new("t").unwrap();
    let begin = |peer: &mut Peer| {
        let call = peer.session.channel(id).consume(peer.now, &consume("t")).unwrap();
        peer.send(1, &basic::Cancel { consumer_tag, no_wait: true });
        call
    };
    let calls = [begin(&mut peer), begin(&mut peer), begin(&mut peer)];
    for (at, call) in calls.iter().enumerate() {
        peer.send(1, &basic::ConsumeOk { consumer_tag });
        assert_eq!(peer.session.take_reply(call).unwrap().unwrap().consumer_tag, "t");
        let later = calls.get(at + 1);
        assert!(later.is_none_or(|call| peer.session.take_reply(call).is_none()));
    }
    assert_eq!(peer.session.cause(), None);
}

/// RabbitMQ 4.3 keeps a consumer that it has cancelled, for it was too slow, until that is answered.
#[test]
fn a_brokers_cancel_is_answered() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let consumer_tag = ShortStr::new("t").unwrap();
    let (consumer, _) = start(&mut peer, id, &consume("t"));
    deliver(&mut peer, "t", 1, &Properties::new());
    let held = next(&mut peer, id, consumer);
    wire(&mut peer);
    peer.send(1, &basic::Cancel { consumer_tag, no_wait: true });
    assert_eq!(wire(&mut peer), ["cancel t nowait"]);
    let end = peer.session.channel(id).consumer_end(consumer);
    assert!(matches!(end, Some(Err(Error::ConsumerCancelled { .. }))));
    peer.send(1, &basic::Cancel { consumer_tag, no_wait: true });
    assert!(wire(&mut peer).is_empty(), "once");
    // The tag is free, and the delivery can still be acked.
    peer.session.channel(id).ack(held, false).unwrap();
    assert_eq!(start(&mut peer, id, &consume("t")).1, ["consume t"]);
    // Asked for an answer, it has that one.
    peer.send(1, &basic::Cancel { consumer_tag, no_wait: false });
    assert_eq!(wire(&mut peer), ["ack 1", "basic.CancelOk"][1..]);
}

/// A broker that goes on delivering to a consumer that has ended is told to stop. What it had on its
/// way is requeued, but never what would come again and again.
#[test]
fn a_delivery_to_an_ended_consumer_is_no_loop() {
    for cancelled in [true, false] {
        each_way(|mut peer| {
            let id = peer.channel(1);
            let consumer_tag = ShortStr::new("t").unwrap();
            if cancelled {
                start(&mut peer, id, &consume("t").prefetch(2));
                peer.send(1, &basic::Cancel { consumer_tag, no_wait: true });
            }
            let mut answers = wire(&mut peer);
            for number in 1..=2_000 {
                deliver(&mut peer, "t", number, &Properties::new());
            }
            answers.extend(wire(&mut peer));
            let cancels = answers.iter().filter(|it| *it == "cancel t nowait").count();
            let nacks = answers.iter().filter(|it| it.starts_with("nack ")).count();
            assert_eq!(cancels, 1, "{cancelled}");
            assert_eq!(nacks, if cancelled { 4 } else { 512 });
            assert_eq!(answers.len(), cancels + nacks);
            assert_eq!(peer.session.connection().stats().unacked, 0, "nobody holds the rest");
            // The tag serves again.
            let (consumer, _) = start(&mut peer, id, &consume("t"));
            deliver(&mut peer, "t", 3_000, &Properties::new());
            let held = next(&mut peer, id, consumer);
            peer.session.channel(id).ack(held, false).unwrap();
        });
    }
}

/// Without acknowledgement there is nothing to give back, and tags may repeat.
#[test]
fn a_late_delivery_without_acknowledgement_is_dropped() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let consumer_tag = ShortStr::new("n").unwrap();
    start(&mut peer, id, &consume("n").no_ack());
    peer.send(1, &basic::Cancel { consumer_tag, no_wait: true });
    assert_eq!(wire(&mut peer), ["cancel n nowait"]);
    for _ in 0..3 {
        deliver(&mut peer, "n", 1, &Properties::new());
    }
    assert!(wire(&mut peer).is_empty());
    assert_eq!(peer.session.cause(), None);
}

/// Memory for tags that are nobody's is bounded.
#[test]
fn unknown_tags_are_forgotten_in_their_order() {
    let mut peer = Peer::open();
    peer.channel(1);
    for number in 1..=1_000 {
        deliver(&mut peer, &format!("t{number}"), number, &Properties::new());
    }
    assert_eq!(wire(&mut peer).len(), 2_000, "each is cancelled, and its delivery requeued");
    deliver(&mut peer, "t1000", 1_001, &Properties::new());
    assert_eq!(wire(&mut peer), ["nack 1001"]);
    deliver(&mut peer, "t1", 1_002, &Properties::new());
    assert_eq!(wire(&mut peer), ["cancel t1 nowait", "nack 1002"]);
}

fn offset(number: i64) -> Properties {
    let mut headers = FieldTable::new();
    headers.insert("x-stream-offset", number);
    Properties::new().headers(headers)
}

/// RabbitMQ before 3.11 ends the connection if a stream is given a message back. The header of its
/// deliveries gives it away; but who republishes a message republishes its headers.
#[test]
fn what_may_be_a_streams_is_never_refused() {
    each_way_with(
        || Peer::open_at("3.10.8"),
        |mut peer| {
            let id = peer.channel(1);
            let (consumer, _) = start(&mut peer, id, &consume("t"));
            for number in 1..=5 {
                deliver(&mut peer, "t", number, &offset(number as i64));
            }
            let [first, second, third] = [(); 3].map(|()| next(&mut peer, id, consumer));
            let mut channel = peer.session.channel(id);
            assert_eq!(channel.nack(first, false, true), Err(AckError::MaybeStream(1)));
            assert_eq!(channel.nack(first, true, false), Err(AckError::Stream(1)));
            assert_eq!(channel.reject(second, true), Err(AckError::MaybeStream(2)));
            channel.ack(first, false).unwrap();
            channel.requeue(second);
            peer.session.channel(id).release_consumer(peer.now, consumer, [third]);
            assert_eq!(wire(&mut peer), ["ack 1", "cancel t"]);
            assert_eq!(peer.session.connection().stats().unacked, 0);
            // While the cancel is on its way.
            deliver(&mut peer, "t", 6, &offset(6));
            peer.send(1, &basic::CancelOk { consumer_tag: ShortStr::new("t").unwrap() });
            deliver(&mut peer, "t", 7, &offset(7));
            assert_eq!(wire(&mut peer), ["cancel t nowait"]);
        },
    );
}

/// A shared limit is lifted while the consumer starts, and RabbitMQ 4.3 has none: its own prefetch tells how many
/// deliveries may be on their way.
#[test]
fn what_a_consumer_without_a_limit_was_sent_is_requeued() {
    each_way(|mut peer| {
        let id = peer.channel(1);
        qos(&mut peer, id, BasicQos::new(1).global());
        start(&mut peer, id, &consume("t").prefetch(0));
        peer.send(1, &basic::Cancel { consumer_tag: ShortStr::new("t").unwrap(), no_wait: true });
        wire(&mut peer);
        for number in 1..=5 {
            deliver(&mut peer, "t", number, &Properties::new());
        }
        assert_eq!(wire(&mut peer), ["nack 1", "nack 2", "nack 3", "nack 4", "nack 5"]);
    });
}

/// It stays unacknowledged, and the tags of others cover it.
#[test]
fn a_stray_that_may_be_a_streams_is_not_refused_with_others() {
    each_way_with(
        || Peer::open_at("3.10.8"),
        |mut peer| {
            let id = peer.channel(1);
            let (consumer, _) = start(&mut peer, id, &consume("t"));
            deliver(&mut peer, "gone", 1, &offset(1));
            deliver(&mut peer, "t", 2, &Properties::new());
            assert_eq!(wire(&mut peer), ["cancel gone nowait"]);
            let held = next(&mut peer, id, consumer);
            let mut channel = peer.session.channel(id);
            assert_eq!(channel.nack(held, true, true), Err(AckError::Stream(2)));
            channel.nack(held, false, true).unwrap();
            assert_eq!(wire(&mut peer), ["nack 2"]);
        },
    );
}

/// One message without the header shows that its queue is no stream; and RabbitMQ 3.11 and later
/// bear it.
#[test]
fn what_is_no_streams_is_refused_as_ever() {
    each_way_with(
        || Peer::open_at("3.10.8"),
        |mut peer| {
            let id = peer.channel(1);
            let (consumer, _) = start(&mut peer, id, &consume("t"));
            deliver(&mut peer, "t", 1, &offset(1));
            deliver(&mut peer, "t", 2, &Properties::new());
            deliver(&mut peer, "t", 3, &offset(2));
            let [first, second, third] = [(); 3].map(|()| next(&mut peer, id, consumer));
            let mut channel = peer.session.channel(id);
            assert_eq!(channel.nack(first, false, true), Err(AckError::MaybeStream(1)));
            channel.nack(second, false, true).unwrap();
            channel.nack(third, false, true).unwrap();
            assert_eq!(wire(&mut peer), ["nack 2", "nack 3"]);
        },
    );
    for version in ["3.11.0", "4.3.6", "x"] {
        each_way_with(
            || Peer::open_at(version),
            |mut peer| {
                let id = peer.channel(1);
                let (consumer, _) = start(&mut peer, id, &consume("t"));
                deliver(&mut peer, "t", 1, &offset(1));
                let held = next(&mut peer, id, consumer);
                peer.session.channel(id).nack(held, true, true).unwrap();
                assert_eq!(wire(&mut peer), ["nack 1"]);
            },
        );
    }
}

/// RabbitMQ 3.10 answers a cancel twice if the quorum queue is deleted meanwhile. A consumer that runs
/// has asked for no answer.
#[test]
fn a_second_answer_to_a_cancel_is_ignored() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let cancel_ok = basic::CancelOk { consumer_tag: ShortStr::new("t").unwrap() };
    let (consumer, _) = start(&mut peer, id, &BasicConsume::new("q").consumer_tag("t"));
    let cancel = peer.session.channel(id).cancel(peer.now, consumer).unwrap();
    peer.send(1, &cancel_ok);
    assert_eq!(peer.session.take_reply(&cancel), Some(Ok(())));
    peer.events();
    peer.send(1, &cancel_ok);
    assert_eq!((peer.events(), peer.session.cause()), (vec![], None));
    start(&mut peer, id, &BasicConsume::new("q").consumer_tag("t"));
    peer.send(1, &cancel_ok);
    assert!(peer.cause().to_string().contains("503"), "{}", peer.cause());
}
