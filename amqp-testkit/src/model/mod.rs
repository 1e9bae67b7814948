//! A broker in memory, for where no RabbitMQ is at hand.
//!
//! [`Broker`] is the model: bytes in, bytes out, no sockets and no clock. [`ModelBroker`] serves it
//! on a loopback port. It answers as RabbitMQ 3.10.8 was seen to, for what it knows: PLAIN, one
//! virtual host `/`, the default exchange and direct ones, queues, publishing, confirms, mandatory
//! returns, consumers with prefetch, acknowledgement and requeueing, `basic.get`. What it does not know it refuses
//! with 540 NOT_IMPLEMENTED, so that no test passes by accident.

mod broker;
mod channel;
mod connection;
mod front;
mod queue;
mod topology;

pub use broker::{Broker, ConnectionId};
pub use front::ModelBroker;
