//! Quorum queues: what they count, keep and refuse.

use std::time::Duration;

use amqp_proto::method::{basic, queue};
use amqp_proto::{FieldTable, FieldValue};

use crate::wire::{Got, Wire, none, short, to_queue, with};
use crate::{At, on_both, unique};

on_both! {
    br_57_returns_are_counted_however_they_come_back
    br_57_where_a_returned_message_goes
    br_58_a_message_above_the_delivery_limit_is_dead_lettered
    br_59_what_quorum_queues_refuse
    br_59_what_consumers_of_quorum_queues_may_not
    br_60_a_dead_letter_is_kept_until_a_queue_takes_it
    br_61_a_full_quorum_queue_refuses_until_it_has_drained
    br_61_a_full_quorum_queue_drops_its_first
    br_62_messages_of_quorum_queues_expire
}

/// A durable quorum queue, deleted at the end.
struct QuorumQueue<'w> {
    wire: &'w mut Wire,
    name: String,
}

impl<'w> QuorumQueue<'w> {
    fn declare(wire: &'w mut Wire, arguments: FieldTable) -> Self {
        let name = unique("quorum");
        let arguments = with(arguments, "x-queue-type", "quorum");
        let declare = queue::Declare { queue: short(&name), durable: true, ..Default::default() };
        wire.declare_with(declare, arguments);
        wire.expect("queue.DeclareOk");
        Self { wire, name }
    }

    fn publish(&mut self, body: &[u8]) -> bool {
        self.wire.publish(&self.name, none(), body)
    }

    fn get(&mut self) -> Got {
        self.wire.get(&self.name)
    }
}

impl Drop for QuorumQueue<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.wire.delete(&self.name);
        }
    }
}

fn count(got: &Got) -> Option<i64> {
    got.header("x-delivery-count").and_then(FieldValue::as_i64)
}

fn br_57_returns_are_counted_however_they_come_back(at: &At) {
    let mut wire = at.open();
    let mut queue = QuorumQueue::declare(&mut wire, FieldTable::new());
    queue.publish(b"counted");
    // A consumer's first delivery has no count, that of `basic.get` has.
    let got = queue.get();
    assert_eq!((got.redelivered, count(&got)), (false, Some(0)));
    let tag = got.tag;
    queue.wire.raw.send(1, &basic::Nack { delivery_tag: tag, multiple: false, requeue: true });
    let got = queue.get();
    assert_eq!((got.redelivered, count(&got)), (true, Some(1)));
    queue.wire.reject(&got, true);
    let got = queue.get();
    assert_eq!(count(&got), Some(2));
    queue.wire.raw.send(1, &basic::Recover { requeue: true });
    queue.wire.expect("basic.RecoverOk");
    let got = queue.get();
    assert_eq!(count(&got), Some(3));
    queue.wire.close_channel();
    let got = queue.get();
    assert_eq!((got.redelivered, count(&got)), (true, Some(4)));
    queue.wire.ack(&got);
    queue.publish(b"consumed");
    let name = queue.name.clone();
    queue.wire.consume(&name);
    let got = queue.wire.delivery();
    assert_eq!((got.redelivered, count(&got)), (false, None));
    queue.wire.reject(&got, true);
    let got = queue.wire.delivery();
    assert_eq!((got.redelivered, count(&got)), (true, Some(1)));
}

fn br_57_where_a_returned_message_goes(at: &At) {
    let mut wire = at.open();
    for (limit, expected) in [(None, ["second", "first"]), (Some(10), ["first", "second"])] {
        let arguments = limit.map(|limit| ("x-delivery-limit", FieldValue::from(limit)));
        let mut queue = QuorumQueue::declare(&mut wire, arguments.into_iter().collect());
        queue.publish(b"first");
        queue.publish(b"second");
        let got = queue.get();
        assert_eq!(got.body, b"first");
        queue.wire.reject(&got, true);
        let name = queue.name.clone();
        queue.wire.expect_count(&name, 2);
        for body in expected {
            assert_eq!(queue.wire.take(&name).body, body.as_bytes(), "{limit:?}");
        }
        // What comes back with its channel goes first.
        queue.publish(b"held");
        queue.publish(b"behind");
        assert_eq!(queue.get().body, b"held");
        queue.wire.close_channel();
        queue.wire.expect_count(&name, 2);
        assert_eq!(queue.wire.take(&name).body, b"held");
        assert_eq!(queue.wire.take(&name).body, b"behind");
    }
}

