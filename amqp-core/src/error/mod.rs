//! Errors, sorted by who has caused them: the caller ([`Misuse`], [`InvalidArgument`]), a refusal by the
//! broker ([`BrokerError`]), a peer that violates the protocol ([`ProtocolError`]), the transport
//! ([`TransportError`]), or a timeout ([`Error::Deadline`]).
//!
//! A closed channel or connection keeps its cause, and every later call returns it.

mod connect;
mod publish;
mod retry;
mod tls;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use amqp_proto::method::MethodId;
use amqp_proto::{EncodeError, Malformed, ReplyCode, ShortStr};

use crate::limits::{CALLS_MAX, PEER_TEXT_BYTES};
use crate::message::ReturnedMessage;

pub use connect::{ConnectError, ConnectFailure, ConnectStep, FailedAttempt};
pub use publish::PublishError;
pub use tls::{TlsError, TlsErrorKind};

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A delivery could not be acknowledged or rejected.
    #[error("{0}")]
    Ack(Box<AckError>),
    /// The channel is closed, for this reason. The connection may still be open.
    #[error("channel closed: {0}")]
    Channel(ChannelCause),
    /// The connection could not be opened.
    #[error("{0}")]
    Connect(Arc<ConnectError>),
    /// The connection is closed, for this reason.
    #[error("connection closed: {0}")]
    Connection(CloseCause),
    /// The connection was lost, for this reason, and what belonged to it is gone: a publish that awaited its confirm, or
    /// a delivery. The connection itself is being recovered, or is open again.
    #[error("connection lost: {0}")]
    ConnectionLost(CloseCause),
    /// The broker cancelled the consumer: its queue was deleted, or the queue's node is down.
    #[error(
        "consumer {consumer_tag} of queue {queue:?} cancelled by the broker: \
         the queue was deleted, or its node is down"
    )]
    ConsumerCancelled {
        /// The queue that `basic.consume` named; empty for the channel's last declared queue.
        queue: Arc<str>,
        /// The consumer's tag.
        consumer_tag: Arc<str>,
    },
    /// The connection was not drained within the timeout. It is still open.
    #[error(
        "not drained within the timeout: {unconfirmed} publishes unconfirmed, {unacked} deliveries unacknowledged"
    )]
    DrainTimeout {
        /// The number of publishes that await their confirm.
        unconfirmed: u64,
        /// The number of deliveries that are neither acked nor nacked.
        unacked: u64,
    },
    /// No reply arrived within the call timeout. The broker may have carried out the request. A late reply is
    /// consumed, and what it opened is closed again.
    #[error("no reply to {method} within {} s", timeout.as_secs_f32())]
    Deadline {
        /// The method that was sent.
        method: MethodId,
        /// The call timeout.
        timeout: Duration,
    },
    /// The connection was lost while the call waited for its reply, or during the transaction that it would have
    /// committed. The connection recovers; the call is not repeated.
    #[error(
        "the connection was lost before the reply: {cause}; the broker {} the request",
        if *maybe_executed { "may have carried out" } else { "did not receive" }
    )]
    Interrupted {
        /// Why the connection was lost.
        cause: CloseCause,
        /// Whether the broker may have carried out the request. If not, no byte of it was sent.
        maybe_executed: bool,
    },
    /// An argument cannot be sent. Nothing was sent.
    #[error("invalid argument: {0}")]
    InvalidArgument(InvalidArgument),
    /// The call is not possible in the current state. Nothing was sent.
    #[error("misuse: {0}")]
    Misuse(Misuse),
    /// The connection was lost before this many publishes without confirms were sent, which the channel had accepted.
    /// Reported once, by the channel's next publish, which is not sent either. Others may have been lost on the way.
    #[error("{count} publishes were lost with the connection before they were sent: {cause}")]
    PublishesLost {
        /// The number of publishes.
        count: u64,
        /// Why the connection was lost.
        cause: CloseCause,
    },
    /// A message was not confirmed.
    #[error("publish failed: {0}")]
    Publish(Box<PublishError>),
    /// A mandatory message reached no queue and was returned.
    #[error("returned by the broker: {0}")]
    Returned(Box<ReturnedMessage>),
}

impl Error {
    /// Returns the broker's reply code, if the broker has caused the error.
    pub fn reply_code(&self) -> Option<ReplyCode> {
        self.broker_error().map(|error| error.code)
    }

