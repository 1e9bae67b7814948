//! What the core reports, and what it asks its driver to do.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Endpoint;
use crate::error::CloseCause;
use crate::ids::{Attempt, CallKey, ChannelId, ConsumerKey, PublishSeq};

/// Something has changed. An event names the place, and the data is pulled from there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The broker is short of a resource and blocks publishes until [`Event::Unblocked`].
    Blocked(Arc<str>),
    /// A call has its result: see `take_reply`.
    CallDone(CallKey),
    /// A channel closed: later calls return the cause. Its open publishes are resolved, its consumers end.
    ChannelClosed(ChannelId),
    /// A channel is being closed by this client: later calls on it return an error.
    ChannelClosing(ChannelId),
    /// The session ended: nothing more comes from the broker.
    Closed(CloseCause),
    /// A consumer has deliveries to pull, or has ended. Emitted when its queue becomes non-empty: pull until
    /// it is empty, and call [`consumer_end`](crate::Channel::consumer_end).
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

/// What to connect a transport to.
///
/// A driver that cannot encrypt must refuse an endpoint with `tls`: what follows includes the password. It is best
/// refused before there is a session, by [`Config::wants_tls`](crate::Config::wants_tls).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// The host as it is configured, its port, and whether the transport is to be encrypted.
    pub endpoint: Endpoint,
    /// An address of the host. `None` for a session that dials hosts by their names
    /// ([`Session::dialling_by_name`](crate::Session::dialling_by_name)).
    pub address: Option<SocketAddr>,
    /// The name that the server's TLS certificate must have: that of the host that is dialled.
    pub server_name: Arc<str>,
}

impl Target {
    /// An endpoint, and an address of it. The server's name is the endpoint's host.
    pub fn new(endpoint: Endpoint, address: Option<SocketAddr>) -> Self {
        let server_name = Arc::clone(&endpoint.host);
        Self { endpoint, address, server_name }
    }
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Connect a transport to the target, then call `handle_connected`, or `handle_disconnected`
    /// if that fails. An earlier transport or attempt is to be dropped.
    Dial {
        /// The attempt that the report must name.
        attempt: Attempt,
        /// What to connect to.
        target: Target,
    },
    /// Write what is still queued, for as long as the driver sees fit, and close the transport. No report
    /// is due.
    Disconnect {
        /// The attempt whose transport it is.
        attempt: Attempt,
        /// Write nothing more.
        at_once: bool,
    },
    /// Resolve the host, then call `handle_resolved`.
    Resolve {
        /// The attempt that the report must name.
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
    /// Dialling one address, or its handshake, takes too long.
    Address,
    /// The broker has blocked publishes for too long.
    Blocked,
    /// The deadline of a call.
    Call,
    /// The deadline of a close.
    Close,
    /// The deadline of connecting as a whole.
    Connect,
    /// The broker has been silent for too long.
    HeartbeatReceive,
    /// A heartbeat is due.
    HeartbeatSend,
    /// Reading has been paused for a long time. A little must be read, because a broker that cannot write
    /// closes the connection.
    Trickle,
    /// The transport has taken no bytes for too long.
    WriteStall,
}
