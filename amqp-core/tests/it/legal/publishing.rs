//! The application publishes, and looks at what became of it.

use amqp_core::proto::RawProperties;
use amqp_core::{
    DeliveryMode, FieldTable, FieldValue, Properties, Publish, PublishRefused, PublishSeq, Session,
};
use bytes::Bytes;

use super::application::{Application, is_dead};
use super::dice::Dice;
use super::log::{Log, Published};

/// Where in a body its publish's number stands; the bytes before are the same in all.
const PREFIX: usize = 64;

/// A publish in confirm mode whose outcome is awaited.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) id: u64,
    pub(crate) seq: PublishSeq,
    pub(crate) routing_key: &'static str,
    pub(crate) properties: Vec<u8>,
    pub(crate) body: Bytes,
    /// Whether an event has reported that it is resolved.
    pub(super) resolved: bool,
}

/// Where the number of a publish stands. Everything else is the same in many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Body,
    Header,
    /// The broker removes it: when they come back, these are equal.
    Bcc,
}

/// The number of a publish; a body that is too short has none.
pub(crate) fn publish_id(properties: &[u8], body: &[u8]) -> u64 {
    let headers = RawProperties::new(properties).decode().unwrap().to_owned(8).unwrap().headers;
    let headers = headers.unwrap_or_default();
    let bcc = headers.get("BCC").and_then(FieldValue::as_array).and_then(<[_]>::first);
    let of_bcc = bcc.and_then(FieldValue::as_i64);
    if let Some(id) = headers.get("number").and_then(FieldValue::as_i64).or(of_bcc) {
        return id as u64;
    }
    let id = body.get(PREFIX..PREFIX + 8);
    id.map_or(u64::MAX, |id| u64::from_be_bytes(id.try_into().unwrap()))
}

impl Application {
    pub(super) fn publish(
        &mut self,
        at: usize,
        session: &mut Session,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        let handle = &mut self.handles[at];
        if handle.full || !handle.open {
            return;
        }
        let id = self.publishes;
        self.publishes += 1;
        let place = [Place::Body, Place::Body, Place::Header, Place::Bcc][dice.below(4)];
        let (body, properties) = message(id, place, dice);
        let routing_key = if place == Place::Bcc || dice.chance(50) { "q" } else { "r" };
        let mut publish = Publish::new("", routing_key, &body);
        if !properties.is_empty() {
            publish = publish.properties(&properties);
        }
        if dice.chance(30) {
            publish = publish.mandatory();
        }
        match session.channel(handle.id).publish(&publish) {
            Ok(seq) if handle.confirms => {
                handle.published += 1;
                assert_eq!(seq.number(), handle.published);
                log.line(|| format!("  publish {id} of handle {at} is {seq:?}"));
                let twin = place == Place::Bcc;
                log.published.insert(id, Published { channel: at, twin, ..Published::default() });
                let mut encoded = Vec::new();
                properties.encode(&mut encoded).unwrap();
                handle.outcomes.push(Outcome {
                    id,
                    seq,
                    routing_key,
                    properties: encoded,
                    body,
                    resolved: false,
                });
            }
            Ok(seq) => assert_eq!(seq.number(), 0),
            Err(PublishRefused::Full) => {
                log.count("no room");
                handle.full = true;
            }
            Err(PublishRefused::Error(_)) => assert!(is_dead(session, handle), "refused"),
            Err(refused) => panic!("{refused}"),
        }
    }

    /// Asks for outcomes that were announced, and at times for one that was not.
    pub(super) fn take_outcomes(
        &mut self,
        at: usize,
        session: &mut Session,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        let handle = &mut self.handles[at];
        let (id, closed) = (handle.id, is_dead(session, handle));
        let most = dice.below(20);
        let mut taken = 0;
        handle.outcomes.retain(|outcome| {
            if taken > most || !(outcome.resolved || dice.chance(5)) {
                return true;
            }
            taken += 1;
            if dice.chance(10) {
                session.channel(id).forget_publish(outcome.seq);
                return false;
            }
            match session.channel(id).confirmed(outcome.seq) {
                Some(confirmation) => {
                    log.check_outcome(outcome, closed, &confirmation);
                    false
                }
                None => {
                    assert!(!outcome.resolved, "{outcome:?} has none, though an event said so");
                    true
                }
            }
        });
    }
}

/// A body and properties with the number of a publish.
fn message(id: u64, place: Place, dice: &mut Dice) -> (Bytes, Properties) {
    if place == Place::Bcc {
        let bcc = FieldValue::Array(vec![(id as i64).into()]);
        let headers = FieldTable::from([("CC", cc()), ("BCC", bcc)]);
        return (Bytes::from_static(&[b'='; PREFIX]), Properties::new().headers(headers));
    }
    let mut body = vec![b'='; PREFIX];
    if place == Place::Body {
        body.extend(id.to_be_bytes());
        let size = dice.size();
        // Others of the same length differ late.
        body.resize(body.len() + if dice.chance(50) { 0 } else { size }, b'-');
    } else {
        body.resize([0, PREFIX, 5_000][dice.below(3)], b'=');
    }
    let mut headers = FieldTable::new();
    if dice.chance(20) {
        headers.insert("CC", cc());
    }
    if place == Place::Header {
        headers.insert("number", id as i64);
        if dice.chance(20) {
            headers.insert("BCC", cc());
        }
    }
    let mut properties = Properties::new();
    if dice.chance(30) {
        properties = properties.delivery_mode(DeliveryMode::Persistent).content_type("text/plain");
    }
    if place == Place::Header || !headers.is_empty() {
        properties = properties.headers(headers);
    }
    (Bytes::from(body), properties)
}

/// Further routing keys.
fn cc() -> FieldValue {
    FieldValue::Array(vec!["elsewhere".into()])
}
