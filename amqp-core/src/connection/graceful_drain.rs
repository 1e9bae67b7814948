//! Graceful drain: cancels all consumers, and waits for outstanding work before a close.

use std::time::{Duration, Instant};

use crate::channel::ConsumerPhase;
use crate::connection::Connection;
use crate::error::Error;
use crate::event::Event;
use crate::ids::{Call, CallKey};
use crate::limits::TIMEOUT_MAX;
use crate::request::{Pending, Reply};

impl Connection {
    /// Cancels every consumer, and waits until nothing is outstanding: no call, no unconfirmed publish, no
    /// delivery that is unread or unacknowledged, and no byte to write. Everything can still be used
    /// meanwhile.
    ///
    /// Deliveries that were dropped without an ack are not waited for. In transaction mode, a delivery is
    /// done when it is acked or nacked, committed or not. It is not waited for after a rollback either.
    ///
    /// The call fails with [`Error::DrainTimeout`] after `timeout`.
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

    /// Completes the drains if nothing is outstanding.
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

    /// Returns the error of a drain whose deadline has passed.
    pub(super) fn drain_failed(&mut self, call: CallKey) -> Error {
        self.draining.remove(&call);
        // No reply will come.
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

    /// Whether a channel has deliveries that need an ack or nack. The search starts at the channel where it
    /// last found some, so that a drain does not look at all channels for every event.
    fn has_held(&mut self) -> bool {
        let found = self.channels.index_from(self.drain_at, |state| state.held() > 0);
        self.drain_at = found.unwrap_or_default();
        found.is_some()
    }
}
