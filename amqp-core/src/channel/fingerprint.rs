//! The fingerprint by which a returned message is matched to its publish. It is a hash of everything in the
//! message that the broker does not change.
//!
//! It covers the exchange, the routing key, the whole body and the properties. RabbitMQ changes some
//! properties before it returns a message, so these are treated specially:
//! * RabbitMQ removes the header `BCC`. The fingerprint ignores `BCC` and `CC`.
//! * RabbitMQ appends an address to the name of the pseudo-queue in `reply_to`, if a request uses a direct
//!   reply.
//! * RabbitMQ 4.0 and later sorts the headers by name, and keeps the first of several headers with the same
//!   name.
//! * RabbitMQ 4.0 and later writes `expiration` without a plus sign and without leading zeros.
//! * Message interceptors, which an operator may configure, add the headers `timestamp_in_ms` and
//!   `x-routed-by`, and set `timestamp`. So the timestamp is kept next to the hash, not in it: see
//!   [`Returns`].
//!
//! An empty header table is treated like no table. Malformed properties are hashed as they are. This client
//! cannot have sent them.
//!
//! The hash is XXH3 with 128 bits. It is not cryptographic. The probability that any two different messages
//! among 65,536 open publishes have the same hash is about 1 in 10^29.
//!
//! [`Returns`]: super::returns::Returns

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use amqp_proto::{Malformed, PropertiesRef, RawProperties, RawTable, ShortStr};
use twox_hash::XxHash3_128;

use crate::message::ReceivedMessage;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    hash: u128,
    timestamp: Option<u64>,
}

/// The fingerprint of a returned message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned {
    pub(super) fingerprint: Fingerprint,
    /// Whether the broker may have set the timestamp.
    pub(super) restamped: bool,
}

impl Fingerprint {
    /// Returns the fingerprint of a message to publish. It overwrites `scratch`.
    pub(crate) fn new(
        exchange: ShortStr<'_>,
        routing_key: ShortStr<'_>,
        properties: RawProperties<'_>,
        body: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Self {
        let body = XxHash3_128::oneshot(body);
        canonical(exchange, routing_key, properties, body, scratch).fingerprint
    }

    /// Returns the lowest and the highest fingerprint that differ from this one in the timestamp only.
    pub(super) const fn whatever_timestamp(self) -> (Self, Self) {
        (Self { timestamp: None, ..self }, Self { timestamp: Some(u64::MAX), ..self })
    }
}

impl Returned {
    /// Returns the fingerprint of a returned message. `body` is the hash of a body that was discarded while
    /// it arrived. Overwrites `scratch`.
    pub(crate) fn new(
        message: &ReceivedMessage,
        body: Option<&BodyHash>,
        scratch: &mut Vec<u8>,
    ) -> Self {
        let body = match body {
            Some(body) => body.0.finish_128(),
            None => XxHash3_128::oneshot(message.body()),
        };
        let properties = message.raw_properties();
        canonical(message.exchange(), message.routing_key(), properties, body, scratch)
    }
}

impl Ord for Fingerprint {
    fn cmp(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        super::returns::count_step();
        self.hash.cmp(&other.hash).then_with(|| self.timestamp.cmp(&other.timestamp))
    }
}

impl PartialOrd for Fingerprint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The hash of a body that arrives in pieces.
#[derive(Default)]
pub(crate) struct BodyHash(Box<twox_hash::xxhash3_128::Hasher>);

impl BodyHash {
    pub(crate) fn write(&mut self, piece: &[u8]) {
        self.0.write(piece);
    }
}

impl fmt::Debug for BodyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodyHash")
    }
}

