//! Consumers.
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

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::arena::Arena;
use crate::channel::inbox::{Backlog, Inbox};
use crate::error::Error;
use crate::ids::{CallKey, ChannelId, ConsumerKey, TagKind};
use crate::machine::{self, Transition};
use crate::message::Delivery;
use crate::slab::Slab;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConsumerPhase {
    /// From the moment `basic.consume` is queued.
    Running,
    /// `basic.cancel` is on its way.
    Cancelling,
    /// No more deliveries will come.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConsumerInput {
    /// Its request cannot be sent.
    Refused,
    Cancel,
    CancelOk,
    BrokerCancel,
    ChannelClosed,
}

/// A broker's cancel that meets one of ours is ignored: ours is answered all the same.
const TRANSITIONS: &[Transition<ConsumerPhase, ConsumerInput>] = &[
    (ConsumerPhase::Running, ConsumerInput::Refused, ConsumerPhase::Ended),
    (ConsumerPhase::Running, ConsumerInput::Cancel, ConsumerPhase::Cancelling),
    (ConsumerPhase::Running, ConsumerInput::BrokerCancel, ConsumerPhase::Ended),
    (ConsumerPhase::Running, ConsumerInput::ChannelClosed, ConsumerPhase::Ended),
    (ConsumerPhase::Cancelling, ConsumerInput::CancelOk, ConsumerPhase::Ended),
    (ConsumerPhase::Cancelling, ConsumerInput::ChannelClosed, ConsumerPhase::Ended),
    (ConsumerPhase::Ended, ConsumerInput::ChannelClosed, ConsumerPhase::Ended),
];

/// The states of a consumer as a diagram.
pub(crate) fn diagram() -> String {
    machine::diagram(TRANSITIONS)
}

#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) channel: ChannelId,
    pub(crate) tag: Arc<str>,
    /// The queue that was named.
    pub(crate) queue: Arc<str>,
    /// The kind of its deliveries' tags.
    pub(crate) kind: TagKind,
    pub(crate) phase: ConsumerPhase,
    /// Why it ended, unless its own client cancelled it; reported once.
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
    pub(crate) inbox: Inbox,
}

#[derive(Debug)]
pub(crate) struct Consumers {
    slots: Slab<Consumer>,
    /// All of them by channel, so that a channel's end does not look at those of others.
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

    /// The consumer, and what its inbox and its shelf need to take a delivery.
    #[inline(always)]
    pub(crate) fn find_with_memory(
        &mut self,
        key: ConsumerKey,
    ) -> Option<(&mut Consumer, &mut Backlog, &mut Arena)> {
        Some((self.slots.find_mut(key.0)?, &mut self.backlog, &mut self.arena))
    }

    /// All consumers, ended ones among them.
    pub(crate) fn keys(&self) -> impl Iterator<Item = ConsumerKey> + use<> {
        self.slots.keys().into_iter().map(ConsumerKey)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Consumer> {
        self.slots.values()
    }

    /// All consumers of a channel, ended ones among them.
    pub(crate) fn of_channel(&self, channel: ChannelId) -> Vec<ConsumerKey> {
        let range = (channel, ConsumerKey::MIN)..=(channel, ConsumerKey::MAX);
        self.by_channel.range(range).map(|(_, key)| *key).collect()
    }

    /// What all consumers have not read.
    #[inline]
    pub(crate) const fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// The input is another, or has another end.
    pub(crate) fn begin_input(&mut self) {
        self.arena.begin_input();
    }

    /// Queues a delivery. Whether it is the first unread one.
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

    /// Hands deliveries over: see [`Inbox::pull`].
    #[inline]
    pub(crate) fn pull(&mut self, key: ConsumerKey, into: &mut VecDeque<Delivery>) -> usize {
        let Some((consumer, backlog, arena)) = self.find_with_memory(key) else { return 0 };
        let pulled = consumer.inbox.pull(backlog, into);
        if into.is_empty() {
            consumer.wait(backlog, arena);
        }
        pulled
    }

    /// No more deliveries will come.
    pub(crate) fn end(&mut self, key: ConsumerKey, input: ConsumerInput) {
        if let Some((consumer, backlog, _)) = self.find_with_memory(key) {
            consumer.step(input);
            consumer.inbox.stop_waiting(backlog);
        }
    }

    /// The deliveries that nobody will read.
    pub(crate) fn take_unread(&mut self, key: ConsumerKey) -> VecDeque<Delivery> {
        self.find_with_memory(key)
            .map_or_else(VecDeque::new, |(consumer, backlog, _)| consumer.inbox.clear(backlog))
    }

    /// Its handle is gone, and with it what that had taken: takes the rest.
    pub(crate) fn release(&mut self, key: ConsumerKey) -> VecDeque<Delivery> {
        if let Some((consumer, backlog, _)) = self.find_with_memory(key) {
            consumer.released = true;
            consumer.inbox.forget_pulled(backlog);
            consumer.inbox.stop_waiting(backlog);
        }
        self.take_unread(key)
    }

    /// Frees the consumer if it has ended and nobody holds it.
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

    /// Its reader found nothing.
    fn wait(&mut self, backlog: &mut Backlog, arena: &mut Arena) {
        if self.phase != ConsumerPhase::Ended {
            self.inbox.wait(backlog, arena);
        }
    }
}
