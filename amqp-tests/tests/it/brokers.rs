//! What brokers answer to bytes that this client never sends: the model against RabbitMQ, byte by
//! byte.

use std::time::{Duration, Instant};

use amqp_proto::frame::{self, HEARTBEAT};
use amqp_proto::method::{
    Method, access, basic, channel, confirm, connection, exchange, queue, tx,
};
use amqp_proto::{FieldValue, PROTOCOL_HEADER, RawTable, ShortStr, TABLE_DEPTH_MAX};
use amqp_testkit::RawConnection;

use crate::support::version;

/// Turns `fn name(port: u16)` into one test for each broker.
macro_rules! on_both_ports {
    ($($name:ident)*) => {
        mod model {
            $(
                #[test]
                fn $name() {
                    super::$name(crate::support::model().port());
                }
            )*
        }
        mod rabbitmq {
            $(
                #[test]
                fn $name() {
                    super::$name(crate::support::rabbitmq().port());
                }
            )*
        }
    };
}

on_both_ports! {
    br_1_immediate_is_not_implemented
    br_2_recover_needs_requeue
    br_3_flow_cannot_be_stopped
    br_4_a_prefetch_size_is_not_implemented
    br_7_another_protocol_is_answered_with_ours
    br_8_a_wrong_password_is_refused_at_once
    br_10_what_is_no_frame_ends_the_connection
    br_12_what_makes_no_sense_closes_the_channel
    br_13_a_consumer_tag_is_used_once
    br_15_an_unknown_consumer_is_cancelled
    br_21_a_deleted_queue_cancels_without_waiting
    br_23_access_is_granted_and_means_nothing
    br_26_a_frame_too_large_ends_the_connection
    br_27_one_channel_too_many_ends_the_connection
    br_28_heartbeats_are_empty_and_on_no_channel
    br_29_contents_are_whole_and_channels_open
    br_30_headers_come_back_byte_for_byte
    br_34_closes_are_answered_and_the_socket_stays
    br_36_a_broker_says_what_it_can
}

fn open(port: u16) -> RawConnection {
    let mut wire = RawConnection::connect(port);
    wire.log_in(u16::MAX);
    wire
}

fn short(text: &str) -> ShortStr<'_> {
    ShortStr::new(text).unwrap()
}

/// An exclusive queue that the broker names.
fn declare(wire: &mut RawConnection) -> String {
    wire.send(1, &queue::Declare { exclusive: true, ..Default::default() });
    let frame = wire.expect("queue.DeclareOk");
    let Some(Method::QueueDeclareOk(ok)) = frame.method() else { panic!() };
    ok.queue.as_str().unwrap().to_owned()
}

/// Asks for a consumer of the tag `t`.
fn consume(wire: &mut RawConnection, queue: &str) {
    let (queue, consumer_tag) = (short(queue), short("t"));
    wire.send(1, &basic::Consume { queue, consumer_tag, ..Default::default() });
}

fn publish(wire: &mut RawConnection, queue: &str, properties: &[u8]) {
    wire.send(1, &basic::Publish { routing_key: short(queue), ..Default::default() });
    wire.send_content(1, properties, b"body");
}

/// Gets the message that was published a moment ago.
fn get(wire: &mut RawConnection, name: &str) -> u64 {
    loop {
        wire.send(1, &basic::Get { queue: short(name), ..Default::default() });
        let frame = wire.next_frame().unwrap();
        if let Some(Method::BasicGetOk(ok)) = frame.method() {
            let tag = ok.delivery_tag;
            wire.next_frame().unwrap();
            wire.next_frame().unwrap();
            return tag;
        }
    }
}

#[track_caller]
fn refused(wire: &mut RawConnection, code: u16, scope: &str) {
    let (found, text) = wire.expect_refusal();
    assert!(found == code && text.starts_with(scope), "{found} {text}, not {code} {scope}");
}

fn br_1_immediate_is_not_implemented(port: u16) {
    let mut wire = open(port);
    wire.send(1, &basic::Publish { immediate: true, ..Default::default() });
    wire.send_content(1, &[0, 0], b"");
    refused(&mut wire, 540, "connection: NOT_IMPLEMENTED - immediate=true");
    // Whatever of a content is on its way then is no further matter.
    wire.send_content(1, &[0, 0], b"late");
    assert!(wire.is_silent_for(Duration::from_millis(200)));
}

fn br_2_recover_needs_requeue(port: u16) {
    let mut wire = open(port);
    let name = declare(&mut wire);
    publish(&mut wire, &name, &[0, 0]);
    let first = get(&mut wire, &name);
    // Nothing answers the one that is called asynchronous.
    wire.send(1, &basic::RecoverAsync { requeue: true });
    assert!(wire.is_silent_for(Duration::from_millis(200)));
    let second = get(&mut wire, &name);
    assert!(second > first);
    wire.send(1, &basic::Recover { requeue: true });
    wire.expect("basic.RecoverOk");
    assert!(get(&mut wire, &name) > second);
    wire.send(1, &basic::Recover { requeue: false });
    refused(&mut wire, 540, "connection");
}

