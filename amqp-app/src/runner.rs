//! The executor of a platform without its type, so that what is not generic over platforms need not be compiled for each.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use amqp_async::{Executor, Timer};

/// A future that is boxed and can be sent.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Work = Box<dyn FnOnce() + Send>;

/// Tasks, timers and threads of a platform.
#[derive(Clone)]
pub(crate) struct Runner(Arc<dyn Run>);

trait Run: Send + Sync {
    fn now(&self) -> Instant;
    fn timer(&self) -> Box<dyn Timer>;
    fn spawn(&self, task: BoxFuture<'static, ()>);
    fn spawn_blocking(&self, work: Work);
}

impl Runner {
    pub(crate) fn new(executor: impl Executor) -> Self {
        Self(Arc::new(executor))
    }

    pub(crate) fn now(&self) -> Instant {
        self.0.now()
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(Box::pin(task));
    }

    /// Runs work that blocks on a thread where it may.
    pub(crate) fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        self.0.spawn_blocking(Box::new(work));
    }

    pub(crate) async fn sleep(&self, time: Duration) {
        self.sleep_until(self.now().checked_add(time)).await;
    }

    /// Waits for ever without a deadline.
    pub(crate) async fn sleep_until(&self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return std::future::pending().await };
        let mut timer = self.0.timer();
        poll_fn(|cx| timer.poll_until(cx, deadline)).await;
    }

    /// Resolves to the output of `future`, `None` if the deadline passes before. Then the future is dropped.
    pub(crate) async fn until<F: Future>(
        &self,
        deadline: Option<Instant>,
        future: F,
    ) -> Option<F::Output> {
        let Some(deadline) = deadline else { return Some(future.await) };
        let (mut timer, mut future) = (self.0.timer(), pin!(future));
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => timer.poll_until(cx, deadline).map(|()| None),
        })
        .await
    }
}

/// Resolves to the output of `future`, `None` if `other` resolves first.
pub(crate) async fn first_of<F: Future, G: Future>(future: F, other: G) -> Option<F::Output> {
    let (mut future, mut other) = (pin!(future), pin!(other));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => other.as_mut().poll(cx).map(|_| None),
    })
    .await
}

/// Runs all futures at the same time. Resolves when all have resolved.
pub(crate) async fn join_all<F: Future>(futures: impl Iterator<Item = F>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl<E: Executor> Run for E {
    fn now(&self) -> Instant {
        amqp_async::Clock::now(self)
    }

    fn timer(&self) -> Box<dyn Timer> {
        Box::new(Executor::timer(self))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        Executor::spawn(self, task);
    }

    fn spawn_blocking(&self, work: Work) {
        Executor::spawn_blocking(self, work);
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").finish_non_exhaustive()
    }
}