    /// Returns the broker's error, if the broker has caused this one.
    pub fn broker_error(&self) -> Option<&BrokerError> {
        match self {
            Self::Publish(error) => match &**error {
                PublishError::NotSent(error) | PublishError::Unknown(error) => error.broker_error(),
                _ => None,
            },
            Self::Ack(error) => match &**error {
                AckError::Stale(error) => error.broker_error(),
                _ => None,
            },
            Self::Channel(ChannelCause::ByBroker(error))
            | Self::Channel(ChannelCause::Connection(CloseCause::ByBroker(error)))
            | Self::Connection(CloseCause::ByBroker(error))
            | Self::ConnectionLost(CloseCause::ByBroker(error))
            | Self::Interrupted { cause: CloseCause::ByBroker(error), .. }
            | Self::PublishesLost { cause: CloseCause::ByBroker(error), .. } => Some(error),
            _ => None,
        }
    }

    /// Whether the broker may have carried out a call that was interrupted or that got no reply in time.
    pub const fn maybe_executed(&self) -> bool {
        matches!(self, Self::Interrupted { maybe_executed: true, .. } | Self::Deadline { .. })
    }

    /// Whether the connection is closed. It is `false` for a connection that was lost and is being recovered.
    pub const fn is_connection(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Channel(ChannelCause::Connection(_)))
    }

    /// Whether only the channel is closed, and the connection may still be open.
    pub const fn is_channel(&self) -> bool {
        matches!(self, Self::Channel(ChannelCause::ByBroker(_) | ChannelCause::ByClient))
    }
}

impl From<InvalidArgument> for Error {
    fn from(error: InvalidArgument) -> Self {
        Self::InvalidArgument(error)
    }
}

impl From<Misuse> for Error {
    fn from(misuse: Misuse) -> Self {
        Self::Misuse(misuse)
    }
}

/// Why a connection closed. `closed` resolves to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseCause {
    /// This client ended it immediately, with `abort`.
    #[error("aborted by this client")]
    Aborted,
    /// The broker blocked publishes for longer than the blocked timeout.
    #[error("blocked by the broker for {} s: {reason}", timeout.as_secs_f32())]
    BlockedTimeout {
        /// The reason that the broker gave.
        reason: Arc<str>,
        /// The blocked timeout.
        timeout: Duration,
    },
    /// The broker closed it.
    #[error("by the broker: {0}")]
    ByBroker(BrokerError),
    /// This client closed it.
    #[error("by this client")]
    ByClient,
    /// This client closed it, but the broker did not reply within the close timeout, or the transport was
    /// lost before.
    #[error("by this client, without a reply from the broker")]
    ByClientForced,
    /// It was never opened.
    #[error("{0}")]
    Connect(Arc<ConnectError>),
    /// The driver, or the runtime under it, was dropped.
    #[error("the driver was dropped, or the runtime in which it was opened has ended")]
    DriverGone,
    /// Nothing was received for two heartbeat intervals.
    #[error("no bytes from the broker for {} s (heartbeat timeout)", silence.as_secs_f32())]
    HeartbeatTimeout {
        /// The time since something was last received.
        silence: Duration,
    },
    /// A panic interrupted a change of the connection's state. Either a waker panicked when it was cloned, or
    /// this library has a bug. It is unknown what was sent before.
    #[error(
        "a panic interrupted a change of its state: in the clone of a waker, or in this library"
    )]
    Panicked,
    /// The broker violated the protocol.
    #[error("the broker violated the protocol: {0}")]
    Protocol(ProtocolError),
    /// The transport was lost.
    #[error("transport lost: {0}")]
    Transport(TransportError),
    /// Nothing could be written for two heartbeat intervals.
    #[error("the broker accepted no bytes for {} s (write timeout)", stalled.as_secs_f32())]
    WriteTimeout {
        /// The time since the last byte was written, while there were bytes to write.
        stalled: Duration,
    },
}