fn canonical(
    exchange: ShortStr<'_>,
    routing_key: ShortStr<'_>,
    properties: RawProperties<'_>,
    body: u128,
    scratch: &mut Vec<u8>,
) -> Returned {
    scratch.clear();
    for text in [exchange, routing_key] {
        scratch.push(text.len() as u8);
        scratch.extend_from_slice(text.as_bytes());
    }
    let start = scratch.len();
    let (timestamp, restamped) = write_properties(properties, scratch).unwrap_or_else(|_| {
        scratch.truncate(start);
        scratch.extend_from_slice(properties.as_bytes());
        (None, false)
    });
    scratch.extend_from_slice(&body.to_be_bytes());
    let hash = XxHash3_128::oneshot(scratch);
    Returned { fingerprint: Fingerprint { hash, timestamp }, restamped }
}

/// Appends all properties except the timestamp. Returns the timestamp, and whether the broker may have set
/// it.
fn write_properties(
    properties: RawProperties<'_>,
    out: &mut Vec<u8>,
) -> Result<(Option<u64>, bool), Malformed> {
    let properties = properties.decode()?;
    let reply_to = properties.reply_to.map(without_reply_address);
    let expiration = properties.expiration.map(normal_expiration).transpose()?;
    let expiration = expiration.as_deref().and_then(|text| ShortStr::new(text).ok());
    PropertiesRef { headers: None, timestamp: None, expiration, reply_to, ..properties }
        .encode(out);
    let restamped = write_headers(properties.headers.unwrap_or_default(), out)?;
    Ok((properties.timestamp, restamped))
}

/// Appends the headers that the fingerprint covers, sorted by name. Returns whether the broker may have set
/// the timestamp.
fn write_headers(headers: RawTable<'_>, out: &mut Vec<u8>) -> Result<bool, Malformed> {
    let mut by_name = BTreeMap::new();
    for field in headers.fields() {
        let field = field?;
        by_name.entry(field.name.as_bytes()).or_insert(field.bytes);
    }
    for name in [b"BCC".as_slice(), b"CC", b"x-routed-by"] {
        by_name.remove(name);
    }
    let restamped = by_name.remove(b"timestamp_in_ms".as_slice()).is_some();
    for field in by_name.values() {
        out.extend_from_slice(field);
    }
    Ok(restamped)
}

