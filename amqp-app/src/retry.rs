//! `Retry`: when a failed message is tried again, and what follows the last attempt.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::failure::Failure;
use crate::limits::{DELIVERIES_MAX, IN_PLACE_PAUSE, REQUEUE_PAUSE, RETRY_DELAYS};

type Condition = dyn Fn(&Failure) -> bool + Send + Sync;

/// A retry policy: when a message whose handler has failed is tried again, and what follows the last attempt.
///
/// There are three stages, one after the other:
///
/// 1. Attempts at once ([`now`](Self::now)), with a short pause. The message keeps its place, so the order of the queue is
///    kept, and so is the place of the prefetch.
/// 2. Attempts after delays ([`after`](Self::after)). The message waits in a queue of the broker, and other messages pass
///    it. There is one queue for each delay, `<queue>.retry.<delay>`, which the application declares at its start.
/// 3. The last resort, one of the `then_..` methods. By default the message is parked in `<queue>.parked`.
///
/// Before the broker's message is acknowledged, a queue has confirmed the copy. So a message is never lost, and may be
/// duplicated with the same message id.
///
/// The default is 1 s, 10 s, 1 min, 10 min, then parked.
///
/// ```
/// use amqp_app::Retry;
/// use std::time::Duration;
///
/// // The first attempt, two more at once, one after 10 s and one after 10 min: five in all.
/// let policy = Retry::now(2).and_after([10, 600].map(Duration::from_secs)).then_park();
/// assert_eq!(policy.attempts(), 5);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Retry {
    pub(crate) now: u32,
    pub(crate) pause: Duration,
    pub(crate) delays: Vec<Duration>,
    pub(crate) last: LastResort,
    pub(crate) retries_if: Option<Arc<Condition>>,
    pub(crate) max_deliveries: u32,
    pub(crate) counts_redelivered: bool,
    pub(crate) quorum: bool,
}

/// What follows the last attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LastResort {
    /// A copy goes to this queue; `None` is `<queue>.parked`.
    Park(Option<String>),
    /// The broker dead-letters the message (`basic.reject` without requeue).
    DeadLetter,
    /// The message is acknowledged.
    Discard,
    /// The message goes back into its queue (`basic.reject` with requeue), after a pause.
    Requeue(Duration),
    /// The message goes back into its queue, and the application ends.
    Stop,
    /// The message stays unacknowledged until its channel is replaced.
    Hold,
    /// A report goes to an exchange, and the message is acknowledged.
    Report { exchange: String, routing_key: String },
}

impl Retry {
    /// Never tries a message again. Parks it at the first failure, unless a `then_..` method says otherwise.
    pub const fn none() -> Self {
        Self {
            now: 0,
            pause: IN_PLACE_PAUSE,
            delays: Vec::new(),
            last: LastResort::Park(None),
            retries_if: None,
            max_deliveries: DELIVERIES_MAX,
            counts_redelivered: false,
            quorum: false,
        }
    }

    /// Tries a message this many times more at once, with a pause of 50 ms before each ([`pause`](Self::pause)). The message
    /// keeps its place in the order of its queue.
    pub fn now(attempts: u32) -> Self {
        Self { now: attempts, ..Self::none() }
    }

    /// Tries a message again after each of these delays. It leaves the order of its queue.
    pub fn after(delays: impl IntoIterator<Item = Duration>) -> Self {
        Self::none().and_after(delays)
    }

    /// Adds delays, after each of which a message is tried again. It leaves the order of its queue.
    pub fn and_after(mut self, delays: impl IntoIterator<Item = Duration>) -> Self {
        self.delays.extend(delays);
        self
    }

    /// Sets the pause before attempts at once, 50 ms by default.
    pub const fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Retries only failures for which a function returns true. For others the last resort follows at once.
    ///
    /// ```
    /// # use amqp_app::Retry;
    /// let policy = Retry::default()
    ///     .if_error(|failure| failure.error().downcast_ref::<std::io::Error>().is_some());
    /// ```
    pub fn if_error(mut self, retries: impl Fn(&Failure) -> bool + Send + Sync + 'static) -> Self {
        self.retries_if = Some(Arc::new(retries));
        self
    }

    /// Declares the queues for delays and the parking queue as quorum queues. By default they have the type of the source if
    /// the application declares it, and are classic queues otherwise.
    ///
    /// RabbitMQ moves messages out of a quorum queue at least once, and out of a classic one at most once: a crash of the
    /// broker at that moment may lose a message.
    pub const fn quorum(mut self) -> Self {
        self.quorum = true;
        self
    }

    /// Sets after how many deliveries without an outcome the last resort follows without the handler being called, 10 by
    /// default. So a message that kills the process each time stops coming. Only quorum queues count deliveries (`x-delivery-count`), and
    /// before RabbitMQ 4.3 they count messages that were given back too.
    ///
    /// It has no effect if the last resort puts the message back into its queue.
    pub const fn max_deliveries(mut self, deliveries: u32) -> Self {
        self.max_deliveries = deliveries;
        self
    }

