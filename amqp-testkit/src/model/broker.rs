//! The broker: the exchanges, queues and connections, bytes in and out, alarms, disconnects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use amqp_proto::ReplyCode;

use super::acknowledgement_timeout;
use super::connection::{Connection, Phase};
use super::dead_letters::DeadLetter;
use super::deadlines::{Deadlines, Due};
use super::queue::Queue;
use super::refusal::Refusal;
use super::routing::{Destination, Exchange, Kind};
use super::users::Users;

/// The number of bytes waiting to be written to a connection from which on nothing more is delivered to it.
pub(super) const OUTPUT_HIGH_BYTES: usize = 1 << 20;

/// The key of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub(super) u64);

/// The model: bytes in, bytes out, and the time from outside. [`ModelBroker`](super::ModelBroker) serves it.
#[derive(Debug)]
pub struct Broker {
    pub(super) exchanges: BTreeMap<String, Exchange>,
    pub(super) queues: BTreeMap<String, Queue>,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    pub(super) users: Users,
    /// The reason of the alarm. Connections that publish during an alarm are blocked.
    pub(super) alarm: Option<String>,
    /// The time since 1970.
    pub(super) now: Duration,
    pub(super) deadlines: Deadlines,
    /// How long a delivery may be unacknowledged.
    pub(super) consumer_timeout: Option<Duration>,
    /// Dead letters that are to be published.
    pub(super) dead_letters: VecDeque<DeadLetter>,
    /// Connections with new output.
    pub(super) dirty: BTreeSet<ConnectionId>,
    next_connection: u64,
    next_queue_name: u64,
}

/// What clients hold of a broker. Everything is 0 once they have released what they used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// The number of connections.
    pub connections: usize,
    /// The number of channels.
    pub channels: usize,
    /// The number of consumers.
    pub consumers: usize,
    /// The number of unacknowledged deliveries.
    pub unacknowledged: usize,
}

impl Default for Broker {
    fn default() -> Self {
        Self::new()
    }
}

impl Broker {
    /// Creates a broker with the standard exchanges, without queues and connections.
    pub fn new() -> Self {
        let standard = [
            ("amq.direct", Kind::Direct),
            ("amq.fanout", Kind::Fanout),
            ("amq.headers", Kind::Headers),
            ("amq.match", Kind::Headers),
            ("amq.topic", Kind::Topic),
        ];
        let exchange = |kind| Exchange { durable: true, ..Exchange::new(kind) };
        Self {
            exchanges: standard.map(|(name, kind)| (name.to_owned(), exchange(kind))).into(),
            queues: BTreeMap::new(),
            connections: BTreeMap::new(),
            users: Users::default(),
            alarm: None,
            now: Duration::ZERO,
            deadlines: Deadlines::default(),
            consumer_timeout: Some(acknowledgement_timeout::DEFAULT),
            dead_letters: VecDeque::new(),
            dirty: BTreeSet::new(),
            next_connection: 0,
            next_queue_name: 0,
        }
    }

    /// Adds a connection.
    pub fn connect(&mut self) -> ConnectionId {
        self.next_connection += 1;
        let id = ConnectionId(self.next_connection);
        self.connections.insert(id, Connection::new());
        id
    }

