//! A pool of threads for name lookups, and for dial functions and credentials providers of applications.
//!
//! They block, may take longer than an attempt to connect, and cannot be cancelled. So they run on threads of
//! a pool that all connections of the process share. The pool starts a thread if work finds none idle, up to
//! a maximum. Further work waits in a queue. A thread ends when the queue is empty, so that a process has
//! none once its connections are open.
//!
//! If the future of a work is dropped because its attempt timed out, the work leaves the queue. If it is
//! running already, it keeps its thread until it returns, and its result is dropped.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread;

use crate::limits::CONNECT_THREADS_MAX;

/// Runs `work` on a thread of the pool.
pub(crate) fn run<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Working<T> {
    static POOL: Pool = Pool::new();
    POOL.run(work)
}

/// Resolves to the result of the work.
pub(crate) struct Working<T>(Arc<Answer<T>>);

impl<T> Working<T> {
    /// Creates a result that needs no thread.
    pub(crate) fn ready(result: io::Result<T>) -> Self {
        let answer = Answer::default();
        answer.finish(result);
        Self(Arc::new(answer))
    }
}

impl<T> Future for Working<T> {
    type Output = io::Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.0.0);
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> fmt::Debug for Working<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Working").finish_non_exhaustive()
    }
}

struct Answer<T>(Mutex<State<T>>);

struct State<T> {
    result: Option<io::Result<T>>,
    waker: Option<Waker>,
}

impl<T> Default for Answer<T> {
    fn default() -> Self {
        Self(Mutex::new(State { result: None, waker: None }))
    }
}

impl<T> Answer<T> {
    fn finish(&self, result: io::Result<T>) {
        let waker = {
            let mut state = lock(&self.0);
            state.result = Some(result);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct Pool(Mutex<Queue>);

struct Queue {
    /// The number of running threads.
    threads: usize,
    /// The work that waits for a thread.
    waiting: VecDeque<Work>,
}

struct Work {
    /// The answer that the future waits for. If the future is dropped, the reference is dead.
    answer: Weak<dyn Send + Sync>,
    run: Box<dyn FnOnce() + Send>,
}

impl Work {
    fn is_wanted(&self) -> bool {
        self.answer.strong_count() > 0
    }
}

impl Pool {
    const fn new() -> Self {
        Self(Mutex::new(Queue { threads: 0, waiting: VecDeque::new() }))
    }

    fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Working<T> {
        let answer = Arc::<Answer<T>>::default();
        let waiting = Arc::downgrade(&answer);
        let run = {
            let answer = waiting.clone();
            move || {
                // A panic of the application's code is reported, and the thread continues with other work.
                let result = catch_unwind(AssertUnwindSafe(work))
                    .unwrap_or_else(|_| Err(io::Error::other("the dial function panicked")));
                if let Some(answer) = answer.upgrade() {
                    answer.finish(result);
                }
            }
        };
        let mut queue = lock(&self.0);
        queue.waiting.retain(Work::is_wanted);
        queue.waiting.push_back(Work { answer: waiting, run: Box::new(run) });
        if queue.threads < CONNECT_THREADS_MAX {
            let spawned = thread::Builder::new().name("amqp-connect".into()).spawn(|| self.work());
            match spawned {
                Ok(_) => queue.threads += 1,
                // If another thread is running, the work is only delayed.
                Err(error) if queue.threads == 0 => {
                    queue.waiting.pop_back();
                    drop(queue);
                    answer.finish(Err(error));
                }
                Err(_) => {}
            }
        }
        Working(answer)
    }

    /// Runs work until none is waiting.
    fn work(&self) {
        while let Some(work) = self.next() {
            (work.run)();
        }
    }

    /// Takes the oldest work whose future still exists. If there is none, the thread no longer counts as
    /// running.
    fn next(&self) -> Option<Work> {
        let mut queue = lock(&self.0);
        while let Some(work) = queue.waiting.pop_front() {
            if work.is_wanted() {
                return Some(work);
            }
        }
        queue.threads -= 1;
        None
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::{CONNECT_THREADS_MAX, Pool, Working, lock};
    use crate::wait::wait;

    /// Work that hangs takes no more threads than the maximum, however many attempts time out.
    #[test]
    fn work_that_hangs_takes_a_bounded_number_of_threads() {
        static POOL: Pool = Pool::new();
        let (begin, begun) = mpsc::channel();
        let mut gates = Vec::new();
        let mut run = |number: usize| -> Working<usize> {
            let (open, gate) = mpsc::channel::<()>();
            gates.push(open);
            let begin = begin.clone();
            POOL.run(move || {
                begin.send(number).unwrap();
                let _ = gate.recv();
                Ok(number)
            })
        };
        let mut all: Vec<_> = (0..3 * CONNECT_THREADS_MAX).map(&mut run).collect();
        let mut running: Vec<_> = begun.iter().take(CONNECT_THREADS_MAX).collect();
        running.sort_unstable();
        assert_eq!(running, Vec::from_iter(0..CONNECT_THREADS_MAX));
        assert_eq!(lock(&POOL.0).threads, CONNECT_THREADS_MAX);

        // All attempts except the last time out. Their waiting work leaves the queue and is not run.
        let last = all.pop().unwrap();
        drop(all);
        let another = run(1_000);
        assert_eq!(lock(&POOL.0).waiting.len(), 2);
        assert!(begun.try_recv().is_err());

        gates.clear();
        assert_eq!(wait(last).unwrap(), 3 * CONNECT_THREADS_MAX - 1);
        assert_eq!(wait(another).unwrap(), 1_000);
        let mut later: Vec<_> = begun.try_iter().collect();
        later.sort_unstable();
        assert_eq!(later, [3 * CONNECT_THREADS_MAX - 1, 1_000]);
        while lock(&POOL.0).threads > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_panic_is_an_error_and_keeps_no_thread() {
        static POOL: Pool = Pool::new();
        let panics = || -> std::io::Result<u8> { panic!("expected by this test") };
        for _ in 0..2 * CONNECT_THREADS_MAX {
            let error = wait(POOL.run(panics)).unwrap_err();
            assert_eq!(error.to_string(), "the dial function panicked");
        }
        assert_eq!(wait(POOL.run(|| Ok(7))).unwrap(), 7);
    }
}
