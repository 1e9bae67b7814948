//! `Intake`: the consumers that the workers of a source share, and the order of messages with the same key.
//!
//! A worker that waits polls the consumers itself, so no task stands between the connection and the worker. A consumer keeps
//! one waker, and it is that of the bell. A delivery rings the bell, which wakes one worker that waits. A worker that takes a
//! delivery rings it again, because there may be more.
//!
//! A message whose key is in work waits in the intake, and the worker takes the next one. The worker that has finished a key
//! passes it on to the next message of that key. What waits is unacknowledged: when it is dropped, it is requeued.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use amqp_async::Error;

use crate::measure::Waiting;
use crate::sync::lock;

/// A message and its key, if the order of keys is kept.
pub(crate) type Next<D> = (D, Option<String>);

/// Where deliveries come from.
pub(crate) trait Feed {
    type Delivery;

    /// As [`futures_core::Stream::poll_next`].
    fn poll_delivery(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Self::Delivery, Error>>>;

    /// Whether the broker delivers it again.
    fn is_stale(delivery: &Self::Delivery) -> bool;
}

pub(crate) struct Intake<F: Feed> {
    state: Mutex<State<F>>,
    bell: Arc<Bell>,
    /// Wakes the task that waits for the end of the feed.
    ended: Mutex<Option<Waker>>,
}

struct State<F: Feed> {
    /// `None` while the consumer is started, and at the end.
    feed: Option<F>,
    /// How the feed has ended: the error, or `None` if it was cancelled.
    end: Option<Option<Error>>,
    closed: bool,
    keys: Keys<F::Delivery>,
}

/// Which keys are in work, and what waits for them.
struct Keys<D> {
    busy: HashSet<String>,
    waiting: HashMap<String, VecDeque<D>>,
    /// What waits for a worker alone: its key is reserved.
    ready: VecDeque<(D, String)>,
    /// Of what waits for its key.
    measure: Waiting,
}

impl<F: Feed> Intake<F> {
    pub(crate) fn new(measure: Waiting) -> Self {
        let (busy, waiting, ready) = (HashSet::new(), HashMap::new(), VecDeque::new());
        let keys = Keys { busy, waiting, ready, measure };
        let state = State { feed: None, end: None, closed: false, keys };
        Self { state: Mutex::new(state), bell: Arc::default(), ended: Mutex::default() }
    }

    /// Begins to take deliveries of this feed.
    pub(crate) fn open(&self, feed: F) {
        let old = {
            let mut state = lock(&self.state);
            state.end = None;
            state.keys.forget_waiting();
            state.feed.replace(feed)
        };
        drop(old);
        self.bell.ring();
    }

    /// Takes the feed away.
    pub(crate) fn take(&self) -> Option<F> {
        lock(&self.state).feed.take()
    }

    /// Takes what waits for its key, or for a worker.
    pub(crate) fn take_waiting(&self) -> Vec<F::Delivery> {
        lock(&self.state).keys.take_waiting()
    }

    /// Takes no more deliveries: workers get `None`, and what waits is dropped.
    pub(crate) fn close(&self) {
        let dropped = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.keys.take_waiting()
        };
        drop(dropped);
        self.bell.ring_all();
    }

    /// Waits for the next message. Resolves to `None` when the intake is closed. No message is lost if the future is dropped.
    pub(crate) async fn next(
        &self,
        worker: usize,
        key: impl Fn(&F::Delivery) -> Option<String>,
    ) -> Option<Next<F::Delivery>> {
        let mut leaving = Leaving { bell: &self.bell, worker, gives_up: true };
        let next = poll_fn(|cx| self.poll_next(cx, worker, &key)).await;
        leaving.gives_up = false;
        next
    }

    /// Finishes the message with this key.
    pub(crate) fn finish(&self, key: Option<String>) {
        let Some(key) = key else { return };
        if lock(&self.state).keys.finish(key, F::is_stale) {
            self.bell.ring();
        }
    }

