//! Channels: closes from both sides, callers that lose interest, numbers.

use amqp_core::errors::Misuse;
use amqp_core::proto::method::{basic, channel};
use amqp_core::proto::{RawProperties, ShortStr, frame};
use amqp_core::requests::{
    BasicRecover, ChannelFlow, ConfirmSelect, ExchangeUnbind, QueueUnbind, TxCommit, TxRollback,
    TxSelect,
};
use amqp_core::{
    AckError, BasicConsume, BasicGet, BasicQos, ChannelCause, ChannelId, Error, Event,
    ExchangeBind, ExchangeDeclare, ExchangeDelete, Publish, PublishRefused, QueueBind,
    QueueDeclare, QueueDelete, QueuePurge,
};
use bytes::Bytes;

use crate::contents::{consume_on, consuming, content, each_way, header, to};
use crate::peer::Peer;

fn close(code: u16) -> channel::Close<'static> {
    let reply_text = ShortStr::new("NOT_FOUND").unwrap();
    channel::Close { reply_code: code, reply_text, class_id: 60, method_id: 40 }
}

/// The event of a channel that closed, with the cause that the channel keeps.
fn closed(peer: &mut Peer, channel: ChannelId, number: u16) -> Event {
    let cause = peer.session.channel(channel).cause().unwrap();
    Event::ChannelClosed { channel, number, cause: Box::new(cause) }
}

fn deliver(peer: &mut Peer, number: u16, tag: u64) {
    peer.deliver(number, tag, b"body");
}

/// H2, H10: the channel alone dies, and says why from then on.
#[test]
fn a_brokers_close_fails_what_the_channel_awaits() {
    let mut peer = Peer::open();
    let (dying, living) = (peer.channel(1), peer.channel(2));
    let first = peer.session.channel(dying).call(peer.now, &BasicQos::new(1)).unwrap();
    let second = peer.session.channel(dying).call(peer.now, &BasicQos::new(2)).unwrap();
    peer.methods();
    peer.send(1, &close(404));
    assert_eq!(peer.methods(), ["channel.CloseOk"]);
    let [first_done, second_done] = [&first, &second].map(|call| Event::CallDone(call.key()));
    let closed = closed(&mut peer, dying, 1);
    assert_eq!(peer.events(), [first_done, second_done, closed]);
    for call in [first, second] {
        let error = peer.session.take_reply(&call).unwrap().unwrap_err();
        assert!(
            matches!(&error, Error::Channel(ChannelCause::ByBroker(it)) if it.code.code() == 404)
        );
    }
    let error = peer.session.channel(dying).call(peer.now, &BasicQos::new(1)).unwrap_err();
    assert_eq!(error.reply_code().unwrap().code(), 404);
    peer.session.channel(living).call(peer.now, &BasicQos::new(1)).unwrap();
    assert_eq!(peer.methods(), ["basic.Qos"]);
}

/// H4: repeated closes are answered once.
#[test]
fn a_repeated_close_is_answered_once() {
    let mut peer = Peer::open();
    peer.channel(1);
    peer.send(1, &close(406));
    peer.send(1, &close(406));
    assert_eq!(peer.methods(), ["channel.CloseOk"]);
    assert_eq!(peer.session.cause(), None);
}

/// H4: RabbitMQ repeats a close once per tick, also when ours has crossed the first one.
#[test]
fn a_close_repeated_while_ours_is_on_its_way_is_answered_once() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let closing = peer.session.channel(id).close(peer.now);
    for _ in 0..3 {
        peer.send(1, &close(406));
    }
    assert_eq!(peer.methods(), ["channel.Close", "channel.CloseOk"]);
    peer.send(1, &channel::CloseOk::default());
    peer.session.take_reply(&closing).unwrap().unwrap();
    // The number serves again, and a late copy of the close is not meant for its next channel, even if that
    // is being closed already.
    for number in 2..=10 {
        peer.channel(number);
    }
    let (id, opening) = peer.session.open_channel(peer.now).unwrap();
    let closing = peer.session.channel(id).close(peer.now);
    peer.send(1, &close(406));
    assert_eq!(peer.methods(), ["channel.Open", "channel.Close"]);
    peer.send(1, &channel::OpenOk::default());
    peer.session.take_reply(&opening).unwrap().unwrap();
    assert!(peer.session.take_reply(&closing).is_none());
    peer.send(1, &channel::CloseOk::default());
    peer.session.take_reply(&closing).unwrap().unwrap();
    assert_eq!(peer.session.channel(id).cause(), Some(ChannelCause::ByClient));
}

