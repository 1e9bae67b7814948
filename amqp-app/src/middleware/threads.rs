//! Middleware of applications on threads. Everything runs in the poll of the worker, which is a thread and may block.

use std::fmt;
use std::sync::Arc;

use amqp_blocking::runtime::Threads;

use super::{Called, Route};
use crate::context::Context;
use crate::handler::ThreadHandler;
use crate::outcome::Outcome;
use crate::runner::BoxFuture;

/// The rest of the way to a handler on threads: further middleware, and the handler.
///
/// It is not [`Next`](super::Next), because a function that wraps a handler on threads is not asynchronous.
pub struct ThreadNext<S>(Route<S>);

impl<S: 'static> ThreadNext<S> {
    /// Calls the handler, through the middleware that is closer to it. Blocks until it returns, and returns its outcome.
    pub fn run(self, context: Context<S>) -> Outcome {
        // A layer of tower may wait between this function and the handler.
        Threads.block_on(self.0.endpoint().call(context))
    }
}

impl<S> fmt::Debug for ThreadNext<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadNext").finish_non_exhaustive()
    }
}

pub(crate) fn thread_route<A, S, H>(handler: H) -> Route<S>
where
    A: 'static,
    S: Send + Sync + 'static,
    H: ThreadHandler<A, S>,
{
    let call = move |context| -> BoxFuture<'static, Outcome> {
        let handler = handler.clone();
        Box::pin(async move { handler.call(context) })
    };
    Route::of_handler(Called(call), H::takes_batches())
}

pub(crate) fn thread_wrapped<S, F>(wrap: Arc<F>, inner: Route<S>) -> Route<S>
where
    S: Send + Sync + 'static,
    F: Fn(Context<S>, ThreadNext<S>) -> Outcome + Send + Sync + 'static,
{
    let call = move |context| -> BoxFuture<'static, Outcome> {
        let (wrap, next) = (Arc::clone(&wrap), ThreadNext(inner.clone()));
        Box::pin(async move { wrap(context, next) })
    };
    Route::new(Called(call))
}
