//! A broker in memory, for tests without RabbitMQ.
//!
//! [`Broker`] is the model: bytes in, bytes out, without sockets and without a clock. [`ModelBroker`] serves it on a
//! loopback port.
//!
//! It answers as RabbitMQ 3.10.8 does; the tests of this repository run on both. It supports:
//!
//! * the login `guest` with PLAIN, and the virtual host `/`;
//! * every type of exchange, and bindings between exchanges;
//! * classic queues with a maximum length, priorities, a dead-letter exchange, a single active consumer;
//! * publishing, confirms, mandatory returns, transactions;
//! * consumers, prefetch, `basic.get`, direct reply-to;
//! * alarms, heartbeats, the close by an operator, and a crash with a restart.
//!
//! Everything else it refuses with 540 NOT_IMPLEMENTED, so that no test passes by accident. It has no clock, so it refuses
//! whatever expires.

mod acking;
mod broker;
mod channel;
mod connection;
mod consuming;
mod dead_letters;
mod delivering;
mod direct_replies;
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
pub use inspection::{Attributes, Topology};
pub use server::ModelBroker;
