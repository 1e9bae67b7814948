use amqp_proto::method::{self, WireMethod};
use amqp_proto::{FieldTable, FieldValue};

use crate::request::{Change, MessageCount, Pending, flags, raw, requests, short};

/// Binds a queue to an exchange (`queue.bind`).
///
/// ```
/// use amqp_core::QueueBind;
///
/// // Every word after `order.` matches.
/// let orders = QueueBind::new("orders", "events", "order.*");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueBind {
    /// The name of the queue, empty for the queue declared last on the channel.
    pub queue: String,
    /// The exchange.
    pub exchange: String,
    /// The routing key or pattern.
    pub routing_key: String,
    /// The arguments.
    pub arguments: FieldTable,
}

impl QueueBind {
    /// Routes messages that are published to `exchange` with a matching `routing_key` to `queue`. An empty name
    /// means the queue declared last on the channel.
    pub fn new(
        queue: impl Into<String>,
        exchange: impl Into<String>,
        routing_key: impl Into<String>,
    ) -> Self {
        Self {
            queue: queue.into(),
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            arguments: FieldTable::new(),
        }
    }

    /// Sets an argument, such as a header to match.
    #[must_use]
    pub fn argument(mut self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(name, value);
        self
    }
}

/// Deletes a queue (`queue.delete`). RabbitMQ replies with success and 0 messages if it does not exist.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueDelete {
    /// The name of the queue.
    pub queue: String,
    /// Whether the call fails while the queue has consumers.
    pub if_unused: bool,
    /// Whether the call fails while the queue has messages.
    pub if_empty: bool,
}

impl QueueDelete {
    /// Deletes the queue with its messages and bindings.
    pub fn new(queue: impl Into<String>) -> Self {
        Self { queue: queue.into(), if_unused: false, if_empty: false }
    }

    flags! {
        /// Makes the call fail with 406 while the queue has consumers.
        if_unused, if_unused_if;
        /// Makes the call fail with 406 while the queue has messages.
        if_empty, if_empty_if;
    }
}

/// Removes a binding (`queue.unbind`). RabbitMQ replies with success if it does not exist.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueUnbind {
    /// The binding.
    pub binding: QueueBind,
}

impl QueueUnbind {
    /// Removes the binding that was made with the same names, key and arguments.
    pub const fn new(binding: QueueBind) -> Self {
        Self { binding }
    }
}

impl From<QueueBind> for QueueUnbind {
    fn from(binding: QueueBind) -> Self {
        Self::new(binding)
    }
}

/// Removes the ready messages of a queue (`queue.purge`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueuePurge {
    /// The name of the queue.
    pub queue: String,
}

impl QueuePurge {
    /// Removes the ready messages. Unacknowledged ones stay.
    pub fn new(queue: impl Into<String>) -> Self {
        Self { queue: queue.into() }
    }
}

requests! {
    QueueUnbind -> (), Pending::done(method::queue::UnbindOk::ID),
    changes Some(Change::QueueUnbind(this.clone())),
    |this, table, no_wait| method::queue::Unbind {
        queue: short("queue", &this.binding.queue)?,
        exchange: short("exchange", &this.binding.exchange)?,
        routing_key: short("routing-key", &this.binding.routing_key)?,
        arguments: raw(&this.binding.arguments, table)?,
        ..Default::default()
    };
    QueuePurge -> MessageCount, Pending::QueuePurge,
    |this, table, no_wait| method::queue::Purge {
        queue: short("queue", &this.queue)?,
        no_wait,
        ..Default::default()
    };
    QueueBind -> (), Pending::done(method::queue::BindOk::ID),
    changes Some(Change::QueueBind(this.clone())),
    |this, table, no_wait| method::queue::Bind {
        queue: short("queue", &this.queue)?,
        exchange: short("exchange", &this.exchange)?,
        routing_key: short("routing-key", &this.routing_key)?,
        arguments: raw(&this.arguments, table)?,
        no_wait,
        ..Default::default()
    };
    QueueDelete -> MessageCount, Pending::QueueDelete,
    changes Some(Change::QueueDelete(this.clone())),
    |this, table, no_wait| method::queue::Delete {
        queue: short("queue", &this.queue)?,
        if_unused: this.if_unused,
        if_empty: this.if_empty,
        no_wait,
        ..Default::default()
    };
}
