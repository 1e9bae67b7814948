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
//! The [`guide`] says what goes wrong and how it is told, what dropping does, and who waits for whom.
//! With the feature `tracing`, the life of connections is told at DEBUG, and every frame at TRACE: names
//! and sizes only. What is lost without an error is logged at WARN.
//!
//! The connection is driven by a task of the runtime in which it was opened: when that runtime ends,
//! so does the connection, and what is queued is lost. End with `connection.close().await`. TLS (`amqps`) is not supported by this release: such a URI is refused with
//! [`ConnectError::TlsUnsupported`].

mod connector;
mod runtime;

#[doc(inline)]
pub use amqp_async::{handles::*, values::*};

pub use connector::{Connector, TokioDriver, connect};
pub use runtime::Tokio;
