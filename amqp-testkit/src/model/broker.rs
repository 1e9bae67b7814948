//! Exchanges, queues and connections: what all connections share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use amqp_proto::ReplyCode;

use super::connection::Connection;
use super::queue::{Message, Queue};

/// Bytes waiting for a connection at which no more is delivered to it.
const OUTPUT_HIGH_BYTES: usize = 1 << 20;

/// One connection to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(u64);

/// The model: bytes in, bytes out.
#[derive(Debug)]
pub struct Broker {
    pub(super) exchanges: BTreeMap<String, Exchange>,
    pub(super) queues: BTreeMap<String, Queue>,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    /// Connections with new output.
    dirty: BTreeSet<ConnectionId>,
    next_connection: u64,
    next_queue_name: u64,
}

/// A direct exchange: routing keys and the queues bound with them.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) internal: bool,
    pub(super) bindings: BTreeMap<String, BTreeSet<String>>,
}

/// Why a method is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    Channel(ReplyCode, String),
    Connection(ReplyCode, String),
}

impl Refusal {
    pub(super) fn channel(code: ReplyCode, text: impl AsRef<str>) -> Self {
        Self::Channel(code, named(code, text.as_ref()))
    }

    pub(super) fn connection(code: ReplyCode, text: impl AsRef<str>) -> Self {
        Self::Connection(code, named(code, text.as_ref()))
    }

    pub(super) fn not_implemented(what: &str) -> Self {
        Self::connection(ReplyCode::NOT_IMPLEMENTED, format!("the model broker has no {what}"))
    }
}

fn named(code: ReplyCode, text: &str) -> String {
    format!("{} - {text}", code.name().unwrap_or("ERROR"))
}

impl Default for Broker {
    fn default() -> Self {
        Self::new()
    }
}

impl Broker {
    /// A broker without connections; it has the exchanges `` and `amq.direct`.
    pub fn new() -> Self {
        let amq_direct = Exchange { durable: true, ..Exchange::default() };
        Self {
            exchanges: BTreeMap::from([("amq.direct".to_owned(), amq_direct)]),
            queues: BTreeMap::new(),
            connections: BTreeMap::new(),
            dirty: BTreeSet::new(),
            next_connection: 0,
            next_queue_name: 0,
        }
    }

    /// A client has connected.
    pub fn connect(&mut self) -> ConnectionId {
        self.next_connection += 1;
        let id = ConnectionId(self.next_connection);
        self.connections.insert(id, Connection::new());
        id
    }

