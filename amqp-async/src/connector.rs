//! Ways to connect: the same on every runtime whose drivers are tasks.

use std::future::ready;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::task::Context;
use std::time::Instant;

use amqp_core::{Config, ConnectError};

use crate::connection::{self, Connecting, Connection};
use crate::driver::Driver;
use crate::runtime::{Carries, Clock, Runtime, Transport};

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
    /// tried in order, each within its time-out.
    ///
    /// The runtime drops that task when it ends, and what is queued is lost with it:
    /// [`close`](Connection::close) the connection, or [`drain`](Connection::drain) it, before `main`
    /// returns (see [graceful shutdown](crate::guide::backpressure#graceful-shutdown)).
    ///
    /// # Errors
    /// [`ConnectError`], with every attempt that failed, within the connect time-out;
    /// [`ConnectError::DriverNotStarted`] where the runtime is missing, or lacks what a connection needs.
    ///
    /// # Cancel safety
    /// Dropped, the attempt is given up.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        self.check()?;
        let (connecting, driver) = self.driver()?;
        self.runtime.spawn(driver);
        connecting.await
    }

    /// Connects over a stream that is there already, such as a Unix socket, a tunnel, or one that lives
    /// in memory. Of the configuration's hosts the first one counts alone, as the name in errors.
    ///
    /// # Errors
    /// [`ConnectError`], with the one attempt that failed, within the time-outs of an address and of
    /// connecting; [`ConnectError::DriverNotStarted`] as for [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// Dropped, the attempt is given up, and the stream is closed.
    pub async fn connect_with<S>(&self, stream: S) -> Result<Connection, ConnectError>
    where
        R: Carries<S>,
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
        connection::connect(self.runtime.clone(), self.config.clone())
    }

    /// The connection over a stream that is there already, and its driver; see
    /// [`connect_with`](Self::connect_with).
    ///
    /// # Errors
    /// [`ConnectError`] where the configuration itself cannot work.
    pub fn driver_with<S>(&self, stream: S) -> Result<(Connecting, DriverOn<R, S>), ConnectError>
    where
        R: Carries<S>,
    {
        let carrier = self.runtime.carry(stream);
        connection::connect_with(self.runtime.clone(), self.config.clone(), carrier)
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

/// The driver of a connection over a stream of the kind `S`.
pub type DriverOn<R, S> = Driver<On<R, <R as Carries<S>>::Carrier>>;

/// A runtime on whose one transport a connection is: it reaches no other.
#[derive(Debug)]
pub struct On<R, T> {
    runtime: R,
    transport: PhantomData<fn() -> T>,
}

impl<R, T> On<R, T> {
    pub(crate) const fn new(runtime: R) -> Self {
        Self { runtime, transport: PhantomData }
    }
}

impl<R: Clone, T> Clone for On<R, T> {
    fn clone(&self) -> Self {
        Self { runtime: self.runtime.clone(), transport: self.transport }
    }
}

impl<R: Clock, T> Clock for On<R, T> {
    fn now(&self) -> Instant {
        self.runtime.now()
    }
}

impl<R: Runtime, T: Transport> Runtime for On<R, T> {
    type Transport = T;
    type Timer = R::Timer;

    fn check(&self) -> io::Result<()> {
        self.runtime.check()
    }

    fn resolve(
        &self,
        _: &str,
        _: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn dial(&self, _: SocketAddr, _: &str) -> impl Future<Output = io::Result<T>> + Send + 'static {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn clock(&self) -> Box<dyn Clock> {
        self.runtime.clock()
    }

    fn timer(&self) -> R::Timer {
        self.runtime.timer()
    }

    fn reschedule(&self, cx: &mut Context<'_>) {
        self.runtime.reschedule(cx);
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }
}
