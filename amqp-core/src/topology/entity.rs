//! How exchanges, queues and bindings are named in reports.

use std::fmt;

use crate::error::Error;

/// An exchange, a queue or a binding that a connection declares again after it was lost.
///
/// `Display` describes it: `queue "orders"`, or
/// `binding of queue "orders" to exchange "events" with routing key "order.*"`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopologyEntity {
    /// An exchange.
    Exchange {
        /// The name.
        name: String,
    },
    /// A binding of an exchange to an exchange.
    ExchangeBinding {
        /// The exchange that receives the messages.
        destination: String,
        /// The exchange to which they are published.
        source: String,
        /// The routing key or pattern.
        routing_key: String,
    },
    /// A queue.
    Queue {
        /// The name. For a queue whose name the broker chooses, it is the name before the connection was lost.
        name: String,
    },
    /// A binding of a queue to an exchange.
    QueueBinding {
        /// The queue.
        queue: String,
        /// The exchange.
        exchange: String,
        /// The routing key or pattern.
        routing_key: String,
    },
}

impl fmt::Display for TopologyEntity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange { name } => write!(f, "exchange {name:?}"),
            Self::ExchangeBinding { destination, source, routing_key } => write!(
                f,
                "binding of exchange {destination:?} to exchange {source:?} with routing key {routing_key:?}"
            ),
            Self::Queue { name } => write!(f, "queue {name:?}"),
            Self::QueueBinding { queue, exchange, routing_key } => write!(
                f,
                "binding of queue {queue:?} to exchange {exchange:?} with routing key {routing_key:?}"
            ),
        }
    }
}

/// An exchange, a queue or a binding that could not be declared again, and why. The others are declared nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedEntity {
    /// What was to be declared.
    pub entity: TopologyEntity,
    /// The error, such as the broker's refusal.
    pub error: Error,
}

impl fmt::Display for FailedEntity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.entity, self.error)
    }
}