/// H4: both sides close at the same time; each close is answered, calls before ours are not.
#[test]
fn crossing_closes() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let lost = peer.session.channel(id).call(peer.now, &BasicQos::new(1)).unwrap();
    let closing = peer.session.channel(id).close(peer.now);
    assert_eq!(peer.methods(), ["basic.Qos", "channel.Close"]);
    peer.send(1, &close(404));
    assert_eq!(peer.methods(), ["channel.CloseOk"]);
    let [lost_key, closing_key] = [lost.key(), closing.key()].map(Event::CallDone);
    let closed = closed(&mut peer, id, 1);
    let events = [Event::ChannelClosing(id), lost_key, closing_key, closed];
    assert_eq!(peer.events(), events);
    assert!(peer.session.take_reply(&lost).unwrap().is_err());
    peer.session.take_reply(&closing).unwrap().unwrap();
    let cause = peer.session.channel(id).cause().unwrap();
    assert!(matches!(cause, ChannelCause::ByBroker(_)), "the broker had the reason: {cause:?}");
    // RabbitMQ answers ours, or not.
    peer.send(1, &channel::CloseOk::default());
    assert_eq!((peer.events(), peer.session.cause()), (vec![], None));
}

/// The answer to a close of ours that crossed the broker's may come at any time, or never; a close of the
/// number's next channel has its own.
#[test]
fn the_number_of_crossing_closes_serves_again() {
    for comes in [true, false] {
        for close_at_once in [true, false] {
            let mut peer = Peer::open();
            let ids: Vec<_> = (1..=10).map(|number| peer.channel(number)).collect();
            peer.session.channel(ids[0]).close(peer.now);
            peer.methods();
            peer.send(1, &close(404));
            assert_eq!(peer.methods(), ["channel.CloseOk"]);
            let (id, opening) = peer.session.open_channel(peer.now).unwrap();
            let mut closing = close_at_once.then(|| peer.session.channel(id).close(peer.now));
            peer.methods();
            if comes {
                peer.send(1, &channel::CloseOk::default());
            }
            assert!(peer.session.take_reply(&opening).is_none());
            peer.send(1, &channel::OpenOk::default());
            let opened = peer.session.take_reply(&opening).unwrap();
            opened.unwrap();
            let closing =
                closing.take().unwrap_or_else(|| peer.session.channel(id).close(peer.now));
            assert!(peer.session.take_reply(&closing).is_none());
            peer.send(1, &channel::CloseOk::default());
            peer.session.take_reply(&closing).unwrap().unwrap();
            assert_eq!(peer.session.cause(), None);
            // The owed one may even come behind open-ok; another is wrong on a channel that is open.
            let (_, opening) = peer.session.open_channel(peer.now).unwrap();
            peer.send(1, &channel::OpenOk::default());
            peer.session.take_reply(&opening).unwrap().unwrap();
            if !comes {
                peer.send(1, &channel::CloseOk::default());
                assert_eq!(peer.session.cause(), None);
            }
            peer.send(1, &channel::CloseOk::default());
            assert!(peer.session.cause().is_some(), "{comes} {close_at_once}");
        }
    }
}

