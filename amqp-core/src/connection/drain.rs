//! Draining: consumers are cancelled, and what is under way comes to its end before a close.

use std::time::{Duration, Instant};

use crate::channel::{ConsumerPhase, Pending};
use crate::connection::Connection;
use crate::error::Error;
use crate::event::Event;
use crate::ids::{Call, CallKey, ChannelId};
use crate::limits::TIMEOUT_MAX;
use crate::request::Reply;

impl Connection {
    /// Cancels every consumer, and waits until nothing is under way: no call, no unconfirmed publish,
    /// no delivery that is to be handed over or settled, no byte to be written. Everything may still be
    /// used meanwhile.
    ///
    /// Deliveries that were dropped without being settled are not waited for. In transaction mode a
    /// delivery counts as settled once it was acked or nacked, committed or not, and it is not waited for
    /// after a rollback either.
    ///
    /// The call ends with [`Error::DrainTimeout`] after `timeout`.
    ///
    /// # Errors
    /// [`Error::Connection`] unless the connection is open.
    pub fn drain(&mut self, now: Instant, timeout: Duration) -> Result<Call<()>, Error> {
        self.check_open()?;
        for key in self.consumers.keys() {
            let running = self.consumers.find(key).filter(|it| it.phase == ConsumerPhase::Running);
            let Some(channel) = running.map(|consumer| consumer.channel) else { continue };
            if let Ok(call) = self.channel(channel).cancel(now, key) {
                self.forget(now, call.key());
            }
        }
        let call = self.calls.insert(Pending::Drain, now + timeout.min(TIMEOUT_MAX));
        self.draining.push(call);
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
        self.draining.retain(|other| *other != call);
        // No answer is due.
        self.calls.abandon(call);
        let stats = self.stats();
        Error::DrainTimeout { unconfirmed: stats.unconfirmed, unsettled: stats.unsettled }
    }

    fn is_idle(&self) -> bool {
        self.unconfirmed == 0
            && self.secret_calls.is_empty()
            && !self.consumers.backlog().has_unread()
            && self.outbound.is_empty()
            && self.written >= self.outbound.handed_over()
            && self.channels.keys().into_iter().all(|key| self.is_channel_idle(ChannelId(key)))
    }

    fn is_channel_idle(&self, id: ChannelId) -> bool {
        let channel = self.channels.find(id.0);
        channel.is_none_or(|state| state.calls.is_empty() && state.in_hand() == 0)
    }
}
