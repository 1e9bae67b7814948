//! What the core reports, and what it asks its driver to do.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::error::CloseCause;
use crate::ids::{Attempt, CallKey, ChannelId, ConsumerKey, PublishSeq};

/// Something has changed. Events say where to look; what there is to see is pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The broker is short of a resource and reads no publishes until [`Event::Unblocked`].
    Blocked(Arc<str>),
    /// A call has its reply, or never will: see `take_reply`.
    CallDone(CallKey),
    /// A channel closed: later calls say why. Its open publishes are resolved, its consumers end.
    ChannelClosed(ChannelId),
    /// A channel is being closed from here: nothing more is let in.
    ChannelClosing(ChannelId),
    /// The session ended: nothing more comes from the broker.
    Closed(CloseCause),
    /// A consumer has deliveries to pull, or has ended. Told of the first unread one: pull until there is
    /// none, and ask [`consumer_end`](crate::Channel::consumer_end).
    Deliverable(ConsumerKey),
    /// A delivery was dropped without an ack or nack: see [`drop_unacked`](crate::Channel::drop_unacked).
    Dropped(ChannelId),
    /// Reading pauses because of unread deliveries that no prefetch bounds. Emitted at the first pause,
    /// and again where not even what is awaited lets reading go on. Until [`Event::InputResumed`], reading
    /// may go on and pause again without an event.
    InputPaused {
        /// Bytes of those deliveries.
        unread_bytes: usize,
    },
    /// Reading goes on: half of what pauses it or less is unread.
    InputResumed,
    /// The connection is open.
    Opened,
    /// A message came back that belongs to no publish awaiting its confirm: see `take_returned`.
    Returned(ChannelId),
    /// There is buffer space for publishes again, after one was refused for lack of it.
    BufferSpace,
    /// Publishes from `first` to `last` are resolved: see [`confirmed`](crate::Channel::confirmed). Some may
    /// have been before.
    Resolved {
        /// The channel.
        channel: ChannelId,
        /// The first publish.
        first: PublishSeq,
        /// The last publish.
        last: PublishSeq,
    },
    /// The broker reads publishes again.
    Unblocked,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Connect a transport to the address, then call `handle_connected`, or `handle_disconnected`
    /// if that fails. An earlier transport or attempt is to be dropped.
    Dial {
        /// To be named in the report.
        attempt: Attempt,
        /// The address.
        address: SocketAddr,
        /// The host that was asked for: the name that a TLS certificate must bear.
        server_name: Arc<str>,
    },
    /// Write what is still to be written for as long as the driver sees fit, and close the
    /// transport. No report is due.
    Disconnect {
        /// The attempt whose transport it is.
        attempt: Attempt,
        /// Write nothing more.
        at_once: bool,
    },
    /// Resolve the host, then call `handle_resolved`.
    Resolve {
        /// To be named in the report.
        attempt: Attempt,
        /// The host: a name or an address.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
}

/// Why the core wants to be woken by `poll_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TimeoutReason {
    /// An address has had its time.
    Address,
    /// The broker has read no publishes for too long.
    Blocked,
    /// A call has had its time.
    Call,
    /// A close has had its time.
    Close,
    /// Connecting as a whole has had its time.
    Connect,
    /// The broker has been silent for too long.
    HeartbeatReceive,
    /// A sign of life is due.
    HeartbeatSend,
    /// Reading has been paused for so long that a little is to be read, or the broker, which cannot
    /// write, would close the connection.
    Trickle,
    /// The transport has taken no bytes for too long.
    WriteStall,
}
