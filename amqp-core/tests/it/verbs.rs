//! Verbs beyond calls and contents: settling, recovering, flow, secrets, draining, time-outs.

use std::time::Duration;

use amqp_core::proto::method::{basic, channel, connection};
use amqp_core::proto::{RawProperties, ShortStr, frame};
use amqp_core::{
    AckError, BasicConsume, BasicGet, BasicRecover, ChannelFlow, ChannelId, CloseCause, Config,
    ConfirmSelect, ConsumerKey, Error, Event, Misuse, Publish, PublishRefused, QueueDeclare,
    Secret, TxCommit, TxRollback, TxSelect,
};

use crate::contents::{self, each_way};
use crate::peer::Peer;

fn consuming(peer: &mut Peer) -> (ChannelId, ConsumerKey) {
    contents::consuming(peer, &BasicConsume::new("q"))
}

fn deliver(peer: &mut Peer, tag: u64) {
    peer.deliver(1, tag, b"");
}

/// N3: RabbitMQ would close the channel.
#[test]
fn a_delivery_is_settled_once() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer);
        (1..=5).for_each(|tag| deliver(&mut peer, tag));
        let mut channel = peer.session.channel(id);
        let tags: Vec<_> =
            std::iter::from_fn(|| channel.next_delivery(consumer)).map(|it| it.tag).collect();
        channel.ack(tags[1], false).unwrap();
        assert_eq!(channel.nack(tags[1], false, true), Err(AckError::Settled(2)));
        assert_eq!(channel.ack(tags[1], true), Err(AckError::Settled(2)));
        channel.ack(tags[3], true).unwrap();
        // Nothing below is open: both acks are one.
        for tag in [0, 1, 2, 3] {
            assert!(matches!(channel.reject(tags[tag], true), Err(AckError::Settled(_))));
        }
        channel.reject(tags[4], true).unwrap();
        assert_eq!(peer.methods(), ["basic.Ack", "basic.Reject"]);
    });
}

/// N4: nothing is sent, and it is told and counted.
#[test]
fn a_delivery_that_is_given_up_is_told() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer);
        deliver(&mut peer, 1);
        peer.events();
        let delivery = peer.session.channel(id).next_delivery(consumer).unwrap();
        assert_eq!(peer.session.connection().stats().unsettled, 1);
        peer.session.channel(id).give_up(delivery.tag);
        peer.session.channel(id).give_up(delivery.tag);
        assert_eq!(peer.events(), [Event::Dropped(id)]);
        let stats = peer.session.connection().stats();
        assert_eq!((stats.unsettled, stats.dropped), (0, 1));
        assert!(peer.methods().is_empty());
        // Its tag is at hand, so it can be settled after all.
        peer.session.channel(id).ack(delivery.tag, false).unwrap();
        peer.session.channel(id).give_up(delivery.tag);
        assert!(peer.events().is_empty());
    });
}

#[test]
fn a_rollback_lets_deliveries_be_settled_again() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer);
        peer.session.channel(id).call(peer.now, &TxSelect::default()).unwrap();
        deliver(&mut peer, 1);
        let mut channel = peer.session.channel(id);
        let tag = channel.next_delivery(consumer).unwrap().tag;
        channel.ack(tag, false).unwrap();
        assert_eq!(channel.ack(tag, false), Err(AckError::Settled(1)));
        channel.call(peer.now, &TxRollback::default()).unwrap();
        channel.nack(tag, false, true).unwrap();
        channel.call(peer.now, &TxCommit::default()).unwrap();
        channel.call(peer.now, &TxRollback::default()).unwrap();
        assert_eq!(channel.ack(tag, false), Err(AckError::Settled(1)));
    });
}

/// BR-12: RabbitMQ would close the channel. The modes exclude each other from the moment they are asked for.
#[test]
fn confirms_and_transactions_exclude_each_other() {
    let refused = |refused: Misuse, error: Error| assert_eq!(error, Error::Misuse(refused));
    let mut peer = Peer::open();
    let (plain, confirming, transactional) = (peer.channel(1), peer.channel(2), peer.channel(3));
    let now = peer.now;
    let mut channel = peer.session.channel(plain);
    let error = channel.call(now, &TxCommit::default()).unwrap_err();
    refused(Misuse::NotTransactionMode, error);
    let error = channel.call(now, &TxRollback::default()).unwrap_err();
    refused(Misuse::NotTransactionMode, error);
    let mut channel = peer.session.channel(confirming);
    channel.call(now, &ConfirmSelect::default()).unwrap();
    let error = channel.call(now, &TxSelect::default()).unwrap_err();
    refused(Misuse::ConfirmMode, error);
    let mut channel = peer.session.channel(transactional);
    channel.call(now, &TxSelect::default()).unwrap();
    let error = channel.call(now, &ConfirmSelect::default()).unwrap_err();
    refused(Misuse::TransactionMode, error);
    // Asked for again, each is what it was; what was refused was not written.
    channel.call(now, &TxSelect::default()).unwrap();
    channel.call(now, &TxCommit::default()).unwrap();
    peer.session.channel(confirming).call(now, &ConfirmSelect::default()).unwrap();
    assert_eq!(
        peer.methods(),
        ["confirm.Select", "tx.Select", "tx.Select", "tx.Commit", "confirm.Select"]
    );
}

