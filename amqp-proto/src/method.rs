//! Classes and methods of AMQP 0-9-1 with RabbitMQ's extensions, from one declarative table.
//!
//! The table below reads like the specification: class, method, the method's short name and its
//! variant of [`Method`], its id, whether content follows, what answers it, and its fields in wire
//! order. `reserved_*` fields are ignored when read and zero when written. A test compares
//! [`TABLE`] with the official XML.
//!
//! RabbitMQ's extensions: `connection.blocked`, `connection.unblocked`, `connection.update-secret`,
//! `exchange.bind`, `exchange.unbind`, `basic.nack`, the class `confirm`; `access.request` is a
//! remnant of AMQP 0-9 that RabbitMQ still answers.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use crate::macros::methods;
use crate::wire::{Reader, Writer};
use crate::{Malformed, RawTable, ShortStr};

pub use crate::wire::{Domain, Reserved};

methods! {
    /// Work with connections (AMQP 0-9-1, 1.4).
    class connection = 10 {
        /// The server's greeting.
        Start / ConnectionStart<'a> = 10 => StartOk {
            version_major: u8, version_minor: u8, server_properties: RawTable<'a>,
            mechanisms: &'a [u8], locales: &'a [u8],
        }
        /// The client's choice of mechanism and locale, with its properties.
        StartOk / ConnectionStartOk<'a> = 11 {
            client_properties: RawTable<'a>, mechanism: ShortStr<'a>, response: &'a [u8],
            locale: ShortStr<'a>,
        }
        /// A challenge of the security mechanism.
        Secure / ConnectionSecure<'a> = 20 => SecureOk { challenge: &'a [u8] }
        /// The answer to the challenge.
        SecureOk / ConnectionSecureOk<'a> = 21 { response: &'a [u8] }
        /// The server's limits.
        Tune / ConnectionTune = 30 => TuneOk { channel_max: u16, frame_max: u32, heartbeat: u16 }
        /// The limits chosen by the client.
        TuneOk / ConnectionTuneOk = 31 { channel_max: u16, frame_max: u32, heartbeat: u16 }
        /// Opens a virtual host.
        Open / ConnectionOpen<'a> = 40 => OpenOk {
            virtual_host: ShortStr<'a>, reserved_1: Reserved<ShortStr<'static>>,
            reserved_2: Reserved<bool>,
        }
        /// The connection is ready.
        OpenOk / ConnectionOpenOk = 41 { reserved_1: Reserved<ShortStr<'static>> }
        /// Closes the connection, with the reason.
        Close / ConnectionClose<'a> = 50 => CloseOk {
            reply_code: u16, reply_text: ShortStr<'a>, class_id: u16, method_id: u16,
        }
        /// Confirms the close.
        CloseOk / ConnectionCloseOk = 51 {}
        /// The broker is short of a resource and reads no publishes (RabbitMQ).
        Blocked / ConnectionBlocked<'a> = 60 { reason: ShortStr<'a> }
        /// The broker reads publishes again (RabbitMQ).
        Unblocked / ConnectionUnblocked = 61 {}
        /// Replaces the credentials of an open connection (RabbitMQ).
        UpdateSecret / ConnectionUpdateSecret<'a> = 70 => UpdateSecretOk {
            new_secret: &'a [u8], reason: ShortStr<'a>,
        }
        /// The new secret is in place.
        UpdateSecretOk / ConnectionUpdateSecretOk = 71 {}
    }

    /// Work with channels (AMQP 0-9-1, 1.5).
    class channel = 20 {
        /// Opens a channel.
        Open / ChannelOpen = 10 => OpenOk { reserved_1: Reserved<ShortStr<'static>> }
        /// The channel is ready.
        OpenOk / ChannelOpenOk = 11 { reserved_1: Reserved<&'static [u8]> }
        /// Asks the peer to stop or to go on with contents.
        Flow / ChannelFlow = 20 => FlowOk { active: bool }
        /// Confirms the flow.
        FlowOk / ChannelFlowOk = 21 { active: bool }
        /// Closes the channel, with the reason.
        Close / ChannelClose<'a> = 40 => CloseOk {
            reply_code: u16, reply_text: ShortStr<'a>, class_id: u16, method_id: u16,
        }
        /// Confirms the close.
        CloseOk / ChannelCloseOk = 41 {}
    }

    /// Access tickets: a remnant that RabbitMQ answers and ignores.
    class access = 30 {
        /// Asks for a ticket.
        Request / AccessRequest<'a> = 10 => RequestOk {
            realm: ShortStr<'a>, exclusive: bool, passive: bool, active: bool, write: bool, read: bool,
        }
        /// Grants the ticket.
        RequestOk / AccessRequestOk = 11 { ticket: u16 }
    }

    /// Work with exchanges (AMQP 0-9-1, 1.6).
    class exchange = 40 {
        /// Declares an exchange, or checks that it exists.
        Declare / ExchangeDeclare<'a> = 10 => DeclareOk {
            reserved_1: Reserved<u16>, exchange: ShortStr<'a>, r#type: ShortStr<'a>, passive: bool,
            durable: bool, auto_delete: bool, internal: bool, no_wait: bool,
            arguments: RawTable<'a>,
        }
        /// The exchange is there.
        DeclareOk / ExchangeDeclareOk = 11 {}
        /// Deletes an exchange.
        Delete / ExchangeDelete<'a> = 20 => DeleteOk {
            reserved_1: Reserved<u16>, exchange: ShortStr<'a>, if_unused: bool, no_wait: bool,
        }
        /// The exchange is gone.
        DeleteOk / ExchangeDeleteOk = 21 {}
        /// Binds an exchange to an exchange (RabbitMQ).
        Bind / ExchangeBind<'a> = 30 => BindOk {
            reserved_1: Reserved<u16>, destination: ShortStr<'a>, source: ShortStr<'a>, routing_key: ShortStr<'a>,
            no_wait: bool, arguments: RawTable<'a>,
        }
        /// The binding is there (RabbitMQ).
        BindOk / ExchangeBindOk = 31 {}
        /// Takes a binding between exchanges away (RabbitMQ).
        Unbind / ExchangeUnbind<'a> = 40 => UnbindOk {
            reserved_1: Reserved<u16>, destination: ShortStr<'a>, source: ShortStr<'a>, routing_key: ShortStr<'a>,
            no_wait: bool, arguments: RawTable<'a>,
        }
        /// The binding is gone (RabbitMQ; its id is 51, not 41).
        UnbindOk / ExchangeUnbindOk = 51 {}
    }

    /// Work with queues (AMQP 0-9-1, 1.7).
    class queue = 50 {
        /// Declares a queue, or checks that it exists.
        Declare / QueueDeclare<'a> = 10 => DeclareOk {
            reserved_1: Reserved<u16>, queue: ShortStr<'a>, passive: bool, durable: bool,
            exclusive: bool, auto_delete: bool, no_wait: bool, arguments: RawTable<'a>,
        }
        /// The queue is there.
        DeclareOk / QueueDeclareOk<'a> = 11 {
            queue: ShortStr<'a>, message_count: u32, consumer_count: u32,
        }
        /// Binds a queue to an exchange.
        Bind / QueueBind<'a> = 20 => BindOk {
            reserved_1: Reserved<u16>, queue: ShortStr<'a>, exchange: ShortStr<'a>, routing_key: ShortStr<'a>,
            no_wait: bool, arguments: RawTable<'a>,
        }
        /// The binding is there.
        BindOk / QueueBindOk = 21 {}
        /// Removes the ready messages of a queue.
        Purge / QueuePurge<'a> = 30 => PurgeOk {
            reserved_1: Reserved<u16>, queue: ShortStr<'a>, no_wait: bool,
        }
        /// So many messages were removed.
        PurgeOk / QueuePurgeOk = 31 { message_count: u32 }
        /// Deletes a queue.
        Delete / QueueDelete<'a> = 40 => DeleteOk {
            reserved_1: Reserved<u16>, queue: ShortStr<'a>, if_unused: bool, if_empty: bool,
            no_wait: bool,
        }
        /// The queue is gone, with so many messages.
        DeleteOk / QueueDeleteOk = 41 { message_count: u32 }
        /// Takes a binding away.
        Unbind / QueueUnbind<'a> = 50 => UnbindOk {
            reserved_1: Reserved<u16>, queue: ShortStr<'a>, exchange: ShortStr<'a>, routing_key: ShortStr<'a>,
            arguments: RawTable<'a>,
        }
        /// The binding is gone.
        UnbindOk / QueueUnbindOk = 51 {}
    }

    /// Work with messages (AMQP 0-9-1, 1.8).
    class basic = 60 {
        /// Sets the prefetch limits.
        Qos / BasicQos = 10 => QosOk { prefetch_size: u32, prefetch_count: u16, global: bool }
        /// The limits hold.
        QosOk / BasicQosOk = 11 {}
        /// Starts a consumer.
        Consume / BasicConsume<'a> = 20 => ConsumeOk {
            reserved_1: Reserved<u16>, queue: ShortStr<'a>, consumer_tag: ShortStr<'a>, no_local: bool,
            no_ack: bool, exclusive: bool, no_wait: bool, arguments: RawTable<'a>,
        }
        /// The consumer runs.
        ConsumeOk / BasicConsumeOk<'a> = 21 { consumer_tag: ShortStr<'a> }
        /// Ends a consumer; RabbitMQ sends it too, when the queue is gone.
        Cancel / BasicCancel<'a> = 30 => CancelOk { consumer_tag: ShortStr<'a>, no_wait: bool }
        /// The consumer has ended.
        CancelOk / BasicCancelOk<'a> = 31 { consumer_tag: ShortStr<'a> }
        /// Publishes a message.
        Publish / BasicPublish<'a> = 40, content {
            reserved_1: Reserved<u16>, exchange: ShortStr<'a>, routing_key: ShortStr<'a>, mandatory: bool,
            immediate: bool,
        }
        /// Returns a mandatory message that reached no queue.
        Return / BasicReturn<'a> = 50, content {
            reply_code: u16, reply_text: ShortStr<'a>, exchange: ShortStr<'a>, routing_key: ShortStr<'a>,
        }
        /// Delivers a message to a consumer.
        Deliver / BasicDeliver<'a> = 60, content {
            consumer_tag: ShortStr<'a>, delivery_tag: u64, redelivered: bool, exchange: ShortStr<'a>,
            routing_key: ShortStr<'a>,
        }
        /// Asks for one message.
        Get / BasicGet<'a> = 70 => GetOk | GetEmpty {
            reserved_1: Reserved<u16>, queue: ShortStr<'a>, no_ack: bool,
        }
        /// The message asked for.
        GetOk / BasicGetOk<'a> = 71, content {
            delivery_tag: u64, redelivered: bool, exchange: ShortStr<'a>, routing_key: ShortStr<'a>,
            message_count: u32,
        }
        /// The queue is empty.
        GetEmpty / BasicGetEmpty = 72 { reserved_1: Reserved<ShortStr<'static>> }
        /// Acknowledges deliveries; from RabbitMQ, confirms publishes.
        Ack / BasicAck = 80 { delivery_tag: u64, multiple: bool }
        /// Rejects a delivery.
        Reject / BasicReject = 90 { delivery_tag: u64, requeue: bool }
        /// Asks for redelivery, unanswered (deprecated).
        RecoverAsync / BasicRecoverAsync = 100 { requeue: bool }
        /// Asks for redelivery of what is unacknowledged.
        Recover / BasicRecover = 110 => RecoverOk { requeue: bool }
        /// Redelivery has begun.
        RecoverOk / BasicRecoverOk = 111 {}
        /// Rejects deliveries (RabbitMQ); from RabbitMQ, refuses publishes.
        Nack / BasicNack = 120 { delivery_tag: u64, multiple: bool, requeue: bool }
    }

    /// Publisher confirms (RabbitMQ).
    class confirm = 85 {
        /// Puts the channel into confirm mode.
        Select / ConfirmSelect = 10 => SelectOk { nowait: bool }
        /// Publishes are confirmed from here on.
        SelectOk / ConfirmSelectOk = 11 {}
    }

    /// Transactions (AMQP 0-9-1, 1.9).
    class tx = 90 {
        /// Puts the channel into transaction mode.
        Select / TxSelect = 10 => SelectOk {}
        /// A transaction is open.
        SelectOk / TxSelectOk = 11 {}
        /// Commits the open transaction; the next one begins.
        Commit / TxCommit = 20 => CommitOk {}
        /// The transaction took effect.
        CommitOk / TxCommitOk = 21 {}
        /// Drops the open transaction; the next one begins.
        Rollback / TxRollback = 30 => RollbackOk {}
        /// The transaction had no effect.
        RollbackOk / TxRollbackOk = 31 {}
    }
}

