//! Time: the broker's clock, and what expires (<https://www.rabbitmq.com/docs/ttl>).
//!
//! The broker reads no clock. [`Broker::handle_time`] sets its time, which stands still until the next call, and handles
//! each deadline in order, at its own time.
//!
//! As in RabbitMQ, a message expires when it is the first one of its queue: behind a message that has not expired it
//! waits, and counts as ready. A message that has expired is given to a consumer that can take it at that moment; so a
//! time of 0 lets a message through to a waiting consumer. An unacknowledged message expires when it is requeued.
//!
//! A queue expires (`x-expires`) after it has had no consumer, `basic.get` or declaration for this time. Its messages are
//! dropped, not dead-lettered.

use std::time::Duration;

use super::broker::Broker;
use super::dead_letters::Reason;
use super::deadlines::Due;

impl Broker {
    /// Sets the time, and does what is due until then. The time counts from 1970-01-01T00:00:00Z. It never goes back: a
    /// time before the current one changes nothing.
    ///
    /// A new broker's time is 0. Call this before [`receive`](Self::receive), and at
    /// [`next_deadline`](Self::next_deadline).
    pub fn handle_time(&mut self, now: Duration) {
        while let Some((at, due)) = self.deadlines.pop(now) {
            self.now = self.now.max(at);
            match due {
                Due::Message(queue) => {
                    if let Some(found) = self.queues.get_mut(&queue) {
                        found.expiry = None;
                    }
                    self.drop_expired(&queue);
                    self.deliver(&queue);
                }
                Due::Acknowledgement(id, number) => self.check_acknowledgements(id, number),
                Due::DeadLetters(queue) => self.retry_undelivered(&queue),
                Due::Queue(queue) => {
                    if self.queues.get(&queue).is_some_and(|found| found.consumers.is_empty()) {
                        self.delete_queue(&queue);
                    }
                }
            }
            self.publish_dead_letters();
        }
        self.now = self.now.max(now);
    }

    /// Returns the time at which the broker has something to do: see [`handle_time`](Self::handle_time).
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first()
    }

    /// Returns the broker's time.
    pub const fn now(&self) -> Duration {
        self.now
    }

    /// Drops or dead-letters the first messages of a queue, as far as they have expired. Returns whether there was one.
    pub(super) fn drop_expired(&mut self, name: &str) -> bool {
        let mut any = false;
        while let Some(queue) = self.queues.get_mut(name)
            && queue.first().is_some_and(|first| first.has_expired(self.now))
            && let Some(expired) = queue.pop_first()
        {
            any = true;
            self.dead_letter(name, &expired.message, Reason::Expired);
        }
        self.schedule_expiry(name);
        any
    }

    /// Sets the deadline at which the first message of a queue expires.
    pub(super) fn schedule_expiry(&mut self, name: &str) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        let expiry = queue.first().and_then(|first| first.expires_at);
        if queue.expiry != expiry {
            queue.expiry = expiry;
            self.deadlines.set(Due::Message(name.to_owned()), expiry);
        }
    }

    /// Begins anew the time after which an unused queue expires.
    pub(super) fn postpone_queue_expiry(&mut self, name: &str) {
        let Some(queue) = self.queues.get(name) else { return };
        if let Some(expires) = queue.arguments.expires
            && queue.consumers.is_empty()
        {
            self.deadlines.set(Due::Queue(name.to_owned()), Some(self.now.saturating_add(expires)));
        }
    }
}
