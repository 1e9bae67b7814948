//! Where dead letters go, and what is recorded of them.

use std::time::Duration;

use amqp_proto::{FieldTable, FieldValue};

use crate::wire::{none, to_queue, with};
use crate::{At, on_both, unique};

on_both! {
    br_49_a_cycle_without_a_client_is_cut
    br_49_a_copy_of_a_dead_letter_is_cut_too
    br_50_deaths_are_counted_by_queue_and_reason
    br_51_copies_are_dead_lettered_to_all_their_keys
    br_51_a_dead_letter_routing_key_removes_the_copies
    br_52_an_internal_exchange_takes_dead_letters
    br_52_a_missing_exchange_drops_dead_letters
    br_53_what_a_full_queue_drops_is_dead_lettered
}

const TTL: Duration = Duration::from_millis(50);

/// Publishes a message that expires in a queue that it would come back to. Returns whether the queue has it again.
fn comes_back(at: &At, headers: Option<FieldTable>) -> bool {
    let mut wire = at.open();
    let (name, exchange, witness) = (unique("cycle"), unique("fanout"), unique("witness"));
    wire.declare_exchange(&exchange, "fanout", false);
    let arguments = FieldTable::from([("x-dead-letter-exchange", exchange.as_str().into())]);
    wire.declare(&name, arguments);
    wire.declare(&witness, FieldTable::new());
    for queue in [&name, &witness] {
        wire.bind(&exchange, queue, "");
    }
    let mut properties = none().expiration("50");
    properties.headers = headers;
    wire.publish(&name, properties, b"again");
    at.pass(TTL);
    assert_eq!(wire.take(&witness).body, b"again");
    wire.try_get(&name, true).is_some()
}

fn br_49_a_cycle_without_a_client_is_cut(at: &At) {
    assert!(!comes_back(at, None));
}

/// A client's copy with the broker's records in it has died before the broker sees it.
fn br_49_a_copy_of_a_dead_letter_is_cut_too(at: &At) {
    let mut wire = at.open();
    let (name, delay) = (unique("work"), unique("delay"));
    wire.declare(&name, to_queue(&delay));
    wire.declare(&delay, with(to_queue(&name), "x-message-ttl", 50));
    wire.publish(&delay, none(), b"first");
    at.pass(TTL);
    let first = wire.take(&name);
    // Its copy is confirmed, and expires to the queue that it came from: twice in the delay, never rejected.
    let copy = none().headers(first.properties.headers.clone().unwrap());
    assert!(wire.publish(&delay, copy, b"copy"));
    at.pass(TTL);
    let second = wire.take(&name);
    assert_eq!(second.deaths(), [(delay.as_str(), "expired", 2)]);
    // With a death in the queue of work, the copy does not come back.
    let death = FieldTable::from([
        ("count", FieldValue::I64(1)),
        ("queue", name.as_str().into()),
        ("reason", "expired".into()),
        ("exchange", "".into()),
    ]);
    let headers = FieldTable::from([("x-death", vec![death.into()].into())]);
    assert!(wire.publish(&delay, none().headers(headers), b"cut"));
    wire.publish(&delay, none(), b"after it");
    at.pass(TTL);
    assert_eq!(wire.take(&name).body, b"after it");
}

fn br_50_deaths_are_counted_by_queue_and_reason(at: &At) {
    let mut wire = at.open();
    let (work, delay) = (unique("work"), unique("delay"));
    wire.declare(&work, to_queue(&delay));
    wire.declare(&delay, with(to_queue(&work), "x-message-ttl", 50));
    wire.publish(&work, none().expiration("3600000"), b"retried");
    for count in 1..=3 {
        let got = wire.get(&work);
        let expected =
            [(delay.as_str(), "expired", count - 1), (work.as_str(), "rejected", count - 1)];
        assert_eq!(got.deaths(), &expected[..if count == 1 { 0 } else { 2 }]);
        wire.reject(&got, false);
        at.pass(TTL);
    }
    let got = wire.take(&work);
    assert_eq!(got.deaths(), [(delay.as_str(), "expired", 3), (work.as_str(), "rejected", 3)]);
    assert_eq!(got.text("x-first-death-reason"), Some("rejected"));
    assert_eq!(got.text("x-first-death-queue"), Some(work.as_str()));
    // Only the first death of a message has its own time.
    let entries = got.header("x-death").and_then(FieldValue::as_array).unwrap();
    let original = |entry: &FieldValue| match entry {
        FieldValue::Table(death) => death.get("original-expiration").cloned(),
        _ => None,
    };
    let originals: Vec<_> = entries.iter().map(original).collect();
    assert_eq!(originals, [None, Some("3600000".into())]);
}

