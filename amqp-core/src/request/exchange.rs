use amqp_proto::method::{self, WireMethod};
use amqp_proto::{FieldTable, FieldValue};

use crate::request::{Pending, raw, requests, short};

/// The types of exchanges that every broker has; plugins bring more
/// (<https://www.rabbitmq.com/docs/exchanges>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExchangeType {
    /// Routes by the exact routing key.
    Direct,
    /// Routes to everything bound.
    Fanout,
    /// Routes by the message's headers.
    Headers,
    /// Routes by patterns of words.
    Topic,
}

impl ExchangeType {
    /// Its name in the protocol.
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
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeDeclare {
    exchange: String,
    kind: String,
    passive: bool,
    durable: bool,
    auto_delete: bool,
    internal: bool,
    arguments: FieldTable,
}

impl ExchangeDeclare {
    /// A transient exchange of a type: an [`ExchangeType`], or the name of a plugin's.
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

    /// Routes by the exact routing key.
    pub fn direct(exchange: impl Into<String>) -> Self {
        Self::new(exchange, "direct")
    }

    /// Routes to everything bound.
    pub fn fanout(exchange: impl Into<String>) -> Self {
        Self::new(exchange, "fanout")
    }

    /// Routes by patterns: `*` stands for one word, `#` for any number of words.
    pub fn topic(exchange: impl Into<String>) -> Self {
        Self::new(exchange, "topic")
    }

    /// Routes by the message's headers.
    pub fn headers(exchange: impl Into<String>) -> Self {
        Self::new(exchange, "headers")
    }

    /// Checks that the exchange exists, and declares nothing.
    pub fn passive(exchange: impl Into<String>) -> Self {
        Self { passive: true, ..Self::new(exchange, "") }
    }

    /// Survives a restart of the broker.
    #[must_use]
    pub const fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Deleted when the last binding from it goes.
    #[must_use]
    pub const fn auto_delete(mut self) -> Self {
        self.auto_delete = true;
        self
    }

    /// Takes messages from other exchanges only.
    #[must_use]
    pub const fn internal(mut self) -> Self {
        self.internal = true;
        self
    }

    /// Messages that match no binding go to this exchange
    /// (`alternate-exchange`; <https://www.rabbitmq.com/docs/ae>).
    #[must_use]
    pub fn alternate_exchange(self, exchange: &str) -> Self {
        self.argument("alternate-exchange", exchange)
    }

    /// One argument, such as a plugin's.
    #[must_use]
    pub fn argument(mut self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(name, value);
        self
    }
}

/// Deletes an exchange (`exchange.delete`). RabbitMQ answers ok if there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeDelete {
    exchange: String,
    if_unused: bool,
}

impl ExchangeDelete {
    /// Deletes the exchange and its bindings.
    pub fn new(exchange: impl Into<String>) -> Self {
        Self { exchange: exchange.into(), if_unused: false }
    }

    /// Refused with 406 while something is bound to it.
    #[must_use]
    pub const fn if_unused(mut self) -> Self {
        self.if_unused = true;
        self
    }
}

/// Binds an exchange to an exchange (`exchange.bind`; <https://www.rabbitmq.com/docs/e2e>).
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeBind {
    destination: String,
    source: String,
    routing_key: String,
    arguments: FieldTable,
}

impl ExchangeBind {
    /// Messages published to `source` with a matching `routing_key` go to `destination` too.
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

    /// One argument, such as a header to match.
    #[must_use]
    pub fn argument(mut self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(name, value);
        self
    }
}

/// Takes a binding between exchanges away (`exchange.unbind`). RabbitMQ answers ok if there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeUnbind(ExchangeBind);

impl ExchangeUnbind {
    /// Takes away what [`ExchangeBind`] of the same arguments made.
    pub const fn new(binding: ExchangeBind) -> Self {
        Self(binding)
    }
}

requests! {
    ExchangeBind -> (), Pending::done(method::exchange::BindOk::ID),
    |this, table, no_wait| method::exchange::Bind {
        destination: short("destination", &this.destination)?,
        source: short("source", &this.source)?,
        routing_key: short("routing-key", &this.routing_key)?,
        arguments: raw(&this.arguments, table)?,
        no_wait,
        ..Default::default()
    };
    ExchangeUnbind -> (), Pending::done(method::exchange::UnbindOk::ID),
    |this, table, no_wait| method::exchange::Unbind {
        destination: short("destination", &this.0.destination)?,
        source: short("source", &this.0.source)?,
        routing_key: short("routing-key", &this.0.routing_key)?,
        arguments: raw(&this.0.arguments, table)?,
        no_wait,
        ..Default::default()
    };
    ExchangeDeclare -> (), Pending::done(method::exchange::DeclareOk::ID),
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
    |this, table, no_wait| method::exchange::Delete {
        exchange: short("exchange", &this.exchange)?,
        if_unused: this.if_unused,
        no_wait,
        ..Default::default()
    };
}
