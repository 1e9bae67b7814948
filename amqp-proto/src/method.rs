//! The classes and methods of AMQP 0-9-1 with RabbitMQ's extensions.
//!
//! One table defines them all. Each entry has the method's name, its variant of [`Method`], its id, whether
//! content follows, the methods that answer it, and its fields in wire order. `reserved_*` fields are ignored
//! when decoded and zero when encoded. A test compares [`TABLE`] with the official XML.
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
    /// Connections (AMQP 0-9-1, 1.4).
    class connection = 10 {
        /// The server's greeting.
        Start / ConnectionStart<'a> = 10 => StartOk {
            version_major: u8, version_minor: u8, server_properties: RawTable<'a>,
            mechanisms: &'a [u8], locales: &'a [u8],
        }
        /// The client's choice of mechanism and locale, its response and its properties.
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
        /// The virtual host is open.
        OpenOk / ConnectionOpenOk = 41 { reserved_1: Reserved<ShortStr<'static>> }
        /// Closes the connection, with the reason.
        Close / ConnectionClose<'a> = 50 => CloseOk {
            reply_code: u16, reply_text: ShortStr<'a>, class_id: u16, method_id: u16,
        }
        /// Confirms the close.
        CloseOk / ConnectionCloseOk = 51 {}
        /// The broker lacks memory or disk space and stops reading from publishers (RabbitMQ).
        Blocked / ConnectionBlocked<'a> = 60 { reason: ShortStr<'a> }
        /// The broker reads from publishers again (RabbitMQ).
        Unblocked / ConnectionUnblocked = 61 {}
        /// Replaces the credentials of an open connection (RabbitMQ).
        UpdateSecret / ConnectionUpdateSecret<'a> = 70 => UpdateSecretOk {
            new_secret: &'a [u8], reason: ShortStr<'a>,
        }
        /// The new secret is in use.
        UpdateSecretOk / ConnectionUpdateSecretOk = 71 {}
    }

    /// Channels (AMQP 0-9-1, 1.5).
    class channel = 20 {
        /// Opens a channel.
        Open / ChannelOpen = 10 => OpenOk { reserved_1: Reserved<ShortStr<'static>> }
        /// The channel is open.
        OpenOk / ChannelOpenOk = 11 { reserved_1: Reserved<&'static [u8]> }
        /// Asks the peer to stop or to resume sending contents.
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

    /// Access tickets, from AMQP 0-8. RabbitMQ answers requests for them and ignores them otherwise.
    class access = 30 {
        /// Asks for a ticket.
        Request / AccessRequest<'a> = 10 => RequestOk {
            realm: ShortStr<'a>, exclusive: bool, passive: bool, active: bool, write: bool, read: bool,
        }
        /// Grants the ticket.
        RequestOk / AccessRequestOk = 11 { ticket: u16 }
    }

    /// Exchanges (AMQP 0-9-1, 1.6).
    class exchange = 40 {
        /// Declares an exchange, or checks that it exists.
        Declare / ExchangeDeclare<'a> = 10 => DeclareOk {
            reserved_1: Reserved<u16>, exchange: ShortStr<'a>, r#type: ShortStr<'a>, passive: bool,
            durable: bool, auto_delete: bool, internal: bool, no_wait: bool,
            arguments: RawTable<'a>,
        }
        /// The exchange exists.
        DeclareOk / ExchangeDeclareOk = 11 {}
        /// Deletes an exchange.
        Delete / ExchangeDelete<'a> = 20 => DeleteOk {
            reserved_1: Reserved<u16>, exchange: ShortStr<'a>, if_unused: bool, no_wait: bool,
        }
        /// The exchange is deleted.
        DeleteOk / ExchangeDeleteOk = 21 {}
        /// Binds an exchange to an exchange (RabbitMQ).
        Bind / ExchangeBind<'a> = 30 => BindOk {
            reserved_1: Reserved<u16>, destination: ShortStr<'a>, source: ShortStr<'a>, routing_key: ShortStr<'a>,
            no_wait: bool, arguments: RawTable<'a>,
        }
        /// The binding exists (RabbitMQ).
        BindOk / ExchangeBindOk = 31 {}
        /// Removes a binding between exchanges (RabbitMQ).
        Unbind / ExchangeUnbind<'a> = 40 => UnbindOk {
            reserved_1: Reserved<u16>, destination: ShortStr<'a>, source: ShortStr<'a>, routing_key: ShortStr<'a>,
            no_wait: bool, arguments: RawTable<'a>,
        }
        /// The binding is removed (RabbitMQ; its id is 51, not 41).
        UnbindOk / ExchangeUnbindOk = 51 {}
    }

    /// Queues (AMQP 0-9-1, 1.7).
    class queue = 50 {
        /// Declares a queue, or checks that it exists.
        Declare / QueueDeclare<'a> = 10 => DeclareOk {
            reserved_1: Reserved<u16>, queue: ShortStr<'a>, passive: bool, durable: bool,
            exclusive: bool, auto_delete: bool, no_wait: bool, arguments: RawTable<'a>,
        }
        /// The queue exists.
        DeclareOk / QueueDeclareOk<'a> = 11 {
            queue: ShortStr<'a>, message_count: u32, consumer_count: u32,
        }
        /// Binds a queue to an exchange.
        Bind / QueueBind<'a> = 20 => BindOk {
            reserved_1: Reserved<u16>, queue: ShortStr<'a>, exchange: ShortStr<'a>, routing_key: ShortStr<'a>,
            no_wait: bool, arguments: RawTable<'a>,
        }
        /// The binding exists.
        BindOk / QueueBindOk = 21 {}
        /// Removes the ready messages of a queue.
        Purge / QueuePurge<'a> = 30 => PurgeOk {
            reserved_1: Reserved<u16>, queue: ShortStr<'a>, no_wait: bool,
        }
        /// The number of messages that were removed.
        PurgeOk / QueuePurgeOk = 31 { message_count: u32 }
        /// Deletes a queue.
        Delete / QueueDelete<'a> = 40 => DeleteOk {
            reserved_1: Reserved<u16>, queue: ShortStr<'a>, if_unused: bool, if_empty: bool,
            no_wait: bool,
        }
        /// The queue is deleted, with this number of messages.
        DeleteOk / QueueDeleteOk = 41 { message_count: u32 }
        /// Removes a binding.
        Unbind / QueueUnbind<'a> = 50 => UnbindOk {
            reserved_1: Reserved<u16>, queue: ShortStr<'a>, exchange: ShortStr<'a>, routing_key: ShortStr<'a>,
            arguments: RawTable<'a>,
        }
        /// The binding is removed.
        UnbindOk / QueueUnbindOk = 51 {}
    }

    /// Messages (AMQP 0-9-1, 1.8).
    class basic = 60 {
        /// Sets the prefetch limits.
        Qos / BasicQos = 10 => QosOk { prefetch_size: u32, prefetch_count: u16, global: bool }
        /// The limits are set.
        QosOk / BasicQosOk = 11 {}
        /// Starts a consumer.
        Consume / BasicConsume<'a> = 20 => ConsumeOk {
            reserved_1: Reserved<u16>, queue: ShortStr<'a>, consumer_tag: ShortStr<'a>, no_local: bool,
            no_ack: bool, exclusive: bool, no_wait: bool, arguments: RawTable<'a>,
        }
        /// The consumer has started.
        ConsumeOk / BasicConsumeOk<'a> = 21 { consumer_tag: ShortStr<'a> }
        /// Cancels a consumer. RabbitMQ sends it too, when the queue is deleted.
        Cancel / BasicCancel<'a> = 30 => CancelOk { consumer_tag: ShortStr<'a>, no_wait: bool }
        /// The consumer is cancelled.
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
        /// Requests one message.
        Get / BasicGet<'a> = 70 => GetOk | GetEmpty {
            reserved_1: Reserved<u16>, queue: ShortStr<'a>, no_ack: bool,
        }
        /// The message that was requested.
        GetOk / BasicGetOk<'a> = 71, content {
            delivery_tag: u64, redelivered: bool, exchange: ShortStr<'a>, routing_key: ShortStr<'a>,
            message_count: u32,
        }
        /// The queue is empty.
        GetEmpty / BasicGetEmpty = 72 { reserved_1: Reserved<ShortStr<'static>> }
        /// Acknowledges deliveries. From RabbitMQ, it confirms publishes.
        Ack / BasicAck = 80 { delivery_tag: u64, multiple: bool }
        /// Rejects a delivery.
        Reject / BasicReject = 90 { delivery_tag: u64, requeue: bool }
        /// Requests redelivery, without an answer (deprecated).
        RecoverAsync / BasicRecoverAsync = 100 { requeue: bool }
        /// Requests redelivery of unacknowledged messages.
        Recover / BasicRecover = 110 => RecoverOk { requeue: bool }
        /// Redelivery has begun.
        RecoverOk / BasicRecoverOk = 111 {}
        /// Rejects deliveries (RabbitMQ). From RabbitMQ, it refuses publishes.
        Nack / BasicNack = 120 { delivery_tag: u64, multiple: bool, requeue: bool }
    }

    /// Publisher confirms (RabbitMQ).
    class confirm = 85 {
        /// Selects confirm mode.
        Select / ConfirmSelect = 10 => SelectOk { nowait: bool }
        /// Confirm mode is selected: later publishes are confirmed.
        SelectOk / ConfirmSelectOk = 11 {}
    }

    /// Transactions (AMQP 0-9-1, 1.9).
    class tx = 90 {
        /// Selects transaction mode.
        Select / TxSelect = 10 => SelectOk {}
        /// Transaction mode is selected: a transaction begins.
        SelectOk / TxSelectOk = 11 {}
        /// Commits the transaction. The next one begins.
        Commit / TxCommit = 20 => CommitOk {}
        /// The transaction is committed.
        CommitOk / TxCommitOk = 21 {}
        /// Rolls the transaction back. The next one begins.
        Rollback / TxRollback = 30 => RollbackOk {}
        /// The transaction is rolled back.
        RollbackOk / TxRollbackOk = 31 {}
    }
}

impl Method<'_> {
    /// The row of [`TABLE`] for this method.
    pub fn spec(&self) -> Option<&'static MethodSpec> {
        self.id().spec()
    }

    /// Whether a content header and a body follow (AMQP 0-9-1, 4.2.6).
    pub fn has_content(&self) -> bool {
        self.spec().is_some_and(|spec| spec.content)
    }
}

/// A class id and a method id.
///
/// `Display` prints the specification's name, such as `queue.declare-ok`; `Debug` prints the type's, such as
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
    /// Splits the payload of a method frame into its ids and its arguments.
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

/// A method with its codec.
pub trait WireMethod<'a>: sealed::Sealed + Sized {
    /// The class and method ids.
    const ID: MethodId;

    /// Decodes the arguments, without the ids.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] or [`Malformed::TrailingBytes`].
    fn decode(arguments: &'a [u8]) -> Result<Self, Malformed>;

    /// Appends the ids and arguments: the payload of a method frame.
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
    /// Whether a content follows.
    pub content: bool,
    /// The names of the methods of the same class that reply to it.
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
    /// The elementary type of the field.
    pub domain: Domain,
    /// Whether the field is reserved.
    pub reserved: bool,
}
