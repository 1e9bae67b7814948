//! Name lookups.
//!
//! The system's resolver blocks, for longer than an attempt to connect may take, and cannot be cancelled. Each
//! lookup therefore runs on a thread of a pool that all connections of the process share. The pool starts a
//! thread when a lookup finds none free, up to a maximum; further lookups wait in a queue. A thread ends when
//! the queue is empty, so that a process whose connections are open has none.
//!
//! A lookup whose future was dropped, because its attempt timed out, leaves the queue. One that runs
//! keeps its thread until the resolver returns.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread;

use crate::limits::LOOKUP_THREADS_MAX;

type Addresses = io::Result<Vec<SocketAddr>>;
type Work = Box<dyn FnOnce() -> Addresses + Send>;

/// Runs `work` on a thread of the pool.
pub(crate) fn look_up(work: impl FnOnce() -> Addresses + Send + 'static) -> Resolving {
    static POOL: Pool = Pool::new();
    POOL.look_up(work)
}

/// Resolves with the addresses.
#[derive(Debug)]
pub(crate) struct Resolving(Arc<Lookup>);

impl Resolving {
    /// The result of a lookup that takes no thread.
    pub(crate) fn ready(addresses: Vec<SocketAddr>) -> Self {
        let lookup = Arc::<Lookup>::default();
        lookup.finish(Ok(addresses));
        Self(lookup)
    }
}

impl Future for Resolving {
    type Output = Addresses;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Addresses> {
        let mut answer = lock(&self.0.0);
        match answer.addresses.take() {
            Some(addresses) => Poll::Ready(addresses),
            None => {
                answer.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[derive(Debug, Default)]
struct Lookup(Mutex<Answer>);

#[derive(Debug, Default)]
struct Answer {
    addresses: Option<Addresses>,
    waker: Option<Waker>,
}

impl Lookup {
    fn finish(&self, addresses: Addresses) {
        let waker = {
            let mut answer = lock(&self.0);
            answer.addresses = Some(addresses);
            answer.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct Pool(Mutex<Queue>);

struct Queue {
    /// Threads that run.
    threads: usize,
    /// Lookups without a thread. A dropped future leaves a dead reference.
    waiting: VecDeque<(Weak<Lookup>, Work)>,
}

impl Pool {
    const fn new() -> Self {
        Self(Mutex::new(Queue { threads: 0, waiting: VecDeque::new() }))
    }

    fn look_up(&'static self, work: impl FnOnce() -> Addresses + Send + 'static) -> Resolving {
        let lookup = Arc::<Lookup>::default();
        let mut queue = lock(&self.0);
        queue.waiting.retain(|(lookup, _)| lookup.strong_count() > 0);
        queue.waiting.push_back((Arc::downgrade(&lookup), Box::new(work)));
        if queue.threads < LOOKUP_THREADS_MAX {
            let spawned = thread::Builder::new().name("amqp-resolve".into()).spawn(|| self.run());
            match spawned {
                Ok(_) => queue.threads += 1,
                // With a thread left the lookup is only delayed.
                Err(error) if queue.threads == 0 => {
                    queue.waiting.pop_back();
                    drop(queue);
                    lookup.finish(Err(error));
                }
                Err(_) => {}
            }
        }
        Resolving(lookup)
    }

    /// Runs lookups until none waits.
    fn run(&self) {
        while let Some((lookup, work)) = self.next() {
            let addresses = work();
            if let Some(lookup) = lookup.upgrade() {
                lookup.finish(addresses);
            }
        }
    }

    /// The oldest lookup that is still wanted. Without one the thread no longer counts.
    fn next(&self) -> Option<(Weak<Lookup>, Work)> {
        let mut queue = lock(&self.0);
        while let Some((lookup, work)) = queue.waiting.pop_front() {
            if lookup.strong_count() > 0 {
                return Some((lookup, work));
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

    use super::{LOOKUP_THREADS_MAX, Pool, Resolving, lock};
    use crate::wait::wait;

    /// A resolver that hangs takes no more threads than the maximum, however many attempts time out.
    #[test]
    fn lookups_that_hang_take_a_bounded_number_of_threads() {
        static POOL: Pool = Pool::new();
        let (begin, begun) = mpsc::channel();
        let mut gates = Vec::new();
        let mut look_up = |number: usize| -> Resolving {
            let (open, gate) = mpsc::channel::<()>();
            gates.push(open);
            let begin = begin.clone();
            POOL.look_up(move || {
                begin.send(number).unwrap();
                let _ = gate.recv();
                Ok(vec![([127, 0, 0, 1], number as u16).into()])
            })
        };
        let mut lookups: Vec<_> = (0..3 * LOOKUP_THREADS_MAX).map(&mut look_up).collect();
        let mut running: Vec<_> = begun.iter().take(LOOKUP_THREADS_MAX).collect();
        running.sort_unstable();
        assert_eq!(running, Vec::from_iter(0..LOOKUP_THREADS_MAX));
        assert_eq!(lock(&POOL.0).threads, LOOKUP_THREADS_MAX);

        // Every attempt but the last times out: none of those that waited is looked up any more, and they
        // leave the queue.
        let last = lookups.pop().unwrap();
        drop(lookups);
        let another = look_up(1_000);
        assert_eq!(lock(&POOL.0).waiting.len(), 2);
        assert!(begun.try_recv().is_err());

        gates.clear();
        assert_eq!(wait(last).unwrap()[0].port() as usize, 3 * LOOKUP_THREADS_MAX - 1);
        assert_eq!(wait(another).unwrap()[0].port(), 1_000);
        let mut later: Vec<_> = begun.try_iter().collect();
        later.sort_unstable();
        assert_eq!(later, [3 * LOOKUP_THREADS_MAX - 1, 1_000]);
        while lock(&POOL.0).threads > 0 {
            std::thread::yield_now();
        }
    }
}
