//! A queue: its messages in the order of delivery, and its consumers in the order of their turns.
//!
//! A classic queue keeps a requeued message where it was. A quorum queue delivers returned messages before all others. One
//! without a delivery limit puts what a client returns at the end (<https://www.rabbitmq.com/docs/quorum-queues>).

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::broker::ConnectionId;
use super::message::Message;
use super::queue_arguments::{Overflow, QueueArguments, QueueKind};
use super::quorum::Quorum;
use super::refusal::Refusal;
use super::streams::Log;

/// A message with its place in its queue.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    /// The order of delivery.
    pub(super) position: (u8, u64),
    pub(super) message: Arc<Message>,
    pub(super) redelivered: bool,
    /// When it expires.
    pub(super) expires_at: Option<Duration>,
    /// The number of times that it was returned to a quorum queue.
    pub(super) returns: u32,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) exclusive: Option<ConnectionId>,
    pub(super) arguments: QueueArguments,
    /// The messages that can be delivered, by position.
    ready: BTreeMap<(u8, u64), Queued>,
    ready_bytes: u64,
    /// The consumers, in the order of their turns.
    pub(super) consumers: VecDeque<ConsumerAt>,
    /// Whether its only consumer is exclusive.
    pub(super) taken: bool,
    /// Whether it has had a consumer. An auto-delete queue is deleted with its last one.
    pub(super) consumed: bool,
    next_position: u64,
    /// The deadline that is set for its first message.
    pub(super) expiry: Option<Duration>,
    /// What only a quorum queue has.
    pub(super) quorum: Quorum,
    /// The messages of a stream, which are in place of `ready`.
    pub(super) log: Log,
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
    /// Returns an empty queue that is not durable.
    pub(super) fn new(arguments: QueueArguments) -> Self {
        Self { arguments, ..Self::default() }
    }

    /// Returns an error if the queue is exclusive to another connection.
    pub(super) fn check_owner(&self, name: &str, id: ConnectionId) -> Result<(), Refusal> {
        match self.exclusive {
            Some(owner) if owner != id => Err(Refusal::locked_queue(name)),
            _ => Ok(()),
        }
    }

    /// Adds a message behind all others of its priority.
    pub(super) fn push(&mut self, message: Arc<Message>, now: Duration) {
        let highest = self.arguments.max_priority;
        let priority = if highest > 0 { message.properties().priority.unwrap_or(0) } else { 0 };
        let position = (u8::MAX - priority.min(highest), self.new_position());
        let times = [self.arguments.message_ttl, message.expiration];
        let shortest = times.into_iter().flatten().min();
        let expires_at = shortest.map(|time| now.saturating_add(self.arguments.lifetime(time)));
        let (redelivered, returns) = (false, 0);
        self.insert(Queued { position, message, redelivered, expires_at, returns });
    }

    /// Puts a message back where it was.
    pub(super) fn requeue(&mut self, queued: Queued) {
        self.insert(Queued { redelivered: true, ..queued });
    }

    /// Adds a message to a quorum queue that was returned to it: before all others, behind earlier ones that were
    /// returned; or at the end.
    pub(super) fn put_back(&mut self, queued: Queued, at_end: bool) {
        let place = if at_end { u8::MAX } else { 0 };
        let position = (place, self.new_position());
        self.insert(Queued { position, redelivered: true, ..queued });
    }

    pub(super) fn first(&self) -> Option<&Queued> {
        self.ready.first_key_value().map(|(_, first)| first)
    }

    pub(super) fn pop_first(&mut self) -> Option<Queued> {
        let (_, first) = self.ready.pop_first()?;
        self.ready_bytes -= first.message.size();
        Some(first)
    }

    /// Returns the number of messages that can be delivered.
    pub(super) fn len(&self) -> u32 {
        (self.ready.len() as u64 + self.log.len()) as u32
    }

    /// Returns the number of consumers, which RabbitMQ does not count for a stream.
    pub(super) fn consumer_count(&self) -> u32 {
        if self.arguments.kind == QueueKind::Stream { 0 } else { self.consumers.len() as u32 }
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = &Queued> {
        self.ready.values()
    }

    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.ready_bytes = 0;
    }

    /// Keeps the messages for which this is true, and may change them.
    pub(super) fn retain(&mut self, mut keeps: impl FnMut(&mut Queued) -> bool) {
        self.ready.retain(|_, queued| keeps(queued));
        self.ready_bytes = self.ready.values().map(|queued| queued.message.size()).sum();
    }

    /// Returns whether the queue refuses a message of this size.
    pub(super) fn refuses(&self, size: u64) -> bool {
        self.arguments.overflow != Overflow::DropHead && self.is_over(1, size)
    }

    /// Returns whether a queue has more than its maximum, with this many more messages and bytes.
    pub(super) fn is_over(&self, messages: u64, bytes: u64) -> bool {
        let messages = self.ready.len() as u64 + self.quorum.undelivered() + messages;
        let bytes = self.ready_bytes + self.quorum.undelivered_bytes() + bytes;
        self.arguments.max_length.is_some_and(|most| messages > most)
            || self.arguments.max_bytes.is_some_and(|most| bytes > most)
    }

    /// Returns whether a quorum queue that was full takes messages again: it has at most 80 % of its maximum.
    pub(super) fn has_drained(&self) -> bool {
        let is_below = |most: Option<u64>, used: u64| most.is_none_or(|most| used <= most * 4 / 5);
        is_below(self.arguments.max_length, self.ready.len() as u64 + self.quorum.undelivered())
            && is_below(
                self.arguments.max_bytes,
                self.ready_bytes + self.quorum.undelivered_bytes(),
            )
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

    /// Removes a consumer. If it was the single active one, the next one becomes active: in a classic queue the first of the
    /// highest priority.
    pub(super) fn remove_consumer(&mut self, gone: &ConsumerAt) {
        let was_active = self.consumers.front() == Some(gone);
        self.consumers.retain(|consumer| consumer != gone);
        self.taken &= !self.consumers.is_empty();
        let chosen = self.consumers.iter().enumerate().rev().max_by_key(|(_, it)| it.priority);
        if let Some((place, _)) = chosen
            && was_active
            && self.arguments.single_active_consumer
            && !self.arguments.is_quorum()
            && let Some(next) = self.consumers.remove(place)
        {
            self.consumers.push_front(next);
        }
    }

    fn insert(&mut self, queued: Queued) {
        self.ready_bytes += queued.message.size();
        self.ready.insert(queued.position, queued);
    }

    const fn new_position(&mut self) -> u64 {
        let position = self.next_position;
        self.next_position += 1;
        position
    }
}
