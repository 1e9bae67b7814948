//! Threads as an executor.

use std::thread;
use std::time::Instant;

use amqp_async::{Clock, Executor};

use crate::timer::ThreadTimer;
use crate::wait::wait;

/// An executor that runs each task on its own thread, which sleeps while the task waits.
///
/// Timers fire in tasks, and in futures that [`block_on`](Self::block_on) waits for. If the system cannot
/// start a thread, `spawn` and `spawn_blocking` panic as [`std::thread::spawn`] does.
///
/// ```
/// use amqp_blocking::runtime::{Executor, Threads, Timer};
/// use std::time::{Duration, Instant};
///
/// let mut timer = Threads.timer();
/// let deadline = Instant::now() + Duration::from_millis(10);
/// Threads.block_on(std::future::poll_fn(|cx| timer.poll_until(cx, deadline)));
/// assert!(deadline <= Instant::now());
/// ```
#[derive(Clone, Debug, Default)]
#[allow(clippy::exhaustive_structs, reason = "it has no state")]
pub struct Threads;

impl Threads {
    /// Blocks the calling thread until a future resolves. Returns its output.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        wait(future)
    }
}

impl Clock for Threads {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

impl Executor for Threads {
    type Timer = ThreadTimer;

    fn timer(&self) -> ThreadTimer {
        ThreadTimer::default()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        thread::spawn(move || wait(task));
    }

    fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        thread::spawn(work);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::{Pin, pin};
    use std::sync::mpsc;
    use std::task::Poll;
    use std::time::{Duration, Instant};

    use amqp_async::{Executor, Timer};

    use super::Threads;
    use crate::wait::wait_until;

    async fn sleep(time: Duration) {
        let (mut timer, deadline) = (Threads.timer(), Instant::now() + time);
        poll_fn(|cx| timer.poll_until(cx, deadline)).await;
    }

    #[test]
    fn timers_of_a_task_fire_in_their_order() {
        let (send, fired) = mpsc::channel();
        Threads.spawn(async move {
            let [late, mut early] = [30, 10].map(|ms| Box::pin(sleep(Duration::from_millis(ms))));
            poll_fn(|cx| Pin::new(&mut early).poll(cx)).await;
            send.send("early").unwrap();
            late.await;
            send.send("late").unwrap();
        });
        assert_eq!(fired.iter().collect::<Vec<_>>(), ["early", "late"]);
    }

    #[test]
    fn a_timer_can_be_moved_and_dropped() {
        let begun = Instant::now();
        let soon = begun + Duration::from_millis(20);
        let (mut moved, mut dropped) = (Threads.timer(), Threads.timer());
        let mut polls = 0;
        Threads.block_on(poll_fn(|cx| {
            polls += 1;
            if polls == 1 {
                assert!(dropped.poll_until(cx, begun + Duration::from_millis(5)).is_pending());
                dropped = Threads.timer();
                assert!(moved.poll_until(cx, begun + Duration::from_secs(3_600)).is_pending());
            }
            moved.poll_until(cx, soon)
        }));
        assert!(soon <= Instant::now());
        assert_eq!(polls, 2, "the dropped one wakes nothing");
    }

    #[test]
    fn a_wait_within_a_wait_lets_the_timers_of_both_fire() {
        Threads.block_on(async {
            let mut outer = pin!(sleep(Duration::from_millis(10)));
            poll_fn(|cx| {
                assert!(outer.as_mut().poll(cx).is_pending());
                Threads.block_on(sleep(Duration::from_millis(30)));
                Poll::Ready(())
            })
            .await;
            outer.await;
        });
    }

    #[test]
    fn a_timer_does_not_prolong_a_wait_with_a_deadline() {
        let moment = Instant::now() + Duration::from_millis(10);
        assert!(wait_until(sleep(Duration::from_secs(3_600)), Some(moment)).is_none());
        assert!(moment <= Instant::now());
    }

    #[test]
    fn work_that_blocks_has_a_thread() {
        let (send, done) = mpsc::channel();
        let caller = std::thread::current().id();
        Threads.spawn_blocking(move || send.send(std::thread::current().id()).unwrap());
        assert_ne!(done.recv().unwrap(), caller);
    }
}
