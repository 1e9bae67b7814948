//! Consumers: they start again with their tags and their prefetch, or end with the broker's error.

use std::time::Duration;

use amqp_core::proto::ShortStr;
use amqp_core::proto::method::basic;
use amqp_core::{
    AckError, BasicConsume, BasicQos, ChannelId, Config, ConsumerKey, Error, Event, QueueDeclare,
    Recovery, TimeoutReason,
};

use super::{close, deliver, grant, has_recovered, recover, recovering, wire};
use crate::peer::Peer;

/// Starts a consumer on channel 1.
fn start(peer: &mut Peer, id: ChannelId, consume: &BasicConsume) -> ConsumerKey {
    let call = peer.session.channel(id).consume(peer.now, consume).unwrap();
    let frames = wire(peer);
    grant(peer, &frames);
    peer.session.take_reply(&call).unwrap().unwrap().consumer
}

fn consume(queue: &str) -> BasicConsume {
    BasicConsume::new(queue).consumer_tag(format!("tag-{queue}"))
}

/// A session with a consumer of each of these queues on channel 1.
fn consuming(queues: &[&str]) -> (Peer, ChannelId, Vec<ConsumerKey>) {
    let mut peer = recovering();
    let id = peer.channel(1);
    let start = |queue: &&str| start(&mut peer, id, &consume(queue));
    let keys = queues.iter().map(start).collect();
    (peer, id, keys)
}

/// The same after a loss: the session has asked for all of them at once.
fn restarting(queues: &[&str]) -> (Peer, ChannelId, Vec<ConsumerKey>) {
    let (mut peer, id, keys) = consuming(queues);
    peer.lose();
    peer.events();
    peer.reconnect();
    // With the channel and its limit.
    assert_eq!(frames(&mut peer).len(), 2 + queues.len());
    (peer, id, keys)
}

#[test]
fn r14_consumers_keep_their_tags_and_their_prefetch() {
    let mut peer = recovering();
    let id = peer.channel(1);
    start(&mut peer, id, &consume("default"));
    let qos = peer.session.channel(id).call(peer.now, &BasicQos::new(10)).unwrap();
    wire(&mut peer);
    peer.send(1, &basic::QosOk::default());
    peer.session.take_reply(&qos).unwrap().unwrap();
    start(&mut peer, id, &consume("ten"));
    start(&mut peer, id, &consume("own").prefetch(3));
    start(&mut peer, id, &consume("none").no_ack());
    let ended = start(&mut peer, id, &consume("ended"));
    let _ = peer.session.channel(id).cancel(peer.now, ended).unwrap();
    peer.send(1, &basic::CancelOk { consumer_tag: ShortStr::new("tag-ended").unwrap() });
    wire(&mut peer);
    for _ in 0..2 {
        peer.lose();
        let expected = [
            "1 channel.Open",
            "1 qos 256",
            "1 consume default as tag-default",
            "1 qos 10",
            "1 consume ten as tag-ten",
            "1 qos 3",
            "1 consume own as tag-own",
            "1 consume none as tag-none",
        ];
        assert_eq!(recover(&mut peer), expected);
        assert!(has_recovered(&peer.events()));
    }
    assert_eq!(peer.session.connection().stats().consumers, 4);
    // The application's last limit holds for the next consumer.
    let _ = peer.session.channel(id).consume(peer.now, &consume("next")).unwrap();
    assert_eq!(wire(&mut peer), ["1 qos 10", "1 consume next as tag-next"]);
}

/// It was called between two limits, and nothing of it was written before the loss.
#[test]
fn a_consumer_that_was_not_sent_has_the_limit_from_before_it() {
    let mut peer = recovering();
    let id = peer.channel(1);
    let _ = peer.session.channel(id).call(peer.now, &BasicQos::new(10)).unwrap();
    wire(&mut peer);
    peer.send(1, &basic::QosOk::default());
    let _ = peer.session.channel(id).consume(peer.now, &consume("q")).unwrap();
    let _ = peer.session.channel(id).call(peer.now, &BasicQos::new(3)).unwrap();
    peer.lose();
    recover(&mut peer);
    assert_eq!(wire(&mut peer), ["1 qos 10", "1 consume q as tag-q", "1 qos 3"]);
}

