//! Queues: messages in the order in which they came, also when they come back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use amqp_proto::{FieldTable, Properties, PropertiesRef, RawProperties, TABLE_DEPTH_MAX};

use super::arguments::QueueArguments;
use super::broker::ConnectionId;

/// A message as it is delivered.
#[derive(Clone, Debug)]
pub(super) struct Message(pub(super) Arc<Published>);

/// A message as it was published.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    /// The routing key as on the wire, which need not be text.
    pub(super) wire_key: Vec<u8>,
    /// Flags and values as on the wire.
    pub(super) properties: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl Published {
    pub(super) fn headers(&self) -> FieldTable {
        let headers = self.view().headers;
        headers.and_then(|raw| raw.decode(TABLE_DEPTH_MAX).ok()).unwrap_or_default()
    }

    /// The properties where they lie, as far as they can be read.
    pub(super) fn view(&self) -> PropertiesRef<'_> {
        RawProperties::new(&self.properties).decode().unwrap_or_default()
    }

    /// Changes the properties, unless they cannot be read or written; whether it did.
    pub(super) fn change_properties(&mut self, change: impl FnOnce(&mut Properties)) -> bool {
        let Ok(mut properties) = self.view().to_owned(TABLE_DEPTH_MAX) else { return false };
        change(&mut properties);
        let mut encoded = Vec::new();
        let written = properties.encode(&mut encoded).is_ok();
        if written {
            self.properties = encoded;
        }
        written
    }
}

/// A message with its place in its queue.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    /// Higher priorities first, then first come first served.
    pub(super) position: (u8, u64),
    pub(super) message: Message,
    pub(super) redelivered: bool,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) exclusive: Option<ConnectionId>,
    pub(super) arguments: QueueArguments,
    pub(super) ready: BTreeMap<(u8, u64), Queued>,
    /// In the order of their turns.
    pub(super) consumers: VecDeque<ConsumerAt>,
    /// One consumer has the queue for itself.
    pub(super) taken: bool,
    /// It has had a consumer, so that the last one's end deletes an auto-delete queue.
    pub(super) consumed: bool,
    pub(super) next_position: u64,
}

/// Where a consumer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConsumerAt {
    pub(super) connection: ConnectionId,
    pub(super) channel: u16,
    pub(super) tag: Vec<u8>,
    pub(super) priority: i64,
}

impl Queue {
    pub(super) fn push(&mut self, message: Message) {
        let highest = self.arguments.max_priority;
        let priority = if highest > 0 { message.0.view().priority.unwrap_or(0) } else { 0 };
        let position = (u8::MAX - priority.min(highest), self.next_position);
        self.next_position += 1;
        self.ready.insert(position, Queued { position, message, redelivered: false });
    }

    /// Puts a message back where it was.
    pub(super) fn requeue(&mut self, queued: Queued) {
        self.ready.insert(queued.position, Queued { redelivered: true, ..queued });
    }

    pub(super) fn is_full(&self) -> bool {
        self.arguments.max_length.is_some_and(|most| self.ready.len() as u64 >= most)
    }

    /// The place of the first consumer that takes a message, in the order of priorities and turns.
    pub(super) fn first_taker(&self, mut takes: impl FnMut(&ConsumerAt) -> bool) -> Option<usize> {
        if self.consumers.len() == 1 || self.arguments.single_active_consumer {
            return self.consumers.front().is_some_and(takes).then_some(0);
        }
        let mut places: Vec<usize> = (0..self.consumers.len()).collect();
        places.sort_by_key(|place| Reverse(self.consumers[*place].priority));
        places.into_iter().find(|place| takes(&self.consumers[*place]))
    }
}