/// H3: RabbitMQ ends the connection on a close-ok in the middle of a content.
#[test]
fn a_close_in_the_middle_of_our_content() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let body = Bytes::from(vec![7; 600_000]);
    peer.session.channel(id).publish(&Publish::new("", "q", &body)).unwrap();
    peer.session.channel(id).publish(&Publish::new("", "q", b"after")).unwrap();
    let mut out = amqp_core::Transmit::new();
    assert!(peer.session.poll_transmit(peer.now, &mut out));
    let begun = out.to_vec();
    out.advance(begun.len());
    peer.send(1, &close(404));
    peer.write();
    let all = [begun, std::mem::take(&mut peer.written)].concat();
    peer.written = all;
    let frames = peer.methods();
    assert_eq!(frames[..2], ["basic.Publish", "Header"]);
    assert_eq!(frames.iter().filter(|name| *name == "Body").count(), 600_000_usize.div_ceil(4_088));
    assert_eq!(frames.last().unwrap(), "channel.CloseOk");
    assert_eq!(frames.iter().filter(|name| *name == "basic.Publish").count(), 1);
    let refused = peer.session.channel(id).publish(&Publish::new("", "q", b"x")).unwrap_err();
    assert!(matches!(refused, PublishRefused::Error(Error::Channel(_))));
}

/// H5
#[test]
fn pk_22_a_number_is_free_again_only_after_close_ok() {
    let mut peer = Peer::open();
    let ids: Vec<_> = (1..=10).map(|number| peer.channel(number)).collect();
    let full = Misuse::NoFreeChannels { channel_max: 10, by_broker: true };
    assert_eq!(peer.session.open_channel(peer.now).unwrap_err(), full.into());
    peer.session.channel(ids[4]).close(peer.now);
    peer.methods();
    assert!(peer.session.open_channel(peer.now).is_err());
    peer.send(5, &channel::CloseOk::default());
    peer.events();
    let again = peer.channel(5);
    assert_ne!(again, ids[4]);
    let stale = peer.session.channel(ids[4]).call(peer.now, &BasicQos::new(1)).unwrap_err();
    assert_eq!(stale, Error::Channel(ChannelCause::ByClient));
}

/// §9: orphan open-ok -> close.
#[test]
fn a_forgotten_open_is_closed_again() {
    let mut peer = Peer::open();
    let (_, call) = peer.session.open_channel(peer.now).unwrap();
    peer.session.forget(peer.now, call.key());
    assert_eq!(peer.methods(), ["channel.Open"]);
    peer.send(1, &channel::OpenOk::default());
    assert_eq!(peer.methods(), ["channel.Close"]);
    peer.send(1, &channel::CloseOk::default());
    peer.channel(2);
    assert_eq!(peer.session.cause(), None);
}

/// §9: orphan consume-ok -> cancel, and requeue.
#[test]
fn a_forgotten_consumer_is_cancelled_and_its_deliveries_requeued() {
    each_way(|mut peer| {
        let id = peer.channel(1);
        let consume = BasicConsume::new("q").consumer_tag("t");
        let call = peer.session.channel(id).consume(peer.now, &consume).unwrap();
        peer.session.forget(peer.now, call.key());
        assert_eq!(peer.methods(), ["basic.Qos", "basic.Consume"]);
        peer.send(1, &basic::QosOk::default());
        deliver(&mut peer, 1, 1);
        let consumer_tag = ShortStr::new("t").unwrap();
        peer.send(1, &basic::ConsumeOk { consumer_tag });
        assert_eq!(peer.methods(), ["basic.Cancel", "basic.Nack"]);
        deliver(&mut peer, 1, 2);
        assert_eq!(peer.methods(), ["basic.Nack"]);
        peer.send(1, &basic::CancelOk { consumer_tag });
        // The tag is free.
        peer.session.channel(id).consume(peer.now, &consume).unwrap();
    });
}

