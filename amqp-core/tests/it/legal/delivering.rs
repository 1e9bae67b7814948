//! The broker's consumers, and what it delivers to them.

use amqp_core::proto::method::basic;
use amqp_core::{FieldTable, Properties};

use super::broker::{Effect, Outgoing, content, short};
use super::channel::Channel;
use super::consuming::{COPIES, STREAM};
use super::dice::Dice;
use super::log::{Log, Origin, Sent};
use super::versions::Version;

#[derive(Debug)]
pub(super) struct Consumer {
    queue: Queue,
    pub(super) no_ack: bool,
    prefetch: u16,
    unbounded: bool,
    /// It has a limit together with others, which a later `basic.qos` may lift.
    pub(super) shares: bool,
    /// The application has said that its queue is a stream.
    announced: bool,
    /// All that it was sent looks like a stream's.
    suspected: bool,
    /// The broker has cancelled it for a late ack, and delivers until the client cancels it too.
    pub(super) ghost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Plain,
    /// Some of its messages look like a stream's.
    Copies,
    Stream,
}

impl Channel {
    /// Starts a consumer, with the limits that the application has asked for.
    pub(super) fn consume(&mut self, consume: &basic::Consume<'_>, log: &mut Log) {
        let queue = match consume.queue.as_str().unwrap() {
            STREAM => Queue::Stream,
            COPIES => Queue::Copies,
            _ => Queue::Plain,
        };
        let limit = log.limits.entry(self.id).or_default().started();
        assert_eq!(consume.no_ack, limit.own.is_none(), "no-ack");
        if let Some(own) = limit.own {
            assert_eq!(self.prefetch, own, "the prefetch of a consumer: {limit:?}");
        }
        if queue == Queue::Stream {
            let refused = consume.no_ack || self.prefetch == 0 || self.global > 0;
            assert!(!refused, "a stream refuses a consumer: {self:?}");
        }
        let arguments = consume.arguments.decode(1).unwrap();
        let announced = arguments.get("x-stream-offset").is_some();
        let consumer = Consumer {
            queue,
            no_ack: consume.no_ack,
            prefetch: self.prefetch,
            unbounded: limit.own.is_none_or(|own| own == 0 && limit.shared == 0),
            shares: log.version == Version::V3 && limit.shared > 0,
            announced,
            suspected: log.version == Version::V3 && !consume.no_ack && !announced,
            ghost: false,
        };
        let tag = consume.consumer_tag.as_str().unwrap().to_owned();
        assert!(self.consumers.insert(tag, consumer).is_none(), "consumer tag used twice");
    }

    pub(super) fn deliver(
        &mut self,
        frame_max: usize,
        out: &mut Vec<Outgoing>,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        let Some(at) = dice.place(self.consumers.len()) else { return };
        let (tag, consumer) = self.consumers.iter().nth(at).unwrap();
        let (tag, no_ack, prefetch) = (tag.clone(), consumer.no_ack, consumer.prefetch);
        let of_consumer = |number: &&usize| log.sent[**number].consumer.as_ref() == Some(&tag);
        let held =
            self.unacked.values().chain(self.acked_in_tx.values()).filter(of_consumer).count();
        let all = self.unacked.len() + self.acked_in_tx.len();
        let full = |limit: u16, held: usize| limit > 0 && held >= usize::from(limit);
        if !no_ack && (full(prefetch, held) || full(self.global, all)) {
            return;
        }
        for _ in 0..1 + dice.below(3) {
            let (delivery_tag, at) = self.next_delivery(no_ack, Some(&tag), dice, log);
            let routing_key = at.to_string();
            let sent = &log.sent[at];
            let deliver = basic::Deliver {
                consumer_tag: short(&tag),
                delivery_tag,
                redelivered: sent.redelivered,
                exchange: short("e"),
                routing_key: short(&routing_key),
            };
            let (properties, effect) = (&sent.properties, Effect::Sent(at));
            let frames =
                content(self.number, frame_max, &deliver, properties, &sent.body, effect, dice);
            out.extend(frames);
            if !no_ack {
                return;
            }
        }
    }

    /// Tag and number of a message that is sent.
    pub(super) fn next_delivery(
        &mut self,
        no_ack: bool,
        consumer: Option<&String>,
        dice: &mut Dice,
        log: &mut Log,
    ) -> (u64, usize) {
        // RabbitMQ repeats the next tag for all direct replies.
        let tag = self.tag + 1;
        if !no_ack || dice.chance(50) {
            self.tag = tag;
        }
        let at = log.sent.len();
        let mut size = dice.size();
        let mut sent = Sent {
            channel: self.id,
            consumer: consumer.cloned(),
            properties: vec![0, 0],
            body: Vec::new(),
            no_ack,
            unbounded: false,
            of_stream: false,
            origin: Origin::QUEUE,
            redelivered: dice.chance(20),
            written: None,
            intents: Vec::new(),
            seen: false,
            recovered: false,
            ghost: false,
        };
        if let Some(consumer) = consumer.and_then(|tag| self.consumers.get_mut(tag)) {
            (sent.ghost, sent.unbounded) = (consumer.ghost, consumer.unbounded);
            sent.of_stream = consumer.queue == Queue::Stream;
            if sent.of_stream || (consumer.queue == Queue::Copies && dice.chance(70)) {
                sent.properties = of_stream(at);
                sent.origin = consumer.looks_like_stream(log.version);
            } else {
                consumer.suspected = false;
            }
            if log.flood && sent.unbounded && dice.chance(80) {
                size += 500_000 + dice.below(500_000);
            }
        }
        sent.body = (0..size).map(|byte| (byte + at) as u8).collect();
        log.sent.push(sent);
        if let Some(tag) = consumer {
            log.of_consumer.entry((self.id, tag.clone())).or_default().push(at);
        }
        if !no_ack {
            self.unacked.insert(tag, at);
            log.tags.insert((self.id, tag), at);
        }
        (tag, at)
    }
}

impl Consumer {
    /// What the client is to make of a delivery that looks like a stream's.
    fn looks_like_stream(&self, version: Version) -> Origin {
        let suspected = match version {
            Version::V4 => Some(false),
            _ if self.no_ack => Some(false),
            // The client may have forgotten the consumer by then.
            Version::V3 if self.ghost => None,
            Version::V3 => Some(self.suspected),
        };
        Origin { announced: self.announced, suspected }
    }
}

/// The properties of a message from a stream.
fn of_stream(offset: usize) -> Vec<u8> {
    let headers = FieldTable::from([("x-stream-offset", (offset as i64).into())]);
    let mut encoded = Vec::new();
    Properties::new().headers(headers).encode(&mut encoded).unwrap();
    encoded
}
