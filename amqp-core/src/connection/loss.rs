//! The loss of a transport that the channels outlive.
//!
//! Nothing is reset field by field: each channel's [`Wire`] is replaced as a whole, and what the old one held is
//! resolved. The link is replaced later, when the next transport is dialled, because its last output may still be
//! written.
//!
//! | in flight | becomes |
//! | --- | --- |
//! | a call, of which a part may have been written | `Interrupted` |
//! | a call of which nothing was written | waits for the next transport, unless it is a commit: `Interrupted` |
//! | the open of a channel | is sent again |
//! | a close, a cancel | succeeds |
//! | a publish that awaits its confirm | `NotSent` or `Unknown`, or is sent again if it is in the outbox |
//! | a publish without confirms of which nothing was written | is counted; the channel's next publish reports it |
//! | a transaction with publishes or acks | is poisoned: its commit is `Interrupted` |
//! | a consumer | is started again |
//! | an unread delivery that needs an ack | is dropped: the broker delivers it again |
//! | a channel of the session or of a set-up | closes |

use crate::channel::{ConsumerInput, ConsumerPhase, Origin, Phase, PhaseInput, Request, Wire};
use crate::connection::Connection;
use crate::error::{ChannelCause, CloseCause, Error};
use crate::event::Event;
use crate::ids::{CallKey, ChannelId, ConsumerKey, PublishSeq};
use crate::request::{Pending, Reply};

impl Connection {
    /// Detaches the channels from the link, which has ended for this cause.
    pub(crate) fn detach(&mut self, cause: &CloseCause) {
        self.recovering = true;
        self.last_loss = Some(cause.clone());
        self.held.clear();
        self.detached.clear();
        let written = self.link.lost_after;
        for key in self.channels.keys() {
            self.detach_channel(ChannelId(key), cause, written);
        }
        self.calls.clear_for_session();
        self.fail_connection_calls(&interrupted(cause));
        self.resume_reading();
    }

    fn detach_channel(&mut self, id: ChannelId, cause: &CloseCause, written: u64) {
        let Some(state) = self.channels.find_mut(id.0) else { return };
        match (state.wire.phase, state.origin) {
            (Phase::Closed | Phase::Detached, _) => return,
            (Phase::Closing, _) | (_, Origin::Setup | Origin::Session) => {
                let cause = ChannelCause::Connection(cause.clone());
                return self.close_channel(id, PhaseInput::ConnectionLost, cause, written);
            }
            (Phase::Opening | Phase::Open, Origin::User) => {}
        }
        state.poison_transaction();
        let mut wire = self.detach_wire(id);
        let unsent = self.unsent_of(wire.number);
        self.detached.insert(wire.number, id);
        let Some(state) = self.channels.find_mut(id.0) else { return };
        state.lose_publishes(unsent);
        let lost = Error::ConnectionLost(cause.clone());
        if let Some(confirms) = state.mode.confirms_mut() {
            let before = confirms.span();
            let resolved = confirms.lose(lost, written);
            self.unconfirmed = self.unconfirmed.saturating_sub(before - confirms.span());
            self.link.outbound.discard(|discarded| confirms.release(discarded));
            for (first, last) in resolved {
                let (first, last) = (PublishSeq(first), PublishSeq(last));
                self.events.push_back(Event::Resolved { channel: id, first, last });
            }
        }
        let mut unwritten = Vec::new();
        for call in std::mem::take(&mut wire.calls).into_keys() {
            self.detach_call(id, call, cause, written, &mut unwritten);
        }
        unwritten.sort_unstable_by_key(|(offset, ..)| *offset);
        if let Some(state) = self.channels.find_mut(id.0)
            && !unwritten.is_empty()
        {
            let waiting = state.waiting.get_or_insert_default();
            unwritten.into_iter().rev().for_each(|(_, call, it)| waiting.push_front(call, it));
        }
        for key in self.consumers.of_channel(id) {
            match self.consumers.find(key).map(|consumer| consumer.phase) {
                Some(ConsumerPhase::Running) => self.suspend_consumer(key),
                Some(ConsumerPhase::Cancelling) => {
                    self.forget_tag(id, key);
                    self.end_consumer(key, ConsumerInput::CancelOk, None);
                }
                // What was delivered before the broker has cancelled it.
                Some(ConsumerPhase::Suspended | ConsumerPhase::Ended) => self.drop_unread(key),
                None => {}
            }
        }
    }

