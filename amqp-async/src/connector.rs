//! Ways to connect: a connector on any runtime whose drivers are tasks, and what it and every other connector call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use amqp_core::{CloseCause, Config, ConnectError, Session};
use futures_core::FusedFuture;

use crate::connection::Connection;
use crate::driver::Driver;
use crate::executor::Executor;
use crate::holders::ConnectionHolder;
use crate::over_stream::{DriverOver, Over, OverTransport};
use crate::pump::Pump;
use crate::runtime::{Runtime, Transport};
use crate::shared::Shared;

/// A way to connect: a configuration, for one connection or many.
///
/// Each adapter names its own: `amqp_tokio::Connector` and so on.
#[derive(Clone, Debug)]
pub struct Connector<R> {
    runtime: R,
    config: Config,
}

impl<R: Runtime + Default> Connector<R> {
    /// A connector from an AMQP URI; see [`AmqpUri`](amqp_core::AmqpUri) for what may stand in it.
    ///
    /// # Errors
    /// [`ConnectError::InvalidUri`], which never shows the URI.
    pub fn new(uri: &str) -> Result<Self, ConnectError> {
        Ok(Self::from(Config::from_uri(uri)?))
    }
}

impl<R: Runtime> Connector<R> {
    /// Changes the configuration.
    #[must_use]
    pub fn configure(self, change: impl FnOnce(Config) -> Config) -> Self {
        Self { config: change(self.config), ..self }
    }

    /// Connects, with a task of the runtime as the connection's driver. Every address of every host is
    /// tried in order, each within its timeout.
    ///
    /// The runtime drops that task when it ends, and what is queued is lost with it:
    /// [`close`](Connection::close) the connection, or [`drain`](Connection::drain) it, before `main`
    /// returns (see [graceful shutdown](crate::guide::backpressure#graceful-shutdown)).
    ///
    /// # Errors
    /// [`ConnectError`], with every attempt that failed, within the connect timeout;
    /// [`ConnectError::DriverNotStarted`] where the runtime is missing, or lacks what a connection needs.
    ///
    /// # Cancel safety
    /// When the future is dropped, the attempt ends.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        self.check()?;
        let (connecting, driver) = self.driver()?;
        self.runtime.spawn(driver);
        connecting.await
    }

    /// Connects over a stream that is connected already, such as a Unix socket, a tunnel, or one in memory.
    /// Of the configuration's hosts only the first one counts, as the name in errors.
    ///
    /// # Errors
    /// [`ConnectError`], with the one attempt that failed, within the timeouts of an address and of
    /// connecting; [`ConnectError::DriverNotStarted`] as for [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// When the future is dropped, the attempt ends, and the stream is closed.
    pub async fn connect_with<S>(&self, stream: S) -> Result<Connection, ConnectError>
    where
        R: Over<S>,
    {
        self.check()?;
        let (connecting, driver) = self.driver_with(stream)?;
        self.runtime.spawn(driver);
        connecting.await
    }

    /// The connection and its driver, which the caller polls or spawns where it likes.
    ///
    /// # Errors
    /// [`ConnectError`] where the configuration itself cannot work. The runtime is not checked: a driver
    /// that is polled where the runtime's timers are missing panics as they do.
    pub fn driver(&self) -> Result<(Connecting, Driver<R>), ConnectError> {
        connect(self.runtime.clone(), self.config.clone())
    }

    /// The connection over a stream that is connected already, and its driver; see
    /// [`connect_with`](Self::connect_with).
    ///
    /// # Errors
    /// [`ConnectError`] where the configuration itself cannot work.
    pub fn driver_with<S>(&self, stream: S) -> Result<(Connecting, DriverOver<R, S>), ConnectError>
    where
        R: Over<S>,
    {
        let transport = self.runtime.wrap(stream);
        connect_with(self.runtime.clone(), self.config.clone(), transport)
    }

    fn check(&self) -> Result<(), ConnectError> {
        self.runtime.check().map_err(|error| ConnectError::DriverNotStarted(error.into()))
    }
}

impl<R: Default> From<Config> for Connector<R> {
    fn from(config: Config) -> Self {
        Self { runtime: R::default(), config }
    }
}

/// A connection that will be driven by the returned [`Driver`]. Applications have their adapter's
/// connector; this is what it calls.
///
/// # Errors
/// [`ConnectError`] where the configuration itself cannot work.
pub fn connect<R: Runtime>(
    runtime: R,
    config: Config,
) -> Result<(Connecting, Driver<R>), ConnectError> {
    let session = Session::new(Arc::new(config), runtime.now())?;
    Ok(driven(runtime, session))
}

/// A connection over a transport that is connected already, and its driver.
///
/// # Errors
/// [`ConnectError`] where the configuration itself cannot work.
pub fn connect_with<R: Executor, T: Transport>(
    runtime: R,
    config: Config,
    transport: T,
) -> Result<(Connecting, Driver<OverTransport<R, T>>), ConnectError> {
    let (session, attempt) = Session::connected(Arc::new(config), runtime.now())?;
    let (connecting, driver) = driven(OverTransport::new(runtime), session);
    Ok((connecting, driver.with_transport(attempt, transport)))
}

fn driven<R: Runtime>(runtime: R, session: Session) -> (Connecting, Driver<R>) {
    let shared = Arc::new(Shared::new(session, runtime.clock()));
    let driver = Driver::new(runtime, Pump::new(Arc::clone(&shared)));
    (Connecting { inner: Some(Arc::new(ConnectionHolder { shared })), ticket: None }, driver)
}

/// A connection that is being opened.
///
/// # Errors
/// [`ConnectError`], with every attempt that failed, within the connect timeout (30 s unless
/// configured).
///
/// # Cancel safety
/// When the future is dropped, the attempt ends, and a transport that was connected is closed.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Connecting {
    inner: Option<Arc<ConnectionHolder>>,
    ticket: Option<u64>,
}

impl Future for Connecting {
    type Output = Result<Connection, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { inner, ticket } = &mut *self;
        let Some(connection) = inner else { return Poll::Pending };
        let result = connection.shared.with(|state| {
            match state.session.cause() {
                None if state.session.connection().is_open() => Poll::Ready(Ok(())),
                None => {
                    state.lifecycle.wait(ticket, cx.waker(), &mut state.released);
                    Poll::Pending
                }
                Some(CloseCause::Connect(error)) => Poll::Ready(Err((**error).clone())),
                // It was opened and lost again before this was polled: its handles will say so.
                Some(_) => Poll::Ready(Ok(())),
            }
        });
        let Poll::Ready(result) = result else { return Poll::Pending };
        connection.shared.with(|state| state.lifecycle.leave(ticket, &mut state.released));
        match (result, inner.take()) {
            (Ok(()), Some(inner)) => Poll::Ready(Ok(Connection::new(inner))),
            (Err(error), _) => Poll::Ready(Err(error)),
            (Ok(()), None) => Poll::Pending,
        }
    }
}

impl FusedFuture for Connecting {
    fn is_terminated(&self) -> bool {
        self.inner.is_none()
    }
}
