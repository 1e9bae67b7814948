//! Streams: queues that keep their messages, which every consumer reads from an offset of its own
//! (<https://www.rabbitmq.com/docs/streams>).
//!
//! An ack only lets the next message through; nothing is ever requeued. The model keeps every message: RabbitMQ drops whole
//! segments of old ones, which are larger than what a test publishes. RabbitMQ delivers messages that were stored together
//! at once, even above the prefetch; the model delivers each by itself.

use std::sync::Arc;
use std::time::Duration;

use amqp_proto::FieldValue;

use super::acknowledgement_timeout::AcknowledgementTimer;
use super::broker::Broker;
use super::connection::Connection;
use super::message::Message;
use super::queue::{ConsumerAt, Queued};

/// The messages of a stream, by offset.
#[derive(Debug, Default)]
pub(super) struct Log(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    message: Arc<Message>,
    written_at: Duration,
}

/// Where a consumer begins to read: the argument `x-stream-offset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StreamOffset {
    First,
    Last,
    /// At what is published from now on.
    #[default]
    Next,
    Number(u64),
    /// At the first message that was stored at this time or later.
    Time(Duration),
}

impl Log {
    pub(super) fn append(&mut self, message: Arc<Message>, written_at: Duration) {
        self.0.push(Entry { message, written_at });
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.0.iter().map(|entry| &entry.message)
    }

    /// Returns the number of the message that an offset means.
    pub(super) fn offset(&self, from: StreamOffset) -> u64 {
        let next = self.len();
        match from {
            StreamOffset::First => 0,
            StreamOffset::Last => next.saturating_sub(1),
            StreamOffset::Next => next,
            StreamOffset::Number(number) => number,
            StreamOffset::Time(time) => {
                let found = self.0.iter().position(|entry| entry.written_at >= time);
                found.map_or(next, |found| found as u64)
            }
        }
    }

    pub(super) const fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Returns the message at an offset, as it is delivered: with the header `x-stream-offset`.
    fn queued(&self, offset: u64) -> Option<Queued> {
        let mut message = Message::clone(&self.0.get(usize::try_from(offset).ok()?)?.message);
        // What cannot be written is delivered without the header.
        message.change_properties(|properties| {
            let headers = properties.headers.get_or_insert_default();
            headers.insert("x-stream-offset", FieldValue::I64(offset as i64));
        });
        let message = Arc::new(message);
        let position = (0, offset);
        Some(Queued { position, message, redelivered: false, expires_at: None, returns: 0 })
    }
}

impl Broker {
    /// Delivers to each consumer of a stream what it may have.
    pub(super) fn deliver_stream(&mut self, name: &str) {
        let Self { queues, connections, dirty, now, deadlines, consumer_timeout, .. } = self;
        let (now, timeout) = (*now, *consumer_timeout);
        let mut timer = AcknowledgementTimer { now, timeout, deadlines };
        let Some(queue) = queues.get(name) else { return };
        for consumer in &queue.consumers {
            let Some(connection) = connections.get_mut(&consumer.connection) else { continue };
            while connection.deliver_entry(consumer, name, &queue.log, &mut timer) {
                dirty.insert(consumer.connection);
            }
        }
    }
}

impl Connection {
    /// Delivers the next message of a stream to a consumer. Returns whether the consumer may have it.
    fn deliver_entry(
        &mut self,
        at: &ConsumerAt,
        queue: &str,
        log: &Log,
        timer: &mut AcknowledgementTimer<'_>,
    ) -> bool {
        let Some(offset) = self.consumer(at).map(|consumer| consumer.offset) else { return false };
        let Some(queued) = log.queued(offset) else { return false };
        let delivered = self.deliver(at, queue, &queued, timer);
        if delivered && let Some(consumer) = self.consumer(at) {
            consumer.offset += 1;
        }
        delivered
    }
}