#[test]
fn r15_an_ack_of_an_old_delivery_is_stale_and_never_sent() {
    let (mut peer, id, keys) = consuming(&["q"]);
    for tag in 1..=3 {
        deliver(&mut peer, 1, "tag-q", tag);
    }
    let old = peer.session.channel(id).next_delivery(keys[0]).unwrap();
    peer.lose();
    assert!(peer.session.channel(id).next_delivery(keys[0]).is_none(), "they are delivered again");
    let stale = |peer: &mut Peer| {
        let mut channel = peer.session.channel(id);
        assert!(matches!(
            channel.ack(old.tag, true),
            Err(AckError::Stale(Error::ConnectionLost(_)))
        ));
        assert!(matches!(channel.nack(old.tag, false, true), Err(AckError::Stale(_))));
        assert!(matches!(channel.reject(old.tag, true), Err(AckError::Stale(_))));
        assert!(channel.is_stale(old.tag) && !channel.requeue(old.tag));
        assert!(!channel.drop_unacked(old.tag));
    };
    stale(&mut peer);
    peer.reconnect();
    let frames = wire(&mut peer);
    grant(&mut peer, &frames);
    deliver(&mut peer, 1, "tag-q", 1);
    stale(&mut peer);
    assert!(wire(&mut peer).is_empty());
    let new = peer.session.channel(id).next_delivery(keys[0]).unwrap();
    peer.session.channel(id).ack(new.tag, false).unwrap();
    assert_eq!(wire(&mut peer), ["1 ack 1"]);
}

/// A delivery may arrive, and be acknowledged, before everything else is restored.
#[test]
fn deliveries_do_not_wait_for_the_gate() {
    let (mut peer, id, keys) = consuming(&["a", "b"]);
    peer.lose();
    peer.events();
    peer.reconnect();
    let frames = wire(&mut peer);
    grant(&mut peer, &frames[..3]);
    deliver(&mut peer, 1, "tag-a", 1);
    assert!(!has_recovered(&peer.events()));
    let tag = peer.session.channel(id).next_delivery(keys[0]).unwrap().tag;
    peer.session.channel(id).ack(tag, false).unwrap();
    assert_eq!(wire(&mut peer), ["1 ack 1"]);
    grant(&mut peer, &frames[3..]);
    assert!(has_recovered(&peer.events()));
}

/// Deliveries without acknowledgement are not sent again.
#[test]
fn what_needs_no_ack_can_still_be_read() {
    let mut peer = recovering();
    let id = peer.channel(1);
    let key = start(&mut peer, id, &consume("q").no_ack());
    deliver(&mut peer, 1, "tag-q", 1);
    peer.lose();
    recover(&mut peer);
    deliver(&mut peer, 1, "tag-q", 1);
    let mut channel = peer.session.channel(id);
    assert!(channel.next_delivery(key).is_some() && channel.next_delivery(key).is_some());
    assert!(channel.next_delivery(key).is_none());
}

/// The frames of the channel since the last call, without its number, which is another one each time it is opened.
fn frames(peer: &mut Peer) -> Vec<String> {
    let bare = |frame: String| frame.split_once(' ').unwrap().1.to_owned();
    wire(peer).into_iter().map(bare).collect()
}

/// The broker grants what these frames ask for on the channel.
fn grant_on(peer: &mut Peer, id: ChannelId, frames: &[&str]) {
    let number = peer.session.channel(id).number().unwrap();
    let frames: Vec<_> = frames.iter().map(|frame| format!("{number} {frame}")).collect();
    grant(peer, &frames);
}

/// The broker closes the channel.
fn refuse(peer: &mut Peer, id: ChannelId, code: u16, reason: &str) {
    let number = peer.session.channel(id).number().unwrap();
    close(peer, number, code, reason);
}

