//! Delivers messages: which consumer gets the next message of a queue.
//!
//! A queue's consumers take turns, those of a higher priority first. A consumer is skipped while its prefetch is
//! used up, or while 1 MiB or more waits to be written to its connection.

use amqp_proto::method::basic;

use super::acking::Unacked;
use super::acknowledgement_timeout::AcknowledgementTimer;
use super::broker::{Broker, OUTPUT_HIGH_BYTES};
use super::connection::Connection;
use super::fields::short;
use super::queue::{ConsumerAt, Queued};
use super::queue_arguments::QueueKind;

impl Broker {
    /// Delivers the ready messages of a queue to its consumers, as far as they may have them, and drops those that have
    /// expired behind them.
    pub(super) fn deliver(&mut self, name: &str) {
        let kind = self.queues.get(name).map(|queue| queue.arguments.kind);
        if kind == Some(QueueKind::Stream) {
            return self.deliver_stream(name);
        }
        self.deliver_unexpired(name);
        while self.drop_expired(name) {
            self.deliver_unexpired(name);
        }
    }

    /// Delivers ready messages up to the next one that has expired. The first one may have.
    fn deliver_unexpired(&mut self, name: &str) {
        let Self { queues, connections, dirty, now, deadlines, consumer_timeout, .. } = self;
        let (now, timeout) = (*now, *consumer_timeout);
        let mut timer = AcknowledgementTimer { now, timeout, deadlines };
        let Some(queue) = queues.get_mut(name) else { return };
        let mut delivered = false;
        while let Some(first) = queue.first() {
            if delivered && first.has_expired(now) {
                return;
            }
            let taker = queue.first_taker(|consumer| {
                let connection = connections.get_mut(&consumer.connection);
                connection.is_some_and(|it| it.deliver(consumer, name, first, &mut timer))
            });
            let Some(consumer) = taker.and_then(|place| queue.consumers.remove(place)) else {
                return;
            };
            queue.pop_first();
            queue.limit_publishers();
            delivered = true;
            dirty.insert(consumer.connection);
            if queue.arguments.single_active_consumer {
                queue.consumers.push_front(consumer);
            } else {
                queue.consumers.push_back(consumer);
            }
        }
    }

    pub(super) fn deliver_all(&mut self) {
        for name in self.queues.keys().cloned().collect::<Vec<_>>() {
            self.deliver(&name);
        }
    }
}

impl Connection {
    /// Delivers a message to a consumer. Returns whether the consumer may have it.
    pub(super) fn deliver(
        &mut self,
        consumer: &ConsumerAt,
        queue: &str,
        queued: &Queued,
        timer: &mut AcknowledgementTimer<'_>,
    ) -> bool {
        if self.output.len() >= OUTPUT_HIGH_BYTES {
            return false;
        }
        let Some(channel) = self.channels.get_mut(&consumer.channel) else { return false };
        if channel.global_prefetch > 0
            && channel.unacknowledged() >= usize::from(channel.global_prefetch)
        {
            return false;
        }
        let Some(state) = channel.consumers.get_mut(&consumer.tag) else { return false };
        if state.prefetch > 0 && state.unacked >= state.prefetch {
            return false;
        }
        channel.last_tag += 1;
        let delivery_tag = channel.last_tag;
        if !state.no_ack {
            state.unacked += 1;
            let unacked = Unacked {
                queue: queue.to_owned(),
                consumer: consumer.tag.clone(),
                number: state.number,
                delivered_at: timer.now,
                queued: queued.clone(),
            };
            channel.unacked.insert(delivery_tag, unacked);
            timer.start(consumer.connection, consumer.channel, channel);
        }
        let message = queued.to_deliver();
        let deliver = basic::Deliver {
            consumer_tag: short(&consumer.tag),
            delivery_tag,
            redelivered: queued.redelivered,
            exchange: short(message.exchange.as_bytes()),
            routing_key: short(&message.wire_key),
        };
        self.send_message(consumer.channel, &deliver, &message);
        true
    }
}
