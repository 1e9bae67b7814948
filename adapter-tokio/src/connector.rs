use amqp_async::core::ConnectError;
use amqp_async::{Connection, Driver};

use crate::runtime::Tokio;

/// A way to connect on tokio: a configuration, for one connection or many.
///
/// ```no_run
/// # async fn example() -> Result<(), amqp_tokio::ConnectError> {
/// use amqp_tokio::{Connector, Heartbeat};
/// let connector = Connector::new("amqp://h1,h2/orders")?
///     .configure(|config| config.heartbeat(Heartbeat::Seconds(10)).connection_name("orders"));
/// let connection = connector.connect().await?;
/// # Ok(())
/// # }
/// ```
///
/// Over a stream of one's own, here in memory:
///
/// ```no_run
/// # async fn example() -> Result<(), amqp_tokio::ConnectError> {
/// use amqp_tokio::{Config, Connector};
/// let (ours, theirs) = tokio::io::duplex(64 << 10);
/// # drop(theirs);
/// let connection = Connector::from(Config::default()).connect_with(ours).await?;
/// # Ok(())
/// # }
/// ```
pub type Connector = amqp_async::Connector<Tokio>;

/// A driver on tokio: see [`Connector::driver`].
pub type TokioDriver = Driver<Tokio>;

/// Connects to the broker that an AMQP URI names; shorthand for [`Connector`].
///
/// What is queued when the runtime ends is lost: [`close`](Connection::close) the connection, or
/// [`drain`](Connection::drain) it, before `main` returns.
///
/// # Errors
/// [`ConnectError`], within 30 s unless the URI says otherwise. [`ConnectError::DriverNotStarted`] outside
/// of a tokio runtime, and on one without timers (`enable_time`). On a runtime without I/O (`enable_io`)
/// every attempt fails with an error that says so. Tokio reports a missing part by a panic, which is
/// caught: its message may be printed too.
///
/// # Cancel safety
/// Dropped, the attempt is given up.
pub async fn connect(uri: &str) -> Result<Connection, ConnectError> {
    Connector::new(uri)?.connect().await
}
