//! `Report`: what an application has done.

use std::process::{ExitCode, Termination};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters, and the report that is made of them.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident)*) => {
        /// What an application has done, from its start to its end.
        ///
        /// It can be returned from `main`: the exit code is 0, or 1 after SIGUSR1.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Report {
            $($(#[$doc])* pub $name: u64,)*
            /// The signal that ended the application, if one did.
            pub signal: Option<i32>,
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn report(&self, signal: Option<i32>) -> Report {
                Report { $($name: self.$name.get(),)* signal }
            }
        }
    };
}

counters! {
    /// Messages that were handled and acknowledged. Also those whose handler took the
    /// [`Delivery`](amqp_async::Delivery) and succeeded, however it answered the broker.
    handled
    /// Attempts that failed, for any reason.
    failed
    /// Attempts that were followed by another one, in place or after a delay.
    retried
    /// Messages that were parked.
    parked
    /// Messages that were rejected: the broker dead-letters them, or drops them. They are those of
    /// [`Retry::then_dead_letter`](crate::Retry::then_dead_letter), and those of which no copy can be made, because they are
    /// larger than the client's limits.
    rejected
    /// Messages that were acknowledged without having been handled, because a handler or the policy asked for it.
    discarded
    /// Attempts that ended with a panic.
    panicked
    /// Attempts that took longer than the timeout of their source.
    timed_out
    /// Messages whose connection or channel was lost while they were handled. The broker delivers them again.
    stale
    /// Messages that were given back to their queue: because a handler asked for it, because what they caused could not be
    /// confirmed in time, because the policy puts them back, or at the end.
    given_back
    /// Replies whose requester's queue was gone, and other messages that reached no queue.
    unroutable
    /// Messages that were still handled when the time for a graceful shutdown expired.
    abandoned
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The number of SIGUSR1, after which the exit code is 1.
const SIGUSR1: i32 = if cfg!(target_os = "linux") { 10 } else { 30 };

impl Termination for Report {
    fn report(self) -> ExitCode {
        if self.signal == Some(SIGUSR1) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
