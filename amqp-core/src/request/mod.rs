//! Requests: the arguments of a channel's calls.
//!
//! A constructor takes what is required. The rest are builder methods, and public fields to read. Each request
//! follows the method of the same name in AMQP 0-9-1, 1.5 to 1.8, with RabbitMQ's extensions.

mod basic;
mod change;
mod channel;
mod exchange;
mod pending;
mod queue;
mod queue_declare;
mod tx;

use amqp_proto::{FieldTable, RawTable, ShortStr};

use crate::error::{InvalidArgument, InvalidReason};
use crate::ids::ConsumerKey;
use crate::message::Delivery;

/// A call: a method to which the broker replies.
///
/// Sealed: the protocol defines its methods.
pub trait Rpc: sealed::Request {
    /// What the call resolves to.
    type Reply: FromReply;
}

/// A call that may also be sent without asking for a reply (`no-wait`). If the broker refuses it, it closes the
/// channel, and later calls return the reason.
pub trait NoWait: Rpc {}

/// The result of a call.
pub trait FromReply: sealed::FromReply + std::fmt::Debug {}

/// The reply to `queue.declare`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueDeclareOk {
    /// The name of the queue: the requested one, or the one that the broker has chosen.
    pub queue: String,
    /// The number of ready messages.
    pub message_count: u32,
    /// The number of consumers.
    pub consumer_count: u32,
}

impl QueueDeclareOk {
    /// Returns the name of the queue.
    pub fn name(&self) -> &str {
        &self.queue
    }
}

/// The reply to `queue.delete` and `queue.purge`: how many messages were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct MessageCount {
    /// The number of messages.
    pub message_count: u32,
}

/// The reply to `basic.consume`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumeOk {
    /// The key of the consumer in this session.
    pub consumer: ConsumerKey,
    /// The consumer tag.
    pub consumer_tag: String,
}

/// The reply to `basic.get` with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Got {
    /// The message, to be acknowledged like a delivery to a consumer.
    pub delivery: Delivery,
    /// The number of ready messages that remain in the queue.
    pub message_count: u32,
}

pub(crate) mod sealed {
    use super::{Change, InvalidArgument, Pending, Reply};

    /// How a call is sent and what is awaited.
    #[doc(hidden)]
    #[allow(unreachable_pub, reason = "the trait seals a public one")]
    pub trait Request {
        /// Appends the method frame; `no_wait` counts where the method has that bit.
        fn encode(
            &self,
            number: u16,
            no_wait: bool,
            out: &mut Vec<u8>,
        ) -> Result<(), InvalidArgument>;
        /// What the reply will be matched with.
        fn pending(&self) -> Pending;
        /// What the call changes in the topology, once the broker has confirmed it.
        fn change(&self) -> Option<Box<Change>> {
            None
        }
    }

    #[doc(hidden)]
    #[allow(unreachable_pub, reason = "the trait seals a public one")]
    pub trait FromReply: Sized {
        fn from_reply(reply: Reply) -> Option<Self>;
    }
}

pub use basic::{BasicConsume, BasicGet, BasicQos, BasicRecover, StreamOffset};
#[allow(unreachable_pub, reason = "it stands in a sealed trait")]
pub use change::Change;
pub(crate) use change::kept_name;
pub use channel::{ChannelFlow, ConfirmSelect};
pub use exchange::{ExchangeBind, ExchangeDeclare, ExchangeDelete, ExchangeType, ExchangeUnbind};
#[allow(unreachable_pub, reason = "they stand in a sealed trait")]
pub use pending::{Pending, Reply};
pub use queue::{QueueBind, QueueDelete, QueuePurge, QueueUnbind};
pub use queue_declare::{Overflow, QueueDeclare};
pub use tx::{TxCommit, TxRollback, TxSelect};

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
    bool: Reply::Flow(active) => active;
    QueueDeclareOk: Reply::Queue(ok) => ok;
    MessageCount: Reply::Count(count) => count;
    ConsumeOk: Reply::Consume(ok) => ok;
    Option<Got>: Reply::Got(got) => got.map(|got| *got);
}

macro_rules! no_wait {
    ($($request:ident)*) => {
        $(impl NoWait for $request {})*
    };
}

no_wait! {
    ExchangeBind ExchangeDeclare ExchangeDelete ExchangeUnbind
    QueueBind QueueDeclare QueueDelete QueuePurge
}

/// Builder methods for fields of type `bool`: one that sets the field, and one that takes a value.
macro_rules! flags {
    ($($(#[$doc:meta])* $flag:ident, $flag_if:ident;)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub const fn $flag(self) -> Self {
                self.$flag_if(true)
            }

            #[doc = concat!(
                "Sets [`", stringify!($flag), "`](Self::", stringify!($flag),
                ") to a value, such as one from a configuration file."
            )]
            #[must_use]
            pub const fn $flag_if(mut self, $flag: bool) -> Self {
                self.$flag = $flag;
                self
            }
        )*
    };
}

/// Makes requests that need nothing but a name from that name.
macro_rules! from_name {
    ($($request:ident)*) => {
        $(
            impl From<&str> for $request {
                fn from(name: &str) -> Self {
                    Self::new(name)
                }
            }

            impl From<&String> for $request {
                fn from(name: &String) -> Self {
                    Self::new(name)
                }
            }

            impl From<String> for $request {
                fn from(name: String) -> Self {
                    Self::new(name)
                }
            }
        )*
    };
}

from_name! {
    BasicConsume BasicGet ExchangeDelete QueueDeclare QueueDelete QueuePurge
}

pub(crate) use flags;

/// How each call is encoded, which reply it awaits, and what it changes.
macro_rules! requests {
    ($(
        $request:ident -> $reply:ty, $pending:expr,
        $(changes $change:expr,)?
        |$this:ident, $table:ident, $no_wait:ident| $method:expr;
    )*) => {
        $(
            impl crate::request::Rpc for $request {
                type Reply = $reply;
            }

            impl crate::request::sealed::Request for $request {
                fn encode(
                    &self,
                    number: u16,
                    no_wait: bool,
                    out: &mut Vec<u8>,
                ) -> Result<(), crate::error::InvalidArgument> {
                    let ($this, $table, $no_wait) = (self, &mut Vec::<u8>::new(), no_wait);
                    let _ = ($this, &$table, $no_wait);
                    amqp_proto::frame::write_method(out, number, &$method);
                    Ok(())
                }

                fn pending(&self) -> crate::request::Pending {
                    let $this = self;
                    let _ = $this;
                    $pending
                }

                $(fn change(&self) -> Option<Box<crate::request::Change>> {
                    let $this = self;
                    $change.map(Box::new)
                })?
            }
        )*
    };
}

pub(crate) use requests;

pub(crate) fn short<'a>(
    argument: &'static str,
    text: &'a str,
) -> Result<ShortStr<'a>, InvalidArgument> {
    ShortStr::new(text).map_err(|error| InvalidArgument::new(argument, error))
}

pub(crate) fn raw<'a>(
    table: &FieldTable,
    out: &'a mut Vec<u8>,
) -> Result<RawTable<'a>, InvalidArgument> {
    if table.is_empty() {
        return Ok(RawTable::default());
    }
    let encoded = table.encode(out);
    encoded.map_err(|error| InvalidArgument::new("arguments", InvalidReason::Encode(error)))?;
    Ok(RawTable::new(out.get(4..).unwrap_or_default()))
}
