//! Streams: where consumers begin, and what streams refuse.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amqp_proto::method::{basic, queue};
use amqp_proto::{FieldTable, FieldValue, RawTable};

use crate::wire::{Wire, encoded, none, short, with};
use crate::{At, on_both, unique};

on_both! {
    br_66_a_stream_is_read_from_any_offset
    br_66_a_stream_is_read_from_a_time
    br_66_an_ack_lets_the_next_message_through
    br_67_a_stream_takes_nothing_back
    br_67_what_streams_refuse
    br_67_arguments_of_consumers_are_checked
}

/// Declares a stream, and publishes numbers to it.
fn declare(wire: &mut Wire, messages: usize) -> String {
    let name = unique("stream");
    let declare = queue::Declare { queue: short(&name), durable: true, ..Default::default() };
    wire.declare_with(declare, FieldTable::from([("x-queue-type", "stream".into())]));
    wire.expect("queue.DeclareOk");
    for number in 0..messages {
        wire.publish(&name, none(), number.to_string().as_bytes());
    }
    name
}

fn prefetch(wire: &mut Wire, count: u16) {
    wire.raw.send(1, &basic::Qos { prefetch_count: count, ..Default::default() });
    wire.expect("basic.QosOk");
}

fn consume(wire: &mut Wire, name: &str, offset: Option<FieldValue>) {
    let arguments: FieldTable = offset.map(|it| ("x-stream-offset", it)).into_iter().collect();
    let table = encoded(&arguments);
    let consume =
        basic::Consume { queue: short(name), consumer_tag: short("t"), ..Default::default() };
    wire.raw.send(1, &basic::Consume { arguments: RawTable::new(&table), ..consume });
    wire.expect("basic.ConsumeOk");
}

/// Takes deliveries, acknowledges each, and checks their numbers and offsets.
#[track_caller]
fn expect(wire: &mut Wire, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let got = wire.delivery();
        assert_eq!(got.body, number.to_string().as_bytes());
        assert_eq!(got.header("x-stream-offset"), Some(&FieldValue::I64(number as i64)));
        assert!(!got.redelivered);
        wire.ack(&got);
    }
}

fn br_66_a_stream_is_read_from_any_offset(at: &At) {
    let mut wire = at.open();
    let name = declare(&mut wire, 5);
    prefetch(&mut wire, 10);
    for (offset, first) in [
        (Some("first".into()), 0),
        (Some("last".into()), 4),
        (Some(FieldValue::from(0)), 0),
        (Some(3_i64.into()), 3),
    ] {
        consume(&mut wire, &name, offset);
        expect(&mut wire, first..5);
        wire.cancel();
    }
    // What is not there yet is awaited.
    let mut published = 5;
    for (offset, first) in [(Some("next".into()), 5), (None, 8), (Some(FieldValue::from(13)), 13)] {
        consume(&mut wire, &name, offset);
        for number in published..first + 3 {
            wire.publish(&name, none(), number.to_string().as_bytes());
        }
        published = first + 3;
        expect(&mut wire, first..first + 3);
        wire.cancel();
    }
    wire.delete(&name);
}

fn br_66_a_stream_is_read_from_a_time(at: &At) {
    let mut wire = at.open();
    let name = declare(&mut wire, 3);
    at.pass(Duration::from_millis(2_100));
    let now = at.exact().map_or_else(SystemTime::now, |model| model.now());
    let now = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
    wire.publish(&name, none(), b"3");
    wire.publish(&name, none(), b"4");
    prefetch(&mut wire, 10);
    for (time, first) in
        [(FieldValue::Timestamp(now), 3), (FieldValue::Timestamp(now - 3_600), 0), ("1h".into(), 0)]
    {
        consume(&mut wire, &name, Some(time));
        expect(&mut wire, first..5);
        wire.cancel();
    }
    wire.delete(&name);
}

fn br_66_an_ack_lets_the_next_message_through(at: &At) {
    let mut wire = at.open();
    let name = declare(&mut wire, 3);
    prefetch(&mut wire, 1);
    consume(&mut wire, &name, Some("first".into()));
    let first = wire.delivery();
    wire.sync();
    assert!(!wire.has_frame(), "the prefetch is used up");
    wire.ack(&first);
    assert_eq!(wire.delivery().body, b"1");
    // What a closed channel has not acknowledged is there for all others, and not marked.
    wire.close_channel();
    prefetch(&mut wire, 10);
    consume(&mut wire, &name, Some("first".into()));
    expect(&mut wire, 0..3);
    wire.cancel();
    wire.delete(&name);
}