    /// Counts a message that was delivered before (`redelivered`) as one that has failed once. Classic queues have no other
    /// count of what the process could not finish. But a message may be delivered again because the connection was lost.
    pub const fn redelivered_is_attempt(mut self) -> Self {
        self.counts_redelivered = true;
        self
    }

    /// After the last attempt, parks the message in `<queue>.parked`, which the application declares at its start. The
    /// default.
    pub fn then_park(self) -> Self {
        self.then(LastResort::Park(None))
    }

    /// After the last attempt, parks the message in this queue. The queue must exist.
    pub fn then_park_in(self, queue: impl Into<String>) -> Self {
        self.then(LastResort::Park(Some(queue.into())))
    }

    /// After the last attempt, rejects the message, so that the broker dead-letters it. A queue without a dead-letter
    /// exchange drops it (<https://www.rabbitmq.com/docs/dlx>). Nothing is declared for it.
    pub fn then_dead_letter(self) -> Self {
        self.then(LastResort::DeadLetter)
    }

    /// After the last attempt, acknowledges the message, which is lost.
    pub fn then_discard(self) -> Self {
        self.then(LastResort::Discard)
    }

    /// After the last attempt, puts the message back into its queue after this pause, for ever. Without a pause one message
    /// can keep a worker busy.
    pub fn then_requeue(self, pause: Duration) -> Self {
        self.then(LastResort::Requeue(pause.max(REQUEUE_PAUSE)))
    }

    /// After the last attempt, puts the message back into its queue, and ends the application with an error.
    pub fn then_stop(self) -> Self {
        self.then(LastResort::Stop)
    }

    /// After the last attempt, sends the text of the error to an exchange, and acknowledges the message. The report has the
    /// message's id as its correlation id.
    pub fn then_report(self, exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        let (exchange, routing_key) = (exchange.into(), routing_key.into());
        self.then(LastResort::Report { exchange, routing_key })
    }

    /// After the last attempt, holds the message: it stays unacknowledged until the source consumes on another channel
    /// ([`Consume::rotate_every`](crate::Consume::rotate_every)). Then it goes back into its queue, and is handled again.
    ///
    /// What is held counts towards the prefetch. By default each consumer can hold 20 messages beside those in work. If there
    /// is no place for one more, it goes back into its queue after 1 s, and comes again before those behind it. Delays
    /// ([`after`](Self::after)) do the same without a limit, and survive the process.
    ///
    /// On RabbitMQ before 4.3, a quorum queue counts each time towards its delivery limit, and drops or dead-letters the
    /// message at that limit (<https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
    pub fn then_hold(self) -> Self {
        self.then(LastResort::Hold)
    }

    fn then(mut self, last: LastResort) -> Self {
        self.last = last;
        self
    }

    /// Returns the number of attempts, the first one included. A last resort that puts the message back follows after each
    /// further one.
    pub fn attempts(&self) -> u64 {
        1 + u64::from(self.now) + self.delays.len() as u64
    }

    /// The name of the queue in which the messages of `queue` wait for `delay`.
    pub(crate) fn delay_queue(queue: &str, delay: Duration) -> String {
        format!("{queue}.retry.{}", short(delay))
    }

    /// The name of the queue in which the messages of `queue` are parked, if they are.
    pub(crate) fn parking_queue(&self, queue: &str) -> Option<String> {
        match &self.last {
            LastResort::Park(None) => Some(format!("{queue}.parked")),
            LastResort::Park(Some(parking)) => Some(parking.clone()),
            _ => None,
        }
    }
}

/// The default policy: 1 s, 10 s, 1 min, 10 min, then parked.
impl Default for Retry {
    fn default() -> Self {
        Self::after(RETRY_DELAYS)
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("now", &self.now)
            .field("delays", &self.delays)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// A delay as names of queues have it: in the largest unit in which it is whole.
pub(crate) fn short(delay: Duration) -> String {
    let milliseconds = delay.as_millis();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if milliseconds >= size && milliseconds.is_multiple_of(size) {
            return format!("{}{unit}", milliseconds / size);
        }
    }
    format!("{milliseconds}ms")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Retry;

    #[test]
    fn a_delay_names_its_queue_in_the_largest_whole_unit() {
        let named = |ms| Retry::delay_queue("orders", Duration::from_millis(ms));
        for (milliseconds, name) in [
            (200, "200ms"),
            (1_000, "1s"),
            (1_500, "1500ms"),
            (90_000, "90s"),
            (60_000, "1m"),
            (600_000, "10m"),
            (7_200_000, "2h"),
        ] {
            assert_eq!(named(milliseconds), format!("orders.retry.{name}"));
        }
    }

    #[test]
    fn the_default_policy_parks_after_five_attempts() {
        let policy = Retry::default();
        assert_eq!(policy.attempts(), 5);
        assert_eq!(policy.parking_queue("orders").as_deref(), Some("orders.parked"));
        assert_eq!(policy.then_dead_letter().parking_queue("orders"), None);
    }
}
