//! What applications run on: the connector of an adapter.

#[cfg(feature = "threads")]
mod threads;

use std::fmt;

use amqp_async::{ConnectError, Connection, Connector, Executor, Runtime};

/// The connector of an adapter: it opens connections, and has an executor for tasks and timers.
///
/// [`amqp_async::Connector`] implements it for every asynchronous runtime, and with the feature `threads`
/// `amqp_blocking::Connector` does.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a platform of applications",
    note = "platforms are the connectors of the adapters: `amqp_tokio::Connector`, `amqp_smol::Connector`, \
            `amqp_async_std::Connector`, and `amqp_blocking::Connector` with the feature `threads`"
)]
pub trait Platform: Clone + Send + Sync + 'static {
    /// The executor.
    type Executor: Executor;

    /// The connection as applications use it on this platform.
    type Connection: From<Connection> + Clone + fmt::Debug + Send + Sync + 'static;

    /// Returns the executor on which the application runs.
    fn executor(&self) -> Self::Executor;

    /// Opens a connection. Resolves to the open [`Connection`]. On threads it blocks the calling thread.
    ///
    /// # Errors
    /// [`ConnectError`] with every failed attempt.
    ///
    /// # Cancel safety
    /// If the future is dropped, the attempt ends, and no connection stays open.
    fn connect(&self) -> impl Future<Output = Result<Connection, ConnectError>> + Send;
}

/// A platform whose handlers are asynchronous functions: tokio, smol, async-std.
pub trait Asynchronous: Platform {}

impl<R: Runtime> Platform for Connector<R> {
    type Executor = R;
    type Connection = Connection;

    fn executor(&self) -> R {
        self.runtime().clone()
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        Self::connect(self).await
    }
}

impl<R: Runtime> Asynchronous for Connector<R> {}
