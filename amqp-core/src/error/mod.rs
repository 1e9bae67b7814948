//! Errors, with blame: the caller ([`Misuse`], [`InvalidArgument`]), the broker's refusal
//! ([`BrokerError`]), a peer that broke the protocol ([`ProtocolError`]), the transport
//! ([`TransportError`]), or time ([`Error::Deadline`]).
//!
//! A channel and a connection that died keep their cause, and every later call repeats it.

mod connect;
mod publish;
mod retry;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use amqp_proto::method::MethodId;
use amqp_proto::{EncodeError, Malformed, ReplyCode, ShortStr};

use crate::limits::PEER_TEXT_BYTES;
use crate::message::ReturnedMessage;

pub use connect::{ConnectError, ConnectFailure, ConnectStep, FailedAttempt};
pub use publish::PublishError;

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A delivery could not be acknowledged or rejected.
    #[error("{0}")]
    Ack(Box<AckError>),
    /// The channel is closed, for this reason; the connection may live on.
    #[error("channel closed: {0}")]
    Channel(ChannelCause),
    /// The connection could not be opened.
    #[error("{0}")]
    Connect(Arc<ConnectError>),
    /// The connection is closed, for this reason.
    #[error("connection closed: {0}")]
    Connection(CloseCause),
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
    /// What was to be finished before a close was not, within the time for it; the connection is
    /// still open.
    #[error(
        "not drained in time: {unconfirmed} publishes unconfirmed, {unacked} deliveries neither acked nor nacked"
    )]
    DrainTimeout {
        /// Publishes that await their confirms.
        unconfirmed: u64,
        /// Deliveries that are neither acked nor nacked.
        unacked: u64,
    },
    /// No reply came in time. The broker may have done the work; a late reply is consumed, and what
    /// it opened is closed again.
    #[error("no reply to {method} within {} s", timeout.as_secs_f32())]
    Deadline {
        /// What was asked.
        method: MethodId,
        /// How long the reply was awaited.
        timeout: Duration,
    },
    /// An argument cannot be sent; nothing was.
    #[error("invalid argument: {0}")]
    InvalidArgument(InvalidArgument),
    /// The call makes no sense here; nothing was sent.
    #[error("misuse: {0}")]
    Misuse(Misuse),
    /// A message was not confirmed.
    #[error("publish failed: {0}")]
    Publish(Box<PublishError>),
    /// A mandatory message reached no queue and was returned.
    #[error("returned by the broker: {0}")]
    Returned(Box<ReturnedMessage>),
}

impl Error {
    /// The broker's reply code, if the broker refused.
    pub fn reply_code(&self) -> Option<ReplyCode> {
        self.broker_error().map(|error| error.code)
    }

    /// The broker's refusal, if that is what it was.
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
            | Self::Connection(CloseCause::ByBroker(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether the whole connection is gone.
    pub const fn is_connection(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Channel(ChannelCause::Connection(_)))
    }

    /// Whether one channel is gone, and the connection lives on.
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

/// Why a connection closed. Also the value with which a wait for its end resolves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseCause {
    /// This client ended it at once, with `abort`.
    #[error("aborted by this client")]
    Aborted,
    /// The broker read no publishes for longer than the blocked time-out.
    #[error("blocked by the broker for {} s: {reason}", timeout.as_secs_f32())]
    BlockedTimeout {
        /// The broker's words for it.
        reason: Arc<str>,
        /// The time-out.
        timeout: Duration,
    },
    /// The broker closed it.
    #[error("by the broker: {0}")]
    ByBroker(BrokerError),
    /// This client closed it.
    #[error("by this client")]
    ByClient,
    /// This client closed it, and the broker did not confirm within the close time-out, or was lost
    /// before it could.
    #[error("by this client, without the broker's confirmation")]
    ByClientForced,
    /// It was never opened.
    #[error("{0}")]
    Connect(Arc<ConnectError>),
    /// The driver, or the runtime under it, was dropped.
    #[error(
        "its driver is gone: the runtime in which it was opened has ended, or the driver was dropped"
    )]
    DriverGone,
    /// The broker was silent for two heartbeat intervals.
    #[error("no sign of life from the broker for {} s", silence.as_secs_f32())]
    HeartbeatTimeout {
        /// How long nothing was received.
        silence: Duration,
    },
    /// A panic interrupted a change of the connection's state: that of a waker when it was cloned, or a fault
    /// of this library. What was sent before is unknown.
    #[error("a panic interrupted a change of its state")]
    Panicked,
    /// The broker broke the protocol.
    #[error("the broker broke the protocol: {0}")]
    Protocol(ProtocolError),
    /// The transport was lost.
    #[error("transport lost: {0}")]
    Transport(TransportError),
    /// The transport took no bytes for two heartbeat intervals.
    #[error("nothing could be written for {} s", stalled.as_secs_f32())]
    WriteTimeout {
        /// How long nothing was written while something was to be.
        stalled: Duration,
    },
}

