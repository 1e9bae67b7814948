//! A broker in memory, for tests without RabbitMQ.
//!
//! [`Broker`] is the model: bytes in, bytes out, and the time from outside, without sockets and without a clock.
//! [`ModelBroker`] serves it on a loopback port.
//!
//! It answers as RabbitMQ 3.10.8 does; the tests of this repository run on both. It supports:
//!
//! * users with permissions, logins by PLAIN and AMQPLAIN, and the virtual host `/`;
//! * every type of exchange, and bindings between exchanges;
//! * classic queues: priorities, a maximum length in messages and bytes with every `x-overflow`, a single active consumer;
//! * quorum queues: `x-delivery-limit`, `x-delivery-count`, dead letters at least once, the arguments that they refuse;
//! * streams: `x-stream-offset`, no requeue;
//! * messages and queues that expire, dead-letter exchanges, the header `x-death`, cycles that are cut;
//! * publishing, confirms one by one and with `multiple`, mandatory returns, transactions;
//! * consumers with priorities, prefetch, `basic.get`, direct reply-to, the delivery acknowledgement timeout;
//! * alarms, heartbeats, the close by an operator, and a crash with a restart.
//!
//! Everything else it refuses with 540 NOT_IMPLEMENTED, so that no test passes by accident. What it has in another way:
//!
//! | | RabbitMQ | the model |
//! | --- | --- | --- |
//! | nodes | a cluster | one |
//! | unknown arguments | ignored | ignored |
//! | `x-queue-mode`, `x-queue-version`, `x-max-in-memory-length`, initial sizes, leader locators | how it stores | checked, without effect |
//! | a stream's `x-max-age`, `x-max-length-bytes` | drops old segments | keeps every message |
//! | deliveries of a stream | several at once, above the prefetch | one by one |
//! | an idle queue, the oldest unacknowledged delivery | looks every 5 s or 60 s for what is due | at once |
//! | policies, plugins | from an operator | none |
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
mod acknowledgement_timeout;
mod broker;
mod channel;
mod clock;
mod confirms;
mod connection;
mod consumer_arguments;
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
mod quorum;
mod readable;
mod refusal;
mod restart;
mod routing;
mod server;
mod streams;
mod topology;
mod transactions;
mod users;

pub use broker::{Broker, ConnectionId, Held};
pub use inspection::{Attributes, QueuedMessage, Topology};
pub use server::ModelBroker;
pub use users::PermissionsError;
