//! The outcomes of publishes, as callers get them.

use std::fmt;

use crate::error::{Error, PublishError};
use crate::message::ReturnedMessage;

/// The outcome of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Confirmation {
    /// The broker took responsibility for it.
    Confirmed,
    /// The broker refused it, for example because a queue with `x-overflow=reject-publish` is full.
    Nacked,
    /// It was mandatory and reached no queue.
    Returned(Box<ReturnedMessage>),
    /// Its channel or connection closed, or its transport was lost, for this reason, before any byte of it was
    /// written. The broker has not taken it.
    NotSent(Error),
    /// Its channel or connection closed, or its transport was lost, for this reason, after at least a part of
    /// it was written and before the broker answered. The broker may have taken it.
    Unknown(Error),
}

impl Confirmation {
    /// Returns `Ok` for a confirmed publish, and the error of any other.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn into_result(self) -> Result<(), PublishError> {
        match self {
            Self::Confirmed => Ok(()),
            Self::Nacked => Err(PublishError::Nacked),
            Self::Returned(message) => Err(PublishError::Returned(message)),
            Self::NotSent(error) => Err(PublishError::NotSent(error)),
            Self::Unknown(error) => Err(PublishError::Unknown(error)),
        }
    }
}

/// The publishes of a channel that were not confirmed, counted by outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Unconfirmed {
    /// The number of publishes that the broker refused.
    pub nacked: u64,
    /// The number of mandatory publishes that reached no queue.
    pub returned: u64,
    /// The number of publishes of which no byte was written before the channel closed or the transport was lost:
    /// the broker did not take them.
    pub not_sent: u64,
    /// The number of publishes that the broker had not answered when the channel closed or the transport was
    /// lost: it may have taken them.
    pub unknown: u64,
    /// Why the channel closed or the transport was lost, if publishes were not sent or not answered at that time.
    pub cause: Option<Error>,
}

impl Unconfirmed {
    /// The number of publishes that were not confirmed.
    pub const fn count(&self) -> u64 {
        self.nacked + self.returned + self.not_sent + self.unknown
    }

    /// Adds what failed later.
    pub(super) fn add(&mut self, later: Self) {
        let Self { nacked, returned, not_sent, unknown, cause } = later;
        self.nacked += nacked;
        self.returned += returned;
        self.not_sent += not_sent;
        self.unknown += unknown;
        self.cause = cause.or_else(|| self.cause.take());
    }
}

impl fmt::Display for Unconfirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nacked, returned, not_sent, unknown, cause } = self;
        write!(f, "{} publishes not confirmed: {nacked} nacked by the broker, ", self.count())?;
        write!(f, "{returned} returned, {not_sent} not sent, {unknown} with unknown outcome")?;
        match cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}