/// BR-2: what was delivered before the answer is requeued, and comes again.
#[test]
fn recover_makes_earlier_deliveries_stale() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer);
        deliver(&mut peer, 1);
        deliver(&mut peer, 2);
        let first = peer.session.channel(id).next_delivery(consumer).unwrap();
        let call = peer.session.channel(id).call(peer.now, &BasicRecover::default()).unwrap();
        assert_eq!(peer.session.channel(id).ack(first.tag, false), Err(AckError::Recovered(1)));
        deliver(&mut peer, 3);
        peer.send(1, &basic::RecoverOk::default());
        assert_eq!(peer.session.take_reply(&call), Some(Ok(())));
        assert_eq!(peer.session.channel(id).ack(first.tag, false), Err(AckError::Recovered(1)));
        peer.session.channel(id).give_up(first.tag);
        assert!(!peer.events().contains(&Event::Dropped(id)), "it is requeued");
        (4..=6).for_each(|tag| deliver(&mut peer, tag));
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

/// BR-3, and the broker's own wish for a pause.
#[test]
fn flow_is_asked_for_and_heeded() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let refused = peer.session.channel(id).call(peer.now, &ChannelFlow::new(false));
    assert_eq!(refused.unwrap_err(), Error::Misuse(Misuse::FlowInactive));
    let call = peer.session.channel(id).call(peer.now, &ChannelFlow::new(true)).unwrap();
    assert_eq!(peer.methods(), ["channel.Flow"]);
    peer.send(1, &channel::FlowOk { active: true });
    assert_eq!(peer.session.take_reply(&call), Some(Ok(true)));
    peer.events();

    let publish = Publish::new("", "q", b"x");
    peer.send(1, &channel::Flow { active: false });
    assert_eq!(peer.methods(), ["channel.FlowOk"]);
    assert_eq!(peer.session.channel(id).publish(&publish), Err(PublishRefused::Full));
    peer.send(1, &channel::Flow { active: true });
    assert_eq!(peer.events(), [Event::Room]);
    peer.session.channel(id).publish(&publish).unwrap();
}

/// PK-30.
#[test]
fn secrets_are_updated_in_order() {
    let mut peer = Peer::open();
    let secret = Secret::new("s");
    let first = peer.session.update_secret(peer.now, &secret, "r").unwrap();
    peer.last_method(|method| {
        let mut payload = Vec::new();
        method.encode(&mut payload);
        assert_eq!(payload, [0, 10, 0, 70, 0, 0, 0, 1, b's', 1, b'r']);
    });
    let second = peer.session.update_secret(peer.now, &secret, "r").unwrap();
    peer.send(0, &connection::UpdateSecretOk::default());
    assert_eq!(peer.events(), [Event::CallDone(first.key())]);
    assert_eq!(peer.session.take_reply(&first), Some(Ok(())));
    peer.lose();
    assert!(matches!(peer.session.take_reply(&second), Some(Err(Error::Connection(_)))));
    let huge = Secret::new("x".repeat(5_000));
    let mut peer = Peer::open();
    let error = peer.session.update_secret(peer.now, &huge, "r").unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    peer.send(0, &connection::UpdateSecretOk::default());
    assert!(matches!(peer.cause(), CloseCause::Protocol(_)), "nobody asked");
}

/// PK-32: the first `blocked` counts, and `unblocked` ends the wait.
#[test]
fn a_connection_that_is_blocked_for_too_long_ends() {
    let config = || Config::default().blocked_timeout(Duration::from_secs(5));
    let blocked = connection::Blocked { reason: ShortStr::new("low on memory").unwrap() };
    let mut peer = Peer::open_with(config());
    peer.send(0, &blocked);
    peer.pass(Duration::from_secs(4));
    peer.send(0, &blocked);
    peer.send(0, &connection::Unblocked::default());
    peer.pass(Duration::from_secs(6));
    assert_eq!(peer.session.cause(), None);
    peer.send(0, &blocked);
    peer.pass(Duration::from_secs(4));
    peer.send(0, &blocked);
    peer.pass(Duration::from_secs(1));
    let cause = peer.cause();
    assert_eq!(cause.to_string(), "blocked by the broker for 5 s: low on memory");
}

