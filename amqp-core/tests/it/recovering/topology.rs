//! Topology: it is declared again in its order, before the channels, and failures are reported.

use std::collections::VecDeque;

use amqp_core::proto::ShortStr;
use amqp_core::proto::method::{WireMethod, channel, queue};
use amqp_core::requests::{FromReply, NoWait, Rpc};
use amqp_core::{
    BasicConsume, ChannelId, Error, Event, ExchangeBind, ExchangeDeclare, ExchangeType, QueueBind,
    QueueDeclare, QueueDelete, Recovery, TimeoutReason,
};

use super::{close, grant, has_recovered, recover, recovering, wire};
use crate::peer::Peer;

/// Makes a call that the broker grants.
fn call<R: Rpc>(peer: &mut Peer, id: ChannelId, request: &R) -> R::Reply
where
    R::Reply: FromReply,
{
    let call = peer.session.channel(id).call(peer.now, request).unwrap();
    let frames = wire(peer);
    grant(peer, &frames);
    peer.events();
    peer.session.take_reply(&call).unwrap().unwrap()
}

/// A session with a channel 1 on which two exchanges, two queues and their bindings are declared.
fn declared() -> (Peer, ChannelId) {
    let mut peer = recovering();
    let id = peer.channel(1);
    // Not in the order in which they are declared again.
    call(&mut peer, id, &QueueDeclare::new("q1").durable());
    call(&mut peer, id, &ExchangeDeclare::new("e1", ExchangeType::Fanout).durable());
    call(&mut peer, id, &QueueBind::new("q1", "e1", ""));
    call(&mut peer, id, &QueueDeclare::new("q2"));
    call(&mut peer, id, &ExchangeDeclare::new("e2", ExchangeType::Topic));
    call(&mut peer, id, &ExchangeBind::new("e2", "e1", ""));
    call(&mut peer, id, &QueueBind::new("q2", "e2", "#"));
    (peer, id)
}

const REPLAYED: [&str; 8] = [
    "1 channel.Open",
    "1 exchange e1",
    "1 exchange e2",
    "1 bind-exchange e2 to e1",
    "1 queue q1",
    "1 queue q2",
    "1 bind q1 to e1",
    "1 bind q2 to e2",
];

#[test]
fn r1_topology_is_declared_again_in_one_go_and_before_the_channels() {
    let (mut peer, _) = declared();
    for _ in 0..2 {
        peer.lose();
        peer.events();
        let frames = recover(&mut peer);
        assert_eq!(frames[..8], REPLAYED);
        // An empty name means the channel's last queue, also afterwards.
        assert_eq!(frames[8..], ["1 channel.Close", "2 channel.Open", "2 queue q2"]);
        assert!(has_recovered(&peer.events()));
    }
}

/// The channel of the replay is not one that the application knows.
#[test]
fn a_close_during_the_replay_reports_only_channels_of_the_application() {
    let (mut peer, id) = declared();
    peer.lose();
    peer.reconnect();
    assert_eq!(wire(&mut peer).len(), 8);
    peer.events();
    peer.session.close(peer.now);
    let closing: Vec<_> = peer
        .events()
        .into_iter()
        .filter(|event| matches!(event, Event::ChannelClosing(_)))
        .collect();
    assert_eq!(closing, [Event::ChannelClosing(id)]);
}