fn br_58_a_message_above_the_delivery_limit_is_dead_lettered(at: &At) {
    let mut wire = at.open();
    let grave = unique("grave");
    wire.declare(&grave, FieldTable::new());
    for limit in [0, 2] {
        let arguments = with(to_queue(&grave), "x-delivery-limit", limit);
        let mut queue = QuorumQueue::declare(&mut wire, arguments);
        queue.publish(b"poison");
        for returned in 0..=limit {
            let got = queue.get();
            assert_eq!(count(&got), Some(returned.into()));
            queue.wire.reject(&got, true);
        }
        let got = queue.wire.take(&grave);
        assert_eq!(got.deaths(), [(queue.name.as_str(), "delivery_limit", 1)]);
        assert_eq!(count(&got), None);
        let name = queue.name.clone();
        assert_eq!(queue.wire.count(&name), Some(0));
    }
}

fn br_59_what_quorum_queues_refuse(at: &At) {
    let mut wire = at.open();
    let name = unique("refused");
    let quorum = FieldTable::from([("x-queue-type", "quorum".into())]);
    let durable = queue::Declare { queue: short(&name), durable: true, ..Default::default() };
    let of = format!("for queue '{name}' in vhost '/'");
    for (declare, arguments, expected) in [
        (
            queue::Declare { durable: false, ..durable },
            quorum.clone(),
            format!("invalid property 'non-durable' {of}"),
        ),
        (
            queue::Declare { exclusive: true, ..durable },
            quorum.clone(),
            format!("invalid property 'exclusive-owner' {of}"),
        ),
        (
            queue::Declare { auto_delete: true, exclusive: true, ..durable },
            quorum.clone(),
            format!("invalid property 'auto-delete' {of}"),
        ),
        (
            durable,
            with(quorum.clone(), "x-max-priority", 5),
            format!("invalid arg 'x-max-priority' {of} of queue type rabbit_quorum_queue"),
        ),
        (
            durable,
            with(quorum.clone(), "x-queue-mode", "lazy"),
            format!("invalid arg 'x-queue-mode' {of} of queue type rabbit_quorum_queue"),
        ),
        (
            durable,
            with(quorum.clone(), "x-dead-letter-strategy", "always"),
            format!("invalid arg 'x-dead-letter-strategy' {of}: invalid_dlx_strategy"),
        ),
        (
            durable,
            with(quorum.clone(), "x-quorum-initial-group-size", 0),
            format!("invalid arg 'x-quorum-initial-group-size' {of}: {{value_zero,0}}"),
        ),
        (
            durable,
            FieldTable::from([("x-delivery-limit", 5.into())]),
            format!("invalid arg 'x-delivery-limit' {of} of queue type rabbit_classic_queue"),
        ),
        (
            queue::Declare { queue: short(""), ..durable },
            quorum.clone(),
            "Cannot declare a server-named queue for type rabbit_quorum_queue".to_owned(),
        ),
    ] {
        wire.declare_with(declare, arguments);
        let expected = format!("channel: PRECONDITION_FAILED - {expected}");
        assert_eq!(wire.raw.expect_refusal(), (406, expected));
        wire.reopen();
    }
    for (if_unused, if_empty, flag) in [(true, true, "if-unused"), (false, true, "if-empty")] {
        let name = unique("kept");
        let declare = queue::Declare { queue: short(&name), ..durable };
        wire.declare_with(declare, quorum.clone());
        wire.expect("queue.DeclareOk");
        let mut other = at.open();
        let delete =
            queue::Delete { queue: short(&name), if_unused, if_empty, ..Default::default() };
        other.raw.send(1, &delete);
        let expected = format!(
            "connection: NOT_IMPLEMENTED - cannot delete queue '{name}' in vhost '/'. queue.delete \
             operations with {flag} flag set are not supported by quorum queues"
        );
        assert_eq!(other.raw.expect_refusal(), (540, expected));
        wire.delete(&name);
    }
}

fn br_59_what_consumers_of_quorum_queues_may_not(at: &At) {
    let mut wire = at.open();
    let arguments = FieldTable::from([("x-single-active-consumer", true.into())]);
    let queue = QuorumQueue::declare(&mut wire, arguments);
    let name = queue.name.clone();
    queue.wire.raw.send(1, &basic::Get { queue: short(&name), ..Default::default() });
    let expected = format!(
        "channel: RESOURCE_LOCKED - cannot obtain access to locked queue '{name}' in vhost '/'. \
         basic.get operations are not supported by quorum queues with single active consumer"
    );
    assert_eq!(queue.wire.raw.expect_refusal(), (405, expected));
    queue.wire.reopen();
    // An exclusive consumer is one like others.
    for tag in ["one", "two"] {
        let consume = basic::Consume { exclusive: true, ..Default::default() };
        queue
            .wire
            .raw
            .send(1, &basic::Consume { queue: short(&name), consumer_tag: short(tag), ..consume });
        queue.wire.expect("basic.ConsumeOk");
    }
    let mut other = at.open();
    other.raw.send(1, &basic::Qos { prefetch_count: 5, global: true, ..Default::default() });
    other.expect("basic.QosOk");
    other.raw.send(1, &basic::Consume { queue: short(&name), ..Default::default() });
    let expected = format!(
        "connection: NOT_IMPLEMENTED - queue '{name}' in vhost '/' does not support global qos"
    );
    assert_eq!(other.raw.expect_refusal(), (540, expected));
}

