//! A broker in memory, for where no RabbitMQ is at hand.
//!
//! [`Broker`] is the model: bytes in, bytes out, no sockets and no clock. [`ModelBroker`] serves it
//! on a loopback port. It answers as RabbitMQ 3.10.8 was seen to, for what it knows: PLAIN, one
//! virtual host `/`, every type of exchange and bindings between them, classic queues with a maximal
//! length, priorities, a dead-letter exchange or a single active consumer, publishing, confirms,
//! mandatory returns, transactions, consumers, `basic.get`, direct replies, alarms. What it does not
//! know it refuses with 540 NOT_IMPLEMENTED, so that no test passes by accident.

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
mod message;
mod publishing;
mod queue;
mod queue_arguments;
mod readable;
mod refusal;
mod routing;
mod server;
mod topology;
mod transactions;

pub use broker::{Broker, ConnectionId, Held};
pub use server::ModelBroker;
