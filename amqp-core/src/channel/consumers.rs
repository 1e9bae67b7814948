//! The consumers of a connection.
//!
//! A consumer exists from the moment when `basic.consume` is queued. Its tag is chosen on this side, so that
//! a delivery is assigned to it even if the delivery arrives before `consume-ok`. Its record is removed when
//! it has ended at the broker and its handle is dropped.
//!
//! **Streams.** A stream does not take messages back. RabbitMQ before 3.11 closes the connection if a
//! delivery of a stream is nacked or rejected. If the consumer has a `stream_offset`, its queue is a stream.
//! Otherwise, the header `x-stream-offset` of a delivery shows that the queue may be a stream. That is not
//! certain: a message that was read from a stream and published to another queue may have this header too. So
//! such a delivery may be acked, but is never nacked, rejected or requeued: to ack it instead could lose it.
//! Each new consumer is checked for this header until a delivery without it shows that the queue is not a
//! stream.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::arena::Arena;
use crate::channel::inbox::{Backlog, Inbox};
use crate::channel::prefetch::Limits;
use crate::error::Error;
use crate::ids::{CallKey, ChannelId, ConsumerKey, TagKind};
use crate::machine::{self, Transition};
use crate::message::Delivery;
use crate::request::BasicConsume;
use crate::slab::Slab;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConsumerPhase {
    /// `basic.consume` is queued, or answered.
    Running,
    /// `basic.cancel` is queued.
    Cancelling,
    /// The transport was lost. `basic.consume` is to be sent on the next one.
    Suspended,
    /// No more deliveries will arrive.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConsumerInput {
    /// Its request could not be sent.
    Refused,
    Cancel,
    CancelOk,
    BrokerCancel,
    ChannelClosed,
    TransportLost,
    /// `basic.consume` is queued again.
    Restart,
}

/// If the broker's cancel crosses ours, it is ignored, because the broker answers ours as well.
const TRANSITIONS: &[Transition<ConsumerPhase, ConsumerInput>] = &[
    (ConsumerPhase::Running, ConsumerInput::Refused, ConsumerPhase::Ended),
    (ConsumerPhase::Running, ConsumerInput::Cancel, ConsumerPhase::Cancelling),
    (ConsumerPhase::Running, ConsumerInput::BrokerCancel, ConsumerPhase::Ended),
    (ConsumerPhase::Running, ConsumerInput::ChannelClosed, ConsumerPhase::Ended),
    (ConsumerPhase::Running, ConsumerInput::TransportLost, ConsumerPhase::Suspended),
    (ConsumerPhase::Suspended, ConsumerInput::Restart, ConsumerPhase::Running),
    (ConsumerPhase::Suspended, ConsumerInput::Refused, ConsumerPhase::Ended),
    (ConsumerPhase::Suspended, ConsumerInput::CancelOk, ConsumerPhase::Ended),
    (ConsumerPhase::Suspended, ConsumerInput::ChannelClosed, ConsumerPhase::Ended),
    (ConsumerPhase::Cancelling, ConsumerInput::CancelOk, ConsumerPhase::Ended),
    (ConsumerPhase::Cancelling, ConsumerInput::ChannelClosed, ConsumerPhase::Ended),
    (ConsumerPhase::Ended, ConsumerInput::ChannelClosed, ConsumerPhase::Ended),
];

/// The states of a consumer as a Mermaid diagram.
pub(crate) fn diagram() -> String {
    machine::diagram(TRANSITIONS)
}

#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) channel: ChannelId,
    pub(crate) tag: Arc<str>,
    /// The queue that `basic.consume` named. An empty name is replaced when the consumer has started.
    pub(crate) queue: Arc<str>,
    pub(crate) request: Box<BasicConsume>,
    /// The limits of the channel when it started, `None` until it is started for the first time.
    pub(crate) limits: Option<Limits>,
    /// Whether `basic.consume-ok` has arrived, on this transport or an earlier one.
    pub(crate) established: bool,
    /// Whether its queue is gone, and the session waits until it is back.
    pub(crate) absent: bool,
    /// The kind of the delivery tags of its deliveries.
    pub(crate) kind: TagKind,
    pub(crate) phase: ConsumerPhase,
    /// Why it ended, unless this client cancelled it. Reported once.
    pub(crate) error: Option<Error>,
    /// Whether its queue may be a stream, so that the headers of each delivery are checked.
    pub(crate) suspected: bool,
    /// The maximum number of deliveries that may be on their way: its own prefetch, or else the limit of the
    /// channel at its start. 0 means no limit. A limit that it shares as well does not hold while it starts.
    pub(crate) prefetch: u16,
    /// Calls that wait for the reply to a cancel that another call has sent.
    pub(crate) cancels: Vec<CallKey>,
    /// Whether its handle is dropped, so that its deliveries are requeued.
    pub(crate) released: bool,
    pub(crate) inbox: Inbox,
}

#[derive(Debug)]
pub(crate) struct Consumers {
    slots: Slab<Consumer>,
    /// All consumers by channel, so that the end of a channel does not have to look at the consumers of
    /// others.
    by_channel: BTreeSet<(ChannelId, ConsumerKey)>,
    backlog: Backlog,
    arena: Arena,
}