fn br_3_flow_cannot_be_stopped(port: u16) {
    let mut wire = open(port);
    wire.send(1, &channel::Flow { active: true });
    let frame = wire.expect("channel.FlowOk");
    assert_eq!(frame.method(), Some(channel::FlowOk { active: true }.into()));
    wire.send(1, &channel::Flow { active: false });
    refused(&mut wire, 540, "connection");
}

fn br_4_a_prefetch_size_is_not_implemented(port: u16) {
    let mut wire = open(port);
    wire.send(1, &basic::Qos { prefetch_size: 1, ..Default::default() });
    refused(&mut wire, 540, "connection: NOT_IMPLEMENTED - prefetch_size!=0 (1)");
}

/// The header that the broker would rather see: from RabbitMQ 4 on, that of AMQP 1.0 with SASL.
fn own_header(port: u16) -> [u8; 8] {
    if version(port) < (4, 0) { PROTOCOL_HEADER } else { *b"AMQP\x03\x01\0\0" }
}

fn br_7_another_protocol_is_answered_with_ours(port: u16) {
    for greeting in [b"AMQP\0\x01\0\0".as_slice(), b"HTTP/1.1"] {
        let mut wire = RawConnection::connect(port);
        wire.send_bytes(greeting);
        assert_eq!(wire.read_to_end(), own_header(port));
    }
}

fn br_8_a_wrong_password_is_refused_at_once(port: u16) {
    let mut wire = RawConnection::connect(port);
    wire.begin_login("wrong", &["authentication_failure_close"]);
    let frame = wire.expect("connection.Close");
    let Some(Method::ConnectionClose(close)) = frame.method() else { panic!() };
    assert_eq!((close.reply_code, close.class_id, close.method_id), (403, 0, 0));
}

fn br_10_what_is_no_frame_ends_the_connection(port: u16) {
    let mut wire = open(port);
    wire.send_bytes(&[9, 0, 0, 0, 0, 0, 0, 0xce]);
    refused(&mut wire, 501, "connection");
    let mut wire = open(port);
    let mut frame = HEARTBEAT;
    frame[7] = 0;
    wire.send_bytes(&frame);
    refused(&mut wire, 501, "connection");
}

fn br_12_what_makes_no_sense_closes_the_channel(port: u16) {
    let mut wire = open(port);
    wire.send(1, &basic::Ack { delivery_tag: 7, multiple: false });
    refused(&mut wire, 406, "channel");
    let mut wire = open(port);
    wire.send(1, &tx::Commit::default());
    refused(&mut wire, 406, "channel");
    let mut wire = open(port);
    for _ in 0..2 {
        wire.send(1, &tx::Select::default());
        wire.expect("tx.SelectOk");
    }
    wire.send(1, &confirm::Select::default());
    refused(&mut wire, 406, "channel");
    let mut wire = open(port);
    wire.send(1, &confirm::Select::default());
    wire.send(1, &tx::Select::default());
    refused(&mut wire, 406, "channel");
    // All that is outstanding, which may be nothing.
    let mut wire = open(port);
    wire.send(1, &basic::Ack { delivery_tag: 0, multiple: true });
    declare(&mut wire);
}

fn br_13_a_consumer_tag_is_used_once(port: u16) {
    let mut wire = open(port);
    let name = declare(&mut wire);
    consume(&mut wire, &name);
    wire.expect("basic.ConsumeOk");
    consume(&mut wire, &name);
    refused(&mut wire, 530, "connection: NOT_ALLOWED - attempt to reuse consumer tag 't'");
}

fn br_15_an_unknown_consumer_is_cancelled(port: u16) {
    let mut wire = open(port);
    wire.send(1, &basic::Cancel { consumer_tag: short("nobody"), no_wait: false });
    let frame = wire.expect("basic.CancelOk");
    assert_eq!(frame.method(), Some(basic::CancelOk { consumer_tag: short("nobody") }.into()));
}

fn br_21_a_deleted_queue_cancels_without_waiting(port: u16) {
    let mut wire = open(port);
    let name = declare(&mut wire);
    consume(&mut wire, &name);
    wire.expect("basic.ConsumeOk");
    // RabbitMQ 4.3 tells nobody of an exclusive queue that is deleted within the first moments.
    assert!(wire.is_silent_for(Duration::from_millis(500)));
    wire.send(1, &queue::Delete { queue: short(&name), ..Default::default() });
    let frame = wire.expect("basic.Cancel");
    let expected = basic::Cancel { consumer_tag: short("t"), no_wait: true };
    assert_eq!(frame.method(), Some(expected.into()));
}