/// Why a channel closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelCause {
    /// The broker closed it: a soft error.
    #[error("by the broker: {0}")]
    ByBroker(BrokerError),
    /// This client closed it.
    #[error("by this client")]
    ByClient,
    /// Its connection closed.
    #[error("its connection closed: {0}")]
    Connection(CloseCause),
}

impl ChannelCause {
    /// The error that later calls on the channel report.
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

/// The broker's refusal: what `channel.close` or `connection.close` said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerError {
    /// The reply code.
    pub code: ReplyCode,
    /// The reply text, at most 1,024 bytes of it.
    pub text: Arc<str>,
    /// The method that was refused, if the broker named one.
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
        // RabbitMQ's texts begin with the code's name.
        write!(f, "{} {}", self.code.code(), self.text)?;
        if let Some(method) = self.method {
            write!(f, " ({method})")?;
        }
        Ok(())
    }
}

/// The peer broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
#[non_exhaustive]
pub struct ProtocolError {
    /// The code that this client closed the connection with.
    pub code: ReplyCode,
    /// What was wrong.
    pub detail: ProtocolDetail,
}

/// What a peer did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolDetail {
    /// More body came than its header had announced.
    #[error("content body longer than announced")]
    BodyTooLong,
    /// A confirm for a publish that is not open.
    #[error("confirm of publish {0}, which is not open")]
    ConfirmUnknown(u64),
    /// A content header of another class than basic.
    #[error("content header of class {0}")]
    ContentClass(u16),
    /// A delivery tag that does not follow the one before it.
    #[error("delivery tag {0} out of order")]
    DeliveryTag(u64),
    /// A heartbeat frame on another channel than 0.
    #[error("heartbeat on channel {0} instead of 0")]
    HeartbeatChannel(u16),
    /// Bytes that are no AMQP.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A frame on a channel that is not open.
    #[error("frame on channel {0}, which is not open")]
    NotOpen(u16),
    /// `queue.declare-ok` for another queue than was declared.
    #[error("queue.declare-ok for another queue")]
    QueueName,
    /// A body or header frame where none is due, or a method where content is due.
    #[error("frame out of order in content")]
    UnexpectedFrame,
    /// A method that is not due.
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

/// What the operating system said of a socket or of a look-up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct TransportError {
    /// The kind; `UnexpectedEof` where the peer closed.
    pub kind: io::ErrorKind,
    /// The text.
    pub message: Arc<str>,
}

impl TransportError {
    /// The peer closed the connection.
    pub fn end_of_file() -> Self {
        Self { kind: io::ErrorKind::UnexpectedEof, message: "closed by the peer".into() }
    }