/// Headers with the keys of copies.
fn copies(cc: &str, bcc: &str) -> FieldTable {
    FieldTable::from([("CC", vec![cc.into()].into()), ("BCC", vec![bcc.into()].into())])
}

fn br_51_copies_are_dead_lettered_to_all_their_keys(at: &At) {
    let mut wire = at.open();
    let [name, open, blind, exchange] = ["keys", "open", "blind", "topic"].map(unique);
    wire.declare_exchange(&exchange, "topic", false);
    for queue in [&open, &blind] {
        wire.declare(queue, FieldTable::new());
    }
    wire.bind(&exchange, &open, "open");
    wire.bind(&exchange, &blind, "blind");
    let arguments = FieldTable::from([("x-dead-letter-exchange", exchange.as_str().into())]);
    wire.declare(&name, with(arguments, "x-message-ttl", 50));
    wire.publish(&name, none().headers(copies("open", "blind")), b"three keys");
    at.pass(TTL);
    for queue in [&open, &blind] {
        let got = wire.take(queue);
        assert_eq!(got.routing_key, name);
        assert_eq!(got.header("CC"), Some(&vec!["open".into()].into()));
        assert_eq!(got.header("BCC"), None);
        let keys = got.last_death().get("routing-keys");
        assert_eq!(keys, Some(&vec![name.as_str().into(), "open".into()].into()));
    }
}

fn br_51_a_dead_letter_routing_key_removes_the_copies(at: &At) {
    let mut wire = at.open();
    let [name, grave, copied] = ["keys", "grave", "copied"].map(unique);
    for queue in [&grave, &copied] {
        wire.declare(queue, FieldTable::new());
    }
    wire.declare(&name, with(to_queue(&grave), "x-message-ttl", 50));
    let other = unique("other");
    wire.publish(&name, none().headers(copies(&other, &other)), b"one key");
    at.pass(TTL);
    let got = wire.take(&grave);
    assert_eq!((got.header("CC"), got.header("BCC")), (None, None));
    let keys = got.last_death().get("routing-keys");
    assert_eq!(keys, Some(&vec![name.as_str().into(), other.as_str().into()].into()));
    assert_eq!(wire.count(&copied), Some(0));
}

fn br_52_an_internal_exchange_takes_dead_letters(at: &At) {
    let mut wire = at.open();
    let [name, exchange, grave] = ["brief", "internal", "grave"].map(unique);
    wire.declare_exchange(&exchange, "fanout", true);
    wire.declare(&grave, FieldTable::new());
    wire.bind(&exchange, &grave, "");
    let arguments = FieldTable::from([("x-dead-letter-exchange", exchange.as_str().into())]);
    wire.declare(&name, with(arguments, "x-message-ttl", 50));
    wire.publish(&name, none(), b"inside");
    at.pass(TTL);
    let got = wire.take(&grave);
    assert_eq!((got.exchange, got.routing_key), (exchange, name));
}

fn br_52_a_missing_exchange_drops_dead_letters(at: &At) {
    let mut wire = at.open();
    let name = unique("brief");
    let arguments = FieldTable::from([("x-dead-letter-exchange", "missing".into())]);
    wire.declare(&name, with(arguments, "x-message-ttl", 50));
    wire.publish(&name, none(), b"dropped");
    at.pass(TTL);
    wire.expect_count(&name, 0);
}

fn br_53_what_a_full_queue_drops_is_dead_lettered(at: &At) {
    let mut wire = at.open();
    let grave = unique("grave");
    wire.declare(&grave, FieldTable::new());
    for (overflow, dropped, taken) in [
        ("drop-head", Some("first"), true),
        ("reject-publish", None, false),
        ("reject-publish-dlx", Some("second"), false),
    ] {
        let name = unique("full");
        let arguments = with(to_queue(&grave), "x-max-length", 1);
        wire.declare(&name, with(arguments, "x-overflow", overflow));
        assert!(wire.publish(&name, none(), b"first"));
        assert_eq!(wire.publish(&name, none(), b"second"), taken, "{overflow}");
        if let Some(dropped) = dropped {
            let got = wire.take(&grave);
            assert_eq!(got.body, dropped.as_bytes());
            assert_eq!(got.deaths(), [(name.as_str(), "maxlen", 1)]);
        }
        assert_eq!(wire.count(&name), Some(1));
    }
    assert_eq!(wire.count(&grave), Some(0));
}
