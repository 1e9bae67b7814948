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
    /// The call that is answered next. It stands here because one call at a time is usual, and allocates
    /// nothing.
    next: Option<CallKey>,
    /// Those behind it, in their order; present while there are any.
    #[expect(clippy::box_collection, reason = "an idle channel is to be small")]
    behind: Option<Box<VecDeque<CallKey>>>,
    /// Present while there are any: most channels have none.
    tagged: Option<Box<Tagged>>,
}

#[derive(Debug, Default)]
struct Tagged {
    /// By the consumer's tag, in the order of their frames. No queue is empty.
    by_tag: BTreeMap<Arc<[u8]>, VecDeque<CallKey>>,
    /// The number of calls.
    len: usize,
}

impl Awaited {
    /// The number of calls.
    pub(crate) fn len(&self) -> usize {
        let behind = self.behind.as_ref().map_or(0, |behind| behind.len());
        let tagged = self.tagged.as_ref().map_or(0, |tagged| tagged.len);
        usize::from(self.next.is_some()) + behind + tagged
    }

    /// Adds a call that is answered in order.
    pub(crate) fn push(&mut self, call: CallKey) {
        match self.next {
            None => self.next = Some(call),
            Some(_) => self.behind.get_or_insert_default().push_back(call),
        }
    }

    /// Adds a call whose reply names the consumer's tag.
    pub(crate) fn push_tagged(&mut self, tag: Arc<str>, call: CallKey) {
        let tagged = self.tagged.get_or_insert_default();
        tagged.by_tag.entry(tag.into()).or_default().push_back(call);
        tagged.len += 1;
    }

    /// The call that is answered next of those that are answered in order.
    pub(crate) fn front(&self) -> Option<CallKey> {
        self.next
    }

    /// Removes the call that [`front`](Self::front) returns.
    pub(crate) fn pop_front(&mut self) {
        self.next = self.behind.as_mut().and_then(|behind| behind.pop_front());
        self.behind.take_if(|behind| behind.is_empty());
    }

    /// The oldest call for the consumer's tag that `wanted` picks.
    pub(crate) fn tagged(&self, tag: &[u8], wanted: impl Fn(CallKey) -> bool) -> Option<CallKey> {
        self.tagged.as_ref()?.by_tag.get(tag)?.iter().copied().find(|call| wanted(*call))
    }

    /// Removes a call that [`tagged`](Self::tagged) returned.
    pub(crate) fn remove_tagged(&mut self, tag: &[u8], call: CallKey) {
        let Some(tagged) = &mut self.tagged else { return };
        let Some(calls) = tagged.by_tag.get_mut(tag) else { return };
        let before = calls.len();
        calls.retain(|other| *other != call);
        tagged.len -= before - calls.len();
        if calls.is_empty() {
            tagged.by_tag.remove(tag);
        }
        if tagged.len == 0 {
            self.tagged = None;
        }
    }

    /// All calls: those answered in order, then the others.
    pub(crate) fn into_keys(self) -> impl Iterator<Item = CallKey> {
        let tagged = self.tagged.map(|tagged| tagged.by_tag).unwrap_or_default();
        let behind = self.behind.map(|behind| *behind).unwrap_or_default();
        self.next.into_iter().chain(behind).chain(tagged.into_values().flatten())
    }
}