fn br_67_a_stream_takes_nothing_back(at: &At) {
    let mut wire = at.open();
    let name = declare(&mut wire, 1);
    for requeue in [true, false] {
        let mut other = at.open();
        prefetch(&mut other, 10);
        consume(&mut other, &name, Some("first".into()));
        let got = other.delivery();
        other.raw.send(1, &basic::Nack { delivery_tag: got.tag, multiple: false, requeue });
        let expected = format!(
            "connection: NOT_IMPLEMENTED - basic.nack and basic.reject not supported by stream \
             queues queue '{name}' in vhost '/'"
        );
        assert_eq!(other.raw.expect_refusal(), (540, expected));
    }
    // RabbitMQ counts some time later.
    wire.expect_count(&name, 1);
    wire.delete(&name);
}

fn br_67_what_streams_refuse(at: &At) {
    let mut wire = at.open();
    let name = declare(&mut wire, 1);
    // A prefetch is needed.
    wire.raw.send(1, &basic::Consume { queue: short(&name), ..Default::default() });
    let expected = format!(
        "channel: PRECONDITION_FAILED - consumer prefetch count is not set for 'queue '{name}' in \
         vhost '/''"
    );
    assert_eq!(wire.raw.expect_refusal(), (406, expected));
    wire.reopen();
    for what in ["get", "no_ack", "global", "purge"] {
        let mut other = at.open();
        other.raw.send(
            1,
            &basic::Qos { prefetch_count: 5, global: what == "global", ..Default::default() },
        );
        other.expect("basic.QosOk");
        let queue = short(&name);
        let no_ack = what == "no_ack";
        match what {
            "get" => other.raw.send(1, &basic::Get { queue, ..Default::default() }),
            "purge" => other.raw.send(1, &queue::Purge { queue, ..Default::default() }),
            _ => other.raw.send(1, &basic::Consume { queue, no_ack, ..Default::default() }),
        }
        let (code, text) = other.raw.expect_refusal();
        let queue = format!("queue '{name}' in vhost '/'");
        let expected = match what {
            "get" => {
                (540, format!("NOT_IMPLEMENTED - basic.get not supported by stream queues {queue}"))
            }
            "purge" => (
                540,
                format!("NOT_IMPLEMENTED - queue.purge not supported by stream queues {queue}"),
            ),
            "no_ack" => (
                540,
                format!(
                    "NOT_IMPLEMENTED - automatic acknowledgement not supported by stream queues {queue}"
                ),
            ),
            _ => (
                406,
                format!("PRECONDITION_FAILED - consumer prefetch count is not set for '{queue}'"),
            ),
        };
        assert!(code == expected.0 && text.ends_with(&expected.1), "{what}: {code} {text}");
    }
    let stream = || FieldTable::from([("x-queue-type", "stream".into())]);
    let other = unique("refused");
    let declare = queue::Declare { queue: short(&other), durable: true, ..Default::default() };
    for (arguments, expected) in [
        (
            with(stream(), "x-message-ttl", 5),
            format!(
                "invalid arg 'x-message-ttl' for queue '{other}' in vhost '/' of queue type rabbit_stream_queue"
            ),
        ),
        (
            with(stream(), "x-max-age", "5x"),
            format!("invalid arg 'x-max-age' for queue '{other}' in vhost '/': invalid_max_age"),
        ),
        (
            with(stream(), "x-stream-max-segment-size-bytes", 3_000_000_001_i64),
            "Exceeded max value for x-stream-max-segment-size-bytes".to_owned(),
        ),
    ] {
        wire.declare_with(declare, arguments);
        let expected = format!("channel: PRECONDITION_FAILED - {expected}");
        assert_eq!(wire.raw.expect_refusal(), (406, expected));
        wire.reopen();
    }
    // A stream is deleted whatever the flags say.
    let delete = queue::Delete { queue: short(&name), if_empty: true, ..Default::default() };
    wire.raw.send(1, &delete);
    wire.expect("queue.DeleteOk");
}

fn br_67_arguments_of_consumers_are_checked(at: &At) {
    let mut wire = at.open();
    let stream = declare(&mut wire, 0);
    let classic = unique("classic");
    wire.declare(&classic, FieldTable::new());
    for (queue, argument, value, wrong) in [
        (
            &stream,
            "x-stream-offset",
            FieldValue::from("5x"),
            ": {invalid_stream_offset_arg,{longstr,<<\"5x\">>}}",
        ),
        (&stream, "x-priority", 1.into(), " of queue type rabbit_stream_queue"),
        (&classic, "x-stream-offset", 1.into(), " of queue type rabbit_classic_queue"),
        (&classic, "x-priority", "1".into(), ": \"expected integer, got longstr\""),
    ] {
        let table = encoded(&FieldTable::from([(argument, value)]));
        let arguments = RawTable::new(&table);
        wire.raw.send(1, &basic::Consume { queue: short(queue), arguments, ..Default::default() });
        let expected = format!(
            "channel: PRECONDITION_FAILED - invalid arg '{argument}' for queue '{queue}' in vhost '/'{wrong}"
        );
        assert_eq!(wire.raw.expect_refusal(), (406, expected));
        wire.reopen();
    }
    wire.delete(&stream);
}
