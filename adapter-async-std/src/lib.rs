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
//! The [`guide`] says what goes wrong and how it is told, what dropping does, and who waits for whom.
//! With the feature `tracing`, the life of connections is told at DEBUG, and every frame at TRACE: names
//! and sizes only.
//!
//! The connection is driven by a task of async-std's executor; [`Connector::driver`] gives the driver to
//! be polled elsewhere. When the driver is dropped, the connection ends with [`CloseCause::DriverGone`].
//! TLS (`amqps`) is not supported by this release: such a URI is refused with
//! [`ConnectError::TlsUnsupported`].

mod connector;
mod runtime;

#[doc(inline)]
pub use amqp_async::{handles::*, values::*};

pub use connector::{AsyncStdDriver, Connector, connect};
pub use runtime::AsyncStd;
