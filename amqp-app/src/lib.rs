//! The application layer of an AMQP 0-9-1 client for RabbitMQ: messages, failures and outcomes of message handlers, and
//! the platforms on which applications run.
//!
//! An application uses it with an adapter: `amqp-tokio`, `amqp-smol` or `amqp-async-std`; with the feature `threads`,
//! `amqp-blocking`. Their connectors are [`Platform`]s.
//!
//! ```
//! use amqp_app::prelude::*;
//!
//! #[derive(serde::Serialize)]
//! struct Invoice {
//!     order: u64,
//! }
//!
//! // Persistent, mandatory and timestamped, unless it says otherwise.
//! let invoice = Message::json(&Invoice { order: 7 })?.to("amq.topic", "invoice.created");
//! assert!(invoice.is_mandatory());
//! # Ok::<(), serde_json::Error>(())
//! ```

#[allow(dead_code, reason = "pools and applications have their connections from it")]
mod connections;
mod error;
mod failure;
pub mod limits;
mod message;
mod platform;
mod pool;
pub mod prelude;
#[allow(dead_code, reason = "pools and applications run on it")]
mod runner;

pub use error::Error;
pub use failure::{BoxError, Failure, FailureCause};
pub use message::Message;
pub use platform::{Asynchronous, Platform};
pub use pool::{Member, Pool, PoolStatus, Pools};
