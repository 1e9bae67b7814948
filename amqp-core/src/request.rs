//! The calls of a channel: one value each, with what is required as arguments of its constructor and
//! the rest as setters. Each follows the method of the same name of AMQP 0-9-1, 1.5 to 1.8, with
//! RabbitMQ's extensions.

use amqp_proto::method::{self, WireMethod};
use amqp_proto::{FieldTable, FieldValue, RawTable, ShortStr, frame};

use crate::channel::Pending;
use crate::error::{InvalidArgument, InvalidReason};
use crate::ids::ConsumerKey;
use crate::limits;

/// A call: a method that the broker answers.
///
/// Sealed: the methods of the protocol are what they are.
pub trait Rpc: sealed::Request {
    /// What the call resolves to.
    type Reply: FromReply;
}

/// The result of a call.
pub trait FromReply: sealed::FromReply + std::fmt::Debug {}

/// The broker's answer to `queue.declare`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueDeclareOk {
    /// The queue's name: what was asked for, or what the broker chose.
    pub queue: String,
    /// Messages that are ready.
    pub message_count: u32,
    /// Consumers of the queue.
    pub consumer_count: u32,
}

impl QueueDeclareOk {
    /// The queue's name.
    pub fn name(&self) -> &str {
        &self.queue
    }
}

/// A count of messages: what `queue.delete` and `queue.purge` removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct MessageCount {
    /// The number of messages.
    pub message_count: u32,
}

/// The answer to `basic.consume`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumeOk {
    /// The consumer's name in this session.
    pub consumer: ConsumerKey,
    /// Its tag on the channel.
    pub consumer_tag: String,
}

pub(crate) mod sealed {
    use super::{InvalidArgument, Pending};

    /// How a call is sent and what is awaited.
    #[doc(hidden)]
    #[allow(unreachable_pub, reason = "the trait seals a public one")]
    pub trait Request {
        /// Appends the method frame.
        fn encode(&self, number: u16, out: &mut Vec<u8>) -> Result<(), InvalidArgument>;
        /// What the reply will be matched with.
        fn pending(&self) -> Pending;
    }

    #[doc(hidden)]
    #[allow(unreachable_pub, reason = "the trait seals a public one")]
    pub trait FromReply: Sized {
        fn from_reply(reply: Reply) -> Option<Self>;
    }

    /// The reply to a call of any type.
    #[doc(hidden)]
    #[derive(Clone, Debug, PartialEq, Eq)]
    #[allow(unreachable_pub, reason = "the trait seals a public one")]
    pub enum Reply {
        Done,
        Queue(super::QueueDeclareOk),
        Count(super::MessageCount),
        Consume(super::ConsumeOk),
    }
}

pub(crate) use sealed::Reply;

macro_rules! replies {
    ($($type:ty: $pattern:pat => $value:expr;)*) => {
        $(
            impl FromReply for $type {}
            impl sealed::FromReply for $type {
                fn from_reply(reply: Reply) -> Option<Self> {
                    match reply {
                        $pattern => Some($value),
                        _ => None,
                    }
                }
            }
        )*
    };
}

replies! {
    (): Reply::Done => ();
    QueueDeclareOk: Reply::Queue(ok) => ok;
    MessageCount: Reply::Count(count) => count;
    ConsumeOk: Reply::Consume(ok) => ok;
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
    /// A transient exchange of a type: `direct`, `fanout`, `topic`, `headers`, or a plugin's.
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

    /// One argument, such as `alternate-exchange`.
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

    /// One argument, such as `x-max-length`.
    #[must_use]
    pub fn argument(mut self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(name, value);
        self
    }
}

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

/// Sets how many deliveries may be unacknowledged
/// (`basic.qos`; <https://www.rabbitmq.com/docs/consumer-prefetch>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicQos {
    prefetch_count: u16,
    global: bool,
}

impl BasicQos {
    /// For each consumer that is started on the channel from here on; 0 is no limit.
    pub const fn new(prefetch_count: u16) -> Self {
        Self { prefetch_count, global: false }
    }

    /// For the channel as a whole, at once.
    #[must_use]
    pub const fn global(mut self) -> Self {
        self.global = true;
        self
    }
}

/// Starts a consumer (`basic.consume`), with the prefetch of `basic.qos`.
#[derive(Clone, Debug, PartialEq)]
pub struct BasicConsume {
    queue: String,
    pub(crate) consumer_tag: Option<String>,
    no_local: bool,
    pub(crate) no_ack: bool,
    exclusive: bool,
    pub(crate) prefetch: u16,
    arguments: FieldTable,
}

impl BasicConsume {
    /// Consumes from `queue`, each delivery to be acknowledged, 256 of them at a time.
    pub fn new(queue: impl Into<String>) -> Self {
        Self {
            queue: queue.into(),
            consumer_tag: None,
            no_local: false,
            no_ack: false,
            exclusive: false,
            prefetch: limits::PREFETCH,
            arguments: FieldTable::new(),
        }
    }

    /// The consumer's tag on the channel; by default one is made up.
    #[must_use]
    pub fn consumer_tag(mut self, tag: impl Into<String>) -> Self {
        self.consumer_tag = Some(tag.into());
        self
    }

