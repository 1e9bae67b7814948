//! For tests of programs that speak AMQP 0-9-1, with any client: brokers, peers that misbehave, and broken networks.
//!
//! ```
//! // A broker inside the test process, with nothing installed. Connect any client to `broker.uri()`.
//! let broker = amqp_testkit::ModelBroker::start()?;
//! assert!(broker.uri().starts_with("amqp://guest:guest@127.0.0.1:"));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! | type | what it is | use it for |
//! | --- | --- | --- |
//! | [`ModelBroker`] | a broker in memory that answers as RabbitMQ does | unit tests; it starts in a millisecond |
//! | [`RabbitMq`] | a private RabbitMQ node, started from an installed RabbitMQ | behaviour that the model lacks, versions of RabbitMQ |
//! | [`Proxy`] | a TCP proxy that cuts, resets, delays or pauses connections, at a byte or before a method | broken networks |
//! | [`Scripted`] | a peer that plays a script, frame by frame | a broker that misbehaves |
//! | [`RawConnection`] | one end of a connection, played by the test | a client that misbehaves |
//! | [`EnvBroker`] | the broker that `AMQP_URL` names, or else a model broker | examples, manual tests |
//! | [`alloc`] | a counting allocator | memory limits |
//!
//! Everything listens on 127.0.0.1, on a free port, and stops when it is dropped.

pub mod alloc;
mod env_broker;
mod frames;
pub mod model;
pub mod proxy;
pub mod rabbitmq;
pub mod raw_connection;
pub mod scripted;

pub use env_broker::EnvBroker;
pub use model::ModelBroker;
pub use proxy::{Direction, Fault, Proxy};
pub use rabbitmq::RabbitMq;
pub use raw_connection::RawConnection;
pub use scripted::Scripted;
