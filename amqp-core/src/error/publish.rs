use crate::error::{Error, InvalidArgument, Misuse};
use crate::message::ReturnedMessage;

/// Why the broker has not confirmed a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The message cannot be sent. Nothing was sent.
    #[error("invalid message: {0}")]
    Invalid(InvalidArgument),
    /// The channel is in a state in which it cannot publish the message. Nothing was sent.
    #[error("misuse: {0}")]
    Misuse(Misuse),
    /// The broker refused the message, for example because a queue with `x-overflow=reject-publish` is full.
    #[error("nacked by the broker: for example, a queue with x-overflow=reject-publish is full")]
    Nacked,
    /// The channel or connection closed, or the connection was lost, for this reason, before any byte of the message was
    /// written. The broker has not taken it.
    #[error("not sent: {0}")]
    NotSent(Error),
    /// The message was mandatory and reached no queue.
    #[error("returned by the broker: {0}")]
    Returned(Box<ReturnedMessage>),
    /// The channel or connection closed, or the connection was lost, for this reason, after at least a part of the message
    /// was written and before the broker answered. The broker may have taken it.
    #[error("sent, outcome unknown: {0}")]
    Unknown(Error),
}

impl PublishError {
    /// Creates the error of a message that was refused before it was buffered.
    pub fn refused(error: Error) -> Self {
        match error {
            Error::InvalidArgument(invalid) => Self::Invalid(invalid),
            Error::Misuse(misuse) => Self::Misuse(misuse),
            closed => Self::NotSent(closed),
        }
    }

    /// Whether the broker may have taken the message. Publishing it again may then make a duplicate.
    pub const fn may_have_been_taken(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    /// Whether publishing the same message again may succeed, perhaps on another channel or connection.
    /// [`may_have_been_taken`](Self::may_have_been_taken) returns whether that may make a duplicate.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Nacked => true,
            Self::NotSent(error) | Self::Unknown(error) => error.is_retryable(),
            Self::Misuse(misuse) => misuse.is_retryable(),
            Self::Invalid(_) | Self::Returned(_) => false,
        }
    }
}