    /// Waits until the feed has ended. Resolves to the error, `None` if it was cancelled.
    pub(crate) async fn ended(&self) -> Option<Error> {
        poll_fn(|cx| {
            *lock(&self.ended) = Some(cx.waker().clone());
            match &lock(&self.state).end {
                Some(end) => Poll::Ready(end.clone()),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn poll_next(
        &self,
        cx: &mut Context<'_>,
        worker: usize,
        key: &impl Fn(&F::Delivery) -> Option<String>,
    ) -> Poll<Option<Next<F::Delivery>>> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if state.closed {
            return Poll::Ready(None);
        }
        if let Some((delivery, key)) = state.keys.ready.pop_front() {
            self.bell.leave(worker);
            return Poll::Ready(Some((delivery, Some(key))));
        }
        // Before the feed is polled: a delivery that arrives after that rings for this worker too.
        self.bell.wait(worker, cx.waker());
        let bell = Waker::from(Arc::clone(&self.bell));
        let mut ringing = Context::from_waker(&bell);
        while let Some(feed) = &mut state.feed {
            match feed.poll_delivery(&mut ringing) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(delivery))) => {
                    let Some(next) = state.keys.admit(delivery, key) else { continue };
                    drop(guard);
                    self.bell.leave(worker);
                    self.bell.ring();
                    return Poll::Ready(Some(next));
                }
                Poll::Ready(end) => {
                    let error = end.and_then(Result::err);
                    let feed = state.feed.take();
                    state.end = Some(error);
                    drop(guard);
                    drop(feed);
                    lock(&self.ended).take().into_iter().for_each(Waker::wake);
                    return Poll::Pending;
                }
            }
        }
        Poll::Pending
    }
}

impl<D> Keys<D> {
    /// The delivery, if it may be handled at once.
    fn admit(&mut self, delivery: D, key: &impl Fn(&D) -> Option<String>) -> Option<Next<D>> {
        let Some(key) = key(&delivery) else { return Some((delivery, None)) };
        if self.busy.insert(key.clone()) {
            return Some((delivery, Some(key)));
        }
        self.waiting.entry(key).or_default().push_back(delivery);
        self.measure.change(0, 1);
        None
    }

    /// Passes the key on. Returns whether a message is ready.
    fn finish(&mut self, key: String, is_stale: fn(&D) -> bool) -> bool {
        let mut next = None;
        if let Some(waiting) = self.waiting.get_mut(&key) {
            let before = waiting.len();
            // The broker delivers stale ones again, behind those that it has not delivered.
            waiting.retain(|delivery| !is_stale(delivery));
            next = waiting.pop_front();
            self.measure.change(before, waiting.len());
            if waiting.is_empty() {
                self.waiting.remove(&key);
            }
        }
        match next {
            Some(delivery) => self.ready.push_back((delivery, key)),
            None => drop(self.busy.remove(&key)),
        }
        !self.ready.is_empty()
    }

    fn forget_waiting(&mut self) {
        drop(self.take_waiting());
    }

    fn take_waiting(&mut self) -> Vec<D> {
        let mut taken: Vec<D> = self.waiting.drain().flat_map(|(_, waiting)| waiting).collect();
        self.measure.change(taken.len(), 0);
        for (delivery, key) in self.ready.drain(..) {
            self.busy.remove(&key);
            taken.push(delivery);
        }
        taken
    }
}

/// Wakes one of the workers that wait, those by their numbers.
#[derive(Default)]
struct Bell(Mutex<VecDeque<(usize, Waker)>>);

impl Bell {
    fn wait(&self, worker: usize, waker: &Waker) {
        let mut waiting = lock(&self.0);
        match waiting.iter_mut().find(|(other, _)| *other == worker) {
            Some((_, present)) => present.clone_from(waker),
            None => waiting.push_back((worker, waker.clone())),
        }
    }

    /// A worker that has found a message must not be woken in place of one that waits.
    fn leave(&self, worker: usize) {
        lock(&self.0).retain(|(other, _)| *other != worker);
    }

