//! What tests look at: the exchanges, queues and bindings of a broker, and the messages of a queue.

use std::collections::{BTreeMap, BTreeSet};

use amqp_proto::{FieldValue, Properties, TABLE_DEPTH_MAX};

use super::broker::Broker;
use super::channel::ChannelState;
use super::message::Message;
use super::queue::Queue;
use super::queue_arguments::QueueKind;
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
    /// Whether it is delivered to a client that has not acknowledged it, or is a dead letter of a quorum queue that no
    /// queue has taken.
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
    /// unacknowledged, then dead letters of a quorum queue that no queue has taken. Empty if the queue does not exist.
    pub fn messages(&self, queue: &str) -> Vec<QueuedMessage> {
        self.stored(queue).map(QueuedMessage::new).collect()
    }

    /// Returns the bodies of the messages in a queue, in the order of [`messages`](Self::messages).
    pub fn bodies(&self, queue: &str) -> Vec<&[u8]> {
        self.stored(queue).map(|stored| stored.message.body.as_slice()).collect()
    }

    fn stored<'b, 'n>(&'b self, name: &'n str) -> impl Iterator<Item = Stored<'b>> + use<'b, 'n> {
        let stored =
            |message, redelivered, unacknowledged| Stored { message, redelivered, unacknowledged };
        let queue = self.queues.get(name);
        let ready = queue.into_iter().flat_map(Queue::messages);
        let ready = ready.map(move |it| stored(&it.message, it.redelivered, false));
        let log = queue.into_iter().flat_map(|queue| queue.log.messages());
        let log = log.map(move |message| stored(message, false, false));
        // What a stream has delivered, it has still.
        let held = queue.filter(|queue| queue.arguments.kind != QueueKind::Stream);
        let channels = held.map(|_| self.connections.values().flat_map(|it| it.channels.values()));
        let unacked = channels.into_iter().flatten().flat_map(ChannelState::all_unacked);
        let unacked = unacked.filter(move |it| it.queue == name).map(|it| &it.queued);
        let unacked = unacked.map(move |it| stored(&it.message, it.redelivered, true));
        let letters = queue.into_iter().flat_map(|queue| queue.quorum.undelivered_letters());
        let letters = letters.map(move |it| stored(&it.message, false, true));
        ready.chain(log).chain(unacked).chain(letters)
    }
}

/// A message as its queue has it.
#[derive(Clone, Copy, Debug)]
struct Stored<'b> {
    message: &'b Message,
    redelivered: bool,
    unacknowledged: bool,
}

impl QueuedMessage {
    fn new(stored: Stored<'_>) -> Self {
        let message = stored.message;
        Self {
            exchange: message.exchange.clone(),
            routing_key: message.routing_key.clone(),
            properties: message.properties().to_owned(TABLE_DEPTH_MAX).unwrap_or_default(),
            body: message.body.clone(),
            redelivered: stored.redelivered,
            unacknowledged: stored.unacknowledged,
        }
    }

    /// Returns a header, `None` if the message does not have it.
    pub fn header(&self, name: &str) -> Option<&FieldValue> {
        self.properties.headers.as_ref()?.get(name)
    }
}
