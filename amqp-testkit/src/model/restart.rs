//! What a crash of the broker loses, and what is there when it runs again.
//!
//! RabbitMQ keeps durable queues, durable exchanges, the bindings between both, and the persistent messages of durable
//! queues. Everything else is gone: transient queues and exchanges, transient messages, and exclusive queues, because
//! their connection is gone. Auto-delete queues and exchanges that are durable stay, because what deletes them was lost
//! with the node. After a crash RabbitMQ marks every message that it has kept as redelivered: it does not know which were
//! delivered (<https://www.rabbitmq.com/docs/queues#durability>).

use amqp_proto::DeliveryMode;

use super::broker::Broker;
use super::message::Message;
use super::queue::Queue;
use super::queue_arguments::QueueKind;
use super::routing::Destination;

impl Broker {
    /// Restarts the broker as after a crash: every connection is gone, without a close, and so is everything that is not
    /// durable. It serves new connections at once.
    pub fn restart(&mut self) {
        // No queue is deleted with its last consumer here, and no message is delivered.
        let connections = std::mem::take(&mut self.connections);
        let channels = connections.into_values().flat_map(|connection| connection.channels);
        for unacked in channels.flat_map(|(_, channel)| channel.into_unacked()) {
            self.requeue(unacked, false);
        }
        self.queues.retain(|_, queue| queue.durable && queue.exclusive.is_none());
        self.queues.values_mut().for_each(Queue::restart);
        self.exchanges.retain(|_, exchange| exchange.durable);
        let (queues, exchanges) = (&self.queues, &self.exchanges);
        let lost = |destination: &Destination| match destination {
            Destination::Queue(name) => !queues.contains_key(name),
            Destination::Exchange(name) => !exchanges.contains_key(name),
        };
        let lost: Vec<_> = exchanges
            .values()
            .flat_map(|exchange| &exchange.bindings)
            .filter(|binding| lost(&binding.destination))
            .cloned()
            .collect();
        for exchange in self.exchanges.values_mut() {
            exchange.bindings.retain(|binding| !lost.contains(binding));
        }
        self.alarm = None;
        self.dirty.clear();
        self.deadlines.clear();
        self.dead_letters.clear();
        for name in self.queues.keys().cloned().collect::<Vec<_>>() {
            self.drop_expired(&name);
            self.postpone_queue_expiry(&name);
        }
        self.publish_dead_letters();
    }
}

impl Queue {
    /// Keeps what is on disk.
    fn restart(&mut self) {
        if self.arguments.kind == QueueKind::Classic {
            self.retain(|queued| {
                queued.redelivered = true;
                queued.message.is_persistent()
            });
        }
        self.consumers.clear();
        (self.taken, self.consumed) = (false, false);
        self.expiry = None;
    }
}

impl Message {
    fn is_persistent(&self) -> bool {
        self.properties().delivery_mode == Some(DeliveryMode::Persistent.into())
    }
}
