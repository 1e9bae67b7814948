//! Events for the application, and actions for the driver.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Challenge, Endpoint, TcpOptions};
use crate::error::{ChannelCause, CloseCause, Error, FailedAttempt};
use crate::ids::{Attempt, CallKey, ChannelId, ConsumerKey, PublishSeq};
use crate::topology::FailedEntity;

/// Something that has changed. An event says where; the data is taken from there by a method.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An attempt to connect to a host or an address failed. The next one is tried, or [`Event::Closed`] follows.
    AttemptFailed(Box<FailedAttempt>),
    /// The broker is low on a resource and blocks publishes until [`Event::Unblocked`]. The text is the
    /// broker's reason.
    Blocked(Arc<str>),
    /// A call has its result: take it with `take_reply`.
    CallDone(CallKey),
    /// A channel is closed: later calls return the cause. Its open publishes are resolved, and its consumers
    /// have ended.
    ChannelClosed {
        /// The channel.
        channel: ChannelId,
        /// The number that it had on the connection.
        number: u16,
        /// Why it closed. Only the event has it if the channel was released before.
        cause: Box<ChannelCause>,
    },
    /// This client is closing a channel: later calls on it return an error.
    ChannelClosing(ChannelId),
    /// The session has ended: nothing more arrives from the broker.
    Closed(CloseCause),
    /// The broker cancelled a consumer: its queue was deleted, or the queue's node is down. `Deliverable` follows.
    ConsumerCancelled(Box<CancelledConsumer>),
    /// A consumer has deliveries to pull, or has ended. Emitted when its queue becomes non-empty. Pull until
    /// it is empty, then call [`consumer_end`](crate::Channel::consumer_end).
    Deliverable(ConsumerKey),
    /// A delivery was dropped without an ack or nack: see [`drop_unacked`](crate::Channel::drop_unacked).
    Dropped(ChannelId),
    /// Reading pauses because of unread deliveries that no prefetch bounds. Emitted at the first pause, and
    /// again at the hard limit, where reading pauses even if a reply is awaited. Until
    /// [`Event::InputResumed`], reading may continue and pause again without an event.
    InputPaused {
        /// The number of bytes of these deliveries.
        unread_bytes: usize,
    },
    /// Reading continues: the unread bytes have fallen to half of the limit or less.
    InputResumed,
    /// The credentials in use are about to expire, and new ones could not be fetched, for this reason. They are
    /// fetched again.
    CredentialsNotRenewed(Arc<str>),
    /// The transport was lost, for this reason. The session recovers: channels and consumers go on when
    /// [`Event::Recovered`] is emitted.
    Lost(Box<CloseCause>),
    /// The connection is open. Emitted once for a session.
    Opened,
    /// A queue whose name the broker chooses has another name since the connection was recovered.
    QueueRenamed(Box<RenamedQueue>),
    /// The connection is open again, and everything is restored that could be.
    Recovered(Box<RecoveryReport>),
    /// The session waits before its next attempt to recover.
    Retrying(Box<Retrying>),
    /// A consumer could not be started again when the connection was recovered. `Deliverable` follows.
    ConsumerLost(Box<LostConsumer>),
    /// A message was returned that matches no publish awaiting its confirm: see `take_returned`.
    Returned(ChannelId),
    /// There is buffer space for publishes again, after one was refused because of it.
    BufferSpace,
    /// The publishes from `first` to `last` are resolved: see [`confirmed`](crate::Channel::confirmed). Some
    /// of them may have been resolved before.
    Resolved {
        /// The channel.
        channel: ChannelId,
        /// The first publish.
        first: PublishSeq,
        /// The last publish.
        last: PublishSeq,
    },
    /// The broker accepts publishes again.
    Unblocked,
}

/// A consumer that the broker cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CancelledConsumer {
    /// The number of its channel.
    pub number: u16,
    /// The queue that `basic.consume` named; empty for the channel's last declared queue.
    pub queue: Arc<str>,
    /// The consumer's tag.
    pub consumer_tag: Arc<str>,
}

/// A consumer that could not be started again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostConsumer {
    /// The queue that it consumed from.
    pub queue: Arc<str>,
    /// The consumer's tag.
    pub consumer_tag: Arc<str>,
    /// Why the broker refused it.
    pub error: Error,
}

/// What could not be restored when a connection was recovered. Consumers are reported by [`Event::ConsumerLost`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The exchanges, queues and bindings that could not be declared again.
    pub failed: Vec<FailedEntity>,
}

/// A queue that the broker has given another name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RenamedQueue {
    /// The name before the connection was lost.
    pub from: Arc<str>,
    /// The present name.
    pub to: Arc<str>,
}

/// The next attempt to recover a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retrying {
    /// The number of the attempt since the connection was last open, from 1.
    pub attempt: u32,
    /// The delay before the attempt.
    pub delay: Duration,
    /// Why the connection was lost, or why the attempt before has failed.
    pub cause: CloseCause,
}

