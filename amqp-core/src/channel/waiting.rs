//! The calls that a channel accepts while its connection is being restored, in their order.
//!
//! They are sent when the gate opens. Until then each has its own deadline, like any call. A call whose caller
//! is gone, or whose deadline has passed, is not sent, unless it
//! [is needed all the same](crate::request::Pending::outlives_caller).

use std::collections::VecDeque;

use crate::ids::{CallKey, ConsumerKey};

/// What is sent for a call.
#[derive(Debug)]
pub(crate) enum Request {
    /// A method frame, of which the channel number is to be filled in.
    Frame(Box<[u8]>),
    /// The start of a consumer, whose record has the request.
    Consume(ConsumerKey),
}

#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// `channel.open`, if the application still waits for it.
    pub(crate) open: Option<CallKey>,
    calls: VecDeque<(CallKey, Request)>,
}

impl Waiting {
    pub(crate) fn len(&self) -> usize {
        self.calls.len() + usize::from(self.open.is_some())
    }

    pub(crate) fn push(&mut self, call: CallKey, request: Request) {
        self.calls.push_back((call, request));
    }

    /// Adds a call before the others.
    pub(crate) fn push_front(&mut self, call: CallKey, request: Request) {
        self.calls.push_front((call, request));
    }

    pub(crate) fn pop(&mut self) -> Option<(CallKey, Request)> {
        self.calls.pop_front()
    }

    /// Takes all calls but `channel.open`.
    pub(crate) fn take_calls(&mut self) -> VecDeque<(CallKey, Request)> {
        std::mem::take(&mut self.calls)
    }

    /// Removes the start of a consumer. Returns its call.
    pub(crate) fn remove_consume(&mut self, key: ConsumerKey) -> Option<CallKey> {
        let starts = |(_, request): &(CallKey, Request)| matches!(request, Request::Consume(it) if *it == key);
        let at = self.calls.iter().position(starts)?;
        self.calls.remove(at).map(|(call, _)| call)
    }

    /// Returns all calls: `channel.open`, then the others.
    pub(crate) fn into_keys(self) -> impl Iterator<Item = CallKey> {
        self.open.into_iter().chain(self.calls.into_iter().map(|(call, _)| call))
    }
}
