//! Declarations that differ from what exists, and arguments that are refused: the texts.

use amqp_proto::method::{exchange, queue};
use amqp_proto::{FieldTable, FieldValue, RawTable};

use crate::wire::{Wire, encoded, short};
use crate::{At, on_both, unique};

on_both! {
    br_55_a_queue_that_differs_names_the_difference
    br_55_an_exchange_that_differs_names_the_difference
    br_56_arguments_of_the_wrong_kind_are_named
}

fn table<const N: usize>(fields: [(&str, FieldValue); N]) -> FieldTable {
    fields.into_iter().collect()
}

/// Declares, and expects a refusal of the channel with this text.
#[track_caller]
fn refused(wire: &mut Wire, declare: queue::Declare<'_>, arguments: FieldTable, expected: &str) {
    wire.declare_with(declare, arguments);
    let expected = format!("channel: PRECONDITION_FAILED - {expected}");
    assert_eq!(wire.raw.expect_refusal(), (406, expected));
    wire.reopen();
}

fn br_55_a_queue_that_differs_names_the_difference(at: &At) {
    let mut wire = at.open();
    let name = unique("differs");
    let declare = queue::Declare { queue: short(&name), ..Default::default() };
    let plain = queue::Declare { auto_delete: true, ..declare };
    let arguments = || table([("x-message-ttl", 1_000.into()), ("x-max-length", 5.into())]);
    wire.declare_with(plain, arguments());
    wire.expect("queue.DeclareOk");
    let differs = |argument: &str, received: &str, current: &str| {
        format!(
            "inequivalent arg '{argument}' for queue '{name}' in vhost '/': received {received} \
             but current is {current}"
        )
    };
    let durable = queue::Declare { durable: true, ..plain };
    refused(&mut wire, durable, arguments(), &differs("durable", "'true'", "'false'"));
    refused(&mut wire, declare, arguments(), &differs("auto_delete", "'false'", "'true'"));
    let other = table([("x-message-ttl", 2_000.into()), ("x-max-length", 5.into())]);
    refused(&mut wire, plain, other, &differs("x-message-ttl", "'2000'", "'1000'"));
    let none = table([("x-message-ttl", 1_000.into())]);
    let current = "the value '5' of type 'signedint'";
    refused(&mut wire, plain, none, &differs("x-max-length", "none", current));
    let mut more = arguments();
    more.insert("x-overflow", "reject-publish");
    let received = "the value 'reject-publish' of type 'longstr'";
    refused(&mut wire, plain, more, &differs("x-overflow", received, "none"));
    let mut other = arguments();
    other.insert("x-message-ttl", "1000");
    refused(&mut wire, plain, other, &differs("x-message-ttl", "'1000'", "'1000'"));
    // The same with an integer of another size, an unknown argument, and the type by its name.
    let mut same = arguments();
    same.insert("x-message-ttl", 1_000_i64);
    same.insert("x-unknown", 1);
    same.insert("x-queue-type", "classic");
    wire.declare_with(plain, same);
    wire.expect("queue.DeclareOk");
    let exclusive = queue::Declare { exclusive: true, ..plain };
    wire.declare_with(exclusive, arguments());
    let expected = format!(
        "channel: RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' in \
         vhost '/'. It could be originally declared on another connection or the exclusive \
         property value does not match that of the original declaration."
    );
    assert_eq!(wire.raw.expect_refusal(), (405, expected));
    wire.reopen();
    wire.raw.send(1, &queue::Delete { queue: short(&name), ..Default::default() });
    wire.expect("queue.DeleteOk");
}

fn br_55_an_exchange_that_differs_names_the_difference(at: &At) {
    let mut wire = at.open();
    let name = unique("differs");
    let declare =
        exchange::Declare { exchange: short(&name), r#type: short("topic"), ..Default::default() };
    let alternate = encoded(&table([("alternate-exchange", "amq.fanout".into())]));
    let declare = exchange::Declare { arguments: RawTable::new(&alternate), ..declare };
    wire.raw.send(1, &declare);
    wire.expect("exchange.DeclareOk");
    let other = encoded(&table([("alternate-exchange", "amq.direct".into())]));
    for (changed, argument, received, current) in [
        (exchange::Declare { r#type: short("fanout"), ..declare }, "type", "'fanout'", "'topic'"),
        (exchange::Declare { durable: true, ..declare }, "durable", "'true'", "'false'"),
        (exchange::Declare { auto_delete: true, ..declare }, "auto_delete", "'true'", "'false'"),
        (exchange::Declare { internal: true, ..declare }, "internal", "'true'", "'false'"),
        (
            exchange::Declare { arguments: RawTable::new(&other), ..declare },
            "alternate-exchange",
            "'amq.direct'",
            "'amq.fanout'",
        ),
        (
            exchange::Declare { arguments: RawTable::new(&[]), ..declare },
            "alternate-exchange",
            "none",
            "the value 'amq.fanout' of type 'longstr'",
        ),
    ] {
        wire.raw.send(1, &changed);
        let expected = format!(
            "channel: PRECONDITION_FAILED - inequivalent arg '{argument}' for exchange '{name}' in \
             vhost '/': received {received} but current is {current}"
        );
        assert_eq!(wire.raw.expect_refusal(), (406, expected));
        wire.reopen();
    }
    wire.raw.send(1, &exchange::Delete { exchange: short(&name), ..Default::default() });
    wire.expect("exchange.DeleteOk");
}

fn br_56_arguments_of_the_wrong_kind_are_named(at: &At) {
    let mut wire = at.open();
    let name = unique("wrong");
    for (argument, value, wrong) in [
        ("x-max-length", FieldValue::from("5"), "\"expected integer, got longstr\""),
        ("x-max-length", (-5).into(), "{value_negative,-5}"),
        ("x-max-priority", 256.into(), "{max_value_exceeded,256}"),
        ("x-dead-letter-routing-key", "key".into(), "routing_key_but_no_dlx_defined"),
        ("x-overflow", "drop-tail".into(), "invalid_overflow"),
        ("x-overflow", 5_i64.into(), "{unacceptable_type,long}"),
        ("x-single-active-consumer", "true".into(), "{unacceptable_type,longstr}"),
        ("x-queue-mode", "fast".into(), "\"unsupported queue mode 'fast'\""),
        ("x-queue-version", 3.into(), "\"unsupported queue version '3'\""),
        ("x-queue-type", "fast".into(), "\"unsupported queue type 'fast'\""),
    ] {
        let declare = queue::Declare { queue: short(&name), ..Default::default() };
        let expected = format!("invalid arg '{argument}' for queue '{name}' in vhost '/': {wrong}");
        refused(&mut wire, declare, table([(argument, value)]), &expected);
    }
    let declare = queue::Declare { queue: short(&name), ..Default::default() };
    let expected = format!(
        "invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue '{name}' in vhost '/'"
    );
    refused(&mut wire, declare, table([("x-dead-letter-exchange", 5.into())]), &expected);
}
