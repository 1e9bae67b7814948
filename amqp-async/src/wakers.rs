//! The wakers of futures that wait, stored next to the core and found by its keys.
//!
//! No waker is woken, replaced or dropped under the lock: all are added to a [`Released`] list.
//!
//! What that list runs is code of the application and of its executor. A panic of one entry is caught. It
//! must not keep the other wakers from being woken, and it must not end the caller, which may be the driver
//! or a destructor. The panic hook has already reported it.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use amqp_core::{PublishSeq, Session};
use bytes::Bytes;

use crate::trace::{Log, Step, Steps};

/// What is woken and dropped when the lock is released.
#[derive(Debug, Default)]
pub(crate) struct Released {
    /// In most cases there is at most one.
    first: Option<Waker>,
    /// Anything else, which is rare.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    woken: Vec<Waker>,
    dropped: Vec<Waker>,
    bodies: Vec<Bytes>,
    steps: Steps,
    session: Option<Box<Session>>,
}

impl Released {
    pub(crate) fn wake(&mut self, waker: Option<Waker>) {
        let Some(waker) = waker else { return };
        if self.first.is_none() {
            self.first = Some(waker);
        } else {
            self.more().woken.push(waker);
        }
    }

    pub(crate) fn drop_waker(&mut self, waker: Option<Waker>) {
        if waker.is_some() {
            self.more().dropped.extend(waker);
        }
    }

    pub(crate) fn drop_bodies(&mut self, bodies: Vec<Bytes>) {
        if !bodies.is_empty() {
            self.more().bodies.extend(bodies);
        }
    }

    /// Adds a session that another has replaced, to be dropped.
    pub(crate) fn drop_session(&mut self, session: Session) {
        self.more().session = Some(Box::new(session));
    }

    /// Adds a step to log.
    #[inline]
    pub(crate) fn log(&mut self, log: &Log, step: impl FnOnce() -> Step) {
        if Steps::ENABLED {
            self.more().steps.add(log, step);
        }
    }

    /// Wakes and drops everything, without a lock.
    #[inline]
    pub(crate) fn release(self) {
        if self.first.is_some() || self.more.is_some() {
            self.release_all();
        }
    }

    #[inline(never)]
    fn release_all(mut self) {
        // First, so that a woken task logs behind what woke it.
        if let Some(more) = &mut self.more {
            run(|| more.steps.write());
        }
        if let Some(waker) = self.first {
            run(|| waker.wake());
        }
        if let Some(more) = self.more {
            more.release();
        }
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }
}

impl More {
    #[cold]
    fn release(self) {
        let Self { woken, dropped, bodies, steps: _, session } = self;
        for waker in woken {
            run(|| waker.wake());
        }
        for waker in dropped {
            run(|| drop(waker));
        }
        for body in bodies {
            run(|| drop(body));
        }
        run(|| drop(session));
    }
}

/// Runs code of the application, and catches its panic.
#[inline]
fn run(code: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(code));
}

/// At most one waker for each index.
#[derive(Debug, Default)]
pub(crate) struct WakerTable(Vec<Option<Waker>>);

impl WakerTable {
    pub(crate) fn register(&mut self, index: usize, waker: &Waker, released: &mut Released) {
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        register(&mut self.0[index], waker, released);
    }

    pub(crate) fn take(&mut self, index: usize) -> Option<Waker> {
        self.0.get_mut(index)?.take()
    }

    pub(crate) fn wake_all(&mut self, released: &mut Released) {
        self.0.iter_mut().for_each(|waker| released.wake(waker.take()));
    }
}

/// Stores `waker` in `place`, unless a waker of the same task is there.
pub(crate) fn register(place: &mut Option<Waker>, waker: &Waker, released: &mut Released) {
    if !place.as_ref().is_some_and(|known| known.will_wake(waker)) {
        released.drop_waker(place.replace(waker.clone()));
    }
}

/// The wakers of publishes that await their confirm, by number.
#[derive(Debug, Default)]
pub(crate) struct SeqWakers {
    base: u64,
    ring: VecDeque<Option<Waker>>,
}

impl SeqWakers {
    pub(crate) fn register(&mut self, seq: PublishSeq, waker: &Waker, released: &mut Released) {
        let seq = seq.number();
        if self.ring.is_empty() {
            self.base = seq;
        }
        while seq < self.base {
            self.ring.push_front(None);
            self.base -= 1;
        }
        let at = (seq - self.base) as usize;
        if self.ring.len() <= at {
            self.ring.resize(at + 1, None);
        }
        register(&mut self.ring[at], waker, released);
    }

