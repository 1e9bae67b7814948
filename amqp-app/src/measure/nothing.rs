//! What callers of the metrics see without the feature `metrics`.

use std::future::pending;
use std::sync::Arc;

use crate::app::sender::Unsent;
use crate::outcome::Outcome;
use crate::runner::Runner;

pub(crate) struct Measures;

impl Measures {
    pub(crate) const fn of(_queue: &Arc<str>) -> Self {
        Self
    }

    pub(crate) const fn taken(&self) -> InFlight {
        InFlight
    }

    pub(crate) const fn call(&self, _runner: &Runner) -> Call {
        Call
    }

    pub(crate) const fn count(&self, _counter: usize, _count: u64) {}

    pub(crate) fn ready(&self, _is_ready: impl FnOnce() -> bool) {}
}

pub(crate) struct InFlight;

pub(crate) struct Call;

impl Call {
    pub(crate) const fn end(self, _outcome: &Outcome) {}
}

pub(crate) struct Waiting;

impl Waiting {
    pub(crate) const fn of(_queues: &Arc<str>) -> Self {
        Self
    }

    #[cfg(test)]
    pub(crate) const fn unmeasured() -> Self {
        Self
    }

    pub(crate) const fn change(&self, _before: usize, _after: usize) {}
}

pub(crate) struct Sending;

impl Sending {
    pub(crate) const fn begin(_runner: &Runner, _messages: &[amqp_async::Message]) -> Self {
        Self
    }

    pub(crate) const fn done(&mut self, _result: &Result<(), Unsent>) {}
}

pub(crate) const fn describe() {}

pub(crate) async fn sampled(_runner: &Runner, _sample: impl FnMut()) {
    pending::<()>().await;
}
