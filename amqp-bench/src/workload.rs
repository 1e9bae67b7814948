//! What is done and what came of it.

use std::time::Duration;

/// One workload, as every client runs it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Workload {
    /// Publishes, with so many unconfirmed at most if they are confirmed at all.
    Publish { count: u64, size: usize, confirm: Option<usize> },
    /// Consumes, with acknowledgement of each if there is a prefetch.
    Consume { count: u64, prefetch: Option<u16> },
    /// Calls, one after another.
    RoundTrip { count: u64 },
}

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) elapsed: Duration,
    pub(crate) count: u64,
}

impl Outcome {
    /// An outcome, if the peer counted what the client did.
    pub(crate) fn new(
        elapsed: Duration,
        count: u64,
        counted: u64,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        if counted == count {
            Ok(Self { elapsed, count })
        } else {
            Err(format!("the peer counted {counted} of {count}").into())
        }
    }

    /// Messages a second.
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }
}