/// Why a channel closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelCause {
    /// The broker closed it (a channel exception, or soft error).
    #[error("by the broker: {0}")]
    ByBroker(BrokerError),
    /// This client closed it.
    #[error("by this client")]
    ByClient,
    /// Its connection closed.
    #[error("its connection closed: {0}")]
    Connection(CloseCause),
    /// It could not be opened again after the connection was lost: the broker permits fewer channels than before.
    #[error("not restored: the broker permits {channel_max} channels only")]
    NoFreeNumber {
        /// The maximum number of channels of the restored connection.
        channel_max: u16,
    },
}

impl ChannelCause {
    /// The error that later calls on the channel return.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Connection(cause) => Error::Connection(cause),
            cause => Error::Channel(cause),
        }
    }
}

impl From<ChannelCause> for Error {
    fn from(cause: ChannelCause) -> Self {
        cause.into_error()
    }
}

/// The reason for which the broker closed a channel or connection (`channel.close`, `connection.close`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerError {
    /// The reply code.
    pub code: ReplyCode,
    /// The reply text, at most 1,024 bytes of it.
    pub text: Arc<str>,
    /// The method that caused the close, if the broker named one.
    pub method: Option<MethodId>,
}

impl BrokerError {
    pub(crate) fn new(code: u16, text: ShortStr<'_>, class_id: u16, method_id: u16) -> Self {
        let method = (class_id != 0).then_some(MethodId { class: class_id, method: method_id });
        Self { code: ReplyCode::new(code), text: peer_text(text.as_bytes()), method }
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // RabbitMQ's texts begin with the name of the code.
        write!(f, "{} {}", self.code.code(), self.text)?;
        if let Some(method) = self.method {
            write!(f, " ({method})")?;
        }
        Ok(())
    }
}

/// A violation of the protocol by the peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
#[non_exhaustive]
pub struct ProtocolError {
    /// The reply code with which this client closed the connection.
    pub code: ReplyCode,
    /// What was wrong.
    pub detail: ProtocolDetail,
}

/// How a peer violated the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolDetail {
    /// A message has more body bytes than its header announced.
    #[error("message body longer than its header announced")]
    BodyTooLong,
    /// A confirm names a publish that is not open.
    #[error("confirm of publish {0}, which is not open")]
    ConfirmUnknown(u64),
    /// A content header has another class than basic.
    #[error("content header of class {0} instead of 60")]
    ContentClass(u16),
    /// A delivery tag is not higher than the one before it.
    #[error("delivery tag {0} out of order")]
    DeliveryTag(u64),
    /// A heartbeat frame arrived on a channel other than 0.
    #[error("heartbeat on channel {0} instead of 0")]
    HeartbeatChannel(u16),
    /// The bytes are not AMQP.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A frame arrived on a channel that is not open.
    #[error("frame on channel {0}, which is not open")]
    NotOpen(u16),
    /// `queue.declare-ok` names another queue than the one that was declared.
    #[error("queue.declare-ok for another queue")]
    QueueName,
    /// A header or body frame arrived where another frame was expected, or a method in the middle of a
    /// message.
    #[error("the method, header and body frames of a message are out of order")]
    UnexpectedFrame,
    /// A method arrived that is not expected in the current state.
    #[error("unexpected method {0}")]
    UnexpectedMethod(MethodId),
}

impl ProtocolError {
    pub(crate) fn new(detail: impl Into<ProtocolDetail>) -> Self {
        let detail = detail.into();
        let code = match detail {
            ProtocolDetail::Malformed(Malformed::Truncated | Malformed::TrailingBytes)
            | ProtocolDetail::Malformed(Malformed::NotUtf8) => ReplyCode::SYNTAX_ERROR,
            ProtocolDetail::Malformed(Malformed::UnknownMethod { .. })
            | ProtocolDetail::UnexpectedMethod(_)
            | ProtocolDetail::ConfirmUnknown(_)
            | ProtocolDetail::QueueName
            | ProtocolDetail::DeliveryTag(_) => ReplyCode::COMMAND_INVALID,
            ProtocolDetail::Malformed(_) | ProtocolDetail::BodyTooLong => ReplyCode::FRAME_ERROR,
            ProtocolDetail::NotOpen(_) => ReplyCode::CHANNEL_ERROR,
            ProtocolDetail::UnexpectedFrame
            | ProtocolDetail::HeartbeatChannel(_)
            | ProtocolDetail::ContentClass(_) => ReplyCode::UNEXPECTED_FRAME,
        };
        Self { code, detail }
    }
}

