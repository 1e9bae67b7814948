//! Queues and their kinds (<https://www.rabbitmq.com/docs/queues>).

use std::time::Duration;

use amqp_proto::{FieldTable, FieldValue, method};

use crate::request::{Change, Pending, QueueDeclareOk, flags, raw, requests, short};

/// Declares a queue, or checks that it exists (`queue.declare`).
///
/// ```
/// use amqp_core::QueueDeclare;
///
/// let orders = QueueDeclare::quorum("orders").delivery_limit(5).dead_letter_exchange("failed");
/// assert!(orders.durable);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueDeclare {
    /// The name of the queue, empty for one that the broker chooses.
    pub queue: String,
    /// Whether the call only checks that the queue exists.
    pub passive: bool,
    /// Whether the queue survives a restart of the broker.
    pub durable: bool,
    /// Whether only this connection may use the queue.
    pub exclusive: bool,
    /// Whether the queue is deleted with its last consumer.
    pub auto_delete: bool,
    /// The arguments, which most builder methods set.
    pub arguments: FieldTable,
}

impl QueueDeclare {
    /// Declares a transient classic queue. If the name is empty, the broker chooses one.
    pub fn new(queue: impl Into<String>) -> Self {
        Self {
            queue: queue.into(),
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: FieldTable::new(),
        }
    }

    /// Declares a durable classic queue (<https://www.rabbitmq.com/docs/classic-queues>).
    pub fn classic(queue: impl Into<String>) -> Self {
        Self::new(queue).durable().argument("x-queue-type", "classic")
    }

    /// Declares a quorum queue, which is durable and replicated (<https://www.rabbitmq.com/docs/quorum-queues>).
    pub fn quorum(queue: impl Into<String>) -> Self {
        Self::new(queue).durable().argument("x-queue-type", "quorum")
    }

    /// Declares a stream: a durable log that consumers read from any offset, with a prefetch and with
    /// acknowledgement (<https://www.rabbitmq.com/docs/streams>).
    pub fn stream(queue: impl Into<String>) -> Self {
        Self::new(queue).durable().argument("x-queue-type", "stream")
    }

    /// Checks that the queue exists, without declaring it. If it does not, the broker closes the channel (404).
    pub fn passive(queue: impl Into<String>) -> Self {
        Self { passive: true, ..Self::new(queue) }
    }

    flags! {
        /// Makes the queue survive a restart of the broker.
        durable, durable_if;
        /// Makes the queue private to this connection, and deletes it when the connection ends.
        exclusive, exclusive_if;
        /// Deletes the queue when its last consumer is cancelled or gone.
        auto_delete, auto_delete_if;
    }

    /// Sets the time after which messages in the queue expire, in whole milliseconds
    /// (`x-message-ttl`; <https://www.rabbitmq.com/docs/ttl>).
    #[must_use]
    pub fn message_ttl(self, ttl: Duration) -> Self {
        self.argument("x-message-ttl", milliseconds(ttl))
    }

    /// Sets the time after which an unused queue is deleted, in whole milliseconds (`x-expires`).
    #[must_use]
    pub fn expires(self, unused: Duration) -> Self {
        self.argument("x-expires", milliseconds(unused))
    }

    /// Sets the maximum number of ready messages (`x-max-length`; <https://www.rabbitmq.com/docs/maxlength>).
    #[must_use]
    pub fn max_length(self, messages: u64) -> Self {
        self.argument("x-max-length", integer(messages))
    }

    /// Sets the maximum size of all ready messages' bodies in bytes (`x-max-length-bytes`).
    #[must_use]
    pub fn max_length_bytes(self, bytes: u64) -> Self {
        self.argument("x-max-length-bytes", integer(bytes))
    }

    /// Sets what happens to messages beyond the maximum length (`x-overflow`).
    #[must_use]
    pub fn overflow(self, overflow: Overflow) -> Self {
        self.argument("x-overflow", overflow.as_str())
    }

    /// Sets the exchange to which rejected, expired and overflowing messages are published
    /// (`x-dead-letter-exchange`; <https://www.rabbitmq.com/docs/dlx>).
    #[must_use]
    pub fn dead_letter_exchange(self, exchange: &str) -> Self {
        self.argument("x-dead-letter-exchange", exchange)
    }

