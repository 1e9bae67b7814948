//! Yielding: a task that never has to wait lets others have their turn.
//!
//! A publish that finds buffer space, a confirm that has come and a delivery that is buffered resolve without
//! waiting. A loop over them would never return to its executor, and timers, other tasks and, on a single
//! thread, the driver would wait for it. So each thread has a budget. Every such operation spends its cost
//! before it does anything. When the budget is spent, the operation refills it, wakes its own task and is
//! pending once, having sent or taken nothing.
//!
//! The budget is the thread's rather than a handle's, for those who wait are the thread's other tasks: a task
//! that takes turns between a hundred consumers yields as often as one with a single consumer. A caller
//! that blocks its thread polls again at once and loses nothing.

use std::cell::Cell;
use std::task::{Context, Poll};

use crate::limits::{TURN_DELIVERIES_MAX, TURN_PUBLISHES_MAX};

/// What an operation takes from the budget.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Cost {
    /// A publish, or a look at its confirm.
    Publish = 1,
    Delivery = TURN_PUBLISHES_MAX / TURN_DELIVERIES_MAX,
}

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(TURN_PUBLISHES_MAX) };
}

/// Spends the cost; pending once, with the task woken, where there is too little left.
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
