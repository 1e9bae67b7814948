//! `Failure`: why a handler has not handled its message, and what it asks for.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// An error of any type that can be sent between threads.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a message was not handled, and what the handler asks for.
///
/// It is not an [`Error`] itself. So the operator `?` makes a failure of every error, of `&str` and of `String`: one that
/// is retried as the policy of the source says ([`retry`](Self::retry)). The other constructors ask for something else.
///
/// ```
/// use amqp_app::Failure;
///
/// fn quantity(text: &str) -> Result<u32, Failure> {
///     // Any error: retried.
///     let quantity = text.parse()?;
///     if quantity == 0 {
///         // Never retried: parked at once.
///         return Err(Failure::permanent("nothing was ordered"));
///     }
///     Ok(quantity)
/// }
/// assert!(quantity("two").is_err());
/// ```
pub struct Failure {
    pub(crate) verdict: Verdict,
    cause: FailureCause,
    error: BoxError,
}

/// What becomes of the message of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As the policy says.
    Retry,
    /// As the policy says, and not before this time has passed.
    RetryAfter(Duration),
    /// To the last resort, without another attempt.
    Permanent,
    /// Back into its queue.
    GiveBack,
    /// Nothing more: it is dropped.
    Discard,
    /// Back into its queue, and the application ends.
    Stop,
}

/// What has caused a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureCause {
    /// The handler returned an error.
    Error,
    /// The message has malformed properties, or is too large.
    Malformed,
    /// The handler panicked.
    Panic,
    /// The handler took longer than the timeout of its source.
    TimedOut,
    /// The body, or another part of the message, is not what the handler's arguments need.
    Undecodable,
    /// What the handler returned could not be sent: it was returned by the broker, refused, or its exchange is missing.
    Unsent,
}

impl FailureCause {
    /// Returns the name of the cause: the attribute `error.type` of metrics and spans.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Malformed => "malformed",
            Self::Panic => "panic",
            Self::TimedOut => "timed_out",
            Self::Undecodable => "undecodable",
            Self::Unsent => "unsent",
        }
    }
}

impl Failure {
    /// Creates a failure that is retried as the policy of the source says.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self::new(Verdict::Retry, FailureCause::Error, error)
    }

    /// Creates a failure that is retried when this time has passed. The message waits in the policy's queue of the
    /// shortest delay that is long enough, or of its longest delay. It counts as an attempt. A policy without delays retries
    /// it in place, after its pause.
    pub fn retry_after(delay: Duration, error: impl Into<BoxError>) -> Self {
        Self::new(Verdict::RetryAfter(delay), FailureCause::Error, error)
    }

    /// Creates a failure that is never retried: the last resort of the policy follows at once.
    pub fn permanent(error: impl Into<BoxError>) -> Self {
        Self::new(Verdict::Permanent, FailureCause::Error, error)
    }

    /// Gives the message back to its queue after a pause (`basic.nack`), because this process cannot handle it now. It does
    /// not count as an attempt of the policy. It counts towards the delivery limit of a quorum queue on RabbitMQ before 4.3,
    /// which drops or dead-letters a message at that limit, 20 by default from 4.0 on
    /// (<https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
    pub fn give_back(error: impl Into<BoxError>) -> Self {
        Self::new(Verdict::GiveBack, FailureCause::Error, error)
    }

    /// Drops the message: it is acknowledged, and nothing more happens with it.
    pub fn discard(error: impl Into<BoxError>) -> Self {
        Self::new(Verdict::Discard, FailureCause::Error, error)
    }

    /// Gives the message back to its queue, and ends the application with this error.
    pub fn stop(error: impl Into<BoxError>) -> Self {
        Self::new(Verdict::Stop, FailureCause::Error, error)
    }

    pub(crate) fn new(verdict: Verdict, cause: FailureCause, error: impl Into<BoxError>) -> Self {
        Self { verdict, cause, error: error.into() }
    }

    /// Creates the failure of a message that is not what a handler's argument needs. It is never retried.
    ///
    /// Extractors return it.
    pub fn undecodable(error: impl Into<BoxError>) -> Self {
        Self::new(Verdict::Permanent, FailureCause::Undecodable, error)
    }

    /// Returns what has caused it.
    pub const fn cause(&self) -> FailureCause {
        self.cause
    }

    /// Returns the error.
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.error
    }

    /// Returns the error by value.
    pub fn into_error(self) -> BoxError {
        self.error
    }

    /// Returns whether the policy may retry it.
    pub const fn is_retried(&self) -> bool {
        matches!(self.verdict, Verdict::Retry | Verdict::RetryAfter(_))
    }
}

impl<E: Into<BoxError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

/// Prints the error, and the errors that have caused it.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        let mut source = self.error.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Failure");
        debug.field("cause", &self.cause).field("verdict", &self.verdict);
        debug.field("error", &self.error).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fmt;

    use super::{Failure, FailureCause, Verdict};

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bad order")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn any_error_becomes_a_failure_that_is_retried_and_failures_pass() {
        fn fails(how: u8) -> Result<(), Failure> {
            match how {
                0 => Err("a text")?,
                1 => Err(format!("text {how}"))?,
                2 => drop("x".parse::<u8>().map_err(Outer)?),
                _ => Err(Failure::permanent("never"))?,
            }
            Ok(())
        }
        let [text, owned, error, permanent] = [0, 1, 2, 3].map(|how| fails(how).unwrap_err());
        assert_eq!((text.verdict, text.to_string().as_str()), (Verdict::Retry, "a text"));
        assert_eq!(owned.to_string(), "text 1");
        assert_eq!(error.to_string(), "bad order: invalid digit found in string");
        assert!(error.error().downcast_ref::<Outer>().is_some());
        assert_eq!(
            (permanent.verdict, permanent.cause()),
            (Verdict::Permanent, FailureCause::Error)
        );
        assert!(!permanent.is_retried());
    }
}
