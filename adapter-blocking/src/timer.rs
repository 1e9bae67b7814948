//! Timers of threads.
//!
//! A timer is in a table of the thread that last polled it. Before a thread sleeps, it wakes the timers in
//! its table that have expired, and then sleeps at most until the next one (`wait.rs`). A thread does not
//! handle the timers of others. If a timer moves to another thread, its old entry remains and wakes its task
//! once without need.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use amqp_async::Timer;

type Key = (Instant, u64);

thread_local! {
    static TIMERS: RefCell<BTreeMap<Key, Waker>> = const { RefCell::new(BTreeMap::new()) };
}

/// A timer of [`Threads`](crate::runtime::Threads). It fires on the thread that waits for the future that polled it.
#[derive(Debug, Default)]
pub struct ThreadTimer(Option<Key>);

impl ThreadTimer {
    fn clear(&mut self) {
        if let Some(key) = self.0.take() {
            // A thread that is ending has dropped its table.
            let _ = TIMERS.try_with(|timers| timers.borrow_mut().remove(&key));
        }
    }
}

impl Timer for ThreadTimer {
    fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        self.clear();
        if deadline <= Instant::now() {
            return Poll::Ready(());
        }
        let key = (deadline, NUMBERS.fetch_add(1, Ordering::Relaxed));
        TIMERS.with(|timers| timers.borrow_mut().insert(key, cx.waker().clone()));
        self.0 = Some(key);
        Poll::Pending
    }
}

impl Drop for ThreadTimer {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Wakes the tasks of the calling thread's timers that have expired. Returns when the next one expires.
pub(crate) fn wake_due() -> Option<Instant> {
    loop {
        let due = TIMERS.try_with(|timers| {
            let mut timers = timers.borrow_mut();
            let (next, _) = *timers.first_key_value()?.0;
            let is_due = next <= Instant::now();
            Some((next, if is_due { timers.pop_first() } else { None }))
        });
        match due.ok().flatten()? {
            // The table is not borrowed here, because a waker is code of the application.
            (_, Some((_, waker))) => waker.wake(),
            (next, None) => return Some(next),
        }
    }
}