    /// An error from its kind and text.
    pub fn new(kind: io::ErrorKind, message: impl Into<Arc<str>>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<&io::Error> for TransportError {
    fn from(error: &io::Error) -> Self {
        Self { kind: error.kind(), message: error.to_string().into() }
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
    /// The argument's name in the specification.
    pub argument: &'static str,
    /// What is wrong with it.
    pub reason: InvalidReason,
}

/// What is wrong with an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidReason {
    /// It holds a NUL, which would shift the fields of a PLAIN response.
    #[error("holds a NUL")]
    ContainsNul,
    /// It must not be empty.
    #[error("is empty")]
    Empty,
    /// It has no representation on the wire.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The frame that carries it would be larger than the negotiated `frame_max`.
    #[error("makes a frame of {size} bytes, over frame_max {frame_max}")]
    FrameTooLarge {
        /// The size of the frame in bytes.
        size: usize,
        /// The negotiated limit in bytes.
        frame_max: u32,
    },
    /// It is beyond the values that the protocol or RabbitMQ allow.
    #[error("is out of range")]
    OutOfRange,
}

impl InvalidArgument {
    pub(crate) fn new(argument: &'static str, reason: impl Into<InvalidReason>) -> Self {
        Self { argument, reason: reason.into() }
    }
}

/// A call that makes no sense where it is made; RabbitMQ would close the channel or the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// A publish, or a call without a reply, before the broker has answered `channel.open`: await that reply first.
    #[error("the channel is not open yet: await the reply to channel.open first")]
    ChannelNotOpen,
    /// Transaction mode on a channel in confirm mode: they exclude each other.
    #[error("the channel is in confirm mode")]
    ConfirmMode,
    /// An unconfirmed publish on a channel in confirm mode: use its `Publisher`.
    #[error("the channel is in confirm mode: publish through its Publisher")]
    ConfirmModeUsePublisher,
    /// The channel has a consumer of this tag; RabbitMQ would close the whole connection.
    #[error("the channel has a consumer with this tag")]
    DuplicateConsumerTag,
    /// A request to stop deliveries, for which RabbitMQ would close the connection.
    #[error("channel.flow with active=0 is not implemented by RabbitMQ")]
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
    /// The connection is not open yet.
    #[error("the connection is not open yet")]
    NotConnected,
    /// A confirmed publish on a channel that is not in confirm mode.
    #[error("the channel is not in confirm mode")]
    NotConfirmMode,
    /// A commit or a rollback on a channel that is not in transaction mode.
    #[error("the channel is not in transaction mode")]
    NotTransactionMode,
    /// The channel awaits 16,384 replies, some of them maybe beyond their time.
    #[error("the channel awaits too many replies")]
    TooManyCalls,
    /// Confirm mode on a channel in transaction mode: they exclude each other.
    #[error("the channel is in transaction mode")]
    TransactionMode,
    /// A consumer of a stream without acknowledgement; RabbitMQ would close the connection.
    #[error("a stream needs acknowledgements: consume without no_ack")]
    StreamNeedsAck,
    /// A consumer of a stream without a limit of unacknowledged deliveries; RabbitMQ would close the
    /// channel.
    #[error("a stream needs a prefetch: set one on the consumer or with basic.qos")]
    StreamNeedsPrefetch,
}

/// Why a delivery could not be acked or nacked; nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The delivery may come from a stream, and this RabbitMQ is older than 3.11: it would close the
    /// connection (540) if a stream's delivery was refused. Nothing was sent. Acknowledge the delivery,
    /// or consume with [`stream_offset`](crate::BasicConsume::stream_offset): then refusing a delivery
    /// acknowledges it.
    #[error(
        "delivery {0} may come from a stream, which takes no message back: acknowledge it, \
         or consume with stream_offset"
    )]
    MaybeStream(u64),
    /// It came without acknowledgement: there is nothing to acknowledge or refuse.
    #[error("delivery {0} needs no acknowledgement")]
    NoAck(u64),
    /// `basic.recover` was called since: the delivery is requeued, unless it was acked or nacked before.
    #[error("delivery {0} was requeued by basic.recover")]
    Recovered(u64),
    /// It came on another channel, which is where it can be acked or nacked.
    #[error("delivery {0} came on another channel: ack or nack it there")]
    OtherChannel(u64),
    /// It was acked or nacked before, maybe by `multiple`; the broker would close the channel.
    #[error("delivery {0} is acked or nacked already")]
    AlreadyAcked(u64),
    /// Its channel or connection has closed: the broker has requeued it already.
    #[error("stale delivery: {0}")]
    Stale(Error),
    /// Refusing with `multiple` could cover a delivery of a stream, which takes no message back: RabbitMQ
    /// before 3.11 would close the connection (540). Nothing was refused: refuse them one by one.
    #[error("delivery {0} may not be refused with multiple: the channel has consumed a stream")]
    Stream(u64),
    /// The broker never delivered this tag on this channel; it would close the channel.
    #[error("unknown delivery tag {0}")]
    Unknown(u64),
}

/// Text of the peer, shortened and with control characters escaped.
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
