//! An AMQP 0-9-1 client for RabbitMQ with a blocking API.
//!
//! ```no_run
//! use amqp_blocking::{BasicConsume, Publish, QueueDeclare};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let connection = amqp_blocking::connect("amqp://guest:guest@localhost:5672/%2f")?;
//! let channel = connection.open_channel()?;
//! channel.queue_declare(QueueDeclare::new("orders").durable())?;
//!
//! let publisher = channel.confirm_select()?;
//! publisher.publish(Publish::new("", "orders", b"one").persistent().mandatory())?;
//!
//! for delivery in channel.basic_consume(BasicConsume::new("orders").prefetch(64))? {
//!     let delivery = delivery?;
//!     println!("{} bytes", delivery.body().len());
//!     delivery.ack()?;
//! #   break;
//! }
//! connection.close();
//! # Ok(())
//! # }
//! ```
//!
//! A thread of each connection moves its bytes and sends its heartbeats, whatever the application's
//! threads do meanwhile: a handler may take as long as it likes, and may block on its own connection, as
//! long as what it has not read yet is less than 64 MiB (the prefetch times the size of a message).
//! Handles may be cloned and used from any thread; deliveries are acknowledged from any thread. The
//! [`Dispatcher`] runs callbacks on a thread of the application's choice.
//!
//! The [`guide`] has pages on errors, cancellation, backpressure and graceful shutdown, among others. It
//! speaks of futures: every call here waits for one.
//! The `tracing` feature logs connection and channel events at DEBUG and every frame (name and size, no
//! contents) at TRACE. What is lost without an error is logged at WARN.
//!
//! TLS (`amqps`) is not supported by this release: such a URI is refused with
//! [`ConnectError::TlsUnsupported`].

mod channel;
mod connection;
mod connector;
mod consumer;
mod delivery;
mod dispatcher;
mod inbox;
mod io_thread;
pub mod limits;
mod lookup;
mod publisher;
mod runtime;
mod stream;
mod threads;
mod timer;
mod tx;
mod unconfirmed;
mod wait;

#[doc(inline)]
pub use amqp_async::{Clock, Executor, Timer, values::*};

pub use channel::Channel;
pub use connection::{Connection, Events};
pub use connector::{Connecting, Connector, connect};
pub use consumer::Consumer;
pub use delivery::Delivery;
pub use dispatcher::{BoxError, ConsumerId, Control, DispatchError, Dispatcher, Submitter};
pub use inbox::SubmitError;
pub use io_thread::Driver;
pub use publisher::{Confirm, Publisher};
pub use stream::Stream;
pub use threads::Threads;
pub use timer::ThreadTimer;
pub use tx::Tx;