impl Consumers {
    pub(crate) fn new() -> Self {
        Self {
            slots: Slab::new(),
            by_channel: BTreeSet::new(),
            backlog: Backlog::default(),
            arena: Arena::default(),
        }
    }

    pub(crate) fn insert(&mut self, consumer: Consumer) -> ConsumerKey {
        let channel = consumer.channel;
        let key = ConsumerKey(self.slots.insert(consumer));
        self.by_channel.insert((channel, key));
        key
    }

    #[inline]
    pub(crate) fn find(&self, key: ConsumerKey) -> Option<&Consumer> {
        self.slots.find(key.0)
    }

    #[inline]
    pub(crate) fn find_mut(&mut self, key: ConsumerKey) -> Option<&mut Consumer> {
        self.slots.find_mut(key.0)
    }

    /// Returns the consumer with the memory that its inbox and its shelf need to take a delivery.
    #[inline(always)]
    pub(crate) fn find_with_memory(
        &mut self,
        key: ConsumerKey,
    ) -> Option<(&mut Consumer, &mut Backlog, &mut Arena)> {
        Some((self.slots.find_mut(key.0)?, &mut self.backlog, &mut self.arena))
    }

    /// The keys of all consumers, including ended ones.
    pub(crate) fn keys(&self) -> impl Iterator<Item = ConsumerKey> + use<> {
        self.slots.keys().into_iter().map(ConsumerKey)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Consumer> {
        self.slots.values()
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Consumer> {
        self.slots.values_mut()
    }

    /// The keys of all consumers of a channel, including ended ones.
    pub(crate) fn of_channel(&self, channel: ChannelId) -> Vec<ConsumerKey> {
        let range = (channel, ConsumerKey::MIN)..=(channel, ConsumerKey::MAX);
        self.by_channel.range(range).map(|(_, key)| *key).collect()
    }

    /// The sums of unread deliveries over all consumers.
    #[inline]
    pub(crate) const fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Records that the input is a new one, or that its end has moved.
    pub(crate) fn begin_input(&mut self) {
        self.arena.begin_input();
    }

    /// Queues a delivery. Returns whether it is the first unread one.
    #[inline]
    pub(crate) fn push(&mut self, key: ConsumerKey, delivery: Delivery) -> bool {
        self.find_with_memory(key)
            .is_some_and(|(consumer, backlog, _)| consumer.inbox.push(backlog, delivery))
    }

    #[inline]
    pub(crate) fn pop(&mut self, key: ConsumerKey) -> Option<Delivery> {
        let (consumer, backlog, arena) = self.find_with_memory(key)?;
        let delivery = consumer.inbox.pop(backlog);
        if delivery.is_none() {
            consumer.wait(backlog, arena);
        }
        delivery
    }

    /// Moves deliveries to a handle: see [`Inbox::pull`].
    #[inline]
    pub(crate) fn pull(&mut self, key: ConsumerKey, into: &mut VecDeque<Delivery>) -> usize {
        let Some((consumer, backlog, arena)) = self.find_with_memory(key) else { return 0 };
        let pulled = consumer.inbox.pull(backlog, into);
        if into.is_empty() {
            consumer.wait(backlog, arena);
        }
        pulled
    }

    /// Ends the consumer: no more deliveries will arrive.
    pub(crate) fn end(&mut self, key: ConsumerKey, input: ConsumerInput) {
        if let Some((consumer, backlog, _)) = self.find_with_memory(key) {
            consumer.step(input);
            consumer.inbox.stop_waiting(backlog);
        }
    }

    /// Takes the deliveries that will not be read.
    pub(crate) fn take_unread(&mut self, key: ConsumerKey) -> VecDeque<Delivery> {
        self.find_with_memory(key)
            .map_or_else(VecDeque::new, |(consumer, backlog, _)| consumer.inbox.clear(backlog))
    }

    /// Records that the handle is dropped, with the deliveries that it had taken. Returns the other unread
    /// ones.
    pub(crate) fn release(&mut self, key: ConsumerKey) -> VecDeque<Delivery> {
        if let Some((consumer, backlog, _)) = self.find_with_memory(key) {
            consumer.released = true;
            consumer.inbox.forget_pulled(backlog);
            consumer.inbox.stop_waiting(backlog);
        }
        self.take_unread(key)
    }

    /// Frees the record of a consumer that has ended and whose handle is dropped.
    pub(crate) fn sweep(&mut self, key: ConsumerKey) {
        let done =
            |consumer: &Consumer| consumer.released && consumer.phase == ConsumerPhase::Ended;
        if self.find(key).is_some_and(done) {
            self.release(key);
            if let Some(consumer) = self.slots.remove(key.0) {
                self.by_channel.remove(&(consumer.channel, key));
            }
        }
    }
}

impl Consumer {
    pub(crate) fn step(&mut self, input: ConsumerInput) {
        machine::step(TRANSITIONS, &mut self.phase, input);
    }

    /// Whether the broker treats its deliveries as acknowledged when it sends them.
    #[inline]
    pub(crate) fn no_ack(&self) -> bool {
        self.kind == TagKind::NoAck
    }

    /// The kind of the delivery tag of this delivery.
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

    /// Records that its reader found no delivery.
    fn wait(&mut self, backlog: &mut Backlog, arena: &mut Arena) {
        if self.phase != ConsumerPhase::Ended {
            self.inbox.wait(backlog, arena);
        }
    }
}
