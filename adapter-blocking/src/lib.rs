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
//! The body of an oversize message is empty: check [`fault`](Delivery::fault) before you read it.
//!
//! Each connection has a thread that moves its bytes and sends its heartbeats. So a handler may take any
//! time, and may block on its own connection, while less than 64 MiB is unread (the prefetch times the size
//! of a message). Handles are thread-safe and can be cloned. Deliveries can be acknowledged from any thread.
//! The [`Dispatcher`] runs callbacks on the thread that calls it.
//!
//! Methods whose names end in `_timeout` wait at most for the timeout. They return `None` when it has
//! expired. Otherwise they return the result of the method without a timeout.
//!
//! The [`guide`] has pages on errors, cancellation, backpressure and graceful shutdown, among others. Where
//! it names a future, the method of this crate waits for that future. The `tracing` feature logs what happens
//! to connections, channels and consumers (see [logging](guide::logging)).
//!
//! What programs seldom name is in modules: what [`errors`] hold, rare [`requests`] and [`types`], and the
//! [`runtime`] for those who drive connections themselves.
//!
//! TLS (`amqps`) needs the feature `tls`: see [`guide::tls`]. Without it, connecting to such a host returns
//! [`ConnectError::TlsUnsupported`].

mod channel;
mod connection;
mod connector;
mod consumer;
mod conversions;
mod delivery;
mod dispatcher;
mod inbox;
mod io_runtime;
mod io_thread;
pub mod limits;
mod publisher;
mod stream;
mod threads;
mod timer;
mod tx;
mod unconfirmed;
mod wait;
mod work_pool;

#[doc(inline)]
pub use amqp_async::values::*;

pub use channel::Channel;
pub use connection::{Connection, Events};
pub use connector::{Connector, connect};
pub use consumer::{Canceller, Consumer};
pub use delivery::Delivery;
pub use dispatcher::{BoxError, ConsumerId, Control, DispatchError, Dispatcher, Submitter};
pub use inbox::SubmitError;
pub use publisher::{Confirm, Publisher};
pub use stream::Stream;
pub use tx::Tx;

/// Threads as the runtime of connections: the driver of a connection, and an executor whose tasks are threads.
pub mod runtime {
    pub use crate::connector::Connecting;
    pub use crate::io_thread::Driver;
    pub use crate::threads::Threads;
    pub use crate::timer::ThreadTimer;
    #[doc(inline)]
    pub use amqp_async::{Clock, Executor, Timer};
    pub use amqp_async::{Secure, Securing, Transport};
}
