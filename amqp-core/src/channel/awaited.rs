//! The calls of a channel that await their replies.
//!
//! The broker answers the calls of a channel in their order, but for `basic.consume` and `basic.cancel`:
//! RabbitMQ's queues answer these by way of the channel, so that their replies may come behind the
//! replies to later calls. Such a reply names the consumer's tag. So the two kinds are kept apart, and a
//! reply finds its call without a look at the others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::ids::CallKey;

#[derive(Debug, Default)]
pub(crate) struct Awaited {
    in_order: VecDeque<CallKey>,
    /// By the consumer's tag, in the order of their frames. No queue is empty.
    by_tag: BTreeMap<Arc<[u8]>, VecDeque<CallKey>>,
    /// The number of calls in `by_tag`.
    tagged: usize,
}

impl Awaited {
    /// The number of calls.
    pub(crate) fn len(&self) -> usize {
        self.in_order.len() + self.tagged
    }

    /// Adds a call that is answered in order.
    pub(crate) fn push(&mut self, call: CallKey) {
        self.in_order.push_back(call);
    }

    /// Adds a call whose reply names the consumer's tag.
    pub(crate) fn push_tagged(&mut self, tag: Arc<str>, call: CallKey) {
        self.by_tag.entry(tag.into()).or_default().push_back(call);
        self.tagged += 1;
    }

    /// The call that is answered next of those that are answered in order.
    pub(crate) fn front(&self) -> Option<CallKey> {
        self.in_order.front().copied()
    }

    /// Removes the call that [`front`](Self::front) returns.
    pub(crate) fn pop_front(&mut self) {
        self.in_order.pop_front();
    }

    /// The oldest call for the consumer's tag that `wanted` picks.
    pub(crate) fn tagged(&self, tag: &[u8], wanted: impl Fn(CallKey) -> bool) -> Option<CallKey> {
        self.by_tag.get(tag)?.iter().copied().find(|call| wanted(*call))
    }

    /// Removes a call that [`tagged`](Self::tagged) returned.
    pub(crate) fn remove_tagged(&mut self, tag: &[u8], call: CallKey) {
        let Some(calls) = self.by_tag.get_mut(tag) else { return };
        let before = calls.len();
        calls.retain(|other| *other != call);
        self.tagged -= before - calls.len();
        if calls.is_empty() {
            self.by_tag.remove(tag);
        }
    }

    /// All calls: those answered in order, then the others.
    pub(crate) fn into_keys(self) -> impl Iterator<Item = CallKey> {
        self.in_order.into_iter().chain(self.by_tag.into_values().flatten())
    }
}