/// Returns the name of the pseudo-queue in place of an address for direct replies.
fn without_reply_address(reply_to: ShortStr<'_>) -> ShortStr<'_> {
    const PSEUDO_QUEUE: &[u8] = b"amq.rabbitmq.reply-to";
    let address = reply_to.as_bytes().strip_prefix(PSEUDO_QUEUE);
    match address.is_some_and(|address| address.starts_with(b".")) {
        true => ShortStr::from_bytes(PSEUDO_QUEUE).unwrap_or_default(),
        false => reply_to,
    }
}

fn normal_expiration(text: ShortStr<'_>) -> Result<String, Malformed> {
    let text = text.as_str()?;
    Ok(text.parse::<i64>().map_or_else(|_| text.into(), |number| number.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{BodyHash, Fingerprint, Returned, canonical};
    use amqp_proto::{FieldTable, Properties, RawProperties, ShortStr};

    fn fingerprint(exchange: &str, key: &str, properties: &[u8], body: &[u8]) -> Fingerprint {
        let (exchange, key) = (ShortStr::new(exchange).unwrap(), ShortStr::new(key).unwrap());
        let properties = RawProperties::new(properties);
        Fingerprint::new(exchange, key, properties, body, &mut b"left over".to_vec())
    }

    fn encoded(properties: &Properties) -> Vec<u8> {
        let mut out = Vec::new();
        properties.encode(&mut out).unwrap();
        out
    }

    fn of(properties: &Properties) -> Fingerprint {
        fingerprint("e", "k", &encoded(properties), b"body")
    }

    /// Headers in wire format, each with an octet as its value.
    fn headers(fields: &[(&str, u8)]) -> Fingerprint {
        let mut table = Vec::new();
        for (name, value) in fields {
            table.push(name.len() as u8);
            table.extend_from_slice(name.as_bytes());
            table.extend_from_slice(&[b'B', *value]);
        }
        let mut properties = vec![0x20, 0, 0, 0, 0, table.len() as u8];
        properties.extend(table);
        fingerprint("e", "k", &properties, b"body")
    }

    #[test]
    fn where_one_text_ends_and_the_next_begins_counts() {
        let all = [
            fingerprint("ab", "c", &[0, 0], b"d"),
            fingerprint("a", "bc", &[0, 0], b"d"),
            fingerprint("ab", "", &[0, 0], b"cd"),
            fingerprint("", "abc", &[0, 0], b"d"),
            fingerprint("ab", "c", &[0, 0], b""),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
    }

    #[test]
    fn what_the_broker_changes_does_not_count() {
        let none = fingerprint("e", "k", &[0, 0], b"body");
        assert_eq!(headers(&[]), none);
        assert_eq!(headers(&[("BCC", 1), ("CC", 1), ("x-routed-by", 1)]), none);
        assert_eq!(headers(&[("a", 1), ("b", 2)]), headers(&[("b", 2), ("BCC", 3), ("a", 1)]));
        assert_eq!(headers(&[("a", 1), ("a", 2)]), headers(&[("a", 1)]));
        let expiration = |text: &str| of(&Properties::new().expiration(text));
        assert_eq!(expiration("+0060"), expiration("60"));
        assert_eq!(expiration("-0"), expiration("0"));
        let reply_to = |text: &str| of(&Properties::new().reply_to(text));
        assert_eq!(reply_to("amq.rabbitmq.reply-to.g1"), reply_to("amq.rabbitmq.reply-to"));
        assert_ne!(reply_to("amq.rabbitmq.reply-to-1"), reply_to("amq.rabbitmq.reply-to"));
    }

    #[test]
    fn everything_else_counts() {
        let inner = |value: bool| FieldTable::from([("n", value.into())]);
        let nested = |value| FieldTable::from([("t", inner(value).into())]);
        let all = [
            of(&Properties::new()),
            of(&Properties::new().expiration("1")),
            of(&Properties::new().expiration("2")),
            of(&Properties::new().expiration("soon")),
            of(&Properties::new().timestamp(1_u64)),
            of(&Properties::new().timestamp(2_u64)),
            of(&Properties::new().message_id("1")),
            of(&Properties::new().app_id("1")),
            of(&Properties::new().headers(nested(true))),
            of(&Properties::new().headers(nested(false))),
            headers(&[("a", 1)]),
            headers(&[("a", 2)]),
            headers(&[("b", 1)]),
            headers(&[("bcc", 1)]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
    }

    #[test]
    fn malformed_properties_count_as_they_are() {
        let cut = [0x20, 0, 0, 0, 0, 3, 1, b'a', b'Z'];
        let other = [0x20, 0, 0, 0, 0, 3, 1, b'b', b'Z'];
        assert_eq!(fingerprint("e", "k", &cut, b""), fingerprint("e", "k", &cut, b""));
        assert_ne!(fingerprint("e", "k", &cut, b""), fingerprint("e", "k", &other, b""));
        assert_ne!(fingerprint("e", "k", &cut, b""), fingerprint("e", "k", &[0, 0], b""));
        assert_ne!(fingerprint("e", "k", &[], b""), fingerprint("e", "k", &[0], b""));
    }

    #[test]
    fn a_body_in_pieces_is_the_same_body() {
        let body: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
        let mut pieces = BodyHash::default();
        body.chunks(999).for_each(|piece| pieces.write(piece));
        let Returned { fingerprint: in_pieces, .. } = canonical(
            ShortStr::new("e").unwrap(),
            ShortStr::new("k").unwrap(),
            RawProperties::NONE,
            pieces.0.finish_128(),
            &mut Vec::new(),
        );
        assert_eq!(in_pieces, fingerprint("e", "k", &[0, 0], &body));
    }
}
