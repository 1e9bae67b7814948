//! Messages and publishes as applications build them.

use std::time::Duration;

use amqp_core::proto::ShortStr;
use amqp_core::proto::method::basic;
use amqp_core::{BasicConsume, BasicGet, FieldTable, Message, Properties, Publish, QueueDeclare};

use crate::contents::encoded;
use crate::peer::Peer;

/// The bytes of a publish.
fn written(publish: &Publish<'_>) -> Vec<u8> {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    peer.session.channel(id).publish(publish).unwrap();
    peer.write();
    std::mem::take(&mut peer.written)
}

#[test]
fn properties_are_set_on_the_publish_itself() {
    let table = FieldTable::from([("x-attempt", 2.into()), ("x-from", "a".into())]);
    let properties = Properties::new()
        .content_type("text/plain")
        .content_encoding("gzip")
        .headers(table)
        .delivery_mode(2)
        .priority(3)
        .correlation_id("c")
        .reply_to("r")
        .expiration("1500")
        .message_id("m")
        .timestamp(7_u64)
        .kind("k")
        .user_id("guest")
        .app_id("app");
    let expected = written(&Publish::new("e", "key", b"body").properties(&properties).mandatory());

    let publish = Publish::new("e", "key", b"body")
        .content_type("text/plain")
        .content_encoding("gzip")
        .header("x-attempt", 2)
        .header("x-from", "a")
        .persistent()
        .priority(3)
        .correlation_id("c")
        .reply_to("r")
        .expiration(Duration::from_micros(1_499_001))
        .message_id("m")
        .timestamp(7)
        .kind("k")
        .user_id("guest")
        .app_id("app")
        .mandatory();
    assert_eq!(written(&publish), expected);

    let message = Message::new("body")
        .to("e", "key")
        .content_type("text/plain")
        .content_encoding("gzip")
        .header("x-attempt", 2)
        .header("x-from", "a")
        .persistent()
        .priority(3)
        .correlation_id("c")
        .reply_to("r")
        .expiration(Duration::from_millis(1_500))
        .message_id("m")
        .timestamp(7)
        .kind("k")
        .user_id("guest")
        .app_id("app")
        .mandatory();
    assert_eq!(written(&Publish::from(&message)), expected);
}

#[test]
fn one_property_is_added_to_borrowed_ones() {
    let properties = Properties::new().content_type("text/plain").message_id("m");
    let publish = Publish::to_queue("q", b"x").properties(&properties).kind("k");
    let both = properties.clone().kind("k");
    assert_eq!(written(&publish), written(&Publish::new("", "q", b"x").properties(&both)));
    assert_eq!(properties.kind, None);
}

#[test]
fn a_plain_message_is_published_like_a_plain_publish() {
    let message = Message::new("x").to_queue("q");
    assert_eq!(written(&Publish::from(&message)), written(&Publish::to_queue("q", "x")));
}

#[test]
fn expirations_are_rounded_up() {
    let expiration = |ttl| Message::new("").expiration(ttl).properties.expiration.unwrap();
    assert_eq!(expiration(Duration::from_nanos(1)), "1");
    assert_eq!(expiration(Duration::ZERO), "0");
    assert_eq!(expiration(Duration::from_millis(250)), "250");
}

#[test]
fn a_delivery_becomes_a_message_that_can_be_published() {
    let mut peer = Peer::open();
    let id = peer.channel(1);
    let call = peer.session.channel(id).call(peer.now, &BasicGet::from("q")).unwrap();
    let short = |text| ShortStr::new(text).unwrap();
    let (exchange, routing_key) = (short("e"), short("k"));
    let get_ok = basic::GetOk { delivery_tag: 1, exchange, routing_key, ..Default::default() };
    let properties = Properties::new().content_type("text/plain").message_id("m");
    peer.send_content(1, &get_ok, &encoded(&properties), b"body");
    let got = peer.session.take_reply(&call).unwrap().unwrap().unwrap();
    let message = Message::try_from(&got.delivery.message).unwrap();
    let expected = Message::new("body").to("e", "k").content_type("text/plain").message_id("m");
    assert_eq!(message, expected);
}

#[test]
fn flags_can_come_from_a_file() {
    let from_file = |durable| QueueDeclare::new("q").durable_if(durable);
    assert_eq!(from_file(true), QueueDeclare::new("q").durable());
    assert_eq!(from_file(false), QueueDeclare::new("q"));
    assert_eq!(BasicConsume::from("q"), BasicConsume::new(String::from("q")));
    let consume = BasicConsume::from(&String::from("q")).no_ack_if(true).prefetch(7);
    assert_eq!((&*consume.queue, consume.no_ack, consume.prefetch), ("q", true, Some(7)));
}

#[cfg(feature = "json")]
#[test]
fn a_body_can_be_json() {
    let message = Message::json(&[1, 2]).unwrap();
    assert_eq!(message.body, "[1,2]");
    assert_eq!(message.properties.content_type.as_deref(), Some("application/json"));
}

#[cfg(feature = "serde")]
#[test]
fn messages_are_kept_in_files() {
    let message = Message::new("text").to("e", "k").header("a", 1).mandatory();
    let binary = Message::new(vec![0xff]).to_queue("q");
    for message in [message, binary] {
        let json = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&json).unwrap(), message);
    }
    let short: Message = serde_json::from_str(r#"{"routing_key": "q", "body": "text"}"#).unwrap();
    assert_eq!(short, Message::new("text").to_queue("q"));
}
