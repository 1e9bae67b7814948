//! Middleware: what runs around every handler. Panics, the retry policy and acknowledgements are outside all of it.

#[cfg(feature = "threads")]
mod threads;
mod tower;

use std::fmt;
use std::sync::Arc;

#[cfg(feature = "threads")]
pub use self::threads::ThreadNext;
#[cfg(feature = "threads")]
pub(crate) use self::threads::{thread_route, thread_wrapped};
pub(crate) use self::tower::layered;
pub use self::tower::{Route, RouteFuture};

use crate::context::Context;
use crate::handler::Handler;
use crate::outcome::Outcome;
use crate::runner::BoxFuture;

/// A handler without its type: with its middleware, or without.
pub(crate) trait Endpoint<S>: Send + Sync {
    fn call(&self, context: Context<S>) -> BoxFuture<'static, Outcome>;
}

/// The rest of the way to a handler: further middleware, and the handler.
pub struct Next<S>(Route<S>);

impl<S: 'static> Next<S> {
    /// Calls the handler, through the middleware that is closer to it. Resolves to its outcome.
    ///
    /// # Cancel safety
    /// If the future is dropped, the handler's future is dropped at its current `await`.
    pub async fn run(self, context: Context<S>) -> Outcome {
        self.0.endpoint().call(context).await
    }
}

impl<S> fmt::Debug for Next<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}

pub(crate) fn route<A, S, H>(handler: H) -> Route<S>
where
    A: 'static,
    S: Send + Sync + 'static,
    H: Handler<A, S>,
{
    let call =
        move |context| -> BoxFuture<'static, Outcome> { Box::pin(handler.clone().call(context)) };
    Route::of_handler(Called(call), H::takes_batches())
}

pub(crate) fn wrapped<S, F, Fut>(wrap: Arc<F>, inner: Route<S>) -> Route<S>
where
    S: Send + Sync + 'static,
    F: Fn(Context<S>, Next<S>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    let call = move |context| -> BoxFuture<'static, Outcome> {
        let (wrap, next) = (Arc::clone(&wrap), Next(inner.clone()));
        // The function itself may panic: it is called in a poll.
        Box::pin(async move { wrap(context, next).await })
    };
    Route::new(Called(call))
}

/// A route that runs a function before everything else.
#[cfg(feature = "config")]
pub(crate) fn before<S: Send + Sync + 'static>(
    inner: Route<S>,
    before: impl Fn(&Context<S>) + Send + Sync + 'static,
) -> Route<S> {
    let call = move |context| {
        before(&context);
        inner.endpoint().call(context)
    };
    Route::new(Called(call))
}

struct Called<F>(F);

impl<S, F> Endpoint<S> for Called<F>
where
    F: Fn(Context<S>) -> BoxFuture<'static, Outcome> + Send + Sync,
{
    fn call(&self, context: Context<S>) -> BoxFuture<'static, Outcome> {
        (self.0)(context)
    }
}
