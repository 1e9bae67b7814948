//! What tests look at: the exchanges, queues and bindings of a broker, and the messages of a queue.

use std::collections::{BTreeMap, BTreeSet};

use amqp_proto::{FieldValue, Properties, TABLE_DEPTH_MAX};

use super::broker::Broker;
use super::queue::Queued;
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

/// A message in a queue: see [`ModelBroker::messages`](super::ModelBroker::messages).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueuedMessage {
    /// The exchange that it was published to, or dead-lettered to.
    pub exchange: String,
    /// Its routing key.
    pub routing_key: String,
    /// Its properties, with its headers. Empty if they cannot be decoded.
    pub properties: Properties,
    /// Its body.
    pub body: Vec<u8>,
    /// Whether it was delivered before, and requeued.
    pub redelivered: bool,
    /// Whether it is delivered to a client that has not acknowledged it.
    pub unacknowledged: bool,
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

    /// Returns the messages in a queue: those that are ready, in their order, then those that were delivered and are
    /// unacknowledged. Empty if the queue does not exist.
    pub fn messages(&self, queue: &str) -> Vec<QueuedMessage> {
        self.queued(queue).map(|(queued, acked)| QueuedMessage::new(queued, acked)).collect()
    }

    /// Returns the bodies of the messages in a queue, in the order of [`messages`](Self::messages).
    pub fn bodies(&self, queue: &str) -> Vec<&[u8]> {
        self.queued(queue).map(|(queued, _)| queued.message.body.as_slice()).collect()
    }

    /// The messages in a queue, and whether each is unacknowledged.
    fn queued(&self, queue: &str) -> impl Iterator<Item = (&Queued, bool)> {
        let ready = self.queues.get(queue).into_iter().flat_map(|found| found.ready.values());
        let channels = self.connections.values().flat_map(|it| it.channels.values());
        let unacked = channels.flat_map(|it| it.all_unacked()).filter(move |it| it.queue == queue);
        ready.map(|queued| (queued, false)).chain(unacked.map(|it| (&it.queued, true)))
    }
}

impl QueuedMessage {
    fn new(queued: &Queued, unacknowledged: bool) -> Self {
        let message = &queued.message;
        Self {
            exchange: message.exchange.clone(),
            routing_key: message.routing_key.clone(),
            properties: message.properties().to_owned(TABLE_DEPTH_MAX).unwrap_or_default(),
            body: message.body.clone(),
            redelivered: queued.redelivered,
            unacknowledged,
        }
    }

    /// Returns a header, `None` if the message does not have it.
    pub fn header(&self, name: &str) -> Option<&FieldValue> {
        self.properties.headers.as_ref()?.get(name)
    }
}
