//! Draining: consumers are cancelled, and what is under way comes to its end before a close.

use std::time::{Duration, Instant};

use crate::channel::ConsumerPhase;
use crate::connection::Connection;
use crate::error::Error;
use crate::event::Event;
use crate::ids::{Call, CallKey};
use crate::limits::TIMEOUT_MAX;
use crate::request::{Pending, Reply};

impl Connection {
    /// Cancels every consumer, and waits until nothing is under way: no call, no unconfirmed publish,
    /// no delivery that is to be handed over, acked or nacked, no byte to be written. Everything may still be
    /// used meanwhile.
    ///
    /// Deliveries that were dropped are not waited for. In transaction mode a delivery counts once it was
    /// acked or nacked, committed or not, and it is not waited for after a rollback either.
    ///
    /// The call ends with [`Error::DrainTimeout`] after `timeout`.
    ///
    /// # Errors
    /// [`Error::Connection`] unless the connection is open.
    pub fn drain(&mut self, now: Instant, timeout: Duration) -> Result<Call<()>, Error> {
        self.link.check_open()?;
        for key in self.consumers.keys() {
            let running = self.consumers.find(key).filter(|it| it.phase == ConsumerPhase::Running);
            let Some(channel) = running.map(|consumer| consumer.channel) else { continue };
            if let Ok(call) = self.channel(channel).cancel(now, key) {
                self.forget(now, call.key());
            }
        }
        let call = self.calls.insert(Pending::Drain, now + timeout.min(TIMEOUT_MAX));
        self.draining.insert(call);
        Ok(Call::new(call))
    }

    /// Completes the drains if there is nothing left to wait for.
    pub(super) fn finish_drains(&mut self) {
        if !self.is_idle() {
            return;
        }
        for call in std::mem::take(&mut self.draining) {
            if self.calls.complete(call, Ok(Reply::Done)) {
                self.events.push_back(Event::CallDone(call));
            }
        }
    }

    /// The error of a drain whose time is over.
    pub(super) fn drain_failed(&mut self, call: CallKey) -> Error {
        self.draining.remove(&call);
        // No answer is due.
        self.calls.abandon(call);
        let stats = self.stats();
        Error::DrainTimeout { unconfirmed: stats.unconfirmed, unacked: stats.unacked }
    }

    fn is_idle(&mut self) -> bool {
        self.unconfirmed == 0
            // The drains themselves await no reply.
            && self.calls.awaited() == self.draining.len()
            && !self.consumers.backlog().has_unread()
            && self.link.outbound.is_empty()
            && self.link.written >= self.link.outbound.handed_over()
            && !self.has_held()
    }

    /// Whether a channel has deliveries that are to be acked or nacked. The search goes on at the channel
    /// that had some the last time, so that a drain of many channels does not look at all of them for
    /// every event.
    fn has_held(&mut self) -> bool {
        let found = self.channels.index_from(self.drain_at, |state| state.held() > 0);
        self.drain_at = found.unwrap_or_default();
        found.is_some()
    }
}
