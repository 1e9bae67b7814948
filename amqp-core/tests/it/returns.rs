//! Which publish a return belongs to.

use amqp_core::proto::method::basic;
use amqp_core::proto::{ContentHeader, FieldTable, Properties, RawProperties, ShortStr, frame};
use amqp_core::{ChannelId, Confirmation, Event, Publish, PublishSeq};
use bytes::Bytes;

use crate::contents::encoded;
use crate::peer::Peer;

fn confirming() -> (Peer, ChannelId) {
    let mut peer = Peer::open();
    let id = peer.confirming();
    (peer, id)
}

fn publish(peer: &mut Peer, id: ChannelId, properties: &Properties, body: &[u8]) -> PublishSeq {
    let publish = Publish::new("e", "k", body).properties(properties).mandatory();
    let seq = peer.session.channel(id).publish(&publish).unwrap();
    peer.methods();
    seq
}

/// The broker returns a message.
fn give_back(peer: &mut Peer, properties: &Properties, body: &[u8]) {
    give_back_raw(peer, &encoded(properties), body);
}

fn give_back_raw(peer: &mut Peer, properties: &[u8], body: &[u8]) {
    peer.send_content(1, &returned(), properties, body);
}

fn returned() -> basic::Return<'static> {
    basic::Return {
        reply_code: 312,
        reply_text: ShortStr::new("NO_ROUTE").unwrap(),
        exchange: ShortStr::new("e").unwrap(),
        routing_key: ShortStr::new("k").unwrap(),
    }
}

fn ack(peer: &mut Peer, delivery_tag: u64, multiple: bool) {
    peer.send(1, &basic::Ack { delivery_tag, multiple });
}

/// The outcomes of the publishes from 1 to `last`: `c`onfirmed, `r`eturned, `n`acked, `.` for open.
fn outcomes(peer: &mut Peer, id: ChannelId, last: u64) -> String {
    let mut outcome = |seq| match peer.session.channel(id).confirmed(PublishSeq::new(seq)) {
        None => '.',
        Some(Confirmation::Confirmed) => 'c',
        Some(Confirmation::Nacked) => 'n',
        Some(Confirmation::Returned(_)) => 'r',
        Some(_) => '?',
    };
    (1..=last).map(&mut outcome).collect()
}

fn headers<const COUNT: usize>(fields: [(&str, &str); COUNT]) -> Properties {
    let fields = fields.into_iter().map(|(name, value)| (name, value.into()));
    Properties::new().headers(fields.collect::<FieldTable>())
}

/// Long equal beginnings, equal lengths: the tail alone tells the messages apart. Acks of other
/// publishes come between a return and its own ack, as RabbitMQ sends them.
#[test]
fn a_return_is_known_by_the_whole_body() {
    let (mut peer, id) = confirming();
    let body = |number: u64| format!("{}{number:09}", "x".repeat(64)).into_bytes();
    for number in 1..=20 {
        publish(&mut peer, id, &Properties::new(), &body(number));
    }
    give_back(&mut peer, &Properties::new(), &body(15));
    ack(&mut peer, 3, true);
    ack(&mut peer, 16, false);
    give_back(&mut peer, &Properties::new(), &body(18));
    ack(&mut peer, 16 - 1, true);
    ack(&mut peer, 17, false);
    ack(&mut peer, 20, false);
    ack(&mut peer, 18, false);
    ack(&mut peer, 19, true);
    assert_eq!(outcomes(&mut peer, id, 20), "ccccccccccccccrccrcc");
}

/// RabbitMQ removes the header `BCC`, and leaves an empty table where it was the only one.
#[test]
fn a_return_is_known_without_the_headers_that_route_copies() {
    let (mut peer, id) = confirming();
    let bcc = headers([("BCC", "other")]);
    let both = headers([("a", "1"), ("BCC", "other"), ("CC", "third"), ("b", "2")]);
    publish(&mut peer, id, &bcc, b"1");
    publish(&mut peer, id, &bcc, b"2");
    publish(&mut peer, id, &both, b"3");
    publish(&mut peer, id, &both, b"4");
    publish(&mut peer, id, &Properties::new(), b"5");
    give_back(&mut peer, &headers([]), b"2");
    give_back(&mut peer, &headers([("b", "2"), ("a", "1")]), b"4");
    give_back(&mut peer, &headers([]), b"5");
    ack(&mut peer, 1, false);
    ack(&mut peer, 3, false);
    ack(&mut peer, 5, true);
    assert_eq!(outcomes(&mut peer, id, 5), "crcrr");
}

