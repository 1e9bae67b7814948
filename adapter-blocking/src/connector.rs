use amqp_async::core::{Config, ConnectError};

use crate::connection::Connection;
use crate::io_thread::Driver;
use crate::runtime::IoRuntime;
use crate::stream::{Socket, Stream};
use crate::wait::wait;

/// Connects to the broker that an AMQP URI names; shorthand for [`Connector`].
///
/// # Errors
/// [`ConnectError`], within 30 s unless the URI says otherwise.
pub fn connect(uri: &str) -> Result<Connection, ConnectError> {
    Connector::new(uri)?.connect()
}

/// A way to connect: a configuration, for one connection or many.
///
/// ```no_run
/// # fn example() -> Result<(), amqp_blocking::ConnectError> {
/// use amqp_blocking::{Connector, Heartbeat};
/// let connector = Connector::new("amqp://h1,h2/orders")?
///     .configure(|config| config.heartbeat(Heartbeat::Seconds(10)).connection_name("orders"));
/// let connection = connector.connect()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Connector {
    config: Config,
}

impl Connector {
    /// A connector from an AMQP URI; see [`AmqpUri`](crate::AmqpUri) for what may stand in it.
    ///
    /// # Errors
    /// [`ConnectError::InvalidUri`], which never shows the URI.
    pub fn new(uri: &str) -> Result<Self, ConnectError> {
        Ok(Self::from(Config::from_uri(uri)?))
    }

    /// Changes the configuration.
    #[must_use]
    pub fn configure(self, change: impl FnOnce(Config) -> Config) -> Self {
        Self { config: change(self.config) }
    }

    /// Connects, with a thread as the connection's driver that ends when the connection does. Every
    /// address of every host is tried in order, each within its timeout.
    ///
    /// Names are looked up on at most [`LOOKUP_THREADS_MAX`](crate::limits::LOOKUP_THREADS_MAX) threads of
    /// the process, and wait for one if all are busy. The time that they wait counts towards the timeout
    /// of the attempt.
    ///
    /// # Errors
    /// [`ConnectError`], with every attempt that failed, within the connect timeout.
    pub fn connect(&self) -> Result<Connection, ConnectError> {
        let (connecting, driver) = self.driver()?;
        driver.spawn()?;
        connecting.wait()
    }

    /// Connects over a stream that is connected already, such as a Unix socket or a tunnel. Of the
    /// configuration's hosts the first one counts alone, as the name in errors.
    ///
    /// # Errors
    /// [`ConnectError`], with the one attempt that failed, within the timeouts of an address and of
    /// connecting.
    pub fn connect_with(&self, stream: Stream) -> Result<Connection, ConnectError> {
        let (connecting, driver) = self.driver_with(stream)?;
        driver.spawn()?;
        connecting.wait()
    }

    /// The connection and its driver, which the caller runs on a thread of its own.
    ///
    /// # Errors
    /// [`ConnectError`] where the configuration itself cannot work, or the system has no poller.
    pub fn driver(&self) -> Result<(Connecting, Driver), ConnectError> {
        Driver::new(|io| {
            let (connecting, driver) =
                amqp_async::connect(IoRuntime::new(io), self.config.clone())?;
            Ok((Connecting(connecting), driver))
        })
    }

    /// The connection over a stream that is connected already, and its driver; see
    /// [`connect_with`](Self::connect_with).
    ///
    /// # Errors
    /// [`ConnectError`] where the configuration itself cannot work, or the stream cannot be polled.
    pub fn driver_with(&self, stream: Stream) -> Result<(Connecting, Driver), ConnectError> {
        Driver::new(|io| {
            let socket = Socket::new(io.clone(), stream).map_err(crate::io_thread::not_started)?;
            let runtime = IoRuntime::new(io);
            let (connecting, driver) =
                amqp_async::connect_with(runtime, self.config.clone(), socket)?;
            Ok((Connecting(connecting), driver))
        })
    }
}

impl From<Config> for Connector {
    fn from(config: Config) -> Self {
        Self { config }
    }
}

/// A connection that is being opened by a driver.
///
/// When it is dropped, the attempt ends.
#[must_use = "when it is dropped, the attempt ends"]
#[derive(Debug)]
pub struct Connecting(amqp_async::Connecting);

impl Connecting {
    /// Waits until the connection is open, which it is not before its driver runs.
    ///
    /// # Errors
    /// [`ConnectError`], with every attempt that failed, within the connect timeout (30 s unless
    /// configured) once the driver runs.
    pub fn wait(self) -> Result<Connection, ConnectError> {
        wait(self.0).map(Connection::new)
    }
}
