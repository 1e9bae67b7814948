//! The calls of a channel that await their replies.
//!
//! The broker answers the calls of a channel in their order, except `basic.consume` and `basic.cancel`.
//! RabbitMQ's queue processes answer these through the channel, so that their replies may arrive after the
//! replies to later calls. Such a reply has the consumer's tag. The two kinds are kept separately, so that a
//! reply finds its call without a search.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::ids::CallKey;

#[derive(Debug, Default)]
pub(crate) struct ReplyQueue {
    /// The next call that is answered in order. Most channels have one call at a time, for which nothing is
    /// allocated.
    next: Option<CallKey>,
    /// All other calls, if there are any.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    /// The calls behind the next one, in their order.
    behind: VecDeque<CallKey>,
    /// The calls by consumer tag, in the order of their frames. No queue in it is empty.
    by_tag: BTreeMap<Arc<[u8]>, VecDeque<CallKey>>,
    /// The number of calls in `by_tag`.
    tagged: usize,
}

impl ReplyQueue {
    /// The number of calls.
    pub(crate) fn len(&self) -> usize {
        let more = self.more.as_ref().map_or(0, |more| more.len());
        usize::from(self.next.is_some()) + more
    }

    /// Whether `is` returns true for one of the calls.
    pub(crate) fn any(&self, is: impl Fn(CallKey) -> bool) -> bool {
        let in_more = |more: &More| {
            more.behind.iter().chain(more.by_tag.values().flatten()).any(|call| is(*call))
        };
        self.next.is_some_and(&is) || self.more.as_deref().is_some_and(in_more)
    }

    /// Adds a call that is answered in order.
    pub(crate) fn push(&mut self, call: CallKey) {
        match self.next {
            None => self.next = Some(call),
            Some(_) => self.more.get_or_insert_default().behind.push_back(call),
        }
    }

    /// Adds a call whose reply names the consumer's tag.
    pub(crate) fn push_tagged(&mut self, tag: Arc<str>, call: CallKey) {
        let more = self.more.get_or_insert_default();
        more.by_tag.entry(tag.into()).or_default().push_back(call);
        more.tagged += 1;
    }

    /// The next call that is answered in order.
    pub(crate) fn front(&self) -> Option<CallKey> {
        self.next
    }

    /// Removes the call that [`front`](Self::front) returns.
    pub(crate) fn pop_front(&mut self) {
        self.next = self.more.as_mut().and_then(|more| more.behind.pop_front());
        self.shrink();
    }

    /// Returns the oldest call for the consumer's tag for which `wanted` returns `true`.
    pub(crate) fn tagged(&self, tag: &[u8], wanted: impl Fn(CallKey) -> bool) -> Option<CallKey> {
        self.more.as_ref()?.by_tag.get(tag)?.iter().copied().find(|call| wanted(*call))
    }

    /// Removes a call that [`tagged`](Self::tagged) returned.
    pub(crate) fn remove_tagged(&mut self, tag: &[u8], call: CallKey) {
        let Some(more) = &mut self.more else { return };
        let Some(calls) = more.by_tag.get_mut(tag) else { return };
        let before = calls.len();
        calls.retain(|other| *other != call);
        more.tagged -= before - calls.len();
        if calls.is_empty() {
            more.by_tag.remove(tag);
        }
        self.shrink();
    }

    /// Returns all calls: those answered in order, then the others.
    pub(crate) fn into_keys(self) -> impl Iterator<Item = CallKey> {
        let More { behind, by_tag, .. } = self.more.map(|more| *more).unwrap_or_default();
        self.next.into_iter().chain(behind).chain(by_tag.into_values().flatten())
    }

    /// Frees the memory for calls if there are none.
    fn shrink(&mut self) {
        self.more.take_if(|more| more.len() == 0);
    }
}

impl More {
    fn len(&self) -> usize {
        self.behind.len() + self.tagged
    }
}