/// The endpoint to which a driver connects a transport.
///
/// A driver that does not support TLS must refuse an endpoint with `tls`, because the password is sent over
/// the transport. It can refuse it before there is a session: see
/// [`Config::wants_tls`](crate::Config::wants_tls).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// The host as it is configured, its port, and whether the transport uses TLS.
    pub endpoint: Endpoint,
    /// An address of the host. `None` for a session that dials hosts by their names
    /// ([`Session::dialling_by_name`](crate::Session::dialling_by_name)).
    pub address: Option<SocketAddr>,
    /// The name for which the server's TLS certificate must be valid: that of the host, unless the configuration
    /// has another ([`TlsSettings::server_name`](crate::TlsSettings::server_name)).
    pub server_name: Arc<str>,
    /// The options of the TCP socket.
    pub tcp: TcpOptions,
}

impl Target {
    /// Creates a target. The server name is the host of the endpoint, and the TCP options are those of the operating
    /// system.
    pub fn new(endpoint: Endpoint, address: Option<SocketAddr>) -> Self {
        let server_name = Arc::clone(&endpoint.host);
        Self { endpoint, address, server_name, tcp: TcpOptions::default() }
    }
}

/// A task for the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Pass the challenge to its mechanism, outside of any lock, and the response to `handle_response`. Begin an
    /// exchange if the challenge has no bytes; otherwise continue the one that was begun.
    Authenticate {
        /// The attempt that the driver's reports must name.
        attempt: Attempt,
        /// The mechanism and what the broker sent.
        challenge: Challenge,
    },
    /// Decide whether to recover from the loss of a connection, outside of any lock, and call `handle_decision`. The
    /// session waits for it, without a deadline.
    DecideRecovery {
        /// The attempt that the driver's reports must name.
        attempt: Attempt,
        /// Why the connection was lost.
        cause: Box<CloseCause>,
    },
    /// Connect a transport to the target, and encrypt it if the endpoint is to be reached over TLS. Then call
    /// `handle_connected`, or `handle_disconnected` if that fails. Drop the transport or attempt of an earlier
    /// action.
    Dial {
        /// The attempt that the driver's reports must name.
        attempt: Attempt,
        /// The target to connect to.
        target: Target,
    },
    /// Write the remaining output of the transport, for as long as the driver decides, and drop it. Drop the attempt of
    /// an earlier action. The session waits before its next attempt. No report is expected.
    Disconnect {
        /// The attempt to which the transport belongs.
        attempt: Attempt,
    },
    /// The session has ended: write the remaining output, for as long as the driver decides, and close the
    /// transport. No report is expected.
    Finish {
        /// The attempt to which the transport belongs.
        attempt: Attempt,
        /// Whether to close without writing the remaining output.
        at_once: bool,
    },
    /// Fetch credentials, then call `handle_credentials`. Before an attempt dials, it waits for them. While the
    /// connection is open, they are for the time after the present ones expire. Drop the future of an earlier
    /// action of this kind, and the transport or dial of another attempt.
    FetchCredentials {
        /// The attempt that the driver's reports must name.
        attempt: Attempt,
    },
    /// Run the application's hook, which sets the connection up, outside of any lock. Then call `handle_hook_done`. Drop
    /// its future when another action of this kind, `Disconnect`, `Resolve`, `Dial` or `Finish` follows. The hook opens
    /// channels by `open_setup_channel`.
    RunHook {
        /// The attempt that the driver's reports must name.
        attempt: Attempt,
    },
    /// Resolve the host, then call `handle_resolved`.
    Resolve {
        /// The attempt that the driver's reports must name.
        attempt: Attempt,
        /// The host: a name or an address.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
}

/// The reasons for which a session sets a deadline: see `poll_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TimeoutReason {
    /// The timeout of looking up one host, or of one address: fetching credentials, dialling and the handshake.
    Address,
    /// The timeout of `connection.blocked`.
    Blocked,
    /// The timeout of a call.
    Call,
    /// The timeout of a close.
    Close,
    /// The timeout of connecting as a whole.
    Connect,
    /// Credentials are to be fetched, because those in use are about to expire; or the timeout of fetching them.
    Credentials,
    /// The delay after which a resource is requested again that the broker still holds for the lost connection.
    Held,
    /// The receive timeout: two heartbeat intervals.
    HeartbeatReceive,
    /// A heartbeat is to be sent.
    HeartbeatSend,
    /// The timeout of the hook.
    Hook,
    /// The delay after which the broker is asked again for the queue of a consumer that it has cancelled.
    Resubscribe,
    /// The delay before the next cycle of attempts to connect, or attempt to recover, has passed.
    Retry,
    /// Reading has been paused for a long time. A few bytes must be read, because RabbitMQ closes a
    /// connection to which it cannot write.
    Trickle,
    /// The write timeout: the transport has taken no bytes for two heartbeat intervals.
    WriteStall,
}

#[cfg(test)]
mod tests {
    use super::{CloseCause, Event};

    /// Events are moved through a queue at every delivery and confirm: rare ones are boxed.
    #[test]
    fn rare_events_do_not_make_the_others_larger() {
        assert_eq!(size_of::<Event>(), size_of::<CloseCause>());
    }
}