/// RabbitMQ's queues answer about consumers by way of the channel, behind later calls.
#[test]
fn answers_about_consumers_may_come_late() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let consume = BasicConsume::new("q").consumer_tag("t");
    let consuming = peer.session.channel(id).consume(peer.now, &consume).unwrap();
    let later = peer.session.channel(id).call(peer.now, &BasicQos::new(5)).unwrap();
    peer.send(1, &basic::QosOk::default());
    peer.send(1, &basic::QosOk::default());
    peer.session.take_reply(&later).unwrap().unwrap();
    assert!(peer.session.take_reply(&consuming).is_none());
    peer.send(1, &basic::ConsumeOk { consumer_tag: ShortStr::new("t").unwrap() });
    assert_eq!(peer.session.take_reply(&consuming).unwrap().unwrap().consumer_tag, "t");
}

/// N1, N2: stale and invented tags never reach the wire.
#[test]
fn tags_are_acked_on_their_own_channel_alone() {
    each_way(|mut peer| {
        let (first, second) = (peer.channel(1), peer.channel(2));
        let consumer = consume_on(&mut peer, 1, first, &BasicConsume::new("q"));
        deliver(&mut peer, 1, 1);
        let delivery = peer.session.channel(first).next_delivery(consumer).unwrap();
        peer.methods();
        let foreign = peer.session.channel(second).ack(delivery.tag, true).unwrap_err();
        assert_eq!(foreign, AckError::OtherChannel(1));
        let text = "delivery 1 came on another channel: ack or nack it there";
        assert_eq!(foreign.to_string(), text);
        peer.send(1, &close(406));
        assert_eq!(peer.methods(), ["channel.CloseOk"]);
        let stale = peer.session.channel(first).ack(delivery.tag, true).unwrap_err();
        assert!(matches!(stale, AckError::Stale(Error::Channel(ChannelCause::ByBroker(_)))));
        assert_eq!(peer.methods(), [] as [&str; 0]);
    });
}

/// Contents of different channels interleave; heartbeats come between.
#[test]
fn pk_59b_interleaved_contents_are_told_apart() {
    let mut peer = Peer::open();
    let mut consumers = Vec::new();
    for number in 1..=2 {
        let id = peer.channel(number);
        consumers.push((id, consume_on(&mut peer, number, id, &BasicConsume::new("q"))));
    }
    let bodies = [vec![1; 9_000], vec![2; 5_000]];
    for (number, body) in (1..).zip(&bodies) {
        peer.send(number, &to("t", 1));
        peer.send_bytes(&header(number, RawProperties::NONE.as_bytes(), body.len() as u64));
    }
    let mut pieces = bodies.each_ref().map(|body| body.chunks(4_000));
    while pieces.iter().any(|pieces| pieces.len() > 0) {
        for (number, pieces) in (1..).zip(&mut pieces) {
            let mut bytes = frame::HEARTBEAT.to_vec();
            // An empty body frame is legal.
            frame::write_body(&mut bytes, number, pieces.next().unwrap_or_default());
            if pieces.len() > 0 || bytes.len() > 16 {
                peer.send_bytes(&bytes);
            }
        }
    }
    for ((id, consumer), body) in consumers.into_iter().zip(&bodies) {
        let delivery = peer.session.channel(id).next_delivery(consumer).unwrap();
        assert!(delivery.message.body() == body);
    }
}

/// What was to be acknowledged is requeued with the channel, even if the consumer ended before.
#[test]
fn unread_deliveries_go_with_their_channel() {
    each_way(|mut peer| {
        let consume = BasicConsume::new("q");
        let (id, consumer) = consuming(&mut peer, &consume);
        deliver(&mut peer, 1, 1);
        let cancel = peer.session.channel(id).cancel(peer.now, consumer).unwrap();
        peer.send(1, &basic::CancelOk { consumer_tag: ShortStr::new("t").unwrap() });
        peer.session.take_reply(&cancel).unwrap().unwrap();
        peer.send(1, &close(406));
        assert!(peer.session.channel(id).next_delivery(consumer).is_none());
        assert_eq!(peer.session.channel(id).consumer_end(consumer), Some(Ok(())));
    });
}