    /// How many deliveries may be unacknowledged; 0 is no limit. Sent as `basic.qos` ahead of
    /// `basic.consume`, so that it counts for this consumer alone.
    #[must_use]
    pub const fn prefetch(mut self, count: u16) -> Self {
        self.prefetch = count;
        self
    }

    /// Deliveries count as acknowledged when they are sent: what is lost on the way is lost.
    #[must_use]
    pub const fn no_ack(mut self) -> Self {
        self.no_ack = true;
        self
    }

    /// Refused with 403 while there is another consumer, and refuses others.
    #[must_use]
    pub const fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Asks not to deliver messages published on this connection; RabbitMQ ignores it.
    #[must_use]
    pub const fn no_local(mut self) -> Self {
        self.no_local = true;
        self
    }

    /// One argument, such as `x-priority`.
    #[must_use]
    pub fn argument(mut self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(name, value);
        self
    }

    /// Whether deliveries count as acknowledged when they are sent.
    pub const fn is_no_ack(&self) -> bool {
        self.no_ack
    }

    pub(crate) fn encode_with_tag(
        &self,
        number: u16,
        tag: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), InvalidArgument> {
        let mut table = Vec::new();
        let consume = method::basic::Consume {
            queue: short("queue", &self.queue)?,
            consumer_tag: short("consumer-tag", tag)?,
            no_local: self.no_local,
            no_ack: self.no_ack,
            exclusive: self.exclusive,
            arguments: raw(&self.arguments, &mut table)?,
            ..Default::default()
        };
        let qos =
            method::basic::Qos { prefetch_size: 0, prefetch_count: self.prefetch, global: false };
        frame::write_method(out, number, &qos);
        frame::write_method(out, number, &consume);
        Ok(())
    }
}

/// Puts the channel into confirm mode
/// (`confirm.select`; <https://www.rabbitmq.com/docs/confirms#publisher-confirms>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfirmSelect {}

/// How each call is encoded, and which reply it awaits.
macro_rules! requests {
    ($(
        $request:ident -> $reply:ty, $pending:expr,
        |$this:ident, $table:ident| $method:expr;
    )*) => {
        $(
            impl Rpc for $request {
                type Reply = $reply;
            }

            impl sealed::Request for $request {
                fn encode(&self, number: u16, out: &mut Vec<u8>) -> Result<(), InvalidArgument> {
                    let ($this, $table) = (self, &mut Vec::<u8>::new());
                    let _ = ($this, &$table);
                    frame::write_method(out, number, &$method);
                    Ok(())
                }

                fn pending(&self) -> Pending {
                    $pending
                }
            }
        )*
    };
}

requests! {
    ExchangeDeclare -> (), Pending::done(method::exchange::DeclareOk::ID),
    |this, table| method::exchange::Declare {
        exchange: short("exchange", &this.exchange)?,
        r#type: short("type", &this.kind)?,
        passive: this.passive,
        durable: this.durable,
        auto_delete: this.auto_delete,
        internal: this.internal,
        arguments: raw(&this.arguments, table)?,
        ..Default::default()
    };
    ExchangeDelete -> (), Pending::done(method::exchange::DeleteOk::ID),
    |this, table| method::exchange::Delete {
        exchange: short("exchange", &this.exchange)?,
        if_unused: this.if_unused,
        ..Default::default()
    };
    QueueDeclare -> QueueDeclareOk, Pending::QueueDeclare,
    |this, table| method::queue::Declare {
        queue: short("queue", &this.queue)?,
        passive: this.passive,
        durable: this.durable,
        exclusive: this.exclusive,
        auto_delete: this.auto_delete,
        arguments: raw(&this.arguments, table)?,
        ..Default::default()
    };
    QueueBind -> (), Pending::done(method::queue::BindOk::ID),
    |this, table| method::queue::Bind {
        queue: short("queue", &this.queue)?,
        exchange: short("exchange", &this.exchange)?,
        routing_key: short("routing-key", &this.routing_key)?,
        arguments: raw(&this.arguments, table)?,
        ..Default::default()
    };
    QueueDelete -> MessageCount, Pending::QueueDelete,
    |this, table| method::queue::Delete {
        queue: short("queue", &this.queue)?,
        if_unused: this.if_unused,
        if_empty: this.if_empty,
        ..Default::default()
    };
    BasicQos -> (), Pending::done(method::basic::QosOk::ID),
    |this, table| method::basic::Qos {
        prefetch_size: 0,
        prefetch_count: this.prefetch_count,
        global: this.global,
    };
    ConfirmSelect -> (), Pending::ConfirmSelect,
    |this, table| method::confirm::Select::default();
}

pub(crate) fn short<'a>(
    argument: &'static str,
    text: &'a str,
) -> Result<ShortStr<'a>, InvalidArgument> {
    ShortStr::new(text).map_err(|error| InvalidArgument::new(argument, error))
}

fn raw<'a>(table: &FieldTable, out: &'a mut Vec<u8>) -> Result<RawTable<'a>, InvalidArgument> {
    if table.is_empty() {
        return Ok(RawTable::default());
    }
    let encoded = table.encode(out);
    encoded.map_err(|error| InvalidArgument::new("arguments", InvalidReason::Encode(error)))?;
    Ok(RawTable::new(out.get(4..).unwrap_or_default()))
}
