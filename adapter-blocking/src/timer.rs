//! Timers of a thread.
//!
//! A timer stands in a table of the thread that polled it last. Before a thread sleeps it looks at its table,
//! wakes what is due and sleeps no longer than until the next timer (`wait.rs`). No thread serves the timers of
//! others. A timer that moved to another thread leaves its entry behind, which wakes its task once too often.

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

/// A timer of [`Threads`](crate::Threads). It fires on a thread that waits for the future that polled it.
#[derive(Debug, Default)]
pub struct ThreadTimer(Option<Key>);

impl ThreadTimer {
    fn clear(&mut self) {
        if let Some(key) = self.0.take() {
            // A thread that ends has dropped its table.
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

/// Wakes the tasks of the calling thread's timers that are due. Returns when the next one is.
pub(crate) fn wake_due() -> Option<Instant> {
    loop {
        let due = TIMERS.try_with(|timers| {
            let mut timers = timers.borrow_mut();
            let (next, _) = *timers.first_key_value()?.0;
            let is_due = next <= Instant::now();
            Some((next, if is_due { timers.pop_first() } else { None }))
        });
        match due.ok().flatten()? {
            // The table is not borrowed: a waker is the application's code.
            (_, Some((_, waker))) => waker.wake(),
            (next, None) => return Some(next),
        }
    }
}