#[test]
fn r4_what_was_deleted_or_only_checked_does_not_come_back() {
    let (mut peer, id) = declared();
    call(&mut peer, id, &QueueDeclare::passive("other"));
    let delete = peer.session.channel(id).call(peer.now, &QueueDelete::new("q1")).unwrap();
    wire(&mut peer);
    peer.send(1, &queue::DeleteOk { message_count: 0 });
    peer.session.take_reply(&delete).unwrap().unwrap();
    // Nobody waits for the reply, and it counts nevertheless.
    let forgotten = QueueDeclare::new("q3");
    let forgotten = peer.session.channel(id).call(peer.now, &forgotten).unwrap();
    peer.session.forget(peer.now, forgotten.key());
    let frames = wire(&mut peer);
    grant(&mut peer, &frames);
    // Its reply does not arrive.
    let _ = peer.session.channel(id).call(peer.now, &QueueDeclare::new("q4")).unwrap();
    wire(&mut peer);
    peer.lose();
    let frames = recover(&mut peer);
    let queues: Vec<_> = frames.iter().filter(|frame| frame.starts_with("1 queue")).collect();
    assert_eq!(queues, ["1 queue q2", "1 queue q3"]);
    assert_eq!(frames.iter().filter(|frame| frame.contains("bind q1")).count(), 0);
}

#[test]
fn r4_calls_without_a_reply_are_recorded_when_they_are_sent() {
    fn send<R: NoWait>(peer: &mut Peer, id: ChannelId, request: &R) {
        peer.session.channel(id).call_no_wait(request).unwrap();
    }
    let mut peer = recovering();
    let id = peer.channel(1);
    send(&mut peer, id, &QueueDeclare::new("q1"));
    send(&mut peer, id, &QueueDeclare::new("q2"));
    send(&mut peer, id, &QueueBind::new("", "amq.fanout", ""));
    send(&mut peer, id, &QueueDelete::new("q1"));
    wire(&mut peer);
    peer.lose();
    let frames = recover(&mut peer);
    assert_eq!(frames[1..3], ["1 queue q2", "1 bind q2 to amq.fanout"]);
}

#[test]
fn r5_a_queue_that_the_broker_names_keeps_its_bindings_and_consumers() {
    let mut peer = recovering();
    let id = peer.channel(1);
    let declare = peer.session.channel(id).call(peer.now, &QueueDeclare::new("")).unwrap();
    wire(&mut peer);
    let first = ShortStr::new("amq.gen-1").unwrap();
    peer.send(1, &queue::DeclareOk { queue: first, message_count: 0, consumer_count: 0 });
    assert_eq!(peer.session.take_reply(&declare).unwrap().unwrap().queue, "amq.gen-1");
    call(&mut peer, id, &QueueBind::new("", "amq.fanout", ""));
    let consume = BasicConsume::new("").consumer_tag("t");
    call_consume(&mut peer, id, &consume);

    peer.lose();
    peer.events();
    peer.reconnect();
    let frames = wire(&mut peer);
    assert_eq!(frames, ["1 channel.Open", "1 queue "], "the binding waits for the name");
    grant(&mut peer, &frames);
    let frames = wire(&mut peer);
    assert_eq!(frames, ["1 bind amq.gen-2 to amq.fanout"]);
    grant(&mut peer, &frames);
    let frames = wire(&mut peer);
    grant(&mut peer, &frames);
    let frames = wire(&mut peer);
    let expected = ["2 channel.Open", "2 qos 256", "2 consume amq.gen-2 as t", "2 queue amq.gen-2"];
    assert_eq!(frames, expected);
    grant(&mut peer, &frames);
    let events = peer.events();
    assert!(has_recovered(&events));
    let renamed = events.iter().find_map(|event| match event {
        Event::QueueRenamed(renamed) => Some((&*renamed.from, &*renamed.to)),
        _ => None,
    });
    assert_eq!(renamed, Some(("amq.gen-1", "amq.gen-2")));
    // An empty name still means it.
    let _ = peer.session.channel(id).consume(peer.now, &BasicConsume::new("").consumer_tag("u"));
    assert_eq!(wire(&mut peer), ["2 consume  as u"]);
}

