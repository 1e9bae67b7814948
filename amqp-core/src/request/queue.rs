use amqp_proto::method::{self, WireMethod};
use amqp_proto::{FieldTable, FieldValue};

use crate::request::{MessageCount, Pending, raw, requests, short};

/// Binds a queue to an exchange (`queue.bind`).
#[derive(Clone, Debug, PartialEq)]
pub struct QueueBind {
    queue: String,
    exchange: String,
    routing_key: String,
    arguments: FieldTable,
}

impl QueueBind {
    /// Messages published to `exchange` with a matching `routing_key` go to `queue`; `""` is the
    /// queue declared last on the channel.
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

    /// One argument, such as a header to match.
    #[must_use]
    pub fn argument(mut self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(name, value);
        self
    }
}

/// Deletes a queue (`queue.delete`). RabbitMQ answers ok with 0 if there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueDelete {
    queue: String,
    if_unused: bool,
    if_empty: bool,
}

impl QueueDelete {
    /// Deletes the queue with its messages and bindings.
    pub fn new(queue: impl Into<String>) -> Self {
        Self { queue: queue.into(), if_unused: false, if_empty: false }
    }

    /// Refused with 406 while it has consumers.
    #[must_use]
    pub const fn if_unused(mut self) -> Self {
        self.if_unused = true;
        self
    }

    /// Refused with 406 while it has messages.
    #[must_use]
    pub const fn if_empty(mut self) -> Self {
        self.if_empty = true;
        self
    }
}

/// Takes a binding away (`queue.unbind`). RabbitMQ answers ok if there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueUnbind(QueueBind);

impl QueueUnbind {
    /// Takes away what [`QueueBind`] of the same arguments made.
    pub const fn new(binding: QueueBind) -> Self {
        Self(binding)
    }
}

/// Removes the ready messages of a queue (`queue.purge`).
#[derive(Clone, Debug, PartialEq)]
pub struct QueuePurge {
    queue: String,
}

impl QueuePurge {
    /// Removes what is ready; unacknowledged messages stay.
    pub fn new(queue: impl Into<String>) -> Self {
        Self { queue: queue.into() }
    }
}

requests! {
    QueueUnbind -> (), Pending::done(method::queue::UnbindOk::ID),
    |this, table, no_wait| method::queue::Unbind {
        queue: short("queue", &this.0.queue)?,
        exchange: short("exchange", &this.0.exchange)?,
        routing_key: short("routing-key", &this.0.routing_key)?,
        arguments: raw(&this.0.arguments, table)?,
        ..Default::default()
    };
    QueuePurge -> MessageCount, Pending::QueuePurge,
    |this, table, no_wait| method::queue::Purge {
        queue: short("queue", &this.queue)?,
        no_wait,
        ..Default::default()
    };
    QueueBind -> (), Pending::done(method::queue::BindOk::ID),
    |this, table, no_wait| method::queue::Bind {
        queue: short("queue", &this.queue)?,
        exchange: short("exchange", &this.exchange)?,
        routing_key: short("routing-key", &this.routing_key)?,
        arguments: raw(&this.arguments, table)?,
        no_wait,
        ..Default::default()
    };
    QueueDelete -> MessageCount, Pending::QueueDelete,
    |this, table, no_wait| method::queue::Delete {
        queue: short("queue", &this.queue)?,
        if_unused: this.if_unused,
        if_empty: this.if_empty,
        no_wait,
        ..Default::default()
    };
}