/// RabbitMQ 4 sorts headers, keeps the first of those with one name, and writes `expiration` anew. Message
/// interceptors add headers and a timestamp.
#[test]
fn a_return_is_known_however_the_broker_has_changed_it() {
    let (mut peer, id) = confirming();
    let table = |fields: &[u8]| [&[0x20, 0, 0, 0, 0, fields.len() as u8], fields].concat();
    let decoded = |raw: &[u8]| RawProperties::new(raw).decode().unwrap().to_owned(4).unwrap();
    let doubled = decoded(&table(b"\x01bB\x01\x01aB\x02\x01bB\x03"));
    let expiring = |text: &str| Properties::new().expiration(text);
    for (properties, body) in [
        (&doubled, "1"),
        (&doubled, "2"),
        (&expiring("+0060"), "3"),
        (&expiring("+0060"), "4"),
        (&expiring("+0061"), "4"),
        (&Properties::new(), "6"),
        (&Properties::new(), "7"),
    ] {
        publish(&mut peer, id, properties, body.as_bytes());
    }
    give_back_raw(&mut peer, &table(b"\x01aB\x02\x01bB\x01"), b"2");
    give_back(&mut peer, &expiring("60"), b"4");
    let stamped = headers([("timestamp_in_ms", "1"), ("x-routed-by", "node")]).timestamp(1_u64);
    give_back(&mut peer, &stamped, b"7");
    ack(&mut peer, 7, true);
    assert_eq!(outcomes(&mut peer, id, 7), "crcrccr");
}

/// What the broker never changes tells messages apart: a property, a header, a header's value, a
/// nested one.
#[test]
fn a_return_is_known_by_every_property() {
    let nested = |value: &str| {
        let inner = FieldTable::from([("n", value.into())]);
        Properties::new().headers(FieldTable::from([("t", inner.into())]))
    };
    let kinds = [
        Properties::new(),
        Properties::new().message_id("a"),
        Properties::new().message_id("b"),
        Properties::new().correlation_id("a"),
        Properties::new().delivery_mode(2),
        headers([("a", "1")]),
        headers([("a", "2")]),
        headers([("b", "1")]),
        headers([("a", "1"), ("b", "1")]),
        nested("1"),
        nested("2"),
    ];
    for returned in 0..kinds.len() {
        let (mut peer, id) = confirming();
        for properties in &kinds {
            publish(&mut peer, id, properties, b"same");
        }
        give_back(&mut peer, &kinds[returned], b"same");
        ack(&mut peer, kinds.len() as u64, true);
        let outcomes = outcomes(&mut peer, id, kinds.len() as u64);
        assert_eq!(outcomes.find('r'), Some(returned), "{outcomes}");
        assert_eq!(outcomes.matches('c').count(), kinds.len() - 1, "{outcomes}");
    }
}

/// The same message at other addresses, of which two have the same letters.
#[test]
fn a_return_is_known_by_exchange_and_routing_key() {
    let addresses = [("e", "k"), ("f", "k"), ("e", "l"), ("k", "e"), ("ek", ""), ("", "ek")];
    for (returned, (exchange, routing_key)) in addresses.into_iter().enumerate() {
        let (mut peer, id) = confirming();
        for (exchange, routing_key) in addresses {
            let publish = Publish::new(exchange, routing_key, b"same").mandatory();
            peer.session.channel(id).publish(&publish).unwrap();
        }
        peer.methods();
        let [exchange, routing_key] = [exchange, routing_key].map(|it| ShortStr::new(it).unwrap());
        let back = basic::Return { exchange, routing_key, ..self::returned() };
        peer.send_content(1, &back, RawProperties::NONE.as_bytes(), b"same");
        ack(&mut peer, 6, true);
        let outcomes = outcomes(&mut peer, id, 6);
        assert_eq!(outcomes.find('r'), Some(returned), "{outcomes}");
        assert_eq!(outcomes.matches('c').count(), 5, "{outcomes}");
    }
}

