//! A broker in memory, for tests without RabbitMQ.
//!
//! [`Broker`] is the model: bytes in, bytes out, and the time from outside, without sockets and without a clock.
//! [`ModelBroker`] serves it on a loopback port.
//!
//! It answers as RabbitMQ 3.10.8 does; the tests of this repository run on both. It supports:
//!
//! * the login `guest` with PLAIN, and the virtual host `/`;
//! * every type of exchange, and bindings between exchanges;
//! * classic queues with a maximum length, priorities, a dead-letter exchange, a single active consumer;
//! * messages and queues that expire, and the header `x-death`;
//! * publishing, confirms, mandatory returns, transactions;
//! * consumers, prefetch, `basic.get`, direct reply-to;
//! * alarms, heartbeats, the close by an operator, and a crash with a restart.
//!
//! Everything else it refuses with 540 NOT_IMPLEMENTED, so that no test passes by accident.
//!
//! # Time
//!
//! [`ModelBroker::start`] takes the system's clock. [`ModelBroker::start_with_stopped_clock`] takes one that moves only by
//! [`ModelBroker::advance`], so that a test of ten minutes takes milliseconds:
//!
//! ```no_run
//! use std::time::Duration;
//! let broker = amqp_testkit::ModelBroker::start_with_stopped_clock()?;
//! // .. declare a queue with a message TTL of ten minutes and a dead-letter exchange, and publish to it ..
//! broker.advance(Duration::from_secs(600));
//! assert_eq!(broker.messages("dead-letters").len(), 1);
//! # Ok::<(), std::io::Error>(())
//! ```

mod acking;
mod broker;
mod channel;
mod clock;
mod connection;
mod consuming;
mod dead_letters;
mod deadlines;
mod delivering;
mod direct_replies;
mod expiry;
mod fields;
mod handshake;
mod input;
mod inspection;
mod message;
mod publishing;
mod queue;
mod queue_arguments;
mod readable;
mod refusal;
mod restart;
mod routing;
mod server;
mod topology;
mod transactions;

pub use broker::{Broker, ConnectionId, Held};
pub use inspection::{Attributes, QueuedMessage, Topology};
pub use server::ModelBroker;
