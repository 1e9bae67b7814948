use amqp_client::core::{Config, ConnectError};
use amqp_client::{Connecting, Connection, Driver, Runtime};

use crate::runtime::Tokio;

/// A driver on tokio: see [`Connector::driver`].
pub type TokioDriver = Driver<Tokio>;

/// Connects to the broker that an AMQP URI names; shorthand for [`Connector`].
///
/// # Errors
/// [`ConnectError`], within 30 s.
///
/// # Panics
/// Outside of a tokio runtime whose I/O and time are enabled, as tokio's own sockets do.
///
/// # Cancel safety
/// Dropped, the attempt is given up.
pub async fn connect(uri: &str) -> Result<Connection, ConnectError> {
    Connector::new(uri)?.connect().await
}

/// A way to connect: a configuration, for one connection or many.
///
/// ```no_run
/// # async fn example() -> Result<(), adapter_tokio::ConnectError> {
/// use adapter_tokio::{Connector, Heartbeat};
/// let connector = Connector::new("amqp://h1,h2/orders")?
///     .configure(|config| config.heartbeat(Heartbeat::Seconds(10)).connection_name("orders"));
/// let connection = connector.connect().await?;
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

    /// Connects, with a task of the present runtime as the connection's driver. Every address of
    /// every host is tried in order, each within its time-out.
    ///
    /// # Errors
    /// [`ConnectError`], with every attempt that failed, within the connect time-out.
    ///
    /// # Panics
    /// Outside of a tokio runtime whose I/O and time are enabled, as tokio's own sockets do.
    ///
    /// # Cancel safety
    /// Dropped, the attempt is given up.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        let (connecting, driver) = self.driver()?;
        Tokio.spawn(driver);
        connecting.await
    }

    /// The connection and its driver, which the caller polls or spawns where it likes.
    ///
    /// # Errors
    /// [`ConnectError`] where the configuration itself cannot work.
    pub fn driver(&self) -> Result<(Connecting, TokioDriver), ConnectError> {
        amqp_client::connect(Tokio, self.config.clone())
    }
}

impl From<Config> for Connector {
    fn from(config: Config) -> Self {
        Self { config }
    }
}