fn br_60_a_dead_letter_is_kept_until_a_queue_takes_it(at: &At) {
    at.eval("application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 1000).");
    let mut wire = at.open();
    let grave = unique("grave");
    let arguments = with(to_queue(&grave), "x-dead-letter-strategy", "at-least-once");
    let mut queue =
        QuorumQueue::declare(&mut wire, with(arguments, "x-overflow", "reject-publish"));
    queue.publish(b"kept");
    let got = queue.get();
    queue.wire.reject(&got, false);
    // The queue does not exist yet, and then it is full.
    queue.wire.declare(
        &grave,
        FieldTable::from([("x-max-length", 0.into()), ("x-overflow", "reject-publish".into())]),
    );
    let wait = || match at.exact() {
        Some(model) => model.advance(Duration::from_secs(180)),
        None => at.pass(Duration::from_secs(3)),
    };
    wait();
    let name = queue.name.clone();
    assert_eq!(queue.wire.count(&grave), Some(0));
    assert_eq!(queue.wire.count(&name), Some(0));
    queue.wire.delete(&grave);
    queue.wire.declare(&grave, FieldTable::new());
    wait();
    let got = queue.wire.take(&grave);
    assert_eq!(got.body, b"kept");
    assert_eq!(got.deaths(), [(name.as_str(), "rejected", 1)]);
}

fn br_61_a_full_quorum_queue_refuses_until_it_has_drained(at: &At) {
    let mut wire = at.open();
    let arguments =
        FieldTable::from([("x-max-length", 2.into()), ("x-overflow", "reject-publish".into())]);
    let mut queue = QuorumQueue::declare(&mut wire, arguments);
    // One more than its maximum.
    for _ in 0..3 {
        assert!(queue.publish(b"taken"));
    }
    assert!(!queue.publish(b"refused"));
    let name = queue.name.clone();
    assert_eq!(queue.wire.count(&name), Some(3));
    queue.wire.take(&name);
    assert!(!queue.publish(b"refused above 80 percent"));
    queue.wire.take(&name);
    queue.wire.expect_count(&name, 1);
    assert!(queue.publish(b"taken"));
}

fn br_61_a_full_quorum_queue_drops_its_first(at: &At) {
    let mut wire = at.open();
    let grave = unique("grave");
    wire.declare(&grave, FieldTable::new());
    // RabbitMQ takes the last one for the first.
    for overflow in ["drop-head", "reject-publish-dlx"] {
        let arguments = with(to_queue(&grave), "x-max-length", 2);
        let mut queue = QuorumQueue::declare(&mut wire, with(arguments, "x-overflow", overflow));
        for body in [b"1", b"2", b"3"] {
            assert!(queue.publish(body));
        }
        let got = queue.wire.take(&grave);
        assert_eq!(got.body, b"1");
        assert_eq!(got.deaths(), [(queue.name.as_str(), "maxlen", 1)]);
    }
}

fn br_62_messages_of_quorum_queues_expire(at: &At) {
    let mut wire = at.open();
    let grave = unique("grave");
    wire.declare(&grave, FieldTable::new());
    let arguments = with(to_queue(&grave), "x-message-ttl", 1_000);
    let mut queue = QuorumQueue::declare(&mut wire, arguments);
    let name = queue.name.clone();
    queue.publish(b"brief");
    queue.wire.publish(&name, none().expiration("50"), b"behind it");
    queue.publish(b"held");
    at.pass(Duration::from_millis(100));
    if at.exact().is_some() {
        assert_eq!(queue.wire.count(&name), Some(3), "only the first message expires");
    }
    at.pass(Duration::from_millis(900));
    for body in [&b"brief"[..], b"behind it", b"held"] {
        let got = queue.wire.take(&grave);
        assert_eq!(got.body, body);
        assert_eq!(got.deaths(), [(name.as_str(), "expired", 1)]);
    }
    // A time of 0 is a moment.
    queue.wire.publish(&name, none().expiration("0"), b"at once");
    at.pass(Duration::from_millis(1));
    assert_eq!(queue.wire.take(&grave).body, b"at once");
}