#[test]
fn r7_a_consumer_that_the_broker_refuses_ends_and_the_others_go_on() {
    let (mut peer, id, keys) = restarting(&["a", "b", "c"]);
    grant_on(&mut peer, id, &["channel.Open", "qos 256"]);
    refuse(&mut peer, id, 404, "NOT_FOUND - no queue 'b' in vhost '/'");
    // Three were in flight. One after the other shows which of them it is.
    let opened = ["channel.CloseOk", "channel.Open", "qos 256", "consume a as tag-a"];
    assert_eq!(frames(&mut peer), opened);
    grant_on(&mut peer, id, &opened[1..]);
    assert_eq!(frames(&mut peer), ["consume b as tag-b"]);
    refuse(&mut peer, id, 404, "NOT_FOUND - no queue 'b' in vhost '/'");
    assert_eq!(frames(&mut peer), opened);
    grant_on(&mut peer, id, &opened[1..]);
    assert_eq!(frames(&mut peer), ["consume c as tag-c"]);
    grant_on(&mut peer, id, &["consume c as tag-c"]);
    let events = peer.events();
    assert!(has_recovered(&events));
    let lost: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::ConsumerLost(lost) => Some(&*lost.queue),
            _ => None,
        })
        .collect();
    assert_eq!(lost, ["b"]);
    let Some(Err(Error::Channel(cause))) = peer.session.channel(id).consumer_end(keys[1]) else {
        panic!("it ends with the broker's error")
    };
    assert!(cause.to_string().contains("no queue 'b'"));
    assert!(peer.session.channel(id).is_open());
    peer.lose();
    let restored = recover(&mut peer);
    assert_eq!(restored.iter().filter(|frame| frame.contains("consume")).count(), 2);
}

/// When a consumer is refused, the channel is opened again on the same transport, where its tags begin anew.
#[test]
fn r15_a_delivery_from_before_a_refusal_is_stale() {
    let (mut peer, id, keys) = restarting(&["a", "b"]);
    let opened = ["channel.Open", "qos 256", "consume a as tag-a"];
    grant_on(&mut peer, id, &opened);
    deliver(&mut peer, 1, "tag-a", 1);
    let old = peer.session.channel(id).next_delivery(keys[0]).unwrap().tag;
    refuse(&mut peer, id, 404, "NOT_FOUND - no queue 'b' in vhost '/'");
    frames(&mut peer);
    grant_on(&mut peer, id, &opened);
    let number = peer.session.channel(id).number().unwrap();
    deliver(&mut peer, number, "tag-a", 1);
    assert!(has_recovered(&peer.events()));
    let mut channel = peer.session.channel(id);
    assert!(channel.is_stale(old) && !channel.drop_unacked(old) && !channel.requeue(old));
    assert!(matches!(channel.ack(old, true), Err(AckError::Stale(_))));
    assert!(matches!(channel.nack(old, true, true), Err(AckError::Stale(_))));
    assert!(frames(&mut peer).is_empty());
    let new = peer.session.channel(id).next_delivery(keys[0]).unwrap().tag;
    peer.session.channel(id).ack(new, false).unwrap();
    assert_eq!(frames(&mut peer), ["ack 1"]);
}

/// The channel's last queue is declared passively once, when all consumers have started.
#[test]
fn r7_a_refused_consumer_does_not_delay_a_channel_that_has_declared_a_queue() {
    let (mut peer, id, _) = consuming(&["a", "b"]);
    let declare = peer.session.channel(id).call(peer.now, &QueueDeclare::new("c")).unwrap();
    let declaring = wire(&mut peer);
    grant(&mut peer, &declaring);
    peer.session.take_reply(&declare).unwrap().unwrap();
    peer.lose();
    peer.events();
    peer.reconnect();
    for _ in 0..2 {
        let topology = wire(&mut peer);
        grant(&mut peer, &topology);
    }
    assert_eq!(frames(&mut peer).len(), 5);
    grant_on(&mut peer, id, &["channel.Open", "qos 256"]);
    refuse(&mut peer, id, 404, "NOT_FOUND - no queue 'a' in vhost '/'");
    assert_eq!(frames(&mut peer).last().unwrap(), "consume a as tag-a");
    grant_on(&mut peer, id, &["channel.Open", "qos 256"]);
    refuse(&mut peer, id, 404, "NOT_FOUND - no queue 'a' in vhost '/'");
    let opened = ["channel.CloseOk", "channel.Open", "qos 256", "consume b as tag-b"];
    assert_eq!(frames(&mut peer), opened);
    grant_on(&mut peer, id, &opened[1..]);
    assert_eq!(frames(&mut peer), ["queue c"]);
    grant_on(&mut peer, id, &["queue c"]);
    assert!(frames(&mut peer).is_empty());
    assert!(has_recovered(&peer.events()));
}

