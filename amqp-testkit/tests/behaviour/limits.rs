//! Full queues, transactions that fill them, priorities, and single active consumers.

use amqp_proto::FieldTable;
use amqp_proto::method::{basic, queue, tx};

use crate::wire::{Wire, none, short, with};
use crate::{At, on_both, unique};

on_both! {
    br_63_bytes_limit_a_queue
    br_64_a_transaction_into_a_full_queue_is_partly_done
    br_65_the_next_single_active_consumer
    br_65_an_exclusive_consumer_is_none_of_them
    br_73_consumers_of_a_higher_priority_come_first
    br_73_messages_of_a_higher_priority_come_first
}

fn br_63_bytes_limit_a_queue(at: &At) {
    let mut wire = at.open();
    let arguments = FieldTable::from([("x-max-length-bytes", 10.into())]);
    let name = unique("bytes");
    wire.declare(&name, arguments.clone());
    // Headers and properties do not count.
    for body in ["12345", "6789", "0"] {
        assert!(wire.publish(
            &name,
            none().message_id("id").expiration("3600000"),
            body.as_bytes()
        ));
    }
    assert_eq!(wire.count(&name), Some(3));
    assert!(wire.publish(&name, none(), b"one more"));
    // The last two take nine bytes.
    assert_eq!(wire.count(&name), Some(2));
    assert_eq!(wire.take(&name).body, b"0");
    let name = unique("bytes");
    wire.declare(&name, with(arguments, "x-overflow", "reject-publish"));
    assert!(wire.publish(&name, none(), b"123456"));
    assert!(!wire.publish(&name, none(), b"78901"));
    assert!(wire.publish(&name, none(), b"7890"));
    assert!(!wire.publish(&name, none(), b"1"));
    assert!(wire.publish(&name, none(), b""));
}

fn br_64_a_transaction_into_a_full_queue_is_partly_done(at: &At) {
    let mut wire = at.open();
    let (full, requests) = (unique("full"), unique("requests"));
    let arguments = FieldTable::from([("x-max-length", 0.into())]);
    wire.declare(&full, with(arguments, "x-overflow", "reject-publish"));
    wire.declare(&requests, FieldTable::new());
    wire.publish(&requests, none(), b"request");
    wire.raw.send(1, &tx::Select::default());
    wire.expect("tx.SelectOk");
    let request = wire.get(&requests);
    wire.raw.send(1, &basic::Publish { routing_key: short(&full), ..Default::default() });
    wire.raw.send_content(1, &[0, 0], b"reply");
    wire.raw.send(1, &basic::Publish { routing_key: short(&requests), ..Default::default() });
    wire.raw.send_content(1, &[0, 0], b"other");
    wire.raw.send(1, &basic::Ack { delivery_tag: request.tag, multiple: false });
    wire.raw.send(1, &tx::Commit::default());
    let expected = "channel: PRECONDITION_FAILED - partial tx completion".to_owned();
    assert_eq!(wire.raw.expect_refusal(), (406, expected));
    wire.reopen();
    // The ack and the other publish are done.
    assert_eq!(wire.take(&requests).body, b"other");
    assert_eq!(wire.count(&requests), Some(0));
    assert_eq!(wire.count(&full), Some(0));
}

fn consume(wire: &mut Wire, queue: &str, tag: &str, priority: i32) {
    let table = crate::wire::encoded(&FieldTable::from([("x-priority", priority.into())]));
    let arguments = amqp_proto::RawTable::new(&table);
    let (queue, consumer_tag) = (short(queue), short(tag));
    wire.raw.send(1, &basic::Consume { queue, consumer_tag, arguments, ..Default::default() });
    wire.expect("basic.ConsumeOk");
}

fn cancel(wire: &mut Wire, tag: &str) {
    wire.raw.send(1, &basic::Cancel { consumer_tag: short(tag), no_wait: false });
    wire.expect("basic.CancelOk");
}

fn br_65_the_next_single_active_consumer(at: &At) {
    let mut wire = at.open();
    // A classic queue chooses by priority, a quorum queue the first one that came.
    for (kind, expected) in [("classic", ["a", "c", "d", "b"]), ("quorum", ["a", "b", "c", "d"])] {
        let name = unique("single");
        let arguments = FieldTable::from([
            ("x-queue-type", kind.into()),
            ("x-single-active-consumer", true.into()),
        ]);
        let declare = queue::Declare { queue: short(&name), durable: true, ..Default::default() };
        wire.declare_with(declare, arguments);
        wire.expect("queue.DeclareOk");
        for (tag, priority) in [("a", 1), ("b", 0), ("c", 5), ("d", 5)] {
            consume(&mut wire, &name, tag, priority);
        }
        for tag in expected {
            wire.publish(&name, none(), tag.as_bytes());
            let got = wire.delivery();
            assert_eq!(got.consumer_tag, tag, "{kind}");
            wire.ack(&got);
            cancel(&mut wire, tag);
        }
        wire.delete(&name);
    }
}

fn br_65_an_exclusive_consumer_is_none_of_them(at: &At) {
    let mut wire = at.open();
    let name = unique("single");
    wire.declare(&name, FieldTable::from([("x-single-active-consumer", true.into())]));
    let consume = basic::Consume { queue: short(&name), exclusive: true, ..Default::default() };
    wire.raw.send(1, &consume);
    let expected =
        format!("channel: ACCESS_REFUSED - queue '{name}' in vhost '/' in exclusive use");
    assert_eq!(wire.raw.expect_refusal(), (403, expected));
}

fn br_73_consumers_of_a_higher_priority_come_first(at: &At) {
    let mut wire = at.open();
    wire.raw.send(1, &basic::Qos { prefetch_count: 1, ..Default::default() });
    wire.expect("basic.QosOk");
    for kind in ["classic", "quorum"] {
        let name = unique("priorities");
        let declare = queue::Declare { queue: short(&name), durable: true, ..Default::default() };
        wire.declare_with(declare, FieldTable::from([("x-queue-type", kind.into())]));
        wire.expect("queue.DeclareOk");
        for (tag, priority) in [("low", -1), ("none", 0), ("high", 5)] {
            consume(&mut wire, &name, tag, priority);
        }
        // Each takes one, which is its prefetch.
        let mut deliveries = Vec::new();
        for tag in ["high", "none", "low"] {
            wire.publish(&name, none(), tag.as_bytes());
            let got = wire.delivery();
            assert_eq!(got.consumer_tag, tag, "{kind}");
            deliveries.push(got);
        }
        wire.publish(&name, none(), b"waits");
        assert_eq!(wire.count(&name), Some(1), "{kind}");
        wire.ack(&deliveries[2]);
        assert_eq!(wire.delivery().consumer_tag, "low", "{kind}");
        for tag in ["low", "none", "high"] {
            cancel(&mut wire, tag);
        }
        wire.delete(&name);
    }
}

fn br_73_messages_of_a_higher_priority_come_first(at: &At) {
    let mut wire = at.open();
    let name = unique("priorities");
    wire.declare(&name, FieldTable::from([("x-max-priority", 5.into())]));
    for (priority, body) in [(0, "a"), (3, "b"), (5, "c"), (9, "d"), (3, "e")] {
        wire.publish(&name, none().priority(priority), body.as_bytes());
    }
    wire.publish(&name, none(), b"f");
    for body in ["c", "d", "b", "e", "a", "f"] {
        assert_eq!(wire.take(&name).body, body.as_bytes());
    }
}
