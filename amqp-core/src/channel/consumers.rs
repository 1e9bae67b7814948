//! Consumers and their unread deliveries.
//!
//! A consumer exists from the moment `basic.consume` is queued, under a tag chosen here, so that a
//! delivery finds it even if it overtakes `consume-ok`. It goes once it has ended on the wire and its
//! handle is gone.
//!
//! A stream takes no message back, and RabbitMQ before 3.11 ends the connection if one of its deliveries
//! is refused. `stream_offset` tells that a queue is a stream. Without it, the header `x-stream-offset` of
//! a delivery shows that it may be one; but a message that was read from a stream and published again to
//! another queue may have that header too. Such a delivery may be acknowledged, and is never refused or
//! requeued: acknowledging it in place of a refusal could lose it. A consumer is suspected from its start
//! until a delivery without the header shows that its queue is not a stream.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::Error;
use crate::ids::{CallKey, ChannelId, ConsumerKey, TagKind};
use crate::limits::PULLED_BYTES;
use crate::message::Delivery;
use crate::slab::Slab;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConsumerPhase {
    /// Consume or cancel is on its way, or the consumer runs.
    Running,
    /// `basic.cancel` is on its way.
    Cancelling,
    /// No more deliveries will come.
    Ended,
}

#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) channel: ChannelId,
    pub(crate) tag: Arc<str>,
    /// The kind of its deliveries' tags.
    pub(crate) kind: TagKind,
    pub(crate) phase: ConsumerPhase,
    /// Why it ended, unless its own client cancelled it; told once.
    pub(crate) error: Option<Error>,
    /// Its queue may be a stream: each delivery is looked at.
    pub(crate) suspected: bool,
    /// How many deliveries it may hold unacknowledged, by its own limit or its channel's as they were when
    /// it started; 0 is no limit.
    pub(crate) prefetch: u16,
    /// Calls that wait for the answer to a cancel that another call has sent.
    pub(crate) cancels: Vec<CallKey>,
    /// Its handle is gone: deliveries are requeued.
    pub(crate) released: bool,
    pub(crate) unread: VecDeque<Delivery>,
    /// Bytes of those.
    pub(crate) bytes: usize,
    /// Bytes of those that were last handed over together.
    pub(crate) pulled_bytes: usize,
}

impl Consumer {
    /// Whether its deliveries count as acknowledged when they are sent.
    #[inline]
    pub(crate) fn no_ack(&self) -> bool {
        self.kind == TagKind::NoAck
    }

    /// The kind of a delivery's tag.
    #[inline]
    pub(crate) fn kind_of(&mut self, delivery: &Delivery) -> TagKind {
        if self.suspected {
            match delivery.message.has_stream_offset() {
                Some(true) => return TagKind::MaybeStream,
                Some(false) => self.suspected = false,
                None => {}
            }
        }
        self.kind
    }

    /// Queues a delivery, whose bytes go to those of all consumers. Whether it is the first unread one.
    #[inline]
    pub(crate) fn push(&mut self, all_bytes: &mut usize, delivery: Delivery) -> bool {
        let cost = cost(&delivery);
        *all_bytes += cost;
        self.bytes += cost;
        self.unread.push_back(delivery);
        self.unread.len() == 1
    }
}

#[derive(Debug)]
pub(crate) struct Consumers {
    slots: Slab<Consumer>,
    /// Bytes of unread deliveries.
    bytes: usize,
    /// Bytes of those that were last handed over to each.
    pulled_bytes: usize,
}

impl Consumers {
    pub(crate) const fn new() -> Self {
        Self { slots: Slab::new(), bytes: 0, pulled_bytes: 0 }
    }

    pub(crate) fn insert(&mut self, consumer: Consumer) -> ConsumerKey {
        ConsumerKey(self.slots.insert(consumer))
    }

    #[inline]
    pub(crate) fn find(&self, key: ConsumerKey) -> Option<&Consumer> {
        self.slots.find(key.0)
    }

    #[inline]
    pub(crate) fn find_mut(&mut self, key: ConsumerKey) -> Option<&mut Consumer> {
        self.slots.find_mut(key.0)
    }