/// The broker holds exclusive consumers for the old connection until it notices the loss.
#[test]
fn an_exclusive_consumer_is_started_when_the_broker_lets_go() {
    const IN_USE: &str = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use";
    let sent = ["channel.Open", "qos 256", "consume q as tag-q"];
    let mut peer = recovering();
    let id = peer.channel(1);
    let key = start(&mut peer, id, &consume("q").exclusive());
    peer.lose();
    peer.events();
    peer.reconnect();
    for _ in 0..5 {
        assert_eq!(frames(&mut peer), sent);
        grant_on(&mut peer, id, &sent[..2]);
        refuse(&mut peer, id, 403, IN_USE);
        assert_eq!(frames(&mut peer), ["channel.CloseOk"]);
        let (due, reason) = peer.session.poll_timeout().unwrap();
        assert_eq!(reason, TimeoutReason::Held);
        peer.pass(due - peer.now);
    }
    assert_eq!(frames(&mut peer), sent);
    grant_on(&mut peer, id, &sent);
    assert!(has_recovered(&peer.events()));
    assert_eq!(peer.session.channel(id).consumer_end(key), None);

    // Another connection that has it for good is not waited for forever.
    peer.lose();
    peer.reconnect();
    let begun = peer.now;
    while !has_recovered(&peer.events()) {
        if frames(&mut peer).contains(&sent[2].to_owned()) {
            grant_on(&mut peer, id, &sent[..2]);
            refuse(&mut peer, id, 403, IN_USE);
        } else if let Some((due, TimeoutReason::Held)) = peer.session.poll_timeout() {
            peer.pass(due - peer.now);
            peer.send_bytes(&amqp_core::proto::frame::HEARTBEAT);
        } else {
            grant_on(&mut peer, id, &["channel.Open"]);
        }
    }
    let waited = peer.now - begun;
    assert!((Duration::from_secs(30)..Duration::from_secs(32)).contains(&waited), "{waited:?}");
    assert!(matches!(peer.session.channel(id).consumer_end(key), Some(Err(Error::Channel(_)))));
}

/// The messages of the others are not delivered and requeued each time.
#[test]
fn a_consumer_that_the_broker_puts_off_is_started_before_the_others() {
    const IN_USE: &str = "ACCESS_REFUSED - queue 'b' in vhost '/' in exclusive use";
    let (mut peer, id, _) = restarting(&["a", "b", "c"]);
    grant_on(&mut peer, id, &["channel.Open", "qos 256", "consume a as tag-a"]);
    refuse(&mut peer, id, 403, IN_USE);
    // It is unknown which of two it is.
    assert_eq!(frames(&mut peer).last().unwrap(), "consume a as tag-a");
    grant_on(&mut peer, id, &["channel.Open", "qos 256", "consume a as tag-a"]);
    assert_eq!(frames(&mut peer), ["consume b as tag-b"]);
    let opened = ["channel.Open", "qos 256", "consume b as tag-b"];
    for _ in 0..3 {
        refuse(&mut peer, id, 403, IN_USE);
        assert_eq!(frames(&mut peer), ["channel.CloseOk"]);
        let (due, reason) = peer.session.poll_timeout().unwrap();
        assert_eq!(reason, TimeoutReason::Held);
        peer.pass(due - peer.now);
        assert_eq!(frames(&mut peer), opened);
        grant_on(&mut peer, id, &opened[..2]);
    }
    grant_on(&mut peer, id, &opened[2..]);
    for other in ["consume a as tag-a", "consume c as tag-c"] {
        assert!(!has_recovered(&peer.events()));
        assert_eq!(frames(&mut peer), [other]);
        grant_on(&mut peer, id, &[other]);
    }
    assert!(has_recovered(&peer.events()));
}