    /// The number of publishes of this channel that waited for the driver.
    fn unsent_of(&self, number: u16) -> u64 {
        let unsent = &self.link.unsent;
        let at = unsent.binary_search_by_key(&number, |(number, _)| *number);
        at.ok().and_then(|at| unsent.get(at)).map_or(0, |(_, publishes)| *publishes)
    }

    /// Replaces what a channel had on the link. Returns that.
    pub(super) fn detach_wire(&mut self, id: ChannelId) -> Wire {
        let Some(state) = self.channels.find_mut(id.0) else { return Wire::detached() };
        state.step(PhaseInput::Detach);
        state.remember_limits();
        let successor = state.wire.successor();
        let mut wire = std::mem::replace(&mut state.wire, successor);
        wire.content.clear(&mut self.staging);
        self.link.numbers.free(wire.number);
        wire
    }

    /// Decides what becomes of a call in flight. Adds it to `unwritten` if it is to be sent on the next transport.
    fn detach_call(
        &mut self,
        id: ChannelId,
        call: CallKey,
        cause: &CloseCause,
        written: u64,
        unwritten: &mut Vec<(u64, CallKey, Request)>,
    ) {
        let Some((pending, waits)) = self.calls.pending(call) else { return };
        // If no caller waits for it, the channel is closed when it is to be opened again.
        if let Pending::ChannelOpen(_) = pending
            && !self.calls.is_sessions(call)
            && let Some(state) = self.channels.find_mut(id.0)
        {
            state.waiting.get_or_insert_default().open = Some(call);
            return;
        }
        if let Pending::Cancel(_) = pending {
            return self.finish_call(call, Ok(Reply::Done));
        }
        if waits && let Some((offset, frame)) = self.calls.take_unwritten(call, written) {
            if let Pending::TxCommit = pending {
                // What it was to commit was sent on the lost transport, or not at all.
                let (cause, maybe_executed) = (cause.clone(), false);
                return self.finish_call(call, Err(Error::Interrupted { cause, maybe_executed }));
            }
            let request = match pending {
                Pending::Consume(consumer) => Request::Consume(consumer),
                _ => Request::Frame(frame),
            };
            return unwritten.push((offset, call, request));
        }
        if let Pending::Consume(consumer) = pending
            && self.consumers.find(consumer).is_some_and(|consumer| !consumer.established)
        {
            // No handle will be created for it.
            self.forget_tag(id, consumer);
            if let Some(consumer) = self.consumers.find_mut(consumer) {
                consumer.released = true;
            }
            self.end_consumer(consumer, ConsumerInput::ChannelClosed, None);
        }
        self.finish_call(call, Err(interrupted(cause)));
    }

    /// Records that the broker has no such consumer for the moment. What it had delivered and was not read is
    /// delivered again.
    pub(super) fn suspend_consumer(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.find_mut(key) else { return };
        consumer.step(ConsumerInput::TransportLost);
        self.drop_unread(key);
    }

    /// Drops unread deliveries that need an ack.
    fn drop_unread(&mut self, key: ConsumerKey) {
        if self.consumers.find(key).is_some_and(|consumer| !consumer.no_ack()) {
            self.consumers.take_unread(key);
        }
    }

    /// Records the result of a call, and reports it if a caller waits for it.
    pub(crate) fn finish_call(&mut self, call: CallKey, result: Result<Reply, Error>) {
        if self.calls.complete(call, result) {
            self.events.push_back(Event::CallDone(call));
        }
    }
}

/// The error of a call that was, or may have been, sent.
fn interrupted(cause: &CloseCause) -> Error {
    Error::Interrupted { cause: cause.clone(), maybe_executed: true }
}
