//! Keys of the things inside a connection. Each contains a generation or an epoch, so that a late reply, a
//! stale acknowledgement or a reused number does not affect another thing.

use std::fmt;
use std::marker::PhantomData;

use crate::slab::Key;

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) Key);

        impl $name {
            /// The index in a dense table that a driver may keep next to the core. It is reused after the
            /// thing is gone.
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
    /// A channel of a session. It is not the channel's number: that is reused, while handles of a closed
    /// channel may still ask why it closed.
    ChannelId
}
key! {
    /// A call that awaits a reply of any type.
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

    /// The key of the call, as events name it.
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

/// How often a channel was opened again. Delivery tags of one epoch are invalid in the next: the broker counts them
/// from 1 each time. The numbers begin again after 65,536 of them, when no delivery of the first is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub(crate) u16);

impl Epoch {
    pub(crate) const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// The tag of a delivery, with the channel and the epoch in which it may be acked or nacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeliveryTag {
    pub(crate) channel: ChannelId,
    pub(crate) epoch: Epoch,
    pub(crate) tag: u64,
    pub(crate) kind: TagKind,
}

/// What can be done with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TagKind {
    /// It needs an ack, nack or reject.
    Ack,
    /// It counted as acknowledged when it was sent. Its number may be that of another delivery.
    NoAck,
    /// It is from a stream, which does not take messages back: a nack or reject is sent as an ack.
    Stream,
    /// It may be from a stream, at a broker that closes the connection if a delivery of a stream is nacked or
    /// rejected: see `channel/consumers.rs`.
    MaybeStream,
}

impl DeliveryTag {
    /// The delivery tag on the wire.
    pub const fn number(self) -> u64 {
        self.tag
    }

    /// The channel on which the delivery arrived.
    pub const fn channel(self) -> ChannelId {
        self.channel
    }

    /// Whether the delivery needs an ack, nack or reject.
    pub const fn needs_ack(self) -> bool {
        !matches!(self.kind, TagKind::NoAck)
    }
}

/// The number of a publish on a channel in confirm mode, starting at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishSeq(pub(crate) u64);

impl PublishSeq {
    /// Creates the number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn number(self) -> u64 {
        self.0
    }
}
