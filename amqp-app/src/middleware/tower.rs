//! Handlers as tower services, and layers around them.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};

use tower_layer::Layer;
use tower_service::Service;

use super::Endpoint;
use crate::context::Context;
use crate::failure::BoxError;
use crate::outcome::Outcome;
use crate::runner::BoxFuture;
use crate::sync::lock;

/// The handler of a source as a [`Service`], for layers of tower: see [`App::layer`](crate::App::layer).
pub struct Route<S> {
    endpoint: Arc<dyn Endpoint<S>>,
    takes_batches: bool,
}

impl<S> Route<S> {
    pub(crate) fn new(endpoint: impl Endpoint<S> + 'static) -> Self {
        Self { endpoint: Arc::new(endpoint), takes_batches: true }
    }

    /// One that begins at a handler.
    pub(crate) fn of_handler(endpoint: impl Endpoint<S> + 'static, takes_batches: bool) -> Self {
        Self { takes_batches, ..Self::new(endpoint) }
    }

    pub(crate) fn endpoint(&self) -> &dyn Endpoint<S> {
        &*self.endpoint
    }

    pub(crate) const fn takes_batches(&self) -> bool {
        self.takes_batches
    }
}

impl<S> Clone for Route<S> {
    fn clone(&self) -> Self {
        Self { endpoint: Arc::clone(&self.endpoint), ..*self }
    }
}

impl<S> fmt::Debug for Route<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").finish_non_exhaustive()
    }
}

impl<S> Service<Context<S>> for Route<S> {
    type Response = Outcome;
    type Error = Infallible;
    type Future = RouteFuture;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, context: Context<S>) -> RouteFuture {
        RouteFuture(self.endpoint.call(context))
    }
}

/// A handler at work. Resolves to its outcome, and never to an error.
///
/// # Cancel safety
/// If the future is dropped, the handler's future is dropped at its current `await`.
pub struct RouteFuture(BoxFuture<'static, Outcome>);

impl Future for RouteFuture {
    type Output = Result<Outcome, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for RouteFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteFuture").finish_non_exhaustive()
    }
}

/// A handler within a layer of tower.
pub(crate) fn layered<S, L>(layer: &L, inner: Route<S>) -> Route<S>
where
    S: Send + Sync + 'static,
    L: Layer<Route<S>>,
    L::Service: Service<Context<S>, Response = Outcome, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
{
    Route::new(Layered(Mutex::new(layer.layer(inner))))
}

struct Layered<T>(Mutex<T>);

impl<S, T> Endpoint<S> for Layered<T>
where
    S: Send + Sync + 'static,
    T: Service<Context<S>, Response = Outcome, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
{
    fn call(&self, context: Context<S>) -> BoxFuture<'static, Outcome> {
        // Each message has a clone of the service, which waits until it is ready, as a limit of concurrency needs it.
        let mut service = lock(&self.0).clone();
        Box::pin(async move {
            if let Err(error) = poll_fn(|cx| service.poll_ready(cx)).await {
                return Outcome::failure(error.into());
            }
            service.call(context).await.unwrap_or_else(|error| Outcome::failure(error.into()))
        })
    }
}