fn br_23_access_is_granted_and_means_nothing(port: u16) {
    let mut wire = open(port);
    wire.send(1, &access::Request { realm: short("/data"), ..Default::default() });
    let frame = wire.expect("access.RequestOk");
    assert_eq!(frame.method(), Some(access::RequestOk { ticket: 1 }.into()));
    // Asked not to deliver what comes by the same connection, it does all the same.
    let name = declare(&mut wire);
    wire.send(1, &basic::Consume { queue: short(&name), no_local: true, ..Default::default() });
    wire.expect("basic.ConsumeOk");
    publish(&mut wire, &name, &[0, 0]);
    wire.expect("basic.Deliver");
}

fn br_26_a_frame_too_large_ends_the_connection(port: u16) {
    let mut wire = open(port);
    wire.send(1, &basic::Publish::default());
    wire.send_content(1, &[0, 0], &vec![0; 131_073]);
    refused(&mut wire, 501, "connection");
}

fn br_27_one_channel_too_many_ends_the_connection(port: u16) {
    let mut wire = RawConnection::connect(port);
    wire.log_in(2);
    wire.send(2, &channel::Open::default());
    wire.expect("channel.OpenOk");
    wire.send(3, &channel::Open::default());
    refused(&mut wire, 530, "connection");
}

fn br_28_heartbeats_are_empty_and_on_no_channel(port: u16) {
    let mut wire = open(port);
    wire.send_bytes(&[8, 0, 1, 0, 0, 0, 0, 0xce]);
    refused(&mut wire, 505, "connection");
    let mut wire = open(port);
    wire.send_bytes(&[8, 0, 0, 0, 0, 0, 1, 0, 0xce]);
    refused(&mut wire, 501, "connection");
}

fn br_29_contents_are_whole_and_channels_open(port: u16) {
    let mut wire = open(port);
    wire.send(1, &basic::Publish::default());
    wire.send(1, &basic::Publish::default());
    refused(&mut wire, 505, "connection");
    let mut wire = open(port);
    wire.send_content(1, &[0, 0], b"");
    refused(&mut wire, 505, "connection");
    // A body that is too long is noticed at the next method at the latest.
    let mut wire = open(port);
    wire.send(1, &basic::Publish::default());
    wire.send_content(1, &[0, 0], b"body");
    let mut extra = Vec::new();
    frame::write_body(&mut extra, 1, b"more");
    wire.send_bytes(&extra);
    wire.send(1, &tx::Select::default());
    refused(&mut wire, 505, "connection");
    let mut wire = open(port);
    wire.send(2, &tx::Select::default());
    refused(&mut wire, 504, "connection");
    let mut wire = open(port);
    wire.send(1, &channel::Open::default());
    refused(&mut wire, 504, "connection");
}

fn br_30_headers_come_back_byte_for_byte(port: u16) {
    let mut fields = vec![];
    let values: [(u8, &[u8]); 18] = [
        (b'A', &[0, 0, 0, 2, b't', 1]),
        (b't', &[1]),
        (b'b', &[0xff]),
        (b'B', &[0xff]),
        (b'u', &[0xff, 0xfe]),
        (b's', &[0x80, 0]),
        (b'I', &[0x80, 0, 0, 1]),
        (b'i', &[0xff, 0, 0, 1]),
        (b'L', &[0x80, 0, 0, 0, 0, 0, 0, 1]),
        (b'l', &[0x80, 0, 0, 0, 0, 0, 0, 2]),
        (b'f', &[0x3f, 0x80, 0, 0]),
        (b'd', &[0x3f, 0xf0, 0, 0, 0, 0, 0, 0]),
        (b'D', &[2, 0, 0, 0, 5]),
        (b'S', &[0, 0, 0, 1, b'x']),
        (b'x', &[0, 0, 0, 1, 0xff]),
        (b'T', &[0, 0, 0, 0, 0x4d, 0x1e, 0x6e, 0x43]),
        (b'F', &[0, 0, 0, 3, 1, b'k', b'V']),
        (b'V', &[]),
    ];
    for (kind, value) in values {
        fields.extend([1, kind, kind]);
        fields.extend_from_slice(value);
    }
    let mut properties = vec![0x20, 0];
    properties.extend((fields.len() as u32).to_be_bytes());
    properties.extend_from_slice(&fields);
    let mut wire = open(port);
    let name = declare(&mut wire);
    publish(&mut wire, &name, &properties);
    wire.send(1, &basic::Consume { queue: short(&name), ..Default::default() });
    wire.expect("basic.Deliver");
    let header = wire.next_frame().unwrap();
    let table = RawTable::new(&header.payload[18..]).decode(TABLE_DEPTH_MAX).unwrap();
    if version(port) < (4, 0) {
        assert_eq!(header.payload[12..], properties);
    } else {
        // The same fields, in another order.
        let sent = RawTable::new(&fields).decode(TABLE_DEPTH_MAX).unwrap();
        for (name, value) in sent.iter() {
            assert_eq!(table.get(name), Some(value), "{name}");
        }
    }
    assert_eq!(table.len(), values.len());
    assert_eq!(table.get("b"), Some(&FieldValue::I8(-1)));
    assert_eq!(table.get("B"), Some(&FieldValue::U8(255)));

    // What RabbitMQ does not read costs the connection.
    let values: [&[u8]; 4] =
        [b"Z", b"U\0\x01", &[b'd', 0x7f, 0xf8, 0, 0, 0, 0, 0, 0], &[b'f', 0x7f, 0x80, 0, 0]];
    for value in values {
        let mut wire = open(port);
        let length = 2 + value.len() as u8;
        let properties = [&[0x20, 0, 0, 0, 0, length, 1, b'x'][..], value].concat();
        publish(&mut wire, "nobody", &properties);
        refused(&mut wire, 541, "connection");
    }
}

