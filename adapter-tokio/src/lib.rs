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
//! The body of an oversize message is empty: check [`fault`](Delivery::fault) before you read it.
//!
//! The [`guide`] has pages on errors, cancellation, backpressure and graceful shutdown, among others. The
//! `tracing` feature logs what happens to connections, channels and consumers (see
//! [logging](guide::logging)).
//!
//! A task of the runtime in which the connection was opened drives it. When that runtime ends, the connection
//! ends too, and unsent messages are lost: call `connection.close().await` before.
//!
//! What programs seldom name is in modules: the [`futures`] that methods return, what [`errors`] hold, rare
//! [`requests`] and [`types`], and the [`runtime`] for those who drive connections themselves.
//!
//! TLS (`amqps`) needs the feature `tls`: see [`guide::tls`]. Without it, connecting to such a host returns
//! [`ConnectError::TlsUnsupported`].

pub mod runtime;

use runtime::Tokio;

#[doc(inline)]
pub use amqp_async::{handles::*, values::*};

/// Opens connections on tokio: a configuration, for any number of them.
///
/// ```no_run
/// # async fn example() -> Result<(), amqp_tokio::ConnectError> {
/// use amqp_tokio::{Connector, Heartbeat};
/// let connection = Connector::new("amqp://app:secret@h1,h2/orders")?
///     .heartbeat(Heartbeat::Seconds(10))
///     .connection_name("order-service")
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// Settings that are not a URI:
///
/// ```no_run
/// # async fn example(password: String) -> Result<(), amqp_tokio::ConnectError> {
/// use amqp_tokio::{Connector, Credentials};
/// let connection = Connector::default()
///     .hosts(["h1", "h2"])
///     .port(5673)
///     .virtual_host("orders")
///     .credentials(Credentials::plain("app", password))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// Streams that a function creates, here Unix sockets. [`connect_with`](Connector::connect_with) takes a
/// stream that is connected already.
///
/// ```no_run
/// # async fn example() -> Result<(), amqp_tokio::ConnectError> {
/// use amqp_tokio::Connector;
/// use tokio::net::UnixStream;
/// let connection = Connector::default()
///     .dial_with(|_| UnixStream::connect("/run/broker.sock"))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
pub type Connector = amqp_async::Connector<Tokio>;

/// Opens a connection to the broker that an AMQP URI names. Resolves to the open [`Connection`]. For settings
/// that are not in the URI, see [`Connector`].
///
/// Messages that are unsent when the runtime ends are lost. So [`close`](Connection::close) or
/// [`drain`](Connection::drain) the connection before `main` returns.
///
/// # Errors
/// [`ConnectError`], within 30 s unless the URI sets `connection_timeout`. [`ConnectError::DriverNotStarted`]
/// outside of a tokio runtime, and on one without timers (`enable_time`). On a runtime without I/O
/// (`enable_io`), every attempt fails with an error that names it. Tokio reports a missing part with a panic,
/// which is caught. The panic hook may print its message.
///
/// # Cancel safety
/// If the future is dropped, the attempt ends, and no connection stays open.
pub async fn connect(uri: &str) -> Result<Connection, ConnectError> {
    Connector::new(uri)?.connect().await
}
