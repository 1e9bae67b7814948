//! For tests of AMQP 0-9-1 clients: a private RabbitMQ, a model broker that needs nothing installed,
//! and an allocator that counts.
//!
//! Nothing here rests on a client: any client's tests may use it.

pub mod alloc;
pub mod model;
pub mod rabbitmq;

pub use model::ModelBroker;
pub use rabbitmq::RabbitMq;
