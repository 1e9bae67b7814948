//! What tasks of an application wait for: levels that only rise, results of other threads, and the first of two futures.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::failure::BoxError;

/// A number that only rises, and that tasks wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Level(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    level: AtomicU8,
    waiting: Mutex<Waiting>,
}

/// The wakers of those that wait, by the order in which they began.
#[derive(Debug, Default)]
struct Waiting {
    wakers: BTreeMap<u64, Waker>,
    begun: u64,
}

impl Level {
    pub(crate) fn get(&self) -> u8 {
        self.0.level.load(Ordering::Acquire)
    }

    /// Raises the level to at least this one.
    pub(crate) fn raise(&self, level: u8) {
        let woken = {
            // Under the lock, so that no task registers its waker for the level before, and loses it here.
            let mut waiting = lock(&self.0.waiting);
            if self.0.level.fetch_max(level, Ordering::AcqRel) >= level {
                return;
            }
            std::mem::take(&mut waiting.wakers)
        };
        woken.into_values().for_each(Waker::wake);
    }

    /// Waits until the level is at least this one.
    pub(crate) const fn reached(&self, level: u8) -> Reached<'_> {
        Reached { of: self, level, registered: None }
    }
}

/// Resolves when a level is reached. It can be polled again after that.
#[derive(Debug)]
pub(crate) struct Reached<'a> {
    of: &'a Level,
    level: u8,
    registered: Option<Registered>,
}

#[derive(Debug)]
struct Registered {
    key: u64,
    waker: Waker,
    /// The level at that time. A rise takes the wakers of all.
    at: u8,
}

impl Future for Reached<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let present = self.of.get();
        if present >= self.level {
            return Poll::Ready(());
        }
        let is_current = |it: &Registered| it.at == present && it.waker.will_wake(cx.waker());
        if self.registered.as_ref().is_some_and(is_current) {
            return Poll::Pending;
        }
        let waker = cx.waker().clone();
        let mut waiting = lock(&self.of.0.waiting);
        let at = self.of.get();
        if at >= self.level {
            return Poll::Ready(());
        }
        let key = self.registered.as_ref().map_or_else(
            || {
                waiting.begun += 1;
                waiting.begun
            },
            |it| it.key,
        );
        let replaced = waiting.wakers.insert(key, waker.clone());
        drop(waiting);
        // Not under the lock: a waker may drop its task, and with it another one that waits.
        drop(replaced);
        self.registered = Some(Registered { key, waker, at });
        Poll::Pending
    }
}

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        if let Some(Registered { key, .. }) = self.registered {
            let removed = lock(&self.of.0.waiting).wakers.remove(&key);
            drop(removed);
        }
    }
}

/// A result of another thread.
#[derive(Debug)]
pub(crate) struct Promise<T>(Arc<Mutex<(Option<T>, Option<Waker>)>>);

impl<T> Promise<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new((None, None))))
    }

    pub(crate) fn other(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    pub(crate) fn keep(self, value: T) {
        let waker = {
            let mut slot = lock(&self.0);
            slot.0 = Some(value);
            slot.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// The value, if it is there.
    #[cfg(feature = "testing")]
    pub(crate) fn kept(&self) -> Option<T> {
        lock(&self.0).0.take()
    }

    pub(crate) async fn wait(self) -> T {
        poll_fn(|cx| {
            let mut slot = lock(&self.0);
            match slot.0.take() {
                Some(value) => Poll::Ready(value),
                None => {
                    slot.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// The output of the first of two futures that is ready.
#[derive(Debug)]
pub(crate) enum Either<A, B> {
    First(A),
    Second(B),
}

/// Waits for the first of two futures. Neither is dropped before the caller drops it.
pub(crate) async fn race<A, B>(
    first: &mut (impl Future<Output = A> + Unpin),
    second: &mut (impl Future<Output = B> + Unpin),
) -> Either<A, B> {
    poll_fn(|cx| {
        if let Poll::Ready(output) = Pin::new(&mut *first).poll(cx) {
            return Poll::Ready(Either::First(output));
        }
        Pin::new(&mut *second).poll(cx).map(Either::Second)
    })
    .await
}

/// Catches a panic of a future: the error is its message.
pub(crate) async fn catching<T>(
    mut future: impl Future<Output = T> + Unpin,
) -> Result<T, BoxError> {
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut future).poll(cx)));
        polled.map_or_else(|panic| Poll::Ready(Err(panic_text(&*panic))), |it| it.map(Ok))
    })
    .await
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> BoxError {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.as_deref().unwrap_or("without a message")).into()
}

/// Locks. A panic of another thread leaves nothing half changed here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use super::{Level, lock};

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Also with a waker of its own for every poll, as of futures that are joined.
    #[test]
    fn a_level_keeps_one_waker_for_each_that_waits() {
        let level = Level::default();
        let last = Arc::new(Counting::default());
        {
            let (mut first, mut second) = (pin!(level.reached(1)), pin!(level.reached(2)));
            for _ in 0..10 {
                let waker = Waker::from(Arc::new(Counting::default()));
                let mut cx = Context::from_waker(&waker);
                assert!(first.as_mut().poll(&mut cx).is_pending());
            }
            let waker = Waker::from(Arc::clone(&last));
            let mut cx = Context::from_waker(&waker);
            assert!(second.as_mut().poll(&mut cx).is_pending());
            assert_eq!(lock(&level.0.waiting).wakers.len(), 2);
            level.raise(1);
            assert_eq!(last.0.load(Ordering::Relaxed), 1);
            assert_eq!(first.as_mut().poll(&mut cx), Poll::Ready(()));
            assert!(second.as_mut().poll(&mut cx).is_pending(), "registered again");
            level.raise(2);
            assert_eq!(last.0.load(Ordering::Relaxed), 2);
            assert_eq!(second.as_mut().poll(&mut cx), Poll::Ready(()));
        }
        {
            let mut dropped = pin!(level.reached(3));
            let waker = Waker::from(last);
            assert!(dropped.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(lock(&level.0.waiting).wakers.len(), 0);
    }
}