impl Method<'_> {
    /// The row of [`TABLE`] for this method.
    pub fn spec(&self) -> Option<&'static MethodSpec> {
        self.id().spec()
    }

    /// Whether a content header and body follow (AMQP 0-9-1, 4.2.6).
    pub fn has_content(&self) -> bool {
        self.spec().is_some_and(|spec| spec.content)
    }
}

/// A class id and a method id.
///
/// Shown as the specification writes it, `queue.declare-ok`; for debugging as the type's name is,
/// `queue.DeclareOk`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_structs, reason = "the specification is frozen")]
pub struct MethodId {
    /// The class id.
    pub class: u16,
    /// The method id.
    pub method: u16,
}

impl MethodId {
    /// Splits the payload of a method frame into ids and arguments.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] below four bytes.
    #[inline]
    pub const fn split(payload: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        match payload {
            [a, b, c, d, arguments @ ..] => {
                let class = u16::from_be_bytes([*a, *b]);
                let method = u16::from_be_bytes([*c, *d]);
                Ok((Self { class, method }, arguments))
            }
            _ => Err(Malformed::Truncated),
        }
    }

    /// The row of [`TABLE`] with these ids.
    pub fn spec(self) -> Option<&'static MethodSpec> {
        TABLE.iter().find(|spec| spec.id == self)
    }

    #[inline]
    pub(crate) const fn to_bytes(self) -> [u8; 4] {
        let [a, b] = self.class.to_be_bytes();
        let [c, d] = self.method.to_be_bytes();
        [a, b, c, d]
    }
}