    /// If the bell has rung for a worker that does not look any more, it rings for the next one.
    fn give_up(&self, worker: usize) {
        let mut waiting = lock(&self.0);
        let present = waiting.iter().position(|(other, _)| *other == worker);
        match present {
            Some(index) => drop(waiting.remove(index)),
            None => {
                drop(waiting);
                self.ring();
            }
        }
    }

    fn ring(&self) {
        let first = lock(&self.0).pop_front();
        first.into_iter().for_each(|(_, waker)| waker.wake());
    }

    fn ring_all(&self) {
        let all = std::mem::take(&mut *lock(&self.0));
        all.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// A worker that waits, or gives that up.
struct Leaving<'a> {
    bell: &'a Bell,
    worker: usize,
    gives_up: bool,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if self.gives_up {
            self.bell.give_up(self.worker);
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll, Wake, Waker};

    use amqp_async::Error;

    use super::{Feed, Intake, Next};
    use crate::measure::Waiting;

    /// A feed whose deliveries the test adds: text, the first letter of which is the key.
    #[derive(Clone, Default)]
    struct Played(Arc<Mutex<(VecDeque<String>, Option<Waker>)>>);

    impl Played {
        fn add(&self, delivery: &str) {
            let waker = {
                let mut state = self.0.lock().unwrap();
                state.0.push_back(delivery.to_owned());
                state.1.take()
            };
            waker.into_iter().for_each(Waker::wake);
        }
    }

    impl Feed for Played {
        type Delivery = String;

        fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<String, Error>>> {
            let mut state = self.0.lock().unwrap();
            match state.0.pop_front() {
                Some(end) if end == "end" => Poll::Ready(None),
                Some(delivery) => Poll::Ready(Some(Ok(delivery))),
                None => {
                    state.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }

        fn is_stale(delivery: &String) -> bool {
            delivery.ends_with("stale")
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Woken {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What a worker gets when it is polled once.
    fn poll(
        intake: &Intake<Played>,
        worker: usize,
        woken: &Arc<Woken>,
    ) -> Poll<Option<Next<String>>> {
        let key = |delivery: &String| {
            delivery.starts_with(char::is_alphabetic).then(|| delivery[..1].into())
        };
        let waker = Waker::from(Arc::clone(woken));
        // Not by a future that is dropped: the worker would give up.
        intake.poll_next(&mut Context::from_waker(&waker), worker, &key)
    }

    fn opened() -> (Intake<Played>, Played, [Arc<Woken>; 3]) {
        let (intake, feed) = (Intake::new(Waiting::unmeasured()), Played::default());
        intake.open(feed.clone());
        (intake, feed, Default::default())
    }

    fn got(next: &str, key: Option<&str>) -> Poll<Option<Next<String>>> {
        Poll::Ready(Some((next.to_owned(), key.map(str::to_owned))))
    }

    #[test]
    fn a_worker_that_finds_a_message_wakes_the_next_one_that_waits() {
        let (intake, feed, woken) = opened();
        for (worker, woken) in woken.iter().enumerate() {
            assert!(poll(&intake, worker, woken).is_pending());
        }
        feed.add("1");
        feed.add("2");
        assert_eq!([0, 1, 2].map(|it| woken[it].take()), [1, 0, 0], "the first one only");
        assert_eq!(poll(&intake, 0, &woken[0]), got("1", None));
        assert_eq!([0, 1, 2].map(|it| woken[it].take()), [0, 1, 0], "there may be more");
        assert_eq!(poll(&intake, 1, &woken[1]), got("2", None));
        assert_eq!([0, 1, 2].map(|it| woken[it].take()), [0, 0, 1]);
        assert!(poll(&intake, 2, &woken[2]).is_pending());
        // The others are at work: they are not woken in place of the one that waits.
        feed.add("3");
        assert_eq!([0, 1, 2].map(|it| woken[it].take()), [0, 0, 1]);
    }

    #[test]
    fn a_worker_that_gives_up_is_not_woken_in_place_of_another() {
        let (intake, feed, woken) = opened();
        {
            let mut giving_up = pin!(intake.next(0, |_| None));
            let waker = Waker::from(Arc::clone(&woken[0]));
            assert!(giving_up.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            assert!(poll(&intake, 1, &woken[1]).is_pending());
            feed.add("1");
            assert_eq!([0, 1].map(|it| woken[it].take()), [1, 0]);
        }
        assert_eq!(woken[1].take(), 1, "the other one in its place");
        assert_eq!(poll(&intake, 1, &woken[1]), got("1", None));
        {
            let mut giving_up = pin!(intake.next(0, |_| None));
            let waker = Waker::from(Arc::clone(&woken[0]));
            assert!(giving_up.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert!(poll(&intake, 1, &woken[1]).is_pending());
        woken[1].take();
        feed.add("2");
        assert_eq!([0, 1].map(|it| woken[it].take()), [0, 1]);
    }

    #[test]
    fn messages_wait_for_their_keys_and_others_pass_them() {
        let (intake, feed, woken) = opened();
        ["a1", "a2", "b1", "a3", "5"].iter().for_each(|it| feed.add(it));
        assert_eq!(poll(&intake, 0, &woken[0]), got("a1", Some("a")));
        assert_eq!(poll(&intake, 1, &woken[1]), got("b1", Some("b")));
        assert_eq!(poll(&intake, 2, &woken[2]), got("5", None));
        intake.finish(None);
        assert!(poll(&intake, 2, &woken[2]).is_pending());
        for woken in &woken {
            woken.take();
        }
        intake.finish(Some("a".into()));
        assert_eq!(woken[2].take(), 1);
        assert_eq!(poll(&intake, 2, &woken[2]), got("a2", Some("a")));
        intake.finish(Some("b".into()));
        intake.finish(Some("a".into()));
        assert_eq!(poll(&intake, 0, &woken[0]), got("a3", Some("a")));
        intake.finish(Some("a".into()));
        feed.add("a4");
        assert_eq!(poll(&intake, 0, &woken[0]), got("a4", Some("a")), "nothing keeps the key");
    }

    #[test]
    fn what_is_stale_is_dropped_and_does_not_keep_its_key() {
        let (intake, feed, woken) = opened();
        ["a1", "a2 stale", "a3 stale"].iter().for_each(|it| feed.add(it));
        assert_eq!(poll(&intake, 0, &woken[0]), got("a1", Some("a")));
        assert!(poll(&intake, 1, &woken[1]).is_pending());
        intake.finish(Some("a".into()));
        feed.add("a2");
        assert_eq!(poll(&intake, 1, &woken[1]), got("a2", Some("a")));
    }

    #[test]
    fn another_feed_begins_without_what_waited() {
        let (intake, feed, woken) = opened();
        ["a1", "a2", "end"].iter().for_each(|it| feed.add(it));
        assert_eq!(poll(&intake, 0, &woken[0]), got("a1", Some("a")));
        assert!(poll(&intake, 1, &woken[1]).is_pending());
        let waker = Waker::from(Arc::clone(&woken[2]));
        let ended = pin!(intake.ended()).poll(&mut Context::from_waker(&waker));
        assert_eq!(ended, Poll::Ready(None));
        let other = Played::default();
        other.add("a2 again");
        intake.open(other);
        assert!(poll(&intake, 1, &woken[1]).is_pending(), "its key is in work");
        intake.finish(Some("a".into()));
        assert_eq!(poll(&intake, 1, &woken[1]), got("a2 again", Some("a")));
    }

    #[test]
    fn workers_of_a_closed_intake_get_nothing() {
        let (intake, feed, woken) = opened();
        assert!(poll(&intake, 0, &woken[0]).is_pending());
        intake.close();
        assert_eq!(woken[0].take(), 1);
        feed.add("late");
        assert_eq!(poll(&intake, 0, &woken[0]), Poll::Ready(None));
    }
}
