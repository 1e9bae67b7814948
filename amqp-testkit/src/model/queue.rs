//! A queue: its messages in the order of delivery, which requeued ones keep, and its consumers in the order of their turns.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::broker::ConnectionId;
use super::message::Message;
use super::queue_arguments::QueueArguments;
use super::refusal::Refusal;

/// A message with its place in its queue.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    /// The order of delivery: higher priorities first, then first in, first out.
    pub(super) position: (u8, u64),
    pub(super) message: Arc<Message>,
    pub(super) redelivered: bool,
    /// When it expires.
    pub(super) expires_at: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) exclusive: Option<ConnectionId>,
    pub(super) arguments: QueueArguments,
    pub(super) ready: BTreeMap<(u8, u64), Queued>,
    /// The consumers, in the order of their turns.
    pub(super) consumers: VecDeque<ConsumerAt>,
    /// Whether its only consumer is exclusive.
    pub(super) taken: bool,
    /// Whether it has had a consumer. An auto-delete queue is deleted with its last one.
    pub(super) consumed: bool,
    pub(super) next_position: u64,
    /// The deadline that is set for its first message.
    pub(super) expiry: Option<Duration>,
}

/// A consumer of a queue, by its connection, channel and tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConsumerAt {
    pub(super) connection: ConnectionId,
    pub(super) channel: u16,
    pub(super) tag: Vec<u8>,
    pub(super) priority: i64,
}

impl Queued {
    pub(super) fn has_expired(&self, now: Duration) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

impl Queue {
    /// Returns an error if the queue is exclusive to another connection.
    pub(super) fn check_owner(&self, name: &str, id: ConnectionId) -> Result<(), Refusal> {
        match self.exclusive {
            Some(owner) if owner != id => Err(Refusal::locked_queue(name)),
            _ => Ok(()),
        }
    }

    pub(super) fn push(&mut self, message: Arc<Message>, now: Duration) {
        let highest = self.arguments.max_priority;
        let priority = if highest > 0 { message.properties().priority.unwrap_or(0) } else { 0 };
        let position = (u8::MAX - priority.min(highest), self.next_position);
        self.next_position += 1;
        let times = [self.arguments.message_ttl, message.expiration];
        let expires_at = times.into_iter().flatten().min().map(|time| now.saturating_add(time));
        self.ready.insert(position, Queued { position, message, redelivered: false, expires_at });
    }

    /// Puts a message back where it was.
    pub(super) fn requeue(&mut self, queued: Queued) {
        self.ready.insert(queued.position, Queued { redelivered: true, ..queued });
    }

    pub(super) fn is_full(&self) -> bool {
        self.arguments.max_length.is_some_and(|most| self.ready.len() as u64 >= most)
    }

    /// Returns the index of the first consumer that takes a message, in the order of priorities and turns.
    pub(super) fn first_taker(&self, mut takes: impl FnMut(&ConsumerAt) -> bool) -> Option<usize> {
        if self.consumers.len() == 1 || self.arguments.single_active_consumer {
            return self.consumers.front().is_some_and(takes).then_some(0);
        }
        let mut places: Vec<usize> = (0..self.consumers.len()).collect();
        places.sort_by_key(|place| Reverse(self.consumers[*place].priority));
        places.into_iter().find(|place| takes(&self.consumers[*place]))
    }
}
