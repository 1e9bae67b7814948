//! Waiting for futures on the caller's thread.

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// Waits on the calling thread for what the shared types of these crates give as a future, such as
/// [`Delivery::cancel_consumer`](crate::Delivery::cancel_consumer).
pub trait Wait: Future + Sized {
    /// Blocks the calling thread until the result is there.
    fn wait(self) -> Self::Output {
        wait(self)
    }
}

impl<F: Future> Wait for F {}

pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Some(output) = wait_until(future.as_mut(), None) {
            return output;
        }
    }
}

/// Waits until `deadline` at the latest.
pub(crate) fn wait_until<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let mut future = pin!(future);
    if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return Some(output);
    }
    let sleeper = Sleeper::new();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut sleeper.context()) {
            return Some(output);
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return None;
        }
        sleeper.sleep(deadline);
    }
}

/// The calling thread, asleep until it is woken.
struct Sleeper {
    alarm: Arc<Alarm>,
    waker: Waker,
}

struct Alarm {
    thread: Thread,
    rung: AtomicBool,
}

impl Sleeper {
    fn new() -> Self {
        // A thread that ends may have lost its own while it drops what it holds.
        let kept = ALARM.try_with(Cell::take).unwrap_or_default();
        // One that waits within a wait has another, so that neither uses up what is meant for the other.
        let alarm = kept.unwrap_or_else(|| Arc::new(Alarm::new()));
        Self { waker: Waker::from(Arc::clone(&alarm)), alarm }
    }

    fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    fn sleep(&self, deadline: Option<Instant>) {
        // Somebody else may have used up the thread's token, or left one behind.
        while !self.alarm.rung.swap(false, Ordering::Acquire) {
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(left) if left.is_zero() => return,
                Some(left) => thread::park_timeout(left),
            }
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = ALARM.try_with(|kept| kept.set(Some(Arc::clone(&self.alarm))));
    }
}

thread_local! {
    /// The thread's own, while it does not wait.
    static ALARM: Cell<Option<Arc<Alarm>>> = const { Cell::new(None) };
}

impl Alarm {
    fn new() -> Self {
        Self { thread: thread::current(), rung: AtomicBool::new(false) }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}
