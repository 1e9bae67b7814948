//! An AMQP 0-9-1 client for RabbitMQ on tokio, on its current-thread and its multi-thread runtime.
//!
//! ```no_run
//! use amqp_tokio::{BasicConsume, Publish, QueueDeclare};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let connection = amqp_tokio::connect("amqp://guest:guest@localhost:5672/%2f").await?;
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
//! # }
//! ```
//!
//! The [`guide`] has pages on errors, cancellation, backpressure and graceful shutdown, among others.
//! The `tracing` feature logs connection and channel events at DEBUG and every frame (name and size, no
//! contents) at TRACE. What is lost without an error is logged at WARN.
//!
//! The connection is driven by a task of the runtime in which it was opened: when that runtime ends, so does
//! the connection, and what is queued is lost. End with `connection.close().await`.
//!
//! TLS (`amqps`) is not supported by this release: such a URI is refused with [`ConnectError::TlsUnsupported`].

mod runtime;

use amqp_async::Driver;

#[doc(inline)]
pub use amqp_async::{handles::*, values::*};

pub use runtime::Tokio;

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
/// Over a stream that is connected already, here one in memory:
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
/// When the future is dropped, the attempt ends.
pub async fn connect(uri: &str) -> Result<Connection, ConnectError> {
    Connector::new(uri)?.connect().await
}