/// Row 15 of the fault matrix.
#[test]
fn a_transport_that_takes_no_bytes_is_dead_unless_the_broker_has_said_so() {
    let stall = |peer: &mut Peer, blocked: bool| {
        if blocked {
            peer.send(0, &connection::Blocked::default());
        }
        let mut out = amqp_core::Transmit::new();
        let id = peer.session.open_channel(peer.now).unwrap().0;
        let _ = id;
        assert!(peer.session.poll_transmit(peer.now, &mut out));
        for _ in 0..6 {
            peer.pass(Duration::from_secs(6));
            // It lives, and talks.
            peer.send_bytes(&frame::HEARTBEAT);
        }
        peer.session.cause().cloned()
    };
    let cause = stall(&mut Peer::open(), false);
    let Some(CloseCause::WriteTimeout { stalled }) = cause else { panic!("{cause:?}") };
    assert_eq!(stalled, Duration::from_secs(20));
    assert_eq!(stall(&mut Peer::open(), true), None);

    // A slow one lives: some bytes are progress.
    let mut peer = Peer::open();
    let mut out = amqp_core::Transmit::new();
    peer.session.open_channel(peer.now).unwrap();
    let before = peer.written_in_all;
    assert!(peer.session.poll_transmit(peer.now, &mut out));
    for byte in 1..8 {
        peer.pass(Duration::from_secs(15));
        peer.send_bytes(&frame::HEARTBEAT);
        peer.session.handle_written(peer.now, peer.attempt, before + byte);
    }
    assert_eq!(peer.session.cause(), None);
}

#[test]
fn a_drain_ends_when_nothing_is_under_way() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer);
        deliver(&mut peer, 1);
        peer.events();
        let drain = peer.session.drain(peer.now, Duration::from_secs(30)).unwrap();
        assert_eq!(peer.methods(), ["basic.Cancel"]);
        let delivery = peer.session.channel(id).next_delivery(consumer).unwrap();
        peer.send(1, &basic::CancelOk { consumer_tag: ShortStr::new("t").unwrap() });
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
    let mut peer = Peer::open();
    let (id, consumer) = consuming(&mut peer);
    deliver(&mut peer, 1);
    let delivery = peer.session.channel(id).next_delivery(consumer).unwrap();
    let drain = peer.session.drain(peer.now, Duration::from_secs(3)).unwrap();
    peer.send(1, &basic::CancelOk { consumer_tag: ShortStr::new("t").unwrap() });
    peer.write();
    peer.pass(Duration::from_secs(2));
    assert_eq!(peer.session.take_reply(&drain), None);
    peer.pass(Duration::from_secs(1));
    let error = peer.session.take_reply(&drain).unwrap().unwrap_err();
    assert_eq!(error, Error::DrainTimeout { unconfirmed: 0, unsettled: 1 });
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
}

/// PK-52: nobody answers, and nobody waits.
#[test]
fn no_wait_expects_no_answer() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let declare = QueueDeclare::new("q");
    peer.session.channel(id).call_no_wait(&declare).unwrap();
    peer.last_method(|method| {
        let amqp_core::proto::method::Method::QueueDeclare(declare) = method else { panic!() };
        assert!(declare.no_wait);
    });
    let call = peer.session.channel(id).call(peer.now, &declare).unwrap();
    peer.last_method(|method| {
        let amqp_core::proto::method::Method::QueueDeclare(declare) = method else { panic!() };
        assert!(!declare.no_wait);
    });
    let queue = ShortStr::new("q").unwrap();
    let ok = amqp_core::proto::method::queue::DeclareOk { queue, ..Default::default() };
    peer.send(1, &ok);
    assert_eq!(peer.session.take_reply(&call).unwrap().unwrap().name(), "q");
}