impl fmt::Display for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(spec) = self.spec() else { return write!(f, "{}.{}", self.class, self.method) };
        write!(f, "{}.", spec.class)?;
        for (at, letter) in spec.name.char_indices() {
            if at > 0 && letter.is_ascii_uppercase() {
                f.write_char('-')?;
            }
            f.write_char(letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

impl fmt::Debug for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.spec() {
            Some(spec) => write!(f, "{}.{}", spec.class, spec.name),
            None => write!(f, "{}.{}", self.class, self.method),
        }
    }
}

/// A method of the table, with its codec.
pub trait WireMethod<'a>: sealed::Sealed + Sized {
    /// The class and method ids.
    const ID: MethodId;

    /// Decodes the arguments, without the ids.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] or [`Malformed::TrailingBytes`].
    fn decode(arguments: &'a [u8]) -> Result<Self, Malformed>;

    /// Appends ids and arguments: the payload of a method frame.
    fn encode(&self, out: &mut Vec<u8>);
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// One row of [`TABLE`].
#[derive(Debug)]
#[non_exhaustive]
pub struct MethodSpec {
    /// Class id and method id.
    pub id: MethodId,
    /// The class's name.
    pub class: &'static str,
    /// The method's name in `CamelCase`.
    pub name: &'static str,
    /// Whether content follows.
    pub content: bool,
    /// The names of the methods of the same class that answer it.
    pub replies: &'static [&'static str],
    /// The fields in wire order.
    pub fields: &'static [FieldSpec],
}

/// One field of a [`MethodSpec`].
#[derive(Debug)]
#[non_exhaustive]
pub struct FieldSpec {
    /// The field's name in `snake_case`.
    pub name: &'static str,
    /// Its elementary type.
    pub domain: Domain,
    /// Whether the specification reserves it.
    pub reserved: bool,
}
