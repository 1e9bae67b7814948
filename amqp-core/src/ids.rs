//! Names of things inside a connection. Each carries a generation or an epoch, so that a late
//! answer, a stale acknowledgement or a reused number can do no harm.

use std::fmt;
use std::marker::PhantomData;

use crate::slab::Key;

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) Key);

        impl $name {
            /// The place in a dense table that a driver may keep beside the core; it is reused once
            /// the thing is gone.
            pub const fn index(self) -> usize {
                self.0.index as usize
            }

            #[allow(dead_code, reason = "not every key bounds a range")]
            pub(crate) const MIN: Self = Self(Key::MIN);
            #[allow(dead_code, reason = "not every key bounds a range")]
            pub(crate) const MAX: Self = Self(Key::MAX);
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({}#{})", stringify!($name), self.0.index, self.0.generation)
            }
        }
    };
}

key! {
    /// A channel of a session. It is no channel number: a number is reused while handles to the
    /// channel that had it may still ask why it closed.
    ChannelId
}
key! {
    /// A call that awaits its reply, of any type.
    CallKey
}
key! {
    /// A consumer.
    ConsumerKey
}

/// A call that awaits a reply of type `R`.
pub struct Call<R> {
    pub(crate) key: CallKey,
    reply: PhantomData<fn() -> R>,
}

impl<R> Call<R> {
    pub(crate) const fn new(key: CallKey) -> Self {
        Self { key, reply: PhantomData }
    }

    /// The call's name in events.
    pub const fn key(&self) -> CallKey {
        self.key
    }
}

impl<R> fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

/// One attempt to reach one address. Reports about earlier attempts are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub(crate) u32);

/// The number of a transport within a session, from 1. Delivery tags of one epoch mean nothing in
/// the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub(crate) u32);

/// A delivery's tag, with the channel and the epoch in which alone it may be acked or nacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeliveryTag {
    pub(crate) channel: ChannelId,
    pub(crate) epoch: Epoch,
    pub(crate) tag: u64,
    pub(crate) kind: TagKind,
}

/// What may be done with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TagKind {
    /// It is to be acknowledged or refused.
    Ack,
    /// It counted as acknowledged when it was sent. Its number may be that of another delivery.
    NoAck,
    /// A stream takes no message back: to refuse one of its deliveries is to acknowledge it.
    Stream,
    /// It looks like a stream's, at a broker that ends the connection if a stream's delivery is
    /// refused; see `channel/consumers.rs`.
    MaybeStream,
}

impl DeliveryTag {
    /// The number on the wire.
    pub const fn number(self) -> u64 {
        self.tag
    }

    /// The channel that the delivery came on.
    pub const fn channel(self) -> ChannelId {
        self.channel
    }

    /// Whether the delivery is to be acknowledged or refused.
    pub const fn needs_ack(self) -> bool {
        !matches!(self.kind, TagKind::NoAck)
    }
}

/// The number of a publish on a channel in confirm mode, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishSeq(pub(crate) u64);

impl PublishSeq {
    /// The publish of this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}