/// An error of the operating system or of the TLS library, for a transport or a name lookup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct TransportError {
    /// The kind. `UnexpectedEof` if the peer closed the connection.
    pub kind: io::ErrorKind,
    /// The text.
    pub message: Arc<str>,
    /// Which check of TLS failed, if it was TLS that failed.
    pub tls: Option<TlsErrorKind>,
}

impl TransportError {
    /// The error of a connection that the peer has closed.
    pub fn end_of_file() -> Self {
        Self::new(io::ErrorKind::UnexpectedEof, "closed by the peer")
    }

    /// Creates an error from its kind and text.
    pub fn new(kind: io::ErrorKind, message: impl Into<Arc<str>>) -> Self {
        Self { kind, message: message.into(), tls: None }
    }
}

impl From<&io::Error> for TransportError {
    fn from(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
        Self {
            kind: error.kind(),
            message: error.to_string().into(),
            tls: tls.map(|error| error.kind),
        }
    }
}

impl From<io::Error> for TransportError {
    fn from(error: io::Error) -> Self {
        Self::from(&error)
    }
}

/// An argument that cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{argument}: {reason}")]
#[non_exhaustive]
pub struct InvalidArgument {
    /// The name of the argument in the specification.
    pub argument: &'static str,
    /// What is wrong with it.
    pub reason: InvalidReason,
}

/// What is wrong with an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidReason {
    /// A mechanism follows EXTERNAL, which has no fallback.
    #[error("a mechanism follows EXTERNAL, which has no fallback: put EXTERNAL last")]
    BehindExternal,
    /// It contains NUL, which ends a field of a PLAIN response.
    #[error("contains NUL")]
    ContainsNul,
    /// It must not be empty.
    #[error("is empty")]
    Empty,
    /// It has no representation on the wire.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The frame that carries it would be larger than the negotiated `frame_max`.
    #[error("needs a frame of {size} bytes, more than frame_max ({frame_max})")]
    FrameTooLarge {
        /// The size of the frame in bytes.
        size: usize,
        /// The negotiated limit in bytes.
        frame_max: u32,
    },
    /// The frame of the login would be larger than [`Config::initial_frame_max`](crate::Config::initial_frame_max).
    #[error("needs a frame of {size} bytes, more than initial_frame_max ({initial_frame_max})")]
    InitialFrameTooLarge {
        /// The size of the frame in bytes.
        size: usize,
        /// The limit in bytes.
        initial_frame_max: u32,
    },
    /// It is outside of its range, or of the range that the protocol or RabbitMQ allows.
    #[error("is out of range")]
    OutOfRange,
    /// It contains a space or a control character.
    #[error("contains a space or a control character")]
    SpaceOrControl,
}

impl InvalidArgument {
    pub(crate) fn new(argument: &'static str, reason: impl Into<InvalidReason>) -> Self {
        Self { argument, reason: reason.into() }
    }
}

