//! What quorum queues do otherwise than classic ones (<https://www.rabbitmq.com/docs/quorum-queues>).
//!
//! * They count how often a message was returned, in the header `x-delivery-count`, and dead-letter it above
//!   `x-delivery-limit`. Every return counts: `basic.nack`, `basic.reject`, `basic.recover` and the end of a channel.
//! * A full one with `x-overflow: reject-publish` takes one message more than its maximum. Then it refuses those of each
//!   channel that has published to it, until it has at most 80 % of its maximum.
//! * With `x-dead-letter-strategy: at-least-once` a dead letter is kept until each queue that it is routed to has taken it.
//!   If none is there, or one refuses it, RabbitMQ tries again after three minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use amqp_proto::{FieldTable, FieldValue};

use super::broker::{Broker, ConnectionId};
use super::dead_letters::{Reason, is_cycle};
use super::deadlines::Due;
use super::message::Message;
use super::queue::{Queue, Queued};
use super::queue_arguments::Overflow;

/// The time after which a dead letter that no queue has taken is published again.
const REDELIVERY_INTERVAL: Duration = Duration::from_secs(180);

/// The prefetch of a consumer that has set none.
pub(super) const DEFAULT_PREFETCH: u32 = 2_000;

/// Who publishes to a quorum queue: a channel, or the dead letters of other queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Publisher {
    Channel(ConnectionId, u16),
    DeadLetters,
}

/// The state that only a quorum queue has.
#[derive(Debug, Default)]
pub(super) struct Quorum {
    /// Those that have published to it, and whether it refuses what they publish.
    publishers: BTreeMap<Publisher, bool>,
    /// Dead letters of the queue that are not confirmed.
    undelivered: Vec<Undelivered>,
}

/// A dead letter that is kept until every queue has taken it.
#[derive(Debug)]
pub(super) struct Undelivered {
    pub(super) message: Arc<Message>,
    headers: FieldTable,
    reason: Reason,
    /// The queues that have taken it.
    taken_by: BTreeSet<String>,
}

impl Quorum {
    /// Returns the number of dead letters that are not confirmed.
    pub(super) const fn undelivered(&self) -> u64 {
        self.undelivered.len() as u64
    }

    pub(super) fn undelivered_bytes(&self) -> u64 {
        self.undelivered.iter().map(|letter| letter.message.size()).sum()
    }

    pub(super) fn undelivered_letters(&self) -> impl Iterator<Item = &Undelivered> {
        self.undelivered.iter()
    }

    /// Forgets a channel that is closed.
    pub(super) fn forget(&mut self, publisher: Publisher) {
        self.publishers.remove(&publisher);
    }
}

impl Queue {
    /// Returns whether a quorum queue refuses what is published.
    pub(super) fn blocks(&mut self, publisher: Publisher) -> bool {
        if self.arguments.overflow == Overflow::DropHead {
            return false;
        }
        let is_over = self.is_over(0, 0);
        *self.quorum.publishers.entry(publisher).or_insert(is_over)
    }

    /// Blocks every publisher of a quorum queue that is full, or unblocks them if it has drained.
    pub(super) fn limit_publishers(&mut self) {
        if self.quorum.publishers.is_empty() {
            return;
        }
        let (is_over, has_drained) = (self.is_over(0, 0), self.has_drained());
        if is_over || has_drained {
            self.quorum.publishers.values_mut().for_each(|blocked| *blocked = is_over);
        }
    }

    /// Takes back a message. Returns it if it was returned too often.
    pub(super) fn take_back(&mut self, mut queued: Queued, by_client: bool) -> Option<Queued> {
        queued.returns = queued.returns.saturating_add(1);
        match self.arguments.delivery_limit {
            Some(most) if i64::from(queued.returns) > most => return Some(queued),
            limit => self.put_back(queued, by_client && limit.is_none()),
        }
        None
    }
}

impl Queued {
    /// Returns the message to deliver, with the header `x-delivery-count` if it was returned before.
    pub(super) fn to_deliver(&self) -> Arc<Message> {
        if self.returns == 0 { Arc::clone(&self.message) } else { self.with_delivery_count() }
    }

    /// Returns the message with the header `x-delivery-count`.
    pub(super) fn with_delivery_count(&self) -> Arc<Message> {
        let mut message = Message::clone(&self.message);
        // What cannot be written is delivered without the header.
        message.change_properties(|properties| {
            let headers = properties.headers.get_or_insert_default();
            headers.insert("x-delivery-count", FieldValue::I64(self.returns.into()));
        });
        Arc::new(message)
    }
}

impl Broker {
    /// Publishes a dead letter of a quorum queue, and keeps it until every queue has taken it.
    pub(super) fn publish_at_least_once(
        &mut self,
        source: &str,
        message: Arc<Message>,
        headers: FieldTable,
        reason: Reason,
    ) {
        let taken_by = BTreeSet::new();
        let letter = Undelivered { message, headers, reason, taken_by };
        self.publish_undelivered(source, letter);
    }

    /// Publishes the dead letters again that no queue has taken.
    pub(super) fn retry_undelivered(&mut self, source: &str) {
        let Some(queue) = self.queues.get_mut(source) else { return };
        for letter in std::mem::take(&mut queue.quorum.undelivered) {
            self.publish_undelivered(source, letter);
        }
    }

    fn publish_undelivered(&mut self, source: &str, mut letter: Undelivered) {
        let mut all = true;
        for queue in self.route(&letter.message, &letter.headers) {
            if letter.taken_by.contains(&queue) {
                continue;
            }
            let cycles = letter.reason != Reason::Rejected && is_cycle(&queue, &letter.headers);
            let taken = !cycles
                && self.enqueue(&queue, Arc::clone(&letter.message), Some(Publisher::DeadLetters));
            all &= taken;
            if taken {
                letter.taken_by.insert(queue);
            }
        }
        if all && !letter.taken_by.is_empty() {
            if let Some(queue) = self.queues.get_mut(source) {
                queue.limit_publishers();
            }
            return;
        }
        if let Some(queue) = self.queues.get_mut(source) {
            if queue.quorum.undelivered.is_empty() {
                let at = self.now.saturating_add(REDELIVERY_INTERVAL);
                self.deadlines.set(Due::DeadLetters(source.to_owned()), Some(at));
            }
            queue.quorum.undelivered.push(letter);
        }
    }
}