    /// All consumers, ended ones among them.
    pub(crate) fn keys(&self) -> impl Iterator<Item = ConsumerKey> + use<> {
        self.slots.keys().into_iter().map(ConsumerKey)
    }

    /// All consumers of a channel, ended ones among them.
    pub(crate) fn of_channel(&self, channel: ChannelId) -> Vec<ConsumerKey> {
        let of_channel =
            |key: &ConsumerKey| self.find(*key).is_some_and(|it| it.channel == channel);
        self.keys().filter(of_channel).collect()
    }

    /// Bytes of the deliveries of all consumers that are unread, as far as is known here.
    #[inline]
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes + self.pulled_bytes
    }

    /// Whether deliveries are here that no handle has taken.
    pub(crate) const fn has_unread(&self) -> bool {
        self.bytes > 0
    }

    /// Queues a delivery. Whether it is the first unread one.
    #[inline]
    pub(crate) fn push(&mut self, key: ConsumerKey, delivery: Delivery) -> bool {
        self.find_with_bytes(key).is_some_and(|(consumer, bytes)| consumer.push(bytes, delivery))
    }

    /// The consumer, and the sum that [`Consumer::push`] adds to.
    #[inline]
    pub(crate) fn find_with_bytes(
        &mut self,
        key: ConsumerKey,
    ) -> Option<(&mut Consumer, &mut usize)> {
        Some((self.slots.find_mut(key.0)?, &mut self.bytes))
    }

    #[inline]
    pub(crate) fn pop(&mut self, key: ConsumerKey) -> Option<Delivery> {
        let consumer = self.slots.find_mut(key.0)?;
        let delivery = consumer.unread.pop_front()?;
        let cost = cost(&delivery);
        consumer.bytes -= cost;
        self.bytes -= cost;
        Some(delivery)
    }

    /// Hands deliveries over, behind those in `into`: all, or `PULLED_BYTES` of them. They count until
    /// the next time. Returns their bytes.
    #[inline]
    pub(crate) fn pull(&mut self, key: ConsumerKey, into: &mut VecDeque<Delivery>) -> usize {
        let Some(consumer) = self.slots.find_mut(key.0) else { return 0 };
        let mut pulled = consumer.bytes;
        if pulled <= PULLED_BYTES && into.is_empty() {
            std::mem::swap(&mut consumer.unread, into);
        } else {
            pulled = 0;
            while pulled < PULLED_BYTES
                && let Some(delivery) = consumer.unread.pop_front()
            {
                pulled += cost(&delivery);
                into.push_back(delivery);
            }
        }
        self.pulled_bytes -= std::mem::replace(&mut consumer.pulled_bytes, pulled);
        self.pulled_bytes += pulled;
        consumer.bytes -= pulled;
        self.bytes -= pulled;
        pulled
    }

    /// The deliveries that nobody will read.
    pub(crate) fn take_unread(&mut self, key: ConsumerKey) -> VecDeque<Delivery> {
        let Some(consumer) = self.slots.find_mut(key.0) else { return VecDeque::new() };
        self.bytes -= std::mem::take(&mut consumer.bytes);
        std::mem::take(&mut consumer.unread)
    }

    /// Its handle is gone, and with it what that had taken: takes the rest.
    pub(crate) fn release(&mut self, key: ConsumerKey) -> VecDeque<Delivery> {
        if let Some(consumer) = self.slots.find_mut(key.0) {
            consumer.released = true;
            self.pulled_bytes -= std::mem::take(&mut consumer.pulled_bytes);
        }
        self.take_unread(key)
    }

    /// Frees the consumer if it has ended and nobody holds it.
    pub(crate) fn sweep(&mut self, key: ConsumerKey) {
        let done =
            |consumer: &Consumer| consumer.released && consumer.phase == ConsumerPhase::Ended;
        if self.find(key).is_some_and(done) {
            self.release(key);
            self.slots.remove(key.0);
        }
    }
}

/// Bytes of memory that an unread delivery takes.
#[inline]
fn cost(delivery: &Delivery) -> usize {
    delivery.message.size() + size_of::<Delivery>()
}