/// What needs no acknowledgement is gone from the broker: it is still to be read.
#[test]
fn deliveries_without_acknowledgement_survive_their_channel() {
    each_way(|mut peer| {
        let consume = BasicConsume::new("q").no_ack();
        let (id, consumer) = consuming(&mut peer, &consume);
        deliver(&mut peer, 1, 1);
        peer.session.channel(id).close(peer.now);
        deliver(&mut peer, 1, 2);
        peer.send(1, &channel::CloseOk::default());
        for tag in 1..=2 {
            let delivery = peer.session.channel(id).next_delivery(consumer).unwrap();
            assert_eq!(delivery.tag.number(), tag);
        }
        assert_eq!(peer.session.channel(id).consumer_end(consumer), Some(Ok(())));
    });
}

/// Nothing of a channel follows our `connection.close`.
#[test]
fn handles_dropped_behind_a_close_write_nothing() {
    each_way(|mut peer| {
        let consume = BasicConsume::new("q");
        let (id, consumer) = consuming(&mut peer, &consume);
        deliver(&mut peer, 1, 1);
        peer.session.close(peer.now);
        assert_eq!(peer.methods().last().unwrap(), "connection.Close");
        peer.session.channel(id).release_consumer(peer.now, consumer, []);
        peer.session.channel(id).release(peer.now);
        peer.send(1, &channel::Flow { active: true });
        assert_eq!(peer.methods(), [] as [&str; 0]);
    });
}

/// RabbitMQ takes an answer behind a `channel.close` for a frame on a channel that is not open (504).
#[test]
fn nothing_is_answered_behind_our_close() {
    let mut peer = Peer::open();
    let (id, _) = consuming(&mut peer, &BasicConsume::new("q"));
    peer.session.channel(id).close(peer.now);
    peer.send(1, &channel::Flow { active: true });
    let consumer_tag = ShortStr::new("t").unwrap();
    peer.send(1, &basic::Cancel { consumer_tag, no_wait: false });
    assert_eq!(peer.methods(), ["channel.Close"]);
    peer.send(1, &channel::CloseOk::default());
    assert_eq!(peer.session.cause(), None);
}

/// What has closed does not close again.
#[test]
fn a_channel_that_is_closed_is_not_reported_as_closing() {
    let mut peer = Peer::open();
    let (dead, living) = (peer.channel(1), peer.channel(2));
    peer.send(1, &close(404));
    let closed = closed(&mut peer, dead, 1);
    assert_eq!(peer.events(), [closed]);
    peer.session.close(peer.now);
    assert_eq!(peer.events(), [Event::ChannelClosing(living)]);
}

/// A large content moves on however much its neighbours write.
#[test]
fn large_contents_do_not_starve() {
    let mut peer = Peer::open();
    let (large, small) = (peer.channel(1), peer.channel(2));
    peer.methods();
    let body = Bytes::from(vec![0; 40_000]);
    peer.session.channel(large).publish(&Publish::new("", "q", &body)).unwrap();
    let mut out = amqp_core::Transmit::new();
    let mut written = Vec::new();
    for _ in 0..10 {
        // Half a megabyte of small ones before each write.
        for _ in 0..8_000 {
            peer.session.channel(small).publish(&Publish::new("", "q", b"x")).unwrap();
        }
        assert!(peer.session.poll_transmit(peer.now, &mut out));
        let bytes = out.to_vec();
        out.advance(bytes.len());
        written.extend(bytes);
    }
    peer.written = written;
    let large = peer.methods().iter().filter(|name| *name == "Body").count() - 80_000;
    assert_eq!(large, 10, "a frame in each write");
}

