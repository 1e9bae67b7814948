//! Cooperative yielding: a task that never has to wait lets other tasks run.
//!
//! A publish that finds buffer space, a confirm that has arrived and a delivery that is buffered resolve
//! without waiting. So a loop over them would never return to its executor. Timers, other tasks and, on a
//! single thread, the driver would starve. To prevent this, each thread has a budget. Each of these
//! operations first takes its cost from the budget. If the budget is used up, the operation refills it, wakes
//! its own task and returns `Pending` once, before it sends or takes anything.
//!
//! The budget belongs to the thread and not to a handle, because the tasks that starve are those of the
//! thread. So a task that reads a hundred consumers in turn yields as often as one with a single consumer. A
//! caller that blocks its thread polls again immediately and loses nothing.

use std::cell::Cell;
use std::task::{Context, Poll};

use crate::limits::{TURN_DELIVERIES_MAX, TURN_PUBLISHES_MAX};

/// The cost of an operation.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Cost {
    /// A publish, or a poll of its confirm.
    Publish = 1,
    Delivery = TURN_PUBLISHES_MAX / TURN_DELIVERIES_MAX,
}

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(TURN_PUBLISHES_MAX) };
}

/// Takes the cost from the budget. If too little is left, wakes the task and returns `Pending` once.
#[inline]
pub(crate) fn poll_spend(cost: Cost, cx: &Context<'_>) -> Poll<()> {
    LEFT.with(|left| match left.get().checked_sub(cost as u32) {
        Some(rest) => {
            left.set(rest);
            Poll::Ready(())
        }
        None => {
            left.set(TURN_PUBLISHES_MAX);
            poll_again(cx)
        }
    })
}

#[cold]
fn poll_again(cx: &Context<'_>) -> Poll<()> {
    cx.waker().wake_by_ref();
    Poll::Pending
}
