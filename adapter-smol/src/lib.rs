//! An AMQP 0-9-1 client for RabbitMQ on smol.
//!
//! ```no_run
//! use amqp_smol::{BasicConsume, Publish, QueueDeclare};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # smol::block_on(async {
//! let connection = amqp_smol::connect("amqp://guest:guest@localhost:5672/%2f").await?;
//! let channel = connection.open_channel().await?;
//! channel.queue_declare(QueueDeclare::new("orders").durable()).await?;
//!
//! let publisher = channel.confirm_select().await?;
//! publisher.publish(Publish::new("", "orders", b"one").persistent().mandatory()).await?;
//!
//! let mut consumer = channel.basic_consume(BasicConsume::new("orders").prefetch(64)).await?;
//! while let Some(delivery) = consumer.next().await {
//!     let delivery = delivery?;
//!     println!("{} bytes", delivery.body().len());
//!     delivery.ack()?;
//! #   break;
//! }
//! connection.close().await;
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! The [`guide`] has pages on errors, cancellation, backpressure and graceful shutdown, among others.
//! The `tracing` feature logs connection and channel events at DEBUG and every frame (name and size, no
//! contents) at TRACE. What is lost without an error is logged at WARN.
//!
//! The connection is driven by a task of smol's global executor. [`Connector::driver`] returns the driver, to be
//! spawned on another executor. When the driver is dropped, the connection ends with
//! [`CloseCause::DriverGone`].
//!
//! TLS (`amqps`) is not supported by this release: such a URI is refused with [`ConnectError::TlsUnsupported`].

mod runtime;

use amqp_async::Driver;

#[doc(inline)]
pub use amqp_async::{handles::*, values::*};

pub use runtime::Smol;

/// A way to connect on smol: a configuration, for one connection or many.
///
/// ```no_run
/// # async fn example() -> Result<(), amqp_smol::ConnectError> {
/// use amqp_smol::{Connector, Heartbeat};
/// let connector = Connector::new("amqp://h1,h2/orders")?
///     .configure(|config| config.heartbeat(Heartbeat::Seconds(10)).connection_name("orders"));
/// let connection = connector.connect().await?;
/// # Ok(())
/// # }
/// ```
///
/// Over a stream that is connected already, here a Unix socket:
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use amqp_smol::{Config, Connector};
/// let stream = smol::net::unix::UnixStream::connect("/run/broker.sock").await?;
/// let connection = Connector::from(Config::default()).connect_with(stream).await?;
/// # Ok(())
/// # }
/// ```
pub type Connector = amqp_async::Connector<Smol>;

/// A driver on smol: see [`Connector::driver`].
pub type SmolDriver = Driver<Smol>;

/// Connects to the broker that an AMQP URI names; shorthand for [`Connector`].
///
/// What is queued when the runtime ends is lost: [`close`](Connection::close) the connection, or
/// [`drain`](Connection::drain) it, before `main` returns.
///
/// # Errors
/// [`ConnectError`], within 30 s unless the URI says otherwise.
///
/// # Cancel safety
/// When the future is dropped, the attempt ends.
pub async fn connect(uri: &str) -> Result<Connection, ConnectError> {
    Connector::new(uri)?.connect().await
}
