use amqp_proto::method::{self, WireMethod};
use amqp_proto::{FieldTable, FieldValue};

use crate::request::{Change, Pending, flags, raw, requests, short};

/// The types of exchanges that every broker has. Plugins add others
/// (<https://www.rabbitmq.com/docs/exchanges>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExchangeType {
    /// Routes by the exact routing key.
    Direct,
    /// Routes to every bound queue and exchange.
    Fanout,
    /// Routes by the headers of the message.
    Headers,
    /// Routes by patterns of words.
    Topic,
}

impl ExchangeType {
    /// Returns the name in the protocol.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Headers => "headers",
            Self::Topic => "topic",
        }
    }
}

impl From<ExchangeType> for String {
    fn from(kind: ExchangeType) -> Self {
        kind.as_str().into()
    }
}

/// Declares an exchange, or checks that it exists (`exchange.declare`).
///
/// ```
/// use amqp_core::ExchangeDeclare;
///
/// let events = ExchangeDeclare::topic("events").durable().alternate_exchange("unrouted");
/// assert_eq!(events.kind, "topic");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExchangeDeclare {
    /// The name of the exchange.
    pub exchange: String,
    /// The type of the exchange.
    pub kind: String,
    /// Whether the call only checks that the exchange exists.
    pub passive: bool,
    /// Whether the exchange survives a restart of the broker.
    pub durable: bool,
    /// Whether the exchange is deleted with its last binding.
    pub auto_delete: bool,
    /// Whether only other exchanges may publish to it.
    pub internal: bool,
    /// The arguments.
    pub arguments: FieldTable,
}

impl ExchangeDeclare {
    /// Declares a transient exchange. The type is an [`ExchangeType`], or the name of a plugin's type.
    pub fn new(exchange: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            exchange: exchange.into(),
            kind: kind.into(),
            passive: false,
            durable: false,
            auto_delete: false,
            internal: false,
            arguments: FieldTable::new(),
        }
    }

    /// Declares a transient exchange that routes by the exact routing key.
    pub fn direct(exchange: impl Into<String>) -> Self {
        Self::new(exchange, "direct")
    }

    /// Declares a transient exchange that routes to every bound queue and exchange.
    pub fn fanout(exchange: impl Into<String>) -> Self {
        Self::new(exchange, "fanout")
    }

    /// Declares a transient exchange that routes by patterns: `*` matches one word, `#` any number of words.
    pub fn topic(exchange: impl Into<String>) -> Self {
        Self::new(exchange, "topic")
    }

    /// Declares a transient exchange that routes by the headers of the message.
    pub fn headers(exchange: impl Into<String>) -> Self {
        Self::new(exchange, "headers")
    }

    /// Checks that the exchange exists, without declaring it. If it does not, the broker closes the channel (404).
    pub fn passive(exchange: impl Into<String>) -> Self {
        Self { passive: true, ..Self::new(exchange, "") }
    }

    flags! {
        /// Makes the exchange survive a restart of the broker.
        durable, durable_if;
        /// Deletes the exchange when its last binding to a queue or exchange is removed.
        auto_delete, auto_delete_if;
        /// Lets only other exchanges publish to it.
        internal, internal_if;
    }

    /// Sets the exchange for messages that match no binding
    /// (`alternate-exchange`; <https://www.rabbitmq.com/docs/ae>).
    #[must_use]
    pub fn alternate_exchange(self, exchange: &str) -> Self {
        self.argument("alternate-exchange", exchange)
    }

    /// Sets an argument, such as a plugin's.
    #[must_use]
    pub fn argument(mut self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(name, value);
        self
    }
}

/// Deletes an exchange (`exchange.delete`). RabbitMQ replies with success if it does not exist.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExchangeDelete {
    /// The name of the exchange.
    pub exchange: String,
    /// Whether the call fails while the exchange has bindings.
    pub if_unused: bool,
}

impl ExchangeDelete {
    /// Deletes the exchange and its bindings.
    pub fn new(exchange: impl Into<String>) -> Self {
        Self { exchange: exchange.into(), if_unused: false }
    }

    flags! {
        /// Makes the call fail with 406 while a queue or exchange is bound to the exchange.
        if_unused, if_unused_if;
    }
}

/// Binds an exchange to an exchange (`exchange.bind`; <https://www.rabbitmq.com/docs/e2e>).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExchangeBind {
    /// The exchange that receives the messages.
    pub destination: String,
    /// The exchange to which they are published.
    pub source: String,
    /// The routing key or pattern.
    pub routing_key: String,
    /// The arguments.
    pub arguments: FieldTable,
}

impl ExchangeBind {
    /// Routes messages that are published to `source` with a matching `routing_key` to `destination` too.
    pub fn new(
        destination: impl Into<String>,
        source: impl Into<String>,
        routing_key: impl Into<String>,
    ) -> Self {
        Self {
            destination: destination.into(),
            source: source.into(),
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

/// Removes a binding between exchanges (`exchange.unbind`). RabbitMQ replies with success if it does not exist.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExchangeUnbind {
    /// The binding.
    pub binding: ExchangeBind,
}

impl ExchangeUnbind {
    /// Removes the binding that was made with the same names, key and arguments.
    pub const fn new(binding: ExchangeBind) -> Self {
        Self { binding }
    }
}

impl From<ExchangeBind> for ExchangeUnbind {
    fn from(binding: ExchangeBind) -> Self {
        Self::new(binding)
    }
}

requests! {
    ExchangeBind -> (), Pending::done(method::exchange::BindOk::ID),
    changes Some(Change::ExchangeBind(this.clone())),
    |this, table, no_wait| method::exchange::Bind {
        destination: short("destination", &this.destination)?,
        source: short("source", &this.source)?,
        routing_key: short("routing-key", &this.routing_key)?,
        arguments: raw(&this.arguments, table)?,
        no_wait,
        ..Default::default()
    };
    ExchangeUnbind -> (), Pending::done(method::exchange::UnbindOk::ID),
    changes Some(Change::ExchangeUnbind(this.clone())),
    |this, table, no_wait| method::exchange::Unbind {
        destination: short("destination", &this.binding.destination)?,
        source: short("source", &this.binding.source)?,
        routing_key: short("routing-key", &this.binding.routing_key)?,
        arguments: raw(&this.binding.arguments, table)?,
        no_wait,
        ..Default::default()
    };
    ExchangeDeclare -> (), Pending::done(method::exchange::DeclareOk::ID),
    changes (!this.passive).then(|| Change::ExchangeDeclare(this.clone())),
    |this, table, no_wait| method::exchange::Declare {
        exchange: short("exchange", &this.exchange)?,
        r#type: short("type", &this.kind)?,
        passive: this.passive,
        durable: this.durable,
        auto_delete: this.auto_delete,
        internal: this.internal,
        arguments: raw(&this.arguments, table)?,
        no_wait,
        ..Default::default()
    };
    ExchangeDelete -> (), Pending::done(method::exchange::DeleteOk::ID),
    changes Some(Change::ExchangeDelete(this.clone())),
    |this, table, no_wait| method::exchange::Delete {
        exchange: short("exchange", &this.exchange)?,
        if_unused: this.if_unused,
        no_wait,
        ..Default::default()
    };
}