/// The name that the broker chose on a transport that was lost at once is not forgotten.
#[test]
fn r5_a_loss_during_the_replay_keeps_the_names() {
    let named = |peer: &mut Peer, name: &str| {
        let queue = ShortStr::new(name).unwrap();
        peer.send(1, &queue::DeclareOk { queue, message_count: 0, consumer_count: 0 });
    };
    let mut peer = recovering();
    let id = peer.channel(1);
    let declare = peer.session.channel(id).call(peer.now, &QueueDeclare::new("")).unwrap();
    wire(&mut peer);
    named(&mut peer, "amq.gen-1");
    peer.session.take_reply(&declare).unwrap().unwrap();
    call(&mut peer, id, &QueueBind::new("", "amq.fanout", ""));
    call_consume(&mut peer, id, &BasicConsume::new("").consumer_tag("t"));
    let mut all = Vec::new();
    for name in ["amq.gen-2", "amq.gen-3"] {
        peer.lose();
        peer.reconnect();
        assert_eq!(wire(&mut peer), ["1 channel.Open", "1 queue "]);
        grant(&mut peer, &["1 channel.Open".into()]);
        named(&mut peer, name);
        assert_eq!(wire(&mut peer), [format!("1 bind {name} to amq.fanout")]);
        all.extend(peer.events());
    }
    peer.send(1, &queue::BindOk::default());
    let frames = wire(&mut peer);
    grant(&mut peer, &frames);
    let expected = ["2 channel.Open", "2 qos 256", "2 consume amq.gen-3 as t", "2 queue amq.gen-3"];
    let frames = wire(&mut peer);
    assert_eq!(frames, expected);
    grant(&mut peer, &frames);
    all.extend(peer.events());
    assert!(has_recovered(&all));
    let renamed: Vec<_> = all
        .iter()
        .filter_map(|event| match event {
            Event::QueueRenamed(renamed) => Some((&*renamed.from, &*renamed.to)),
            _ => None,
        })
        .collect();
    assert_eq!(renamed, [("amq.gen-1", "amq.gen-2"), ("amq.gen-2", "amq.gen-3")]);
}

/// The last reply of the replay has a deadline too.
#[test]
fn a_replay_whose_channel_is_not_closed_begins_anew() {
    let (mut peer, _) = declared();
    peer.lose();
    peer.reconnect();
    let frames = wire(&mut peer);
    grant(&mut peer, &frames);
    assert_eq!(wire(&mut peer), ["1 channel.Close"]);
    peer.events();
    for _ in 0..6 {
        peer.pass(std::time::Duration::from_secs(5));
        peer.send_bytes(&amqp_core::proto::frame::HEARTBEAT);
    }
    let events = peer.events();
    assert!(matches!(events[0], Event::Lost(_)), "{events:?}");
}

fn call_consume(peer: &mut Peer, id: ChannelId, consume: &BasicConsume) {
    let call = peer.session.channel(id).consume(peer.now, consume).unwrap();
    let frames = wire(peer);
    let reply = amqp_core::proto::method::basic::ConsumeOk {
        consumer_tag: ShortStr::new(consume.consumer_tag.as_deref().unwrap()).unwrap(),
    };
    for frame in frames {
        match frame.contains("consume") {
            true => peer.send(1, &reply),
            false => grant(peer, &[frame]),
        }
    }
    peer.session.take_reply(&call).unwrap().unwrap();
}