    /// A client has sent bytes.
    pub fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.input.extend_from_slice(bytes);
        self.handle_input(id);
    }

    /// Takes the bytes to be sent to a client.
    pub fn take_output(&mut self, id: ConnectionId) -> Vec<u8> {
        let Some(connection) = self.connections.get_mut(&id) else { return Vec::new() };
        let output = std::mem::take(&mut connection.output);
        if output.len() >= OUTPUT_HIGH_BYTES {
            self.deliver_all();
        }
        output
    }

    /// How often a client is to be sent a sign of life, if it asked for that: see
    /// [`send_heartbeat`](Self::send_heartbeat).
    pub fn heartbeat(&self, id: ConnectionId) -> Option<Duration> {
        let seconds = self.connections.get(&id)?.heartbeat;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()) / 2)
    }

    /// Queues a sign of life.
    pub fn send_heartbeat(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.output.extend_from_slice(&amqp_proto::frame::HEARTBEAT);
        }
    }

    /// Whether the connection is to be closed once its output is sent. True also for a connection
    /// that is gone.
    pub fn is_finished(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_none_or(|connection| connection.finished)
    }

    /// The connections that have got output since this was last asked.
    pub fn take_dirty(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    /// A client is gone: what it had not acknowledged is requeued, its exclusive queues go.
    pub fn disconnect(&mut self, id: ConnectionId) {
        let Some(mut connection) = self.connections.remove(&id) else { return };
        for (number, channel) in std::mem::take(&mut connection.channels) {
            self.release_channel(id, number, channel);
        }
        let exclusive = self.queues.iter().filter(|(_, queue)| queue.exclusive == Some(id));
        for name in exclusive.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.delete_queue(&name);
        }
        self.deliver_all();
    }

    /// The messages that are ready in a queue, if there is one of that name.
    pub fn ready(&self, queue: &str) -> Option<usize> {
        self.queues.get(queue).map(|queue| queue.ready.len())
    }

    /// Where a message goes.
    pub(super) fn route(&self, exchange: &str, key: &str) -> Result<BTreeSet<String>, Refusal> {
        if exchange.is_empty() {
            let queue = self.queues.contains_key(key).then(|| key.to_owned());
            return Ok(queue.into_iter().collect());
        }
        let Some(found) = self.exchanges.get(exchange) else {
            return Err(no_exchange(exchange));
        };
        if found.internal {
            let text = format!("cannot publish to internal exchange '{exchange}' in vhost '/'");
            return Err(Refusal::channel(ReplyCode::ACCESS_REFUSED, text));
        }
        Ok(found.bindings.get(key).cloned().unwrap_or_default())
    }

    pub(super) fn enqueue(&mut self, queue: &str, message: Message) {
        if let Some(found) = self.queues.get_mut(queue) {
            found.push(message);
            self.deliver(queue);
        }
    }

    /// Delivers what is ready to consumers that may have it.
    pub(super) fn deliver(&mut self, name: &str) {
        let Self { queues, connections, dirty, .. } = self;
        let Some(queue) = queues.get_mut(name) else { return };
        let mut idle = 0;
        while idle < queue.consumers.len() && !queue.ready.is_empty() {
            let Some(consumer) = queue.consumers.pop_front() else { break };
            let connection = connections.get_mut(&consumer.connection);
            let room = |connection: &&mut Connection| connection.output.len() < OUTPUT_HIGH_BYTES;
            let delivered = match connection.filter(room) {
                Some(connection) => connection.deliver(&consumer, name, &mut queue.ready),
                None => false,
            };
            if delivered {
                dirty.insert(consumer.connection);
                idle = 0;
            } else {
                idle += 1;
            }
            queue.consumers.push_back(consumer);
        }
    }

    pub(super) fn deliver_all(&mut self) {
        for name in self.queues.keys().cloned().collect::<Vec<_>>() {
            self.deliver(&name);
        }
    }

    /// Deletes a queue with its bindings; its consumers are told.
    pub(super) fn delete_queue(&mut self, name: &str) -> Option<u32> {
        let queue = self.queues.remove(name)?;
        for exchange in self.exchanges.values_mut() {
            exchange.unbind_all(name);
        }
        for consumer in &queue.consumers {
            if let Some(connection) = self.connections.get_mut(&consumer.connection) {
                connection.cancel(consumer);
                self.dirty.insert(consumer.connection);
            }
        }
        Some(queue.ready.len() as u32)
    }

    pub(super) fn server_queue_name(&mut self) -> String {
        self.next_queue_name += 1;
        format!("amq.gen-{:022}", self.next_queue_name)
    }

    pub(super) fn mark_dirty(&mut self, id: ConnectionId) {
        self.dirty.insert(id);
    }
}

impl Exchange {
    pub(super) fn unbind(&mut self, key: &str, queue: &str) {
        if let Some(queues) = self.bindings.get_mut(key) {
            queues.remove(queue);
            if queues.is_empty() {
                self.bindings.remove(key);
            }
        }
    }

    fn unbind_all(&mut self, queue: &str) {
        for queues in self.bindings.values_mut() {
            queues.remove(queue);
        }
        self.bindings.retain(|_, queues| !queues.is_empty());
    }
}

pub(super) fn no_exchange(name: &str) -> Refusal {
    Refusal::channel(ReplyCode::NOT_FOUND, format!("no exchange '{name}' in vhost '/'"))
}

pub(super) fn no_queue(name: &str) -> Refusal {
    Refusal::channel(ReplyCode::NOT_FOUND, format!("no queue '{name}' in vhost '/'"))
}