/// §9: orphan get-ok -> requeue; and a message that was asked for may be cut short by a close.
#[test]
fn a_forgotten_get_is_given_back_and_a_cut_one_fails() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let get =
        |peer: &mut Peer| peer.session.channel(id).call(peer.now, &BasicGet::new("q")).unwrap();
    let [_, header, body] =
        content(1, &basic::GetOk::default(), RawProperties::NONE.as_bytes(), b"body")
            .try_into()
            .unwrap();
    let content = [header, body].concat();

    let [forgotten, empty, got] = [get(&mut peer), get(&mut peer), get(&mut peer)];
    peer.session.forget(peer.now, forgotten.key());
    peer.methods();
    peer.send(1, &basic::GetOk { delivery_tag: 1, ..Default::default() });
    peer.send_bytes(&content);
    assert_eq!(peer.methods(), ["basic.Nack"]);
    peer.send(1, &basic::GetEmpty::default());
    assert_eq!(peer.session.take_reply(&empty).unwrap().unwrap(), None);
    peer.send(1, &basic::GetOk { delivery_tag: 2, message_count: 5, ..Default::default() });
    assert!(peer.session.take_reply(&got).is_none(), "its body has not come");
    peer.send_bytes(&content);
    let message = peer.session.take_reply(&got).unwrap().unwrap().unwrap();
    assert_eq!((message.message_count, message.delivery.message.body()), (5, b"body".as_slice()));
    peer.session.channel(id).ack(message.delivery.tag, false).unwrap();

    let cut = get(&mut peer);
    peer.send(1, &basic::GetOk { delivery_tag: 3, ..Default::default() });
    peer.send(1, &close(404));
    assert!(peer.session.take_reply(&cut).unwrap().is_err());
}

/// H10: nothing is written, and the reason is told.
#[test]
fn pk_50_every_method_on_a_closed_channel_is_refused() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    peer.send(1, &close(404));
    peer.methods();
    let now = peer.now;
    let mut channel = peer.session.channel(id);
    macro_rules! refused {
        ($($request:expr),* $(,)?) => {
            $(
                let error = channel.call(now, &$request).unwrap_err();
                assert_eq!(error.reply_code().unwrap().code(), 404);
            )*
        };
    }
    let binding = QueueBind::new("q", "e", "k");
    let bound = ExchangeBind::new("d", "s", "k");
    refused![
        BasicGet::new("q"),
        BasicQos::new(1),
        BasicRecover::default(),
        ChannelFlow::new(true),
        ConfirmSelect::default(),
        bound.clone(),
        ExchangeDeclare::direct("e"),
        ExchangeDelete::new("e"),
        ExchangeUnbind::new(bound),
        binding.clone(),
        QueueDeclare::new("q"),
        QueueDelete::new("q"),
        QueuePurge::new("q"),
        QueueUnbind::new(binding),
        TxCommit::default(),
        TxRollback::default(),
        TxSelect::default(),
    ];
    assert!(channel.consume(now, &BasicConsume::new("q")).is_err());
    assert!(matches!(
        channel.publish(&Publish::new("", "q", b"x")),
        Err(PublishRefused::Error(Error::Channel(_)))
    ));
    assert!(matches!(
        channel.call_no_wait(&QueueDeclare::new("q")),
        Err(PublishRefused::Error(Error::Channel(_)))
    ));
    assert!(peer.methods().is_empty());
}

/// All numbers but the first are taken, and that was closed by the broker with this code.
fn with_a_number_that_served(peer: &mut Peer, code: u16) {
    peer.channel(1);
    peer.send(1, &close(code));
    assert_eq!(peer.methods(), ["channel.CloseOk"]);
    (2..=10).for_each(|number| _ = peer.channel(number));
    peer.methods();
}