/// The others are started all the same.
#[test]
fn r7_a_consumer_may_be_cancelled_while_it_starts() {
    let (mut peer, id, keys) = restarting(&["a", "b", "c"]);
    grant_on(&mut peer, id, &["channel.Open", "qos 256"]);
    refuse(&mut peer, id, 404, "NOT_FOUND - no queue 'c' in vhost '/'");
    assert_eq!(frames(&mut peer).last().unwrap(), "consume a as tag-a");
    let cancel = peer.session.channel(id).cancel(peer.now, keys[0]).unwrap();
    assert_eq!(frames(&mut peer), ["cancel tag-a"]);
    grant_on(&mut peer, id, &["channel.Open", "qos 256", "consume a as tag-a"]);
    assert_eq!(frames(&mut peer), ["consume b as tag-b"]);
    let number = peer.session.channel(id).number().unwrap();
    peer.send(number, &basic::CancelOk { consumer_tag: ShortStr::new("tag-a").unwrap() });
    assert_eq!(peer.session.take_reply(&cancel), Some(Ok(())));
    grant_on(&mut peer, id, &["consume b as tag-b"]);
    assert_eq!(frames(&mut peer), ["consume c as tag-c"]);
    assert!(!has_recovered(&peer.events()));
    grant_on(&mut peer, id, &["consume c as tag-c"]);
    assert!(has_recovered(&peer.events()));
    assert_eq!(peer.session.connection().stats().consumers, 2);
}

#[test]
fn a_consumer_that_is_cancelled_is_not_reported_when_it_is_refused() {
    let (mut peer, id, keys) = restarting(&["a"]);
    let cancel = peer.session.channel(id).cancel(peer.now, keys[0]).unwrap();
    grant_on(&mut peer, id, &["channel.Open", "qos 256"]);
    refuse(&mut peer, id, 404, "NOT_FOUND - no queue 'a' in vhost '/'");
    assert_eq!(peer.session.take_reply(&cancel), Some(Ok(())));
    assert_eq!(peer.session.channel(id).consumer_end(keys[0]), Some(Ok(())));
    grant_on(&mut peer, id, &["channel.Open"]);
    let events = peer.events();
    assert!(has_recovered(&events));
    assert!(!events.iter().any(|event| matches!(event, Event::ConsumerLost(_))), "{events:?}");
}

#[test]
fn consumers_may_be_started_and_cancelled_meanwhile() {
    let (mut peer, id, keys) = consuming(&["a", "b"]);
    peer.lose();
    let cancelled = peer.session.channel(id).cancel(peer.now, keys[0]).unwrap();
    assert_eq!(peer.session.take_reply(&cancelled), Some(Ok(())));
    assert_eq!(peer.session.channel(id).consumer_end(keys[0]), Some(Ok(())));
    let call = peer.session.channel(id).consume(peer.now, &consume("c")).unwrap();
    let gone = peer.session.channel(id).consume(peer.now, &consume("d")).unwrap();
    peer.session.forget(peer.now, gone.key());
    let expected = ["1 channel.Open", "1 qos 256", "1 consume b as tag-b"];
    assert_eq!(recover(&mut peer), expected);
    let frames = wire(&mut peer);
    assert_eq!(frames, ["1 consume c as tag-c"]);
    grant(&mut peer, &frames);
    assert!(peer.session.take_reply(&call).unwrap().is_ok());
    assert_eq!(peer.session.connection().stats().consumers, 2);
    assert_eq!(peer.session.connection().stats().open_calls, 0);
}

