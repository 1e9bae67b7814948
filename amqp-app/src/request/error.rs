//! Why a request has no reply.

use amqp_async::errors::InvalidArgument;
use amqp_async::{Fault, PublishError};

use crate::error::Error;

/// Why a request has no reply.
///
/// [`may_have_been_executed`](Self::may_have_been_executed) returns whether the responder may have done what was asked, and
/// [`blame`](Self::blame) who can do something about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request cannot be sent: a property, the exchange or the routing key is not valid.
    #[error("invalid request: {0}")]
    Invalid(InvalidArgument),
    /// The connection was lost, or its channel was closed, after the request was sent and before its reply came. A later
    /// reply is dropped.
    #[error("no reply, and the responder may have executed the request: {0}")]
    Lost(amqp_async::Error),
    /// The broker has refused the request: a queue with `x-overflow=reject-publish` is full.
    #[error("request refused by the broker: a queue is full")]
    Nacked,
    /// The exchange is missing, or may not be used.
    #[error("exchange {exchange:?} cannot be used: {error}")]
    Refused {
        /// The exchange of the request.
        exchange: String,
        /// Why.
        error: amqp_async::Error,
    },
    /// The reply came, but is too large, or has malformed properties. One whose correlation id cannot be read is dropped, and
    /// [counted](crate::RequesterStats::late).
    #[error("the reply cannot be read: {0}")]
    Reply(Fault),
    /// The deadline has expired.
    #[error(
        "no reply within the deadline: the request {}",
        match (is_sent, is_confirmed) {
            (false, _) => "was not sent",
            (true, false) => "was sent, and the broker has not confirmed it",
            (true, true) => "was sent, and the broker has confirmed it",
        }
    )]
    TimedOut {
        /// Whether the request was sent.
        is_sent: bool,
        /// Whether the broker has confirmed it.
        is_confirmed: bool,
    },
    /// The limit of requests that wait for their reply is reached: see [`REQUESTS_MAX`](crate::limits::REQUESTS_MAX).
    #[error(
        "{} requests wait for their replies: await some of them first",
        crate::limits::REQUESTS_MAX
    )]
    TooMany,
    /// A channel for requests could not be opened. Nothing was sent.
    #[error("requests cannot be sent: {0}")]
    Unavailable(Error),
    /// The request reached no queue: no responder has declared one.
    #[error("the request reached no queue (exchange {exchange:?}, routing key {routing_key:?})")]
    Unroutable {
        /// The exchange of the request.
        exchange: String,
        /// Its routing key.
        routing_key: String,
    },
    /// The request was not sent, for another reason.
    #[error("the request was not sent: {0}")]
    NotSent(PublishError),
}

/// Who can do something about a [`RequestError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Blame {
    /// The program that asked: the request is not valid, or there are too many of them.
    Requester,
    /// The program that should reply: it is not there, is too slow, or has sent a reply that cannot be read.
    Responder,
    /// The connection to the broker.
    Connection,
}

impl RequestError {
    /// Returns whether the responder may have executed the request, or executes it later. A request that is repeated then
    /// may be executed twice.
    pub const fn may_have_been_executed(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Reply(_) => true,
            Self::TimedOut { is_sent, .. } => *is_sent,
            Self::Invalid(_)
            | Self::Nacked
            | Self::NotSent(_)
            | Self::Refused { .. }
            | Self::TooMany
            | Self::Unavailable(_)
            | Self::Unroutable { .. } => false,
        }
    }

    /// Returns who can do something about it.
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Invalid(_) | Self::NotSent(_) | Self::Refused { .. } | Self::TooMany => {
                Blame::Requester
            }
            Self::Nacked
            | Self::Reply(_)
            | Self::TimedOut { is_confirmed: true, .. }
            | Self::Unroutable { .. } => Blame::Responder,
            Self::Lost(_) | Self::TimedOut { .. } | Self::Unavailable(_) => Blame::Connection,
        }
    }
}
