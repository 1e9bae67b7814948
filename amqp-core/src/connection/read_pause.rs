//! Backpressure on the broker: when reading pauses, and for how long.
//!
//! **What counts.** A consumer with a prefetch never pauses reading, because the application has chosen how
//! much it holds. Deliveries that no prefetch bounds count by their bytes while they are unread
//! (`channel/inbox.rs`). Otherwise one slow consumer without acknowledgement could use all memory. Messages
//! that have arrived in part do not count, because only reading completes them. They have a limit of their
//! own (`channel/content.rs`), as do returned messages.
//!
//! **Two limits.** Above the hard limit, reading always pauses. Above the high limit, it pauses unless the
//! connection *awaits* something that only reading can bring. That is a reply, a confirm, the end of a
//! handshake, a close or a block, or a delivery or returned message for a reader that has found none. So
//! between the two limits, one consumer does not stop other consumers, or a handler that waits for a reply.
//!
//! **Trickle.** RabbitMQ closes a connection to which it can write nothing for about its heartbeat timeout.
//! So a pause below the hard limit is interrupted: if nothing was read for a quarter of the heartbeat
//! interval, [`TRICKLE_BYTES`] may be read. Without heartbeats, the broker has no such timeout, and a pause
//! is not interrupted.
//!
//! **Heartbeats.** The receive timeout is suspended during a pause, because the broker's silence then means
//! nothing. The write timeout still applies.
//!
//! **Events.** The flow control of a flood pauses reading many times a second. So [`Event::InputPaused`] is
//! emitted only at the first pause and at the hard limit, and [`Event::InputResumed`] when the unread bytes
//! have fallen to half of the high limit. In between, reading may continue and pause again without an event.

use std::time::Instant;

use crate::connection::Connection;
use crate::event::Event;
use crate::ids::ChannelId;
use crate::limits::{INBOUND_HARD_BYTES, INBOUND_HIGH_BYTES, INBOUND_LOW_BYTES, TRICKLE_BYTES};

#[derive(Debug, Default)]
pub(super) struct ReadPause {
    paused: bool,
    /// Whether the pause is interrupted after a time.
    interruptible: bool,
    /// Whether reading has continued after a pause. The silence before that does not count.
    resumed: bool,
    /// The number of bytes that may be read during a pause.
    trickle: usize,
    reported: Reported,
}

/// The last event that was emitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reported {
    #[default]
    Resumed,
    Paused,
    /// Paused at the hard limit.
    Full,
}

impl Connection {
    /// Returns whether the driver should read. It should not while too many bytes of deliveries are unread
    /// that no prefetch bounds, unless the connection awaits something that only more input can bring. It
    /// should not either while the peer does not read the output that is queued for it.
    pub fn wants_input(&mut self) -> bool {
        if self.end_state().is_some() {
            return false;
        }
        let unread = self.consumers.backlog().beyond();
        let full = unread >= INBOUND_HARD_BYTES;
        let pauses = full || (unread >= INBOUND_HIGH_BYTES && !self.is_input_awaited());
        let overfull = self.link.outbound.is_overfull();
        let pause = &mut self.link.read_pause;
        if full || overfull || !pauses {
            pause.trickle = 0;
        }
        let paused = overfull || (pauses && pause.trickle == 0);
        pause.resumed |= pause.paused && !paused;
        pause.paused = paused;
        pause.interruptible = paused && !full && !overfull;
        let reported = match pause.reported {
            _ if full => Reported::Full,
            Reported::Resumed if pauses => Reported::Paused,
            _ if unread <= INBOUND_LOW_BYTES => Reported::Resumed,
            reported => reported,
        };
        if reported != std::mem::replace(&mut pause.reported, reported) {
            self.events.push_back(match reported {
                Reported::Resumed => Event::InputResumed,
                _ => Event::InputPaused { unread_bytes: unread },
            });
        }
        !paused
    }

    /// Whether something is awaited that only input can bring.
    fn is_input_awaited(&self) -> bool {
        self.calls.in_flight() > self.draining.len()
            || self.unconfirmed > 0
            || self.link.blocked.is_some()
            || self.returns_awaited > 0
            || self.consumers.backlog().is_awaited()
            || !self.link.is_open()
    }

    /// Allows a few bytes to be read during the pause.
    pub(super) fn trickle(&mut self, now: Instant) {
        self.link.read_pause.trickle = TRICKLE_BYTES;
        if self.wants_input() {
            self.link.heartbeat.received(now);
            self.link.read_pause.resumed = false;
        }
    }

    /// Ends a pause that was reported, because there is nothing to read.
    pub(super) fn resume_reading(&mut self) {
        if std::mem::take(&mut self.link.read_pause.reported) != Reported::Resumed {
            self.events.push_back(Event::InputResumed);
        }
    }

    /// Records that a reader has found no returned message of the channel.
    pub(crate) fn returned_is_awaited(&mut self, id: ChannelId) {
        if let Some(state) = self.channels.find_mut(id.0)
            && state.is_open()
            && !std::mem::replace(&mut state.awaits_returned, true)
        {
            self.returns_awaited += 1;
        }
    }
}

impl ReadPause {
    /// Whether the silence of the broker counts for the receive timeout.
    pub(super) const fn listens(&self) -> bool {
        !self.paused && !self.resumed
    }

    /// Whether the pause is interrupted after a time.
    pub(super) const fn trickles(&self) -> bool {
        self.interruptible
    }

    /// Returns whether reading has continued after a pause since this was last called.
    pub(super) const fn take_resumed(&mut self) -> bool {
        std::mem::replace(&mut self.resumed, false)
    }

    /// Records the bytes that were read.
    pub(super) const fn read(&mut self, bytes: usize) {
        self.trickle = self.trickle.saturating_sub(bytes);
    }
}