/// A consumer whose handle is dropped while it is being restored.
#[test]
fn a_consumer_that_is_released_is_not_left_at_the_broker() {
    let (mut peer, id, keys) = consuming(&["a", "b"]);
    peer.lose();
    peer.session.channel(id).release_consumer(peer.now, keys[0], []);
    peer.reconnect();
    let frames = wire(&mut peer);
    assert_eq!(frames, ["1 channel.Open", "1 qos 256", "1 consume b as tag-b"]);
    peer.session.channel(id).release_consumer(peer.now, keys[1], []);
    grant(&mut peer, &frames);
    assert_eq!(wire(&mut peer), ["1 cancel tag-b"]);
    peer.send(1, &basic::CancelOk { consumer_tag: ShortStr::new("tag-b").unwrap() });
    assert!(has_recovered(&peer.events()));
    assert_eq!(peer.session.connection().stats().consumers, 0);
}

/// The broker cancels the consumer of channel 1, because its queue is gone.
fn cancel_by_broker(peer: &mut Peer, number: u16) {
    let consumer_tag = ShortStr::new("tag-q").unwrap();
    peer.send(number, &basic::Cancel { consumer_tag, no_wait: true });
}

/// Time passes until the session asks for a queue. Returns the frames.
fn asks(peer: &mut Peer) -> Vec<String> {
    for _ in 0..20 {
        let (due, reason) = peer.session.poll_timeout().unwrap();
        peer.pass(due - peer.now);
        if reason == TimeoutReason::Resubscribe {
            break;
        }
        wire(peer);
        peer.send_bytes(&amqp_core::proto::frame::HEARTBEAT);
    }
    wire(peer)
}

#[test]
fn a_consumer_that_the_broker_cancels_may_subscribe_again() {
    // The limit on attempts is for connections.
    let policy = Recovery::automatic().resubscribe(true).attempts(1);
    let mut peer = Peer::open_with(Config::default().recovery(policy));
    let id = peer.channel(1);
    let key = start(&mut peer, id, &consume("q"));
    cancel_by_broker(&mut peer, 1);
    assert_eq!(wire(&mut peer), ["1 cancel tag-q"]);
    assert!(peer.events().iter().any(|event| matches!(event, Event::ConsumerCancelled(_))));
    assert_eq!(peer.session.channel(id).consumer_end(key), None);

    // It is asked for on another channel, because a refusal would close this one.
    for number in 2..=3 {
        let frames = asks(&mut peer);
        assert_eq!(frames, [format!("{number} channel.Open"), format!("{number} queue q")]);
        grant(&mut peer, &frames[..1]);
        close(&mut peer, number, 404, "NOT_FOUND - no queue 'q'");
        wire(&mut peer);
    }
    // A loss in between changes nothing, except that it is not started where it would be refused.
    peer.lose();
    assert_eq!(recover(&mut peer), ["1 channel.Open"]);
    let frames = asks(&mut peer);
    assert_eq!(frames, ["2 channel.Open", "2 queue q"]);
    grant(&mut peer, &frames);
    let frames = wire(&mut peer);
    assert_eq!(frames, ["2 channel.Close", "1 qos 256", "1 consume q as tag-q"]);
    grant(&mut peer, &frames);
    deliver(&mut peer, 1, "tag-q", 1);
    let tag = peer.session.channel(id).next_delivery(key).unwrap().tag;
    peer.session.channel(id).ack(tag, false).unwrap();
    assert_eq!(wire(&mut peer), ["1 ack 1"]);

    // Cancelled by the application while it waits.
    cancel_by_broker(&mut peer, 1);
    let cancelled = peer.session.channel(id).cancel(peer.now, key).unwrap();
    assert_eq!(peer.session.take_reply(&cancelled), Some(Ok(())));
    assert_eq!(peer.session.channel(id).consumer_end(key), Some(Ok(())));
    wire(&mut peer);
    assert_eq!(asks(&mut peer), [""; 0]);

    // By default it ends.
    let mut peer = recovering();
    let id = peer.channel(1);
    let key = start(&mut peer, id, &consume("q"));
    cancel_by_broker(&mut peer, 1);
    let ended = peer.session.channel(id).consumer_end(key);
    assert!(matches!(ended, Some(Err(Error::ConsumerCancelled { .. }))));
}