fn br_34_closes_are_answered_and_the_socket_stays(port: u16) {
    let mut wire = open(port);
    wire.send(1, &channel::Close::default());
    wire.expect("channel.CloseOk");
    wire.send(1, &channel::Open::default());
    wire.expect("channel.OpenOk");
    wire.send(
        1,
        &exchange::Declare { exchange: short("missing"), passive: true, ..Default::default() },
    );
    refused(&mut wire, 404, "channel");
    // Crossing: both closes are answered.
    wire.send(1, &channel::Close::default());
    wire.expect("channel.CloseOk");
    wire.send(1, &channel::CloseOk::default());
    wire.send(1, &channel::Open::default());
    wire.expect("channel.OpenOk");
    wire.send(0, &connection::Close { reply_code: 200, ..Default::default() });
    wire.expect("connection.CloseOk");
    assert!(wire.is_silent_for(Duration::from_millis(500)), "the client is to close the socket");
}

fn br_36_a_broker_says_what_it_can(port: u16) {
    let (start, tune) = RawConnection::connect(port).log_in(u16::MAX);
    let Some(Method::ConnectionStart(start)) = start.method() else { panic!() };
    assert_eq!((start.version_major, start.version_minor, start.locales), (0, 9, &b"en_US"[..]));
    let mut mechanisms = start.mechanisms.split(|byte| *byte == b' ');
    assert!(mechanisms.any(|mechanism| mechanism == b"PLAIN"));
    let properties = start.server_properties.decode(TABLE_DEPTH_MAX).unwrap();
    let Some(FieldValue::Table(capabilities)) = properties.get("capabilities") else { panic!() };
    for capability in [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ] {
        assert_eq!(capabilities.get(capability), Some(&FieldValue::Bool(true)), "{capability}");
    }
    assert_eq!((tune.channel_max, tune.frame_max), (2047, 131_072));
}

/// The broker says nothing, and resets after three seconds: the core makes of it that tuning was
/// refused, and never sends such.
#[test]
fn br_24_br_25_a_tuning_that_rabbitmq_refuses_is_reset() {
    for (channel_max, frame_max) in [(0, 131_072), (2_047, 1_024), (2_047, 0), (2_047, 262_144)] {
        let mut wire = RawConnection::connect(crate::support::rabbitmq().port());
        wire.begin_login("guest", &[]);
        wire.expect("connection.Tune");
        wire.send(0, &connection::TuneOk { channel_max, frame_max, heartbeat: 0 });
        let said = wire.read_to_end();
        assert!(said.is_empty(), "{channel_max} {frame_max}: {said:?}");
    }
}

/// Older protocols are answered; what the client cannot do, the broker does without.
#[test]
fn br_7_br_8_br_21_rabbitmq_heeds_what_a_client_can() {
    let port = crate::support::rabbitmq().port();
    for greeting in [b"AMQP\x01\x01\x08\0", b"AMQP\x01\x01\0\x09"] {
        let mut wire = RawConnection::connect(port);
        wire.send_bytes(greeting);
        if version(port) < (4, 0) || *greeting == *b"AMQP\x01\x01\0\x09" {
            wire.expect("connection.Start");
        } else {
            assert_eq!(wire.read_to_end(), own_header(port));
        }
    }
    // Without `authentication_failure_close` a wrong password is answered by a reset, three seconds later.
    let mut wire = RawConnection::connect(port);
    let begun = Instant::now();
    wire.begin_login("wrong", &[]);
    assert!(wire.read_to_end().is_empty());
    assert!(begun.elapsed() > Duration::from_secs(2));
}
