//! What runs tasks: a clock, timers and threads of a runtime, without its network.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

/// A monotonic clock.
pub trait Clock: Send + Sync {
    /// The present moment, on the clock that the executor's [`Timer`] follows: a driver whose timer fires
    /// before its clock has come to the deadline would spin.
    fn now(&self) -> Instant;
}

/// A timer that can be moved.
pub trait Timer: Send + Unpin {
    /// Ready once `deadline` has come, never before. Each call replaces the deadline.
    fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()>;
}

/// What runs tasks, and wakes them in time.
pub trait Executor: Clock + Clone + Unpin + 'static {
    /// A timer.
    type Timer: Timer;

    /// Checks that tasks and timers work where this is called. By default they do.
    ///
    /// # Errors
    /// What is missing.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }

    /// The clock alone. Handles keep it as long as they exist, and with it what it holds: by default the
    /// executor.
    fn clock(&self) -> Box<dyn Clock> {
        Box::new(self.clone())
    }

    /// A timer that is not set.
    fn timer(&self) -> Self::Timer;

    /// Has the task of `cx` polled again, once other tasks had their turn and the system was asked for
    /// what has happened. By default it is woken at once, which some schedulers take for urgent.
    fn reschedule(&self, cx: &mut Context<'_>) {
        cx.waker().wake_by_ref();
    }

    /// Runs a task in the background.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// Runs work that blocks, on a thread where it keeps no task waiting.
    fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static);
}
