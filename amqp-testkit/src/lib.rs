//! For tests of AMQP 0-9-1 clients: a private RabbitMQ, a model broker that needs nothing installed,
//! a peer that plays a script, a proxy that breaks connections, and an allocator that counts.
//!
//! Nothing here rests on a client: any client's tests may use it.

pub mod alloc;
mod env_broker;
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
