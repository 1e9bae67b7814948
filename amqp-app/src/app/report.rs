//! `Report`: what an application has done.

use std::process::{ExitCode, Termination};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::measure::Measures;

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

        #[derive(Debug)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Default for Counters {
            fn default() -> Self {
                let mut numbers = 0..;
                Self { $($name: Counter::number(numbers.next().unwrap_or_default()),)* }
            }
        }

        impl Counters {
            /// The names of the counters as metrics, in the order of their numbers, and their descriptions.
            #[cfg(feature = "metrics")]
            pub(crate) const METRICS: &[(&str, &str)] = &[$((
                concat!("amqp_app.", stringify!($name)),
                concat!("Counted as `", stringify!($name), "` of the report of an application"),
            ),)*];

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

/// A counter of a report. It is also a metric, for each source one.
#[derive(Debug)]
pub(crate) struct Counter {
    number: usize,
    count: AtomicU64,
}

impl Counter {
    const fn number(number: usize) -> Self {
        Self { number, count: AtomicU64::new(0) }
    }

    pub(crate) fn add(&self, source: &Measures, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
        source.count(self.number, count);
    }

    pub(crate) fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// The number of SIGUSR1, after which the exit code is 1.
const SIGUSR1: i32 = if cfg!(target_os = "linux") { 10 } else { 30 };

impl Termination for Report {
    fn report(self) -> ExitCode {
        if self.signal == Some(SIGUSR1) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
