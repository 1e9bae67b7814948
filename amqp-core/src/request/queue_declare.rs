//! Queues and their kinds (<https://www.rabbitmq.com/docs/queues>).

use std::time::Duration;

use amqp_proto::{FieldTable, FieldValue, method};

use crate::request::{Pending, QueueDeclareOk, raw, requests, short};

/// Declares a queue, or checks that it exists (`queue.declare`).
#[derive(Clone, Debug, PartialEq)]
pub struct QueueDeclare {
    queue: String,
    passive: bool,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    arguments: FieldTable,
}

impl QueueDeclare {
    /// A transient classic queue; with the name `""` the broker chooses one.
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

    /// A durable classic queue (<https://www.rabbitmq.com/docs/classic-queues>).
    pub fn classic(queue: impl Into<String>) -> Self {
        Self::new(queue).durable().argument("x-queue-type", "classic")
    }

    /// A quorum queue: durable and replicated (<https://www.rabbitmq.com/docs/quorum-queues>).
    pub fn quorum(queue: impl Into<String>) -> Self {
        Self::new(queue).durable().argument("x-queue-type", "quorum")
    }

    /// A stream: a durable log that consumers read from any point, with a prefetch and
    /// acknowledgement (<https://www.rabbitmq.com/docs/streams>).
    pub fn stream(queue: impl Into<String>) -> Self {
        Self::new(queue).durable().argument("x-queue-type", "stream")
    }

    /// Checks that the queue exists and counts its messages and consumers; declares nothing.
    pub fn passive(queue: impl Into<String>) -> Self {
        Self { passive: true, ..Self::new(queue) }
    }

    /// Survives a restart of the broker.
    #[must_use]
    pub const fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Used by this connection alone, and deleted with it.
    #[must_use]
    pub const fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Deleted when the last consumer goes.
    #[must_use]
    pub const fn auto_delete(mut self) -> Self {
        self.auto_delete = true;
        self
    }

    /// Messages expire after so long in the queue; whole milliseconds count
    /// (`x-message-ttl`; <https://www.rabbitmq.com/docs/ttl>).
    #[must_use]
    pub fn message_ttl(self, ttl: Duration) -> Self {
        self.argument("x-message-ttl", milliseconds(ttl))
    }

    /// The queue is deleted after so long without use; whole milliseconds count (`x-expires`).
    #[must_use]
    pub fn expires(self, unused: Duration) -> Self {
        self.argument("x-expires", milliseconds(unused))
    }

    /// At most so many ready messages (`x-max-length`; <https://www.rabbitmq.com/docs/maxlength>).
    #[must_use]
    pub fn max_length(self, messages: u64) -> Self {
        self.argument("x-max-length", integer(messages))
    }

    /// At most so many bytes of ready messages' bodies (`x-max-length-bytes`).
    #[must_use]
    pub fn max_length_bytes(self, bytes: u64) -> Self {
        self.argument("x-max-length-bytes", integer(bytes))
    }

    /// What happens to messages beyond the maximal length (`x-overflow`).
    #[must_use]
    pub fn overflow(self, overflow: Overflow) -> Self {
        self.argument("x-overflow", overflow.as_str())
    }

    /// Rejected, expired and overflowing messages are published to `exchange`
    /// (`x-dead-letter-exchange`; <https://www.rabbitmq.com/docs/dlx>).
    #[must_use]
    pub fn dead_letter_exchange(self, exchange: &str) -> Self {
        self.argument("x-dead-letter-exchange", exchange)
    }

    /// Dead-lettered messages get this routing key in place of their own
    /// (`x-dead-letter-routing-key`).
    #[must_use]
    pub fn dead_letter_routing_key(self, routing_key: &str) -> Self {
        self.argument("x-dead-letter-routing-key", routing_key)
    }

    /// Messages of higher priority go first, from 0 to this
    /// (`x-max-priority`; <https://www.rabbitmq.com/docs/priority>). Classic queues only.
    #[must_use]
    pub fn max_priority(self, priority: u8) -> Self {
        self.argument("x-max-priority", i32::from(priority))
    }

    /// One consumer at a time gets messages, and the next one takes over when it goes
    /// (`x-single-active-consumer`;
    /// <https://www.rabbitmq.com/docs/consumers#single-active-consumer>).
    #[must_use]
    pub fn single_active_consumer(self) -> Self {
        self.argument("x-single-active-consumer", true)
    }

    /// The maximum number of redeliveries of a message; one more return dead-letters or drops it
    /// (`x-delivery-limit`). Quorum queues only.
    ///
    /// RabbitMQ 3.10 counts every redelivery. RabbitMQ 4.3 counts `basic.reject` with requeue and what
    /// returns when a channel or connection ends; it does not count `basic.nack` with requeue,
    /// `basic.recover`, or a consumer timeout.
    #[must_use]
    pub fn delivery_limit(self, deliveries: u32) -> Self {
        self.argument("x-delivery-limit", i64::from(deliveries))
    }

    /// So many replicas (`x-quorum-initial-group-size`). Quorum queues only.
    #[must_use]
    pub fn initial_group_size(self, replicas: u32) -> Self {
        self.argument("x-quorum-initial-group-size", i64::from(replicas))
    }

    /// Messages older than this may be dropped, a segment at a time; whole seconds count
    /// (`x-max-age`). Streams only.
    #[must_use]
    pub fn max_age(self, age: Duration) -> Self {
        self.argument("x-max-age", format!("{}s", age.as_secs()))
    }

    /// The size of a segment, the unit in which old messages are dropped
    /// (`x-stream-max-segment-size-bytes`). Streams only.
    #[must_use]
    pub fn max_segment_bytes(self, bytes: u64) -> Self {
        self.argument("x-stream-max-segment-size-bytes", integer(bytes))
    }

    /// One argument, such as `x-queue-leader-locator`.
    #[must_use]
    pub fn argument(mut self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(name, value);
        self
    }
}

/// What happens to messages beyond a queue's maximal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The oldest messages make room.
    DropHead,
    /// New messages are refused: their publishers, in confirm mode, get a nack.
    RejectPublish,
    /// New messages are refused and dead-lettered. Classic queues only.
    RejectPublishDlx,
}

impl Overflow {
    /// RabbitMQ's name for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DropHead => "drop-head",
            Self::RejectPublish => "reject-publish",
            Self::RejectPublishDlx => "reject-publish-dlx",
        }
    }
}

/// RabbitMQ counts in signed numbers; what is beyond them is as good as the largest.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

requests! {
    QueueDeclare -> QueueDeclareOk, Pending::queue_declare(&this.queue),
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