/// PK-33.
#[test]
fn what_happens_is_counted() {
    each_way(|mut peer| {
        let before = peer.session.connection().stats();
        assert_eq!((before.frames_received, before.frames_sent), (3, 3));
        let (id, consumer) = consuming(&mut peer);
        deliver(&mut peer, 1);
        let delivery = peer.session.channel(id).next_delivery(consumer).unwrap();
        peer.session.channel(id).ack(delivery.tag, false).unwrap();
        peer.session.channel(id).publish(&Publish::new("", "q", vec![0; 10_000])).unwrap();
        peer.write();
        let stats = peer.session.connection().stats();
        assert_eq!((stats.channels, stats.consumers, stats.open_calls), (1, 1, 0));
        assert_eq!((stats.delivered, stats.settled, stats.published), (1, 1, 1));
        // Open-ok, qos-ok, consume-ok, and a delivery without a body.
        assert_eq!(stats.frames_received - before.frames_received, 5);
        // Open, qos, consume, ack, publish, header, three pieces of body.
        assert_eq!(stats.frames_sent - before.frames_sent, 9);
        assert_eq!(stats.bytes_sent, peer.written_in_all);
    });
}

/// PK-53: an answer for another queue is no answer to this call.
#[test]
fn pk_53_an_answer_for_another_queue_is_a_breach() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let mut declare =
        |name| peer.session.channel(id).call(peer.now, &QueueDeclare::new(name)).unwrap();
    let (named, unnamed) = (declare("q"), declare(""));
    let ok = |name| {
        let queue = ShortStr::new(name).unwrap();
        amqp_core::proto::method::queue::DeclareOk { queue, ..Default::default() }
    };
    peer.send(1, &ok("q"));
    peer.send(1, &ok("amq.gen-1"));
    assert_eq!(peer.session.take_reply(&named).unwrap().unwrap().name(), "q");
    assert_eq!(peer.session.take_reply(&unnamed).unwrap().unwrap().name(), "amq.gen-1");
    peer.session.channel(id).call(peer.now, &QueueDeclare::new("q")).unwrap();
    peer.send(1, &ok("other"));
    let CloseCause::Protocol(error) = peer.cause() else { panic!("{:?}", peer.cause()) };
    assert_eq!(error.code.code(), 503);
}

/// What the broker has taken back cannot be given back: it would close the channel.
#[test]
fn nothing_is_nacked_behind_recover() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer);
        deliver(&mut peer, 1);
        deliver(&mut peer, 2);
        let taken = peer.session.channel(id).next_delivery(consumer).unwrap().tag;
        peer.session.channel(id).call(peer.now, &BasicRecover::default()).unwrap();
        let getting = peer.session.channel(id).call(peer.now, &BasicGet::new("q")).unwrap();
        peer.session.channel(id).release_consumer(peer.now, consumer, [taken]);
        peer.session.channel(id).requeue(taken);
        assert_eq!(peer.methods(), ["basic.Recover", "basic.Get", "basic.Cancel"]);
        deliver(&mut peer, 3);
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
        let (id, consumer) = consuming(&mut peer);
        peer.session.channel(id).call(peer.now, &TxSelect::default()).unwrap();
        peer.send(1, &amqp_core::proto::method::tx::SelectOk::default());
        deliver(&mut peer, 1);
        let tag = peer.session.channel(id).next_delivery(consumer).unwrap().tag;
        peer.session.channel(id).requeue(tag);
        peer.session.channel(id).call(peer.now, &TxRollback::default()).unwrap();
        assert_eq!(peer.methods(), ["tx.Select", "basic.Nack", "tx.Rollback"]);
        assert_eq!(peer.session.connection().stats().unsettled, 0);
    });
}

#[test]
fn a_drain_that_nobody_awaits_ends() {
    let mut peer = Peer::open();
    let (id, consumer) = consuming(&mut peer);
    deliver(&mut peer, 1);
    let held = peer.session.channel(id).next_delivery(consumer).unwrap();
    for _ in 0..10 {
        let drain = peer.session.drain(peer.now, Duration::from_secs(3_600)).unwrap();
        peer.session.forget(peer.now, drain.key());
    }
    let cancel_ok = basic::CancelOk { consumer_tag: ShortStr::new("t").unwrap() };
    peer.send(1, &cancel_ok);
    assert_eq!(peer.session.connection().stats().open_calls, 0);
    let (_, reason) = peer.session.poll_timeout().unwrap();
    assert_ne!(reason, amqp_core::TimeoutReason::Call);
    peer.session.channel(id).ack(held.tag, false).unwrap();
}

/// RabbitMQ drops line ends from the names of queues.
#[test]
fn a_queue_name_may_lose_its_line_end() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    for (asked, answered) in [("orders\n", "orders"), ("\r\n", "amq.gen-1")] {
        let declare = QueueDeclare::new(asked);
        let call = peer.session.channel(id).call(peer.now, &declare).unwrap();
        let queue = ShortStr::new(answered).unwrap();
        let ok = amqp_core::proto::method::queue::DeclareOk { queue, ..Default::default() };
        peer.send(1, &ok);
        assert_eq!(peer.session.take_reply(&call).unwrap().unwrap().name(), answered);
    }
}