/// RabbitMQ refuses an open by closing the connection; others may close the channel.
#[test]
fn a_refused_open_is_answered_and_reported() {
    for reused in [false, true] {
        let mut peer = Peer::open();
        if reused {
            with_a_number_that_served(&mut peer, 406);
        }
        let (id, opening) = peer.session.open_channel(peer.now).unwrap();
        assert_eq!(peer.methods(), ["channel.Open"]);
        if reused {
            // A late copy of the close before; what differs is none.
            peer.send(1, &close(406));
            assert!(peer.methods().is_empty());
        }
        peer.events();
        peer.send(1, &close(504));
        assert_eq!(peer.methods(), ["channel.CloseOk"]);
        let closed = closed(&mut peer, id, 1);
        assert_eq!(peer.events(), [Event::CallDone(opening.key()), closed]);
        let error = peer.session.take_reply(&opening).unwrap().unwrap_err();
        assert_eq!(error.reply_code().unwrap().code(), 504);
        assert_eq!(Error::from(peer.session.channel(id).cause().unwrap()), error);
        peer.session.channel(id).release(peer.now);
        assert!(peer.methods().is_empty(), "it is closed");
        // The number serves again, and nothing is left.
        if !reused {
            (2..=10).for_each(|number| _ = peer.channel(number));
        }
        peer.channel(1);
        assert_eq!(peer.session.connection().stats().open_calls, 0);
        assert_eq!(peer.session.cause(), None);
    }
}

/// A copy of a close is late only until open-ok has come: then it is meant for the channel that is there.
#[test]
fn the_same_close_behind_open_ok_counts() {
    let mut peer = Peer::open();
    with_a_number_that_served(&mut peer, 406);
    let id = peer.channel(1);
    peer.send(1, &close(406));
    assert_eq!(peer.methods(), ["channel.CloseOk"]);
    assert!(matches!(peer.session.channel(id).cause(), Some(ChannelCause::ByBroker(_))));
}

/// Both are waited for, and the answer to the close is the end of both.
#[test]
fn a_peer_that_answers_the_close_has_answered_the_open() {
    let mut peer = Peer::open();
    let (id, opening) = peer.session.open_channel(peer.now).unwrap();
    peer.pass(std::time::Duration::from_secs(5));
    let closing = peer.session.channel(id).close(peer.now);
    assert_eq!(peer.methods(), ["channel.Open", "channel.Close"]);
    peer.send(1, &channel::CloseOk::default());
    peer.session.take_reply(&closing).unwrap().unwrap();
    let error = peer.session.take_reply(&opening).unwrap().unwrap_err();
    assert_eq!(error, Error::Channel(ChannelCause::ByClient));
    assert_eq!((peer.session.connection().stats().open_calls, peer.session.cause()), (0, None));

    // The close may be answered by a refusal of the open as well: one more answer is let pass.
    let (id, opening) = peer.session.open_channel(peer.now).unwrap();
    let closing = peer.session.channel(id).close(peer.now);
    peer.send(2, &close(504));
    assert_eq!(peer.methods(), ["channel.Open", "channel.Close", "channel.CloseOk"]);
    peer.session.take_reply(&closing).unwrap().unwrap();
    let error = peer.session.take_reply(&opening).unwrap().unwrap_err();
    assert_eq!(error.reply_code().unwrap().code(), 504);
    peer.send(2, &channel::CloseOk::default());
    assert_eq!(peer.session.cause(), None);
}

/// They add nothing to a content that is complete without them.
#[test]
fn empty_body_frames_are_let_pass() {
    for size in [0, 3] {
        each_way(|mut peer| {
            let (id, consumer) = consuming(&mut peer, &BasicConsume::new("q"));
            let mut empty = Vec::new();
            frame::write_body(&mut empty, 1, &[]);
            for tag in 1..=2 {
                let mut frames =
                    content(1, &to("t", tag), RawProperties::NONE.as_bytes(), &[7; 3][..size]);
                frames.insert(2, empty.clone());
                frames.extend([empty.clone(), empty.clone()]);
                peer.send_frames(&frames);
            }
            assert_eq!(peer.session.cause(), None);
            for tag in 1..=2 {
                let delivery = peer.session.channel(id).next_delivery(consumer).unwrap();
                assert_eq!((delivery.tag.number(), delivery.message.body().len()), (tag, size));
            }
        });
    }
}