    pub(crate) fn resolved(
        &mut self,
        first: PublishSeq,
        last: PublishSeq,
        released: &mut Released,
    ) {
        let end = self.base + self.ring.len() as u64;
        for seq in first.number().max(self.base)..(last.number() + 1).min(end) {
            released.wake(self.ring[(seq - self.base) as usize].take());
        }
        self.trim();
    }

    pub(crate) fn wake_all(&mut self, released: &mut Released) {
        self.ring.drain(..).for_each(|waker| released.wake(waker));
    }

    pub(crate) fn forget(&mut self, seq: PublishSeq, released: &mut Released) {
        let at = seq.number().checked_sub(self.base).map(|at| at as usize);
        if let Some(place) = at.and_then(|at| self.ring.get_mut(at)) {
            released.drop_waker(place.take());
            self.trim();
        }
    }

    fn trim(&mut self) {
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.base += 1;
        }
    }
}

/// A queue of waiting tasks, first come first served. Only the first may continue. When it has continued or
/// stopped waiting, the next is woken.
#[derive(Debug, Default)]
pub(crate) struct WaitQueue {
    next: u64,
    waiting: BTreeMap<u64, Option<Waker>>,
}

impl WaitQueue {
    /// Whether the holder of `ticket`, or a newcomer without a ticket, may continue.
    #[inline]
    pub(crate) fn may_pass(&self, ticket: Option<u64>) -> bool {
        self.waiting.is_empty()
            || (ticket.is_some() && self.waiting.keys().next().copied() == ticket)
    }

    /// Waits, at the old place in the queue if there is one.
    pub(crate) fn wait(&mut self, ticket: &mut Option<u64>, waker: &Waker, out: &mut Released) {
        let number = *ticket.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        register(self.waiting.entry(number).or_default(), waker, out);
    }

    /// Leaves the queue, after continuing or to stop waiting. If this was the first, the next is woken.
    pub(crate) fn leave(&mut self, ticket: &mut Option<u64>, released: &mut Released) {
        let Some(ticket) = ticket.take() else { return };
        let was_front = self.waiting.keys().next() == Some(&ticket);
        released.drop_waker(self.waiting.remove(&ticket).flatten());
        if was_front {
            self.wake_front(released);
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Wakes the first task, which may continue.
    pub(crate) fn wake_front(&mut self, released: &mut Released) {
        if let Some(mut front) = self.waiting.first_entry() {
            released.wake(front.get_mut().take());
        }
    }

    /// Wakes all tasks, because there is nothing left to wait for.
    pub(crate) fn wake_all(&mut self, released: &mut Released) {
        for waker in self.waiting.values_mut() {
            released.wake(waker.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use bytes::Bytes;

    use super::{Released, WaitQueue};

    /// Counts its wake-ups and drops, and panics on each.
    struct Panics(Arc<AtomicUsize>);

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
            // It would be dropped during a panic, and a second panic would abort the process.
            std::mem::forget(self);
            panic!("woken");
        }
    }

    impl Drop for Panics {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("dropped");
        }
    }

    impl AsRef<[u8]> for Panics {
        fn as_ref(&self) -> &[u8] {
            &[]
        }
    }

    #[test]
    fn a_panic_of_one_keeps_nothing_from_the_others() {
        let count = Arc::new(AtomicUsize::new(0));
        let waker = || Waker::from(Arc::new(Panics(Arc::clone(&count))));
        let mut released = Released::default();
        for _ in 0..3 {
            released.wake(Some(waker()));
            released.drop_waker(Some(waker()));
            released.drop_bodies(vec![Bytes::from_owner(Panics(Arc::clone(&count)))]);
        }
        released.release();
        assert_eq!(count.load(Ordering::Relaxed), 9);
    }

    #[test]
    fn the_queue_is_first_in_first_out_and_survives_those_who_leave() {
        let (mut queue, mut released) = (WaitQueue::default(), Released::default());
        let mut tickets = [None, None, None];
        for ticket in &mut tickets {
            assert!(ticket.is_none());
            queue.wait(ticket, Waker::noop(), &mut released);
        }
        assert!(!queue.may_pass(None), "a newcomer does not overtake");
        assert!(queue.may_pass(tickets[0]) && !queue.may_pass(tickets[1]));
        queue.wake_front(&mut released);
        assert!(released.first.take().is_some());
        queue.leave(&mut tickets[0], &mut released);
        assert!(released.first.take().is_some(), "the next one is woken in its place");
        queue.leave(&mut tickets[2], &mut released);
        assert!(released.first.is_none(), "no task is woken for one from the back");
        queue.leave(&mut tickets[1], &mut released);
        assert!(queue.may_pass(None));
    }
}