/// The broker had cancelled the consumer before the loss.
#[test]
fn r15_what_a_cancelled_consumer_has_not_read_is_stale_too() {
    for resubscribe in [false, true] {
        let policy = Recovery::automatic().resubscribe(resubscribe);
        let mut peer = Peer::open_with(Config::default().recovery(policy));
        let id = peer.channel(1);
        let key = start(&mut peer, id, &consume("q"));
        deliver(&mut peer, 1, "tag-q", 1);
        deliver(&mut peer, 1, "tag-q", 2);
        cancel_by_broker(&mut peer, 1);
        assert!(peer.session.channel(id).next_delivery(key).is_some(), "until the loss");
        peer.lose();
        assert!(peer.session.channel(id).next_delivery(key).is_none(), "{resubscribe}");
        assert_eq!(peer.session.channel(id).consumer_end(key).is_some(), !resubscribe);
        assert_eq!(peer.session.connection().stats().unread_bytes, 0);
    }
}

/// The broker has nothing more to send when the connection is restored.
#[test]
fn a_queue_that_is_gone_after_a_loss_is_asked_for() {
    let policy = Recovery::automatic().resubscribe(true);
    let mut peer = Peer::open_with(Config::default().recovery(policy));
    let id = peer.channel(1);
    let key = start(&mut peer, id, &consume("q"));
    wire(&mut peer);
    peer.lose();
    peer.reconnect();
    wire(&mut peer);
    grant_on(&mut peer, id, &["channel.Open", "qos 256"]);
    refuse(&mut peer, id, 404, "NOT_FOUND - no queue 'q' in vhost '/'");
    wire(&mut peer);
    grant_on(&mut peer, id, &["channel.Open"]);
    assert!(has_recovered(&peer.events()));
    assert_eq!(peer.session.channel(id).consumer_end(key), None);
    let (due, reason) = peer.session.poll_timeout().unwrap();
    assert_eq!(reason, TimeoutReason::Resubscribe);
    peer.pass(due - peer.now);
    assert_eq!(frames(&mut peer).last().unwrap(), "queue q");
}

/// The channel on which it was asked for is not left open.
#[test]
fn a_question_without_an_answer_is_asked_again_on_another_channel() {
    let policy = Recovery::automatic().resubscribe(true);
    let mut peer = Peer::open_with(Config::default().recovery(policy));
    let id = peer.channel(1);
    start(&mut peer, id, &consume("q"));
    cancel_by_broker(&mut peer, 1);
    wire(&mut peer);
    let asked = asks(&mut peer);
    assert_eq!(asked, ["2 channel.Open", "2 queue q"]);
    grant(&mut peer, &asked[..1]);
    for _ in 0..30 {
        peer.send_bytes(&amqp_core::proto::frame::HEARTBEAT);
        peer.pass(Duration::from_secs(1));
    }
    assert!(wire(&mut peer).contains(&"2 channel.Close".to_owned()));
}

/// The broker answers after the deadline of the session's call.
#[test]
fn a_late_start_of_a_consumer_is_not_undone() {
    let policy = Recovery::automatic().resubscribe(true);
    let mut peer = Peer::open_with(Config::default().recovery(policy));
    let id = peer.channel(1);
    let key = start(&mut peer, id, &consume("q"));
    cancel_by_broker(&mut peer, 1);
    wire(&mut peer);
    let asked = asks(&mut peer);
    grant(&mut peer, &asked);
    assert_eq!(wire(&mut peer), ["2 channel.Close", "1 consume q as tag-q"]);
    for _ in 0..40 {
        peer.send_bytes(&amqp_core::proto::frame::HEARTBEAT);
        peer.pass(Duration::from_secs(1));
    }
    peer.written.clear();
    grant(&mut peer, &["1 consume q as tag-q".into()]);
    assert!(wire(&mut peer).iter().all(|frame| !frame.contains("cancel")));
    deliver(&mut peer, 1, "tag-q", 1);
    assert!(peer.session.channel(id).next_delivery(key).is_some());
}
