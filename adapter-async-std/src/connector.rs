use amqp_async::core::ConnectError;
use amqp_async::{Connection, Driver};

use crate::runtime::AsyncStd;

/// A way to connect on async-std: a configuration, for one connection or many.
///
/// ```no_run
/// # async fn example() -> Result<(), amqp_async_std::ConnectError> {
/// use amqp_async_std::{Connector, Heartbeat};
/// let connector = Connector::new("amqp://h1,h2/orders")?
///     .configure(|config| config.heartbeat(Heartbeat::Seconds(10)).connection_name("orders"));
/// let connection = connector.connect().await?;
/// # Ok(())
/// # }
/// ```
///
/// Over a stream of one's own, here a Unix socket:
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use amqp_async_std::{Config, Connector};
/// let stream = async_std::os::unix::net::UnixStream::connect("/run/broker.sock").await?;
/// let connection = Connector::from(Config::default()).connect_with(stream).await?;
/// # Ok(())
/// # }
/// ```
pub type Connector = amqp_async::Connector<AsyncStd>;

/// A driver on async-std: see [`Connector::driver`].
pub type AsyncStdDriver = Driver<AsyncStd>;

/// Connects to the broker that an AMQP URI names; shorthand for [`Connector`].
///
/// What is queued when the runtime ends is lost: [`close`](Connection::close) the connection, or
/// [`drain`](Connection::drain) it, before `main` returns.
///
/// # Errors
/// [`ConnectError`], within 30 s unless the URI says otherwise.
///
/// # Cancel safety
/// Dropped, the attempt is given up.
pub async fn connect(uri: &str) -> Result<Connection, ConnectError> {
    Connector::new(uri)?.connect().await
}
