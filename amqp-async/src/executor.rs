//! `Executor`, `Clock` and `Timer`: the parts of a runtime without its network, which an adapter implements.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

/// A monotonic clock.
pub trait Clock: Send + Sync {
    /// Returns the current time. It must be the clock that the executor's [`Timer`] uses: if the timer fired
    /// before this clock has reached the deadline, the driver would spin.
    fn now(&self) -> Instant;
}

/// A timer whose deadline can be changed.
pub trait Timer: Send + Unpin {
    /// Ready when `deadline` has passed, and never before. Each call replaces the deadline.
    fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()>;
}

/// Runs tasks, timers and blocking work.
pub trait Executor: Clock + Clone + Unpin + 'static {
    /// The timer type.
    type Timer: Timer;

    /// Checks that tasks and timers work in the current context. By default returns `Ok`.
    ///
    /// # Errors
    /// The part that is missing.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }

    /// Returns only the clock. Handles keep it as long as they exist, and with it everything that it refers
    /// to. By default it is the executor.
    fn clock(&self) -> Box<dyn Clock> {
        Box::new(self.clone())
    }

    /// Creates a timer without a deadline.
    fn timer(&self) -> Self::Timer;

    /// Schedules another poll of the current task, after other tasks have run and the runtime has checked its
    /// sockets. By default wakes the task immediately, which some schedulers treat as urgent.
    fn reschedule(&self, cx: &mut Context<'_>) {
        cx.waker().wake_by_ref();
    }

    /// Spawns a task.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// Runs blocking work on a thread where it does not block tasks.
    fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static);
}