/// A call that is not possible in the current state. RabbitMQ would close the channel or the connection
/// because of it, so nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// A publish, or a call without a reply, before the reply to `channel.open`. Await that reply first.
    #[error("the channel is not open yet: await the reply to channel.open first")]
    ChannelNotOpen,
    /// Transaction mode was requested on a channel in confirm mode. The modes exclude each other: open
    /// another channel.
    #[error("the channel is in confirm mode, which excludes tx.select: use another channel")]
    ConfirmMode,
    /// An unconfirmed publish on a channel in confirm mode. Publish through its `Publisher`.
    #[error("the channel is in confirm mode: publish with its Publisher, or on another channel")]
    ConfirmModeUsePublisher,
    /// The channel has another consumer with this tag. RabbitMQ would close the whole connection.
    #[error(
        "the channel already has a consumer with this tag: use another one, or let the client generate it"
    )]
    DuplicateConsumerTag,
    /// A request to stop deliveries (`channel.flow` with `active` = 0). RabbitMQ would close the connection.
    /// Lower the prefetch or cancel the consumer instead.
    #[error(
        "channel.flow with active=0 is not supported by RabbitMQ: lower the prefetch, or cancel the consumers"
    )]
    FlowInactive,
    /// Every channel number of the connection is in use.
    #[error(
        "no free channel: all {channel_max} that {} are open; close some, or raise channel_max{}",
        if *by_broker { "the broker allows" } else { "this client asked for" },
        if *by_broker { " of the broker" } else { "" }
    )]
    NoFreeChannels {
        /// The negotiated limit.
        channel_max: u16,
        /// Whether the limit is the broker's, which is lower than
        /// [`Config::channel_max`](crate::Config::channel_max).
        by_broker: bool,
    },
    /// The connection is not open yet. Await the connection first.
    #[error("the connection is not open yet: await it first")]
    NotConnected,
    /// A confirmed publish on a channel that is not in confirm mode. Select it first (`confirm.select`).
    #[error("the channel is not in confirm mode: call confirm.select first")]
    NotConfirmMode,
    /// A commit or rollback on a channel that is not in transaction mode. Select it first (`tx.select`).
    #[error("the channel is not in transaction mode: call tx.select first")]
    NotTransactionMode,
    /// The channel awaits the maximum of 16,384 replies. Calls whose deadline has passed count until the
    /// broker replies.
    #[error("{} calls await their replies, the maximum: await some of them first", CALLS_MAX)]
    TooManyCalls,
    /// Confirm mode was requested on a channel in transaction mode. The modes exclude each other: open
    /// another channel.
    #[error(
        "the channel is in transaction mode, which excludes confirm.select: use another channel"
    )]
    TransactionMode,
    /// A consumer of a stream without acknowledgement. RabbitMQ would close the connection. Consume without
    /// `no_ack`.
    #[error("a stream needs acknowledgements: consume without no_ack")]
    StreamNeedsAck,
    /// A consumer of a stream without a prefetch. RabbitMQ would close the channel. Set one on the consumer,
    /// or with `basic.qos`.
    #[error("a stream needs a prefetch: set one on the consumer or with basic.qos")]
    StreamNeedsPrefetch,
}

/// Why a delivery could not be acked, nacked or rejected. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The delivery may come from a stream, and RabbitMQ before 3.11 would close the connection (540) if a
    /// delivery of a stream is nacked or rejected. Nothing was sent. Ack the delivery, or consume with
    /// [`stream_offset`](crate::BasicConsume::stream_offset): then a nack or reject acks it.
    #[error(
        "delivery {0} may come from a stream, which does not take messages back: acknowledge it, \
         or consume with stream_offset"
    )]
    MaybeStream(u64),
    /// It came without acknowledgement (`no_ack`), so it cannot be acked, nacked or rejected.
    #[error("delivery {0} came without acknowledgement (no_ack): it cannot be acked or nacked")]
    NoAck(u64),
    /// `basic.recover` was called since, which has requeued the delivery unless it was acked or nacked
    /// before.
    #[error("delivery {0} was requeued by basic.recover")]
    Recovered(u64),
    /// It came on another channel. Ack or nack it there.
    #[error("delivery {0} came on another channel: ack or nack it there")]
    OtherChannel(u64),
    /// It was acked or nacked before, perhaps by one with `multiple`. RabbitMQ would close the channel.
    #[error("delivery {0} is acked or nacked already")]
    AlreadyAcked(u64),
    /// Its channel or connection has closed, or its connection was lost and is recovered. The broker has requeued it.
    #[error("stale delivery, which the broker requeues: {0}")]
    Stale(Error),
    /// A nack with `multiple` may cover a delivery of a stream, for which RabbitMQ before 3.11 would close
    /// the connection (540). Nothing was sent. Nack the deliveries one by one.
    #[error(
        "delivery {0} cannot be nacked with multiple, because the channel has consumed from a stream: \
         nack the deliveries one by one"
    )]
    Stream(u64),
    /// The broker has not delivered this tag on this channel. RabbitMQ would close the channel.
    #[error("unknown delivery tag {0}: it was not delivered on this channel")]
    Unknown(u64),
}

/// Text from the peer, truncated and with control characters escaped.
pub(crate) fn peer_text(bytes: &[u8]) -> Arc<str> {
    let bytes = bytes.get(..PEER_TEXT_BYTES).unwrap_or(bytes);
    let mut text = String::new();
    for letter in String::from_utf8_lossy(bytes).chars() {
        if letter.is_control() {
            text.extend(letter.escape_default());
        } else {
            text.push(letter);
        }
    }
    text.into()
}

#[cfg(test)]
mod tests;