    /// Sets the routing key of dead-lettered messages. By default they keep their own
    /// (`x-dead-letter-routing-key`).
    #[must_use]
    pub fn dead_letter_routing_key(self, routing_key: &str) -> Self {
        self.argument("x-dead-letter-routing-key", routing_key)
    }

    /// Dead-letters at least once: a message leaves the queue when the queues that it is dead-lettered to have
    /// confirmed it. By default it leaves before, and may be lost on the way. Sets `x-dead-letter-strategy`, and the
    /// overflow that it needs, [`RejectPublish`](Overflow::RejectPublish). Quorum queues with a dead-letter exchange only
    /// (<https://www.rabbitmq.com/docs/quorum-queues#dead-lettering>).
    #[must_use]
    pub fn dead_letter_at_least_once(self) -> Self {
        self.argument("x-dead-letter-strategy", "at-least-once").overflow(Overflow::RejectPublish)
    }

    /// Sets the maximum priority of messages. Those of higher priority are delivered first
    /// (`x-max-priority`; <https://www.rabbitmq.com/docs/priority>). Classic queues only.
    #[must_use]
    pub fn max_priority(self, priority: u8) -> Self {
        self.argument("x-max-priority", i32::from(priority))
    }

    /// Delivers to one consumer at a time. When it is gone, the next one takes over
    /// (`x-single-active-consumer`;
    /// <https://www.rabbitmq.com/docs/consumers#single-active-consumer>).
    #[must_use]
    pub fn single_active_consumer(self) -> Self {
        self.argument("x-single-active-consumer", true)
    }

    /// Sets the maximum number of redeliveries of a message. After that it is dead-lettered or dropped
    /// (`x-delivery-limit`). Quorum queues only.
    ///
    /// RabbitMQ 3.10 counts every redelivery. RabbitMQ 4.3 counts `basic.reject` with requeue and the end of a
    /// channel or connection. It does not count `basic.nack` with requeue, `basic.recover` and consumer
    /// timeouts.
    #[must_use]
    pub fn delivery_limit(self, deliveries: u32) -> Self {
        self.argument("x-delivery-limit", i64::from(deliveries))
    }

    /// Sets the number of replicas (`x-quorum-initial-group-size`). Quorum queues only.
    #[must_use]
    pub fn initial_group_size(self, replicas: u32) -> Self {
        self.argument("x-quorum-initial-group-size", i64::from(replicas))
    }

    /// Sets the age, in whole seconds, after which messages are dropped, one segment at a time (`x-max-age`).
    /// Streams only.
    #[must_use]
    pub fn max_age(self, age: Duration) -> Self {
        self.argument("x-max-age", format!("{}s", age.as_secs()))
    }

    /// Sets the size of a segment in bytes, the unit in which old messages are dropped
    /// (`x-stream-max-segment-size-bytes`). Streams only.
    #[must_use]
    pub fn max_segment_bytes(self, bytes: u64) -> Self {
        self.argument("x-stream-max-segment-size-bytes", integer(bytes))
    }

    /// Sets an argument, such as `x-queue-leader-locator`.
    #[must_use]
    pub fn argument(mut self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(name, value);
        self
    }
}

/// What happens to messages beyond the maximum length of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The oldest messages are dropped or dead-lettered.
    DropHead,
    /// New messages are refused. Publishers in confirm mode receive a nack.
    RejectPublish,
    /// New messages are refused and dead-lettered. Classic queues only.
    RejectPublishDlx,
}

impl Overflow {
    /// Returns RabbitMQ's name for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DropHead => "drop-head",
            Self::RejectPublish => "reject-publish",
            Self::RejectPublishDlx => "reject-publish-dlx",
        }
    }
}

/// RabbitMQ counts in signed numbers. A limit beyond their maximum is no different from the maximum.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

requests! {
    QueueDeclare -> QueueDeclareOk, Pending::queue_declare(&this.queue),
    changes (!this.passive).then(|| Change::QueueDeclare(this.clone())),
    |this, table, no_wait| method::queue::Declare {
        queue: short("queue", &this.queue)?,
        passive: this.passive,
        durable: this.durable,
        exclusive: this.exclusive,
        auto_delete: this.auto_delete,
        arguments: raw(&this.arguments, table)?,
        no_wait,
        ..Default::default()
    };
}