/// Each return of equal messages goes to one of them, and to no other.
#[test]
fn equal_publishes_share_their_returns() {
    let (mut peer, id) = confirming();
    for body in ["same", "other", "same", "same"] {
        publish(&mut peer, id, &Properties::new(), body.as_bytes());
    }
    give_back(&mut peer, &Properties::new(), b"same");
    ack(&mut peer, 4, false);
    give_back(&mut peer, &Properties::new(), b"same");
    ack(&mut peer, 2, true);
    assert_eq!(outcomes(&mut peer, id, 4), "rc.c");
    ack(&mut peer, 3, false);
    assert_eq!(outcomes(&mut peer, id, 4), "ccrc", "a return is reported once");
}

#[test]
fn a_return_counts_where_a_nack_covers_it() {
    let (mut peer, id) = confirming();
    publish(&mut peer, id, &Properties::new(), b"1");
    publish(&mut peer, id, &Properties::new(), b"2");
    give_back(&mut peer, &Properties::new(), b"2");
    peer.send(1, &basic::Nack { delivery_tag: 2, multiple: true, requeue: false });
    assert_eq!(outcomes(&mut peer, id, 2), "nr");
}

/// A return that belongs to no open publish is reported, beside the outcomes.
#[test]
fn a_return_of_no_open_publish_is_reported_apart() {
    let (mut peer, id) = confirming();
    publish(&mut peer, id, &Properties::new(), b"1");
    publish(&mut peer, id, &Properties::new(), b"2");
    give_back(&mut peer, &Properties::new(), b"2");
    assert!(!peer.events().contains(&Event::Returned(id)));
    // Once more, another message, malformed headers, and one that is still in the buffer.
    give_back(&mut peer, &Properties::new(), b"2");
    give_back(&mut peer, &Properties::new(), b"3");
    give_back_raw(&mut peer, b"\x20\0\0\0\0\x03\x01aZ", b"1");
    let unsent = Publish::new("e", "k", b"4").mandatory();
    peer.session.channel(id).publish(&unsent).unwrap();
    give_back(&mut peer, &Properties::new(), b"4");
    assert_eq!(peer.events(), vec![Event::Returned(id); 4]);
    let mut channel = peer.session.channel(id);
    let returned = std::iter::from_fn(|| channel.take_returned());
    let bodies: Vec<_> = returned.map(|it| it.message.body().to_vec()).collect();
    assert_eq!(bodies, [b"2", b"3", b"1", b"4"]);
    peer.methods();
    ack(&mut peer, 3, true);
    assert_eq!(outcomes(&mut peer, id, 3), "crc");
}

/// What came back before the end has an outcome, acknowledged or not.
#[test]
fn a_return_counts_where_the_connection_ends_before_its_ack() {
    let (mut peer, id) = confirming();
    publish(&mut peer, id, &Properties::new(), b"1");
    publish(&mut peer, id, &Properties::new(), b"2");
    give_back(&mut peer, &Properties::new(), b"2");
    peer.lose();
    assert_eq!(outcomes(&mut peer, id, 2), "?r");
}

/// A body that is too large to be kept is hashed as it is thrown away.
#[test]
fn a_return_of_a_body_over_the_limit_finds_its_publish() {
    let (mut peer, id) = confirming();
    let mut memory = vec![0; (128 << 20) + 2];
    *memory.last_mut().unwrap() = 1;
    let memory = Bytes::from(memory);
    let bodies = [memory.slice(..memory.len() - 1), memory.slice(1..)];
    for body in &bodies {
        let publish = Publish::new("e", "k", body).mandatory();
        peer.session.channel(id).publish(&publish).unwrap();
        while peer.session.connection().stats().unsent_bytes > 0 {
            peer.write();
            peer.written.clear();
        }
    }
    peer.send(1, &returned());
    let (body_size, properties) = (bodies[1].len() as u64, RawProperties::NONE);
    let mut bytes = Vec::new();
    frame::write_header(&mut bytes, 1, &ContentHeader { class_id: 60, body_size, properties });
    for piece in bodies[1].chunks(4_000) {
        frame::write_body(&mut bytes, 1, piece);
        peer.send_bytes(&bytes);
        bytes.clear();
    }
    ack(&mut peer, 2, true);
    assert_eq!(outcomes(&mut peer, id, 2), "cr");
}