    /// Handles bytes from a client.
    pub fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.input.extend_from_slice(bytes);
        self.handle_input(id);
    }

    /// Returns whether a client's bytes are handled. They are not while an alarm blocks it.
    pub fn is_reading(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_none_or(|connection| !connection.blocked)
    }

    /// Takes the bytes to send to a client.
    pub fn take_output(&mut self, id: ConnectionId) -> Vec<u8> {
        let Some(connection) = self.connections.get_mut(&id) else { return Vec::new() };
        let output = std::mem::take(&mut connection.output);
        if output.len() >= OUTPUT_HIGH_BYTES {
            self.deliver_all();
            self.publish_dead_letters();
        }
        output
    }

    /// Returns the interval at which to call [`send_heartbeat`](Self::send_heartbeat), `None` if the client wants no
    /// heartbeats. It is half of the negotiated interval.
    pub fn heartbeat(&self, id: ConnectionId) -> Option<Duration> {
        let seconds = self.connections.get(&id)?.heartbeat;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()) / 2)
    }

    /// Returns how long a client may send nothing, `None` for any time: two heartbeat intervals. After that call
    /// [`disconnect`](Self::disconnect).
    pub fn silence_max(&self, id: ConnectionId) -> Option<Duration> {
        self.heartbeat(id).map(|half| half * 4)
    }

    /// Queues a heartbeat for a client.
    pub fn send_heartbeat(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.output.extend_from_slice(&amqp_proto::frame::HEARTBEAT);
        }
    }

    /// Returns whether the connection is to be closed once its output is sent. True also for one that has disconnected.
    pub fn is_finished(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_none_or(|connection| connection.finished)
    }

    /// Takes the connections that have new output since the last call.
    pub fn take_dirty(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    /// Removes a connection. Its unacknowledged deliveries are requeued, its exclusive queues deleted.
    pub fn disconnect(&mut self, id: ConnectionId) {
        let Some(mut connection) = self.connections.remove(&id) else { return };
        for (number, state) in std::mem::take(&mut connection.channels) {
            self.release_channel(id, number, state);
        }
        let exclusive = self.queues.iter().filter(|(_, queue)| queue.exclusive == Some(id));
        for name in exclusive.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.delete_queue(&name);
        }
        self.deliver_all();
        self.publish_dead_letters();
    }

    /// Raises an alarm with this reason, as RabbitMQ does when it is low on memory or disk space, or ends it with `None`.
    /// A connection that publishes during an alarm gets `connection.blocked`, and is not read until the alarm ends
    /// (<https://www.rabbitmq.com/docs/connection-blocked>).
    pub fn set_alarm(&mut self, reason: Option<&str>) {
        self.alarm = reason.map(str::to_owned);
        if self.alarm.is_some() {
            return;
        }
        let blocked = self.connections.iter().filter(|(_, connection)| connection.blocked);
        for id in blocked.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.unblock();
            }
            self.handle_input(id);
        }
    }

    /// Closes every connection with 320 CONNECTION_FORCED, as an operator does. The transport of one that is still in its
    /// handshake is closed without that.
    pub fn close_all(&mut self, reason: &str) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            match self.connections.get_mut(&id) {
                Some(connection) if connection.phase < Phase::Running => connection.finished = true,
                Some(connection) if connection.phase == Phase::Running => {
                    let refusal = Refusal::connection(ReplyCode::CONNECTION_FORCED, reason);
                    self.refuse(id, 0, None, refusal);
                }
                _ => {}
            }
            self.mark_dirty(id);
        }
        self.publish_dead_letters();
    }

    /// Returns the number of messages that are ready in a queue, `None` if the queue does not exist.
    pub fn ready(&self, queue: &str) -> Option<usize> {
        self.queues.get(queue).map(|queue| queue.len() as usize)
    }

    /// Returns what clients hold.
    pub fn held(&self) -> Held {
        let mut held = Held { connections: self.connections.len(), ..Held::default() };
        for channel in self.connections.values().flat_map(|it| it.channels.values()) {
            held.channels += 1;
            held.consumers += channel.consumers.len();
            held.unacknowledged += channel.unacknowledged();
        }
        held
    }

    /// Deletes a queue with its bindings, and cancels its consumers. Returns the number of messages that were ready.
    pub(super) fn delete_queue(&mut self, name: &str) -> Option<u32> {
        let queue = self.queues.remove(name)?;
        for due in [Due::Message, Due::Queue, Due::DeadLetters] {
            self.deadlines.set(due(name.to_owned()), None);
        }
        let destination = Destination::Queue(name.to_owned());
        self.remove_bindings(|_, binding| binding.destination == destination);
        for consumer in &queue.consumers {
            if let Some(connection) = self.connections.get_mut(&consumer.connection) {
                connection.cancel(consumer);
                self.dirty.insert(consumer.connection);
            }
        }
        Some(queue.len())
    }

    pub(super) fn server_queue_name(&mut self) -> String {
        self.next_queue_name += 1;
        format!("amq.gen-{:022}", self.next_queue_name)
    }

    pub(super) fn mark_dirty(&mut self, id: ConnectionId) {
        self.dirty.insert(id);
    }
}
