//! Dead-lettering: messages that expire, that a queue drops or that a client rejects are published to the dead-letter
//! exchange, with a record in the header `x-death` (<https://www.rabbitmq.com/docs/dlx>).
//!
//! Dead letters wait in a list of the broker until the frame or the deadline that has caused them is handled. So a chain
//! of queues, however long, is followed in a loop.
//!
//! RabbitMQ has one entry in `x-death` for each queue and reason. The first death writes it; later ones only increase its
//! `count`. A message that comes back to a queue in which it has died is dropped, unless it was rejected since: a cycle
//! without a client would go on for ever.

use std::sync::Arc;

use amqp_proto::{FieldTable, FieldValue};

use super::broker::Broker;
use super::message::Message;

/// Why a message is dead-lettered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    DeliveryLimit,
    Expired,
    MaxLength,
    Rejected,
}

impl Reason {
    const fn name(self) -> &'static str {
        match self {
            Self::DeliveryLimit => "delivery_limit",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::Rejected => "rejected",
        }
    }
}

/// A message that is to be published to a dead-letter exchange.
#[derive(Debug)]
pub(super) struct DeadLetter {
    message: Arc<Message>,
    reason: Reason,
    /// The queue in which it has died, and that queue's arguments.
    queue: String,
    exchange: String,
    routing_key: Option<String>,
    at_least_once: bool,
}

impl Broker {
    /// Dead-letters a message, if the queue that it was in has a dead-letter exchange. Otherwise it is dropped.
    pub(super) fn dead_letter(&mut self, queue: &str, message: &Arc<Message>, reason: Reason) {
        let Some(found) = self.queues.get(queue) else { return };
        let Some(exchange) = found.arguments.dead_letter_exchange.clone() else { return };
        let routing_key = found.arguments.dead_letter_routing_key.clone();
        let at_least_once = found.arguments.at_least_once;
        let (message, queue) = (Arc::clone(message), queue.to_owned());
        let letter = DeadLetter { message, reason, queue, exchange, routing_key, at_least_once };
        self.dead_letters.push_back(letter);
    }

    /// Publishes the dead letters that wait, and those that they cause.
    pub(super) fn publish_dead_letters(&mut self) {
        while let Some(letter) = self.dead_letters.pop_front() {
            self.publish_dead_letter(letter);
        }
    }

    /// Publishes a dead letter. It is dropped if the exchange does not exist, or if no queue takes it, unless its queue
    /// keeps its dead letters.
    fn publish_dead_letter(&mut self, letter: DeadLetter) {
        let (reason, source, kept) = (letter.reason, letter.queue.clone(), letter.at_least_once);
        let Some((message, headers)) = letter.into_message(self.now.as_secs()) else { return };
        let message = Arc::new(message);
        if kept {
            self.publish_at_least_once(&source, message, headers, reason);
            return;
        }
        for queue in self.route(&message, &headers) {
            if reason == Reason::Rejected || !is_cycle(&queue, &headers) {
                self.enqueue(&queue, Arc::clone(&message), None);
            }
        }
    }
}

impl DeadLetter {
    /// Returns the message to publish, and its headers. `None` if its properties cannot be written.
    fn into_message(self, now: u64) -> Option<(Message, FieldTable)> {
        let mut message = Arc::unwrap_or_clone(self.message);
        let mut headers = message.headers();
        let keys = std::iter::once(message.routing_key.as_str()).chain(copy_keys(&headers));
        let keys: Vec<FieldValue> = keys.map(FieldValue::from).collect();
        let mut death = FieldTable::from([
            ("count", FieldValue::I64(1)),
            ("reason", self.reason.name().into()),
            ("queue", self.queue.as_str().into()),
            ("time", FieldValue::Timestamp(now)),
            ("exchange", message.exchange.as_str().into()),
            ("routing-keys", keys.into()),
        ]);
        if let Some(expiration) = message.properties().expiration {
            death.insert("original-expiration", expiration.to_string());
        }
        record_death(&mut headers, death);
        if let Some(key) = self.routing_key {
            headers.remove("CC");
            message.copies.clear();
            message.wire_key = key.clone().into_bytes();
            message.routing_key = key;
        }
        message.exchange = self.exchange;
        message.expiration = None;
        let written = message.change_properties(|properties| {
            properties.headers = Some(headers.clone());
            properties.expiration = None;
        });
        written.then_some((message, headers))
    }
}

/// Adds a death to the header `x-death`.
fn record_death(headers: &mut FieldTable, mut death: FieldTable) {
    let earlier = match headers.get("x-death") {
        Some(FieldValue::Array(deaths)) => by_queue_and_reason(deaths),
        Some(_) => Vec::new(),
        None => {
            for what in ["reason", "queue", "exchange"] {
                if let Some(value) = death.get(what).cloned() {
                    headers.insert(format!("x-first-death-{what}"), value);
                }
            }
            Vec::new()
        }
    };
    let (mut same, others): (Vec<_>, Vec<_>) =
        earlier.into_iter().partition(|earlier| place(earlier) == place(&death));
    if let Some(first) = same.pop() {
        let count = first.get("count").and_then(FieldValue::as_i64).unwrap_or(0);
        death = first;
        death.insert("count", FieldValue::I64(count.saturating_add(1)));
    }
    let deaths = std::iter::once(death).chain(others).map(FieldValue::Table);
    headers.insert("x-death", FieldValue::Array(deaths.collect()));
}

/// Returns the entries of `x-death`, one for each queue and reason. RabbitMQ turns the order of several around.
fn by_queue_and_reason(deaths: &[FieldValue]) -> Vec<FieldTable> {
    let mut grouped: Vec<FieldTable> = Vec::new();
    for death in deaths {
        if let FieldValue::Table(death) = death
            && !grouped.iter().any(|earlier| place(earlier) == place(death))
        {
            grouped.push(death.clone());
        }
    }
    grouped.reverse();
    grouped
}

/// Returns the queue of a death and its reason.
fn place(death: &FieldTable) -> (Option<&str>, Option<&str>) {
    let text = |name| death.get(name).and_then(FieldValue::as_str);
    (text("queue"), text("reason"))
}

/// Returns whether a message has died in this queue and was not rejected since, in any queue.
pub(super) fn is_cycle(queue: &str, headers: &FieldTable) -> bool {
    let Some(deaths) = headers.get("x-death").and_then(FieldValue::as_array) else { return false };
    let places = deaths.iter().map(|death| match death {
        FieldValue::Table(death) => place(death),
        _ => (None, Some(Reason::Rejected.name())),
    });
    for (died_in, reason) in places {
        if reason == Some(Reason::Rejected.name()) {
            return false;
        }
        if died_in == Some(queue) {
            return true;
        }
    }
    false
}

/// Returns the routing keys in the headers `CC` and `BCC`.
pub(super) fn copy_keys(headers: &FieldTable) -> impl Iterator<Item = &str> {
    let arrays = ["CC", "BCC"].into_iter().filter_map(|name| headers.get(name)?.as_array());
    arrays.flatten().filter_map(FieldValue::as_str)
}
