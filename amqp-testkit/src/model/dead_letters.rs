//! Dead-lettering: messages that a queue drops or a client rejects are published to the dead-letter exchange, with a
//! record in the header `x-death` (<https://www.rabbitmq.com/docs/dlx>).

use std::sync::Arc;

use amqp_proto::{FieldTable, FieldValue};

use super::broker::Broker;
use super::message::Message;

/// Why a message is dead-lettered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    MaxLength,
    Rejected,
}

impl Reason {
    const fn name(self) -> &'static str {
        match self {
            Self::MaxLength => "maxlen",
            Self::Rejected => "rejected",
        }
    }
}

impl Broker {
    /// Publishes a message to the dead-letter exchange of the queue that it was in, if the queue has one.
    pub(super) fn dead_letter(&mut self, queue: &str, message: &Message, reason: Reason) {
        let Some(found) = self.queues.get(queue) else { return };
        let Some(exchange) = found.arguments.dead_letter_exchange.clone() else { return };
        let key = found.arguments.dead_letter_routing_key.clone();
        let mut message = message.clone();
        let Some(headers) = headers_with_death(&message, queue, reason) else { return };
        // Without the record it could be dead-lettered for ever.
        if !message.change_properties(|properties| properties.headers = Some(headers.clone())) {
            return;
        }
        message.exchange = exchange;
        if let Some(key) = key {
            message.wire_key = key.clone().into_bytes();
            message.routing_key = key;
        }
        // If the dead-letter exchange does not exist, the message is dropped.
        let queues = self.route(&message.exchange, &message.routing_key, &headers);
        let message = Arc::new(message);
        for queue in queues.unwrap_or_default() {
            self.enqueue(&queue, Arc::clone(&message));
        }
    }
}

/// Returns the headers of a message with its death in this queue added. `None` if it has come back to the queue without
/// a rejection: RabbitMQ drops such a message. The time is always 0, because the model has no clock.
fn headers_with_death(message: &Message, queue: &str, reason: Reason) -> Option<FieldTable> {
    let mut headers = message.headers();
    let mut deaths = match headers.remove("x-death") {
        Some(FieldValue::Array(deaths)) => deaths,
        _ => Vec::new(),
    };
    let mut count = 1;
    if let Some(at) = deaths.iter().position(|death| is_death_in(death, queue, reason))
        && let FieldValue::Table(death) = deaths.remove(at)
    {
        if reason != Reason::Rejected {
            return None;
        }
        count += death.get("count").and_then(FieldValue::as_i64).unwrap_or(0);
    }
    let death = FieldTable::from([
        ("count", count.into()),
        ("reason", reason.name().into()),
        ("queue", queue.into()),
        ("time", FieldValue::Timestamp(0)),
        ("exchange", message.exchange.as_str().into()),
        ("routing-keys", vec![message.routing_key.as_str().into()].into()),
    ]);
    deaths.insert(0, death.into());
    headers.insert("x-death", deaths);
    let first =
        [("exchange", message.exchange.as_str()), ("queue", queue), ("reason", reason.name())];
    for (what, value) in first {
        let header = format!("x-first-death-{what}");
        if headers.get(&header).is_none() {
            headers.insert(header, value);
        }
    }
    Some(headers)
}

/// Returns whether an entry of `x-death` counts deaths in this queue for this reason.
fn is_death_in(death: &FieldValue, queue: &str, reason: Reason) -> bool {
    let FieldValue::Table(death) = death else { return false };
    let is = |name, value| death.get(name).and_then(FieldValue::as_str) == Some(value);
    is("queue", queue) && is("reason", reason.name())
}