/// A stream takes no message back.
#[test]
fn what_a_stream_delivered_is_acknowledged_when_nobody_reads_it() {
    each_way(|mut peer| {
        let consume = BasicConsume::new("s").stream_offset(amqp_core::StreamOffset::First);
        let (id, consumer) = contents::consuming(&mut peer, &consume);
        (1..=3).for_each(|tag| deliver(&mut peer, tag));
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
        let consume = BasicConsume::new("s").stream_offset(amqp_core::StreamOffset::Next);
        let (id, consumer) = contents::consuming(&mut peer, &consume);
        (1..=4).for_each(|tag| deliver(&mut peer, tag));
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
        assert_eq!(channel.nack(fourth, false, true), Err(AckError::Settled(4)));
        assert_eq!(peer.methods(), ["basic.Ack"; 2]);
    });
}

/// Calls that a blocked broker does not answer take memory, be their time over or not.
#[test]
fn calls_are_refused_where_too_many_await_their_replies() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    for _ in 0..amqp_core::limits::CALLS_MAX {
        let call = peer.session.channel(id).call(peer.now, &BasicRecover::default()).unwrap();
        peer.session.forget(peer.now, call.key());
    }
    let refused = peer.session.channel(id).call(peer.now, &BasicRecover::default());
    assert_eq!(refused.unwrap_err(), Error::Misuse(Misuse::TooManyCalls));
    peer.send(1, &basic::RecoverOk::default());
    peer.session.channel(id).call(peer.now, &BasicRecover::default()).unwrap();
    // A close is let through.
    peer.session.channel(id).close(peer.now);
}

#[test]
fn an_abort_writes_nothing_more() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    peer.session.channel(id).publish(&Publish::new("", "q", b"x")).unwrap();
    peer.session.abort(CloseCause::Aborted);
    let action = peer.session.poll_action();
    assert!(matches!(action, Some(amqp_core::Action::Disconnect { at_once: true, .. })));
    assert!(peer.methods().is_empty());
}

/// Nothing could come after it.
#[test]
fn the_highest_delivery_tag_is_refused() {
    each_way(|mut peer| {
        consuming(&mut peer);
        deliver(&mut peer, u64::MAX);
        let CloseCause::Protocol(error) = peer.cause() else { panic!("{:?}", peer.cause()) };
        assert_eq!(error.code.code(), 503);
    });
}

/// Whoever waits for room gets it, though others fill the buffer as fast as it is written.
#[test]
fn a_refused_publish_has_its_turn() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    peer.events();
    let body = [0; 1_000];
    let publish = Publish::new("", "q", &body);
    while peer.session.channel(id).publish(&publish).is_ok() {}
    let mut out = amqp_core::Transmit::new();
    let mut rounds = 0;
    while !peer.events().contains(&Event::Room) {
        rounds += 1;
        assert!(rounds < 4, "no room after {rounds} writes");
        assert!(peer.session.poll_transmit(peer.now, &mut out));
        out.advance(out.to_vec().len());
        // Another publisher, which never was refused.
        for _ in 0..400 {
            peer.session.channel(id).publish(&publish).unwrap();
        }
    }
}

/// What was handed over counts until its reader comes again.
#[test]
fn deliveries_that_were_read_do_not_keep_reading_paused() {
    each_way(|mut peer| {
        let (id, consumer) = consuming(&mut peer);
        let unread = |peer: &Peer| peer.session.connection().stats().unread_bytes;
        (1..=5).for_each(|tag| deliver(&mut peer, tag));
        let all = unread(&peer);
        assert!(all > 0);
        let mut pulled = std::collections::VecDeque::new();
        let bytes = peer.session.channel(id).pull_deliveries(consumer, &mut pulled);
        assert_eq!((bytes as u64, unread(&peer), pulled.len()), (all, all, 5));
        assert_eq!(peer.session.channel(id).pull_deliveries(consumer, &mut pulled), 0);
        assert_eq!((unread(&peer), pulled.len()), (0, 5));
        deliver(&mut peer, 6);
        peer.session.channel(id).pull_deliveries(consumer, &mut pulled);
        peer.session.channel(id).release_consumer(peer.now, consumer, []);
        assert_eq!(unread(&peer), 0);
    });
}