#[test]
fn r6_a_refused_declaration_is_reported_and_the_rest_goes_on() {
    let (mut peer, _) = declared();
    peer.lose();
    peer.events();
    peer.reconnect();
    assert_eq!(wire(&mut peer), REPLAYED);
    // The broker refuses q1, and ignores what follows.
    grant(&mut peer, &REPLAYED[..4].iter().map(ToString::to_string).collect::<Vec<_>>());
    close(&mut peer, 1, 406, "PRECONDITION_FAILED - inequivalent arg");
    let frames = wire(&mut peer);
    let rest =
        ["1 channel.CloseOk", "2 channel.Open", "2 queue q2", "2 bind q1 to e1", "2 bind q2 to e2"];
    assert_eq!(frames, rest);
    grant(&mut peer, &frames[1..3]);
    // Its binding is refused too.
    close(&mut peer, 2, 404, "NOT_FOUND - no queue 'q1'");
    let frames = wire(&mut peer);
    assert_eq!(frames, ["2 channel.CloseOk", "3 channel.Open", "3 bind q2 to e2"]);
    grant(&mut peer, &frames[1..]);
    for _ in 0..2 {
        let frames = wire(&mut peer);
        grant(&mut peer, &frames);
    }
    let events = peer.events();
    let Some(Event::Recovered(report)) = events.last() else { panic!("{events:?}") };
    let failed: Vec<_> = report.failed.iter().map(|failed| failed.entity.to_string()).collect();
    let binding = "binding of queue \"q1\" to exchange \"e1\" with routing key \"\"";
    assert_eq!(failed, ["queue \"q1\"", binding]);
    assert!(matches!(report.failed[0].error, Error::Channel(_)));
}

/// The broker holds exclusive queues for the old connection until it notices the loss.
#[test]
fn r6_a_locked_queue_is_declared_when_the_broker_lets_go() {
    let mut peer = recovering();
    let id = peer.channel(1);
    call(&mut peer, id, &QueueDeclare::new("mine").exclusive());
    call(&mut peer, id, &QueueDeclare::new("other"));
    peer.lose();
    peer.events();
    peer.reconnect();
    for number in 1..=3 {
        let frames = wire(&mut peer);
        let expected =
            ["channel.Open", "queue mine", "queue other"].map(|it| format!("{number} {it}"));
        assert_eq!(frames, expected);
        grant(&mut peer, &frames[..1]);
        close(&mut peer, number, 405, "RESOURCE_LOCKED - cannot obtain exclusive access");
        assert_eq!(wire(&mut peer), [format!("{number} channel.CloseOk")]);
        let (due, reason) = peer.session.poll_timeout().unwrap();
        assert_eq!(reason, TimeoutReason::Held);
        peer.pass(due - peer.now);
    }
    for _ in 0..3 {
        let frames = wire(&mut peer);
        grant(&mut peer, &frames);
    }
    assert!(has_recovered(&peer.events()));
}

/// With the old connection the broker forgets its auto-delete exchanges and queues, which it has confirmed to the new one.
#[test]
fn r6_everything_is_declared_again_when_the_broker_lets_go() {
    let mut peer = recovering();
    let id = peer.channel(1);
    call(&mut peer, id, &ExchangeDeclare::direct("e").auto_delete());
    call(&mut peer, id, &QueueDeclare::new(""));
    call(&mut peer, id, &QueueDeclare::new("mine").exclusive());
    call(&mut peer, id, &QueueBind::new("mine", "e", ""));
    peer.lose();
    peer.events();
    peer.reconnect();
    let frames = wire(&mut peer);
    assert_eq!(frames, ["1 channel.Open", "1 exchange e", "1 queue ", "1 queue mine"]);
    grant(&mut peer, &frames[..3]);
    assert_eq!(wire(&mut peer), ["1 bind mine to e"], "it has waited for the name");
    close(&mut peer, 1, 405, "RESOURCE_LOCKED - cannot obtain exclusive access");
    assert_eq!(wire(&mut peer), ["1 channel.CloseOk"]);
    let (due, _) = peer.session.poll_timeout().unwrap();
    peer.pass(due - peer.now);
    let frames = wire(&mut peer);
    let expected = ["2 channel.Open", "2 exchange e", "2 queue mine", "2 bind mine to e"];
    assert_eq!(frames, expected, "the queue that the broker has named belongs to this connection");
    grant(&mut peer, &frames);
    for _ in 0..2 {
        let frames = wire(&mut peer);
        grant(&mut peer, &frames);
    }
    assert!(has_recovered(&peer.events()));
}

