//! Queues: messages in the order in which they came, also when they come back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::broker::ConnectionId;

/// A message as it is delivered.
#[derive(Clone, Debug)]
pub(super) struct Message(pub(super) Arc<Published>);

/// A message as it was published.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    /// Flags and values as on the wire.
    pub(super) properties: Vec<u8>,
    pub(super) body: Vec<u8>,
}

/// A message with its place in its queue.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    pub(super) position: u64,
    pub(super) message: Message,
    pub(super) redelivered: bool,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) exclusive: Option<ConnectionId>,
    pub(super) ready: BTreeMap<u64, Queued>,
    /// In the order of their turns.
    pub(super) consumers: VecDeque<ConsumerAt>,
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
}

impl Queue {
    pub(super) fn push(&mut self, message: Message) {
        let position = self.next_position;
        self.next_position += 1;
        self.ready.insert(position, Queued { position, message, redelivered: false });
    }

    /// Puts a message back where it was.
    pub(super) fn requeue(&mut self, queued: Queued) {
        self.ready.insert(queued.position, Queued { redelivered: true, ..queued });
    }
}
