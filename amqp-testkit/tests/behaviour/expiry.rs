//! What expires, and when.

use std::time::Duration;

use amqp_proto::method::queue;
use amqp_proto::{FieldTable, FieldValue};

use crate::wire::{none, short, to_queue, with};
use crate::{At, on_both, unique};

on_both! {
    br_41_a_message_expires_after_the_queues_time
    br_42_a_message_expires_after_its_own_time_or_the_queues
    br_43_a_message_expires_at_the_head_of_its_queue
    br_44_a_time_of_zero_lets_through_to_a_waiting_consumer
    br_45_a_requeued_message_keeps_its_time
    br_46_an_unused_queue_expires
    br_46_what_uses_a_queue
    br_47_times_that_are_refused
    br_48_a_chain_of_times_runs_in_order
}

const TTL: Duration = Duration::from_millis(50);

fn br_41_a_message_expires_after_the_queues_time(at: &At) {
    let mut wire = at.open();
    let (name, grave) = (unique("brief"), unique("grave"));
    wire.declare(&grave, FieldTable::new());
    wire.declare(&name, with(to_queue(&grave), "x-message-ttl", 50));
    wire.publish(&name, none().content_type("text/plain"), b"brief");
    if let Some(model) = at.exact() {
        assert_eq!(model.until_next_deadline(), Some(TTL));
        model.advance(TTL - Duration::from_millis(1));
        assert_eq!(wire.count(&name), Some(1));
    }
    at.pass(TTL);
    let got = wire.take(&grave);
    assert_eq!((got.exchange.as_str(), got.routing_key.as_str()), ("", grave.as_str()));
    assert_eq!((&got.body[..], got.redelivered), (&b"brief"[..], false));
    assert_eq!(got.properties.content_type.as_deref(), Some("text/plain"));
    assert_eq!(got.deaths(), [(name.as_str(), "expired", 1)]);
    let death = got.last_death();
    assert_eq!(death.get("exchange").and_then(FieldValue::as_str), Some(""));
    assert_eq!(death.get("routing-keys"), Some(&vec![name.as_str().into()].into()));
    assert_eq!(death.get("count"), Some(&FieldValue::I64(1)));
    assert!(
        matches!(death.get("time"), Some(FieldValue::Timestamp(time)) if *time > 1_600_000_000)
    );
    assert_eq!(death.get("original-expiration"), None);
    assert_eq!(got.text("x-first-death-reason"), Some("expired"));
    assert_eq!(got.text("x-first-death-queue"), Some(name.as_str()));
    assert_eq!(got.text("x-first-death-exchange"), Some(""));
    assert_eq!(wire.count(&name), Some(0));
}

fn br_42_a_message_expires_after_its_own_time_or_the_queues(at: &At) {
    let mut wire = at.open();
    let (name, grave) = (unique("brief"), unique("grave"));
    wire.declare(&grave, FieldTable::new());
    // The queue's time is longer than the test; the message's own is shorter.
    wire.declare(&name, with(to_queue(&grave), "x-message-ttl", 3_600_000));
    wire.publish(&name, none().expiration("50"), b"own");
    at.pass(TTL);
    let got = wire.take(&grave);
    assert_eq!(got.properties.expiration, None);
    let original = got.last_death().get("original-expiration").and_then(FieldValue::as_str);
    assert_eq!(original, Some("50"));
    // The other way round.
    let name = unique("brief");
    wire.declare(&name, with(to_queue(&grave), "x-message-ttl", 50));
    wire.publish(&name, none().expiration("3600000"), b"queue's");
    at.pass(TTL);
    assert_eq!(wire.take(&grave).body, b"queue's");
}

fn br_43_a_message_expires_at_the_head_of_its_queue(at: &At) {
    let mut wire = at.open();
    let (name, grave) = (unique("mixed"), unique("grave"));
    wire.declare(&grave, FieldTable::new());
    wire.declare(&name, to_queue(&grave));
    wire.publish(&name, none(), b"for ever");
    wire.publish(&name, none().expiration("50"), b"brief");
    at.pass(TTL);
    assert_eq!(wire.count(&name), Some(2));
    assert_eq!(wire.count(&grave), Some(0));
    assert_eq!(wire.take(&name).body, b"for ever");
    assert_eq!(wire.take(&grave).body, b"brief");
    assert_eq!(wire.count(&name), Some(0));
}

fn br_44_a_time_of_zero_lets_through_to_a_waiting_consumer(at: &At) {
    let mut wire = at.open();
    let (name, grave) = (unique("at-once"), unique("grave"));
    wire.declare(&grave, FieldTable::new());
    wire.declare(&name, with(to_queue(&grave), "x-message-ttl", 0));
    wire.publish(&name, none(), b"late");
    assert_eq!(wire.take(&grave).body, b"late");
    wire.consume(&name);
    wire.publish(&name, none(), b"in time");
    let got = wire.delivery();
    assert_eq!(got.body, b"in time");
    // Nobody can take it a second time.
    wire.cancel();
    wire.reject(&got, true);
    assert_eq!(wire.take(&grave).body, b"in time");
}