/// What a set-up declares is its own business.
#[test]
fn a_set_up_is_not_recorded_and_its_channels_end() {
    let mut peer = recovering();
    let (id, opened) = peer.session.open_setup_channel(peer.now, peer.attempt).unwrap();
    wire(&mut peer);
    grant(&mut peer, &["1 channel.Open".into()]);
    peer.session.take_reply(&opened).unwrap().unwrap();
    call(&mut peer, id, &QueueDeclare::new("q"));
    peer.lose();
    assert!(peer.session.channel(id).closed_cause().is_some());
    assert!(recover(&mut peer).is_empty());
}

#[test]
fn the_policy_may_skip_topology() {
    let skips = |policy: Recovery| {
        let mut peer = Peer::open_with(amqp_core::Config::default().recovery(policy));
        let id = peer.channel(1);
        call(&mut peer, id, &QueueDeclare::new("tmp.q"));
        call(&mut peer, id, &QueueDeclare::new("q"));
        peer.lose();
        recover(&mut peer)
            .into_iter()
            .filter(|frame| frame.starts_with("1 queue"))
            .collect::<Vec<_>>()
    };
    assert_eq!(skips(Recovery::automatic()), ["1 queue tmp.q", "1 queue q"]);
    assert_eq!(skips(Recovery::automatic().skip_queues_with_prefix("tmp.")), ["1 queue q"]);
    // Only that the channel's last queue is still there is checked.
    assert_eq!(skips(Recovery::automatic().without_topology()), ["1 queue q"]);
}

/// A declaration that waits for the connection is recorded when it is confirmed.
#[test]
fn what_is_declared_meanwhile_is_recorded() {
    let mut peer = recovering();
    let id = peer.channel(1);
    peer.lose();
    let call = peer.session.channel(id).call(peer.now, &QueueDeclare::new("late")).unwrap();
    assert_eq!(recover(&mut peer), ["1 channel.Open"]);
    let frames = wire(&mut peer);
    assert_eq!(frames, ["1 queue late"]);
    grant(&mut peer, &frames);
    assert!(peer.session.take_reply(&call).unwrap().is_ok());
    peer.lose();
    assert_eq!(recover(&mut peer)[1], "1 queue late");
}

/// Thousands of declarations are in flight together, though not all of them.
#[test]
fn declarations_are_pipelined_within_a_window() {
    let mut peer = recovering();
    let id = peer.channel(1);
    for number in 0..600 {
        call(&mut peer, id, &QueueDeclare::new(format!("q{number}")));
    }
    peer.lose();
    peer.events();
    peer.reconnect();
    let mut rounds = Vec::new();
    while !has_recovered(&peer.events()) {
        let frames = wire(&mut peer);
        grant(&mut peer, &frames);
        rounds.push(frames.len());
        assert!(rounds.len() < 10, "{rounds:?}");
    }
    assert_eq!(rounds, [257, 256, 88, 1, 2]);
}

/// A write for each reply would cost more than the reply.
#[test]
fn declarations_are_sent_in_batches() {
    let mut peer = recovering();
    let id = peer.channel(1);
    for number in 0..600 {
        call(&mut peer, id, &QueueDeclare::new(format!("q{number}")));
    }
    peer.lose();
    peer.reconnect();
    let mut waiting = VecDeque::new();
    let mut batches = Vec::new();
    loop {
        let frames = wire(&mut peer);
        if frames.last().is_some_and(|last| last.ends_with("channel.Close")) {
            break;
        }
        batches.extend(Some(frames.len()).filter(|frames| *frames > 0));
        waiting.extend(frames);
        grant(&mut peer, &[waiting.pop_front().unwrap()]);
    }
    assert_eq!(batches, [257, 128, 128, 88]);
}

