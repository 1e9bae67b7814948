//! What tests look at: the exchanges, queues and bindings of a broker, and the messages of a queue.

use std::collections::{BTreeMap, BTreeSet};

use super::broker::Broker;
use super::routing::Destination;

/// The exchanges, queues and bindings of a broker, without the standard exchanges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topology {
    /// The exchanges by name.
    pub exchanges: BTreeMap<String, Attributes>,
    /// The queues by name.
    pub queues: BTreeMap<String, Attributes>,
    /// The bindings of queues: exchange, queue, routing key.
    pub bindings: BTreeSet<(String, String, String)>,
}

/// What was asked for when a queue or an exchange was declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attributes {
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether it is deleted when it is no longer used.
    pub auto_delete: bool,
    /// Whether it belongs to one connection. Exchanges never do.
    pub exclusive: bool,
}

impl Broker {
    /// Returns the exchanges, queues and bindings.
    pub fn topology(&self) -> Topology {
        let mut topology = Topology::default();
        for (name, exchange) in &self.exchanges {
            if !name.starts_with("amq.") {
                let (durable, auto_delete) = (exchange.durable, exchange.auto_delete);
                let attributes = Attributes { durable, auto_delete, exclusive: false };
                topology.exchanges.insert(name.clone(), attributes);
            }
            for binding in &exchange.bindings {
                if let Destination::Queue(queue) = &binding.destination {
                    topology.bindings.insert((name.clone(), queue.clone(), binding.key.clone()));
                }
            }
        }
        for (name, queue) in &self.queues {
            let attributes = Attributes {
                durable: queue.durable,
                auto_delete: queue.auto_delete,
                exclusive: queue.exclusive.is_some(),
            };
            topology.queues.insert(name.clone(), attributes);
        }
        topology
    }

    /// Returns the bodies of the messages in a queue: those that are ready, in their order, then those that were delivered
    /// and are unacknowledged.
    pub fn bodies(&self, queue: &str) -> Vec<&[u8]> {
        let ready = self.queues.get(queue).into_iter().flat_map(|found| found.ready.values());
        let channels = self.connections.values().flat_map(|it| it.channels.values());
        let unacked = channels.flat_map(|it| it.all_unacked()).filter(|it| it.queue == queue);
        let all = ready.chain(unacked.map(|it| &it.queued));
        all.map(|queued| queued.message.body.as_slice()).collect()
    }
}
