//! Blocks the calling thread until a future resolves.
//!
//! Each thread keeps its alarm and the waker of the alarm from one wait to the next, so that a wait allocates
//! nothing. A future is never polled with any other waker, because to replace a waker costs an allocation. So
//! a waker of an earlier wait may still ring the alarm, which costs the current wait one more poll.

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::timer::wake_due;

pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Some(output) = wait_until(future.as_mut(), None) {
            return output;
        }
    }
}

/// Waits until `deadline` at most.
pub(crate) fn wait_until<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut late = false;
    with_sleeper(|sleeper| {
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut sleeper.context()) {
                return Some(output);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                // A future that yields has woken its task. It is polled once more.
                if late || !sleeper.alarm.rung.load(Ordering::Acquire) {
                    return None;
                }
                late = true;
            }
            sleeper.sleep(deadline);
        }
    })
}

/// Waits for at most `timeout`.
pub(crate) fn wait_timeout<F: Future>(future: F, timeout: Duration) -> Option<F::Output> {
    wait_until(future, Instant::now().checked_add(timeout))
}

/// Polls once, without waiting.
pub(crate) fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    with_sleeper(|sleeper| pin!(future).poll(&mut sleeper.context()))
}

fn with_sleeper<T>(f: impl FnOnce(&Sleeper) -> T) -> T {
    // A wait within a wait finds no sleeper and creates another, so that neither takes the wake-ups of the
    // other. So does a thread that is ending and has dropped its own.
    let sleeper = KEPT.try_with(Cell::take).ok().flatten().unwrap_or_else(Sleeper::new);
    let output = f(&sleeper);
    let _ = KEPT.try_with(|kept| kept.set(Some(sleeper)));
    output
}

thread_local! {
    /// The sleeper of this thread, while it does not wait.
    static KEPT: Cell<Option<Sleeper>> = const { Cell::new(None) };
}

/// The calling thread, which sleeps until it is woken.
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
        let alarm = Arc::new(Alarm { thread: thread::current(), rung: AtomicBool::new(false) });
        Self { waker: Waker::from(Arc::clone(&alarm)), alarm }
    }

    fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    fn sleep(&self, deadline: Option<Instant>) {
        // The application may have used the park token of the thread, or left one.
        while !self.alarm.rung.swap(false, Ordering::Acquire) {
            // A timer that has expired rings the alarm, so that parking ends immediately.
            let Some(until) = [wake_due(), deadline].into_iter().flatten().min() else {
                thread::park();
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() && deadline == Some(until) {
                return;
            }
            thread::park_timeout(left);
        }
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::{Poll, Waker};
    use std::time::{Duration, Instant};

    use super::{poll_once, wait, wait_until};

    /// The waker with which a wait polls.
    fn waker() -> Waker {
        wait(poll_fn(|cx| Poll::Ready(cx.waker().clone())))
    }

    #[test]
    fn waits_of_a_thread_share_a_waker_and_nested_ones_do_not() {
        let outer = waker();
        assert!(outer.will_wake(&waker()));
        let polled = poll_once(poll_fn(|cx| Poll::Ready(cx.waker().will_wake(&outer))));
        assert_eq!(polled, Poll::Ready(true));
        wait(poll_fn(|cx| {
            assert!(cx.waker().will_wake(&outer));
            assert!(!waker().will_wake(&outer));
            Poll::Ready(())
        }));
        assert!(outer.will_wake(&waker()), "the outer one is kept");
    }

    /// The waker of the outer wait rings the alarm during the inner wait. The outer wait must not miss it.
    #[test]
    fn a_nested_wait_leaves_the_outer_ones_wake_up() {
        let mut polls = 0;
        wait(poll_fn(|cx| {
            polls += 1;
            if polls == 2 {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            let moment = Instant::now() + Duration::from_millis(20);
            assert!(wait_until(std::future::pending::<()>(), Some(moment)).is_none());
            Poll::Pending
        }));
        assert_eq!(polls, 2);
    }

    /// A publish that finds buffer space yields like this once its task has used up its budget.
    #[test]
    fn a_future_that_yields_resolves_though_no_time_is_left() {
        let mut yielded = false;
        let once = poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        assert_eq!(wait_until(once, Some(Instant::now())), Some(()));
        let restless = poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert_eq!(wait_until(restless, Some(Instant::now())), None, "it waits no longer");
    }

    #[test]
    fn a_wake_up_of_an_earlier_wait_ends_no_later_one() {
        let stale = waker();
        stale.wake();
        let moment = Instant::now() + Duration::from_millis(20);
        assert!(wait_until(std::future::pending::<()>(), Some(moment)).is_none());
        assert!(moment <= Instant::now());
    }
}