/// The channel goes on without.
#[test]
fn a_last_queue_that_is_gone_closes_no_channel() {
    let policy = Recovery::automatic().without_topology();
    let mut peer = Peer::open_with(amqp_core::Config::default().recovery(policy));
    let id = peer.channel(1);
    call(&mut peer, id, &QueueDeclare::new("q"));
    call_consume(&mut peer, id, &BasicConsume::new("other").consumer_tag("t"));
    peer.lose();
    peer.events();
    peer.reconnect();
    let frames = wire(&mut peer);
    assert_eq!(frames[3], "1 queue q");
    grant(&mut peer, &frames[..3]);
    let (class_id, method_id) = (queue::Declare::ID.class, queue::Declare::ID.method);
    let reply_text = ShortStr::new("NOT_FOUND - no queue 'q'").unwrap();
    let close = channel::Close { reply_code: 404, reply_text, class_id, method_id };
    peer.send(1, &close);
    let frames = wire(&mut peer);
    let again = ["1 channel.CloseOk", "2 channel.Open", "2 qos 256", "2 consume other as t"];
    assert_eq!(frames, again);
    grant(&mut peer, &frames[1..]);
    assert!(has_recovered(&peer.events()) && peer.session.channel(id).is_open());
}

/// A queue that the broker names, and that is deleted while it is being declared again.
#[test]
fn r5_a_nameless_queue_that_is_deleted_meanwhile_leaves_nothing() {
    let mut peer = recovering();
    let id = peer.channel(1);
    let declare = peer.session.channel(id).call(peer.now, &QueueDeclare::new("").auto_delete());
    let declare = declare.unwrap();
    wire(&mut peer);
    let first = ShortStr::new("amq.gen-1").unwrap();
    peer.send(1, &queue::DeclareOk { queue: first, message_count: 0, consumer_count: 0 });
    peer.session.take_reply(&declare).unwrap().unwrap();
    let consume =
        peer.session.channel(id).consume(peer.now, &BasicConsume::new("").consumer_tag("t"));
    let consume = consume.unwrap();
    let frames = wire(&mut peer);
    assert_eq!(frames, ["1 qos 256", "1 consume  as t"]);
    peer.send(1, &amqp_core::proto::method::basic::QosOk::default());
    let consumer_tag = ShortStr::new("t").unwrap();
    peer.send(1, &amqp_core::proto::method::basic::ConsumeOk { consumer_tag });
    let key = peer.session.take_reply(&consume).unwrap().unwrap().consumer;
    call(&mut peer, id, &QueueDeclare::new("q"));
    call(&mut peer, id, &QueueBind::new("q", "amq.fanout", ""));
    peer.lose();
    peer.events();
    peer.reconnect();
    let frames = wire(&mut peer);
    assert_eq!(frames, ["1 channel.Open", "1 queue ", "1 queue q"]);
    // With its last consumer the queue is forgotten.
    let cancelled = peer.session.channel(id).cancel(peer.now, key).unwrap();
    peer.session.take_reply(&cancelled).unwrap().unwrap();
    grant(&mut peer, &frames);
    assert_eq!(wire(&mut peer), ["1 queue.Delete", "1 bind q to amq.fanout"]);
}

/// The session's own channel takes no number from the application for longer than the replay.
#[test]
fn a_channel_may_be_opened_during_the_replay() {
    let mut peer = recovering();
    let id = peer.channel(1);
    for number in 2..=9 {
        peer.channel(number);
    }
    call(&mut peer, id, &QueueDeclare::new("q"));
    peer.lose();
    peer.events();
    peer.reconnect();
    let frames = wire(&mut peer);
    assert_eq!(frames, ["1 channel.Open", "1 queue q"]);
    let (tenth, _) = peer.session.open_channel(peer.now).unwrap();
    assert!(peer.session.open_channel(peer.now).is_err());
    grant(&mut peer, &frames);
    for _ in 0..3 {
        let frames = wire(&mut peer);
        grant(&mut peer, &frames);
    }
    assert!(has_recovered(&peer.events()) && peer.session.channel(tenth).is_open());
}
