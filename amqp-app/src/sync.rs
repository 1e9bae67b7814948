//! What tasks of an application wait for: levels that only rise, results of other threads, and the first of two futures.

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
    /// Those of the tasks that wait, at most one for each.
    wakers: Mutex<Vec<Waker>>,
}

impl Level {
    pub(crate) fn get(&self) -> u8 {
        self.0.level.load(Ordering::Acquire)
    }

    /// Raises the level to at least this one.
    pub(crate) fn raise(&self, level: u8) {
        let woken = {
            // Under the lock, so that no task registers its waker for the level before, and loses it here.
            let mut wakers = lock(&self.0.wakers);
            if self.0.level.fetch_max(level, Ordering::AcqRel) >= level {
                return;
            }
            std::mem::take(&mut *wakers)
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// Waits until the level is at least this one.
    pub(crate) const fn reached(&self, level: u8) -> Reached<'_> {
        Reached { of: self, level, registered: None, at: 0 }
    }
}

/// Resolves when a level is reached. It can be polled again after that.
#[derive(Debug)]
pub(crate) struct Reached<'a> {
    of: &'a Level,
    level: u8,
    registered: Option<Waker>,
    /// The level when the waker was registered. A rise takes the wakers of all.
    at: u8,
}

impl Future for Reached<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let present = self.of.get();
        if present >= self.level {
            return Poll::Ready(());
        }
        let is_registered = self.at == present
            && self.registered.as_ref().is_some_and(|it| it.will_wake(cx.waker()));
        if is_registered {
            return Poll::Pending;
        }
        let waker = cx.waker().clone();
        let mut wakers = lock(&self.of.0.wakers);
        let present = self.of.get();
        if present >= self.level {
            return Poll::Ready(());
        }
        if !wakers.iter().any(|other| other.will_wake(&waker)) {
            wakers.push(waker.clone());
        }
        drop(wakers);
        (self.registered, self.at) = (Some(waker), present);
        Poll::Pending
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