fn br_45_a_requeued_message_keeps_its_time(at: &At) {
    let mut wire = at.open();
    let (name, grave) = (unique("requeued"), unique("grave"));
    wire.declare(&grave, FieldTable::new());
    wire.declare(&name, with(to_queue(&grave), "x-message-ttl", 50));
    wire.publish(&name, none(), b"held");
    let Some(held) = wire.try_get(&name, false) else {
        // A slow machine: RabbitMQ's time went on.
        assert!(at.exact().is_none());
        return;
    };
    at.pass(TTL);
    assert_eq!(wire.count(&grave), Some(0), "what is unacknowledged does not expire");
    wire.reject(&held, true);
    assert_eq!(wire.take(&grave).deaths(), [(name.as_str(), "expired", 1)]);
}

fn br_46_an_unused_queue_expires(at: &At) {
    let mut wire = at.open();
    let (name, grave) = (unique("unused"), unique("grave"));
    wire.declare(&grave, FieldTable::new());
    wire.declare(&name, with(to_queue(&grave), "x-expires", 500));
    wire.publish(&name, none(), b"lost");
    wire.consume(&name);
    let got = wire.delivery();
    at.pass(Duration::from_millis(1_000));
    wire.cancel();
    wire.reject(&got, true);
    wire.expect_count(&name, 1);
    at.pass(Duration::from_millis(1_000));
    // Asking is a use, so this asks seldom.
    while wire.count(&name).is_some() {
        at.pass(Duration::from_millis(1_000));
    }
    // Its messages are dropped.
    assert_eq!(wire.count(&grave), Some(0));
}

fn br_46_what_uses_a_queue(at: &At) {
    let mut wire = at.open();
    let name = unique("used");
    let arguments = || FieldTable::from([("x-expires", 3_000.into())]);
    wire.declare(&name, arguments());
    let most = Duration::from_millis(2_000);
    at.pass(most);
    wire.declare(&name, arguments());
    at.pass(most);
    assert_eq!(wire.count(&name), Some(0), "declared again");
    at.pass(most);
    assert!(wire.try_get(&name, true).is_none());
    at.pass(most);
    assert_eq!(wire.count(&name), Some(0), "asked for a message");
    // A publish is no use.
    let Some(model) = at.exact() else { return };
    model.advance(most);
    wire.publish(&name, none(), b"no use");
    model.advance(most);
    assert_eq!(wire.count(&name), None);
}

fn br_47_times_that_are_refused(at: &At) {
    let mut wire = at.open();
    for (expiration, wrong) in [
        ("", "no_integer"),
        ("soon", "no_integer"),
        ("--5", "no_integer"),
        ("5 s", "{leftover_string,\" s\"}"),
        ("1.5", "{leftover_string,\".5\"}"),
        ("-1", "{value_negative,-1}"),
        ("315360000001", "{value_too_large,315360000001}"),
    ] {
        let (code, text) = wire.publish_refused(none().expiration(expiration));
        let expected =
            format!("channel: PRECONDITION_FAILED - invalid expiration '{expiration}': {wrong}");
        assert_eq!((code, text), (406, expected));
    }
    for expiration in ["+5", "-0", "315360000000"] {
        assert!(wire.publish("none", none().expiration(expiration), b""));
    }
    for (argument, value, wrong) in [
        ("x-message-ttl", FieldValue::from(-1), "{value_negative,-1}"),
        ("x-message-ttl", 315_360_000_001_i64.into(), "{value_too_large,315360000001}"),
        ("x-message-ttl", "50".into(), "\"expected integer, got longstr\""),
        ("x-expires", 0.into(), "{value_zero,0}"),
        ("x-expires", true.into(), "\"expected integer, got bool\""),
    ] {
        let declare = queue::Declare { queue: short("refused"), ..Default::default() };
        wire.declare_with(declare, FieldTable::from([(argument, value)]));
        let expected = format!(
            "channel: PRECONDITION_FAILED - invalid arg '{argument}' for queue 'refused' in vhost \
             '/': {wrong}"
        );
        assert_eq!(wire.raw.expect_refusal(), (406, expected));
        wire.reopen();
    }
}

fn br_48_a_chain_of_times_runs_in_order(at: &At) {
    let mut wire = at.open();
    let names: Vec<String> = (0..20).map(|_| unique("chain")).collect();
    let last = unique("last");
    wire.declare(&last, FieldTable::new());
    for (place, name) in names.iter().enumerate() {
        let next = names.get(place + 1).unwrap_or(&last);
        wire.declare(name, with(to_queue(next), "x-message-ttl", 10));
    }
    wire.publish(&names[0], none(), b"passed on");
    if let Some(model) = at.exact() {
        model.advance(Duration::from_millis(199));
        assert_eq!(wire.count(&names[19]), Some(1));
        model.advance(Duration::from_millis(1));
    }
    let got = wire.take(&last);
    let deaths = got.deaths();
    assert_eq!(deaths.len(), 20);
    assert!(deaths.iter().all(|(_, reason, count)| (*reason, *count) == ("expired", 1)));
    assert_eq!(deaths[0].0, names[19]);
    assert_eq!(got.text("x-first-death-queue"), Some(names[0].as_str()));
}
