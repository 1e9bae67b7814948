//! An AMQP 0-9-1 client for RabbitMQ on async-std.
//!
//! **async-std is discontinued** (RUSTSEC-2025-0052); its authors point to smol. This adapter is for
//! applications that are on it still. New ones are better served by `amqp-smol`, which has the same
//! surface: to move, change the crate's name.
//!
//! ```no_run
//! use amqp_async_std::{BasicConsume, Publish, QueueDeclare};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # async_std::task::block_on(async {
//! let connection = amqp_async_std::connect("amqp://guest:guest@localhost:5672/%2f").await?;
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
//! The connection is driven by a task of async-std's executor. [`Connector::driver`] returns the driver, to be
//! polled elsewhere. When the driver is dropped, the connection ends with [`CloseCause::DriverGone`].
//!
//! TLS (`amqps`) is not supported by this release: such a URI is refused with [`ConnectError::TlsUnsupported`].

mod runtime;

use amqp_async::Driver;

#[doc(inline)]
pub use amqp_async::{handles::*, values::*};

pub use runtime::AsyncStd;

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
/// Over a stream that is connected already, here a Unix socket:
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
/// When the future is dropped, the attempt ends.
pub async fn connect(uri: &str) -> Result<Connection, ConnectError> {
    Connector::new(uri)?.connect().await
}
