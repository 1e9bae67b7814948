//! When reading pauses, and for how long.
//!
//! **What counts.** A consumer with a prefetch is bounded by what its application asked for, and never
//! pauses reading. What no prefetch bounds counts by its bytes while it is unread (`channel/inbox.rs`):
//! one slow consumer without acknowledgement could otherwise take all memory. Contents of which a part
//! has arrived do not count, because only reading completes them. They have a bound of their own
//! (`channel/content.rs`), as do returned messages.
//!
//! **Two marks.** At the hard mark reading pauses in any case. At the high mark it pauses unless something
//! is *awaited* that only reading can bring: a reply, a confirm, the end of a handshake or close, the end
//! of a block, or what a reader looked for and did not find, be it a delivery or a returned message. So
//! between the marks one consumer stops neither another one nor a handler that waits for an answer.
//!
//! **Trickle.** RabbitMQ closes a connection on which it can write nothing for about its heartbeat
//! timeout. So a pause below the hard mark is interrupted: once nothing was read for a quarter of the
//! heartbeat interval, [`TRICKLE_BYTES`] may be read. Without heartbeats the broker has no such timeout,
//! and a pause is not interrupted.
//!
//! **Heartbeats.** The broker's silence proves nothing during a pause, so the receive timeout is
//! suspended. That the transport takes bytes is watched all the same.
//!
//! **Events.** The flow control of a flood pauses reading many times a second. [`Event::InputPaused`] is
//! emitted at the first pause and at the hard mark, and [`Event::InputResumed`] once half of the high
//! mark or less is unread. In between, reading may go on and pause again without an event.

use std::time::Instant;

use crate::connection::Connection;
use crate::event::Event;
use crate::ids::ChannelId;
use crate::limits::{INBOUND_HARD_BYTES, INBOUND_HIGH_BYTES, INBOUND_LOW_BYTES, TRICKLE_BYTES};

#[derive(Debug, Default)]
pub(super) struct ReadPause {
    paused: bool,
    /// The pause is to be interrupted after a time.
    interruptible: bool,
    /// Reading goes on after a pause: the silence before it proves nothing.
    resumed: bool,
    /// Bytes that may be read during a pause.
    trickle: usize,
    reported: Reported,
}

/// The last event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reported {
    #[default]
    Resumed,
    Paused,
    /// At the hard mark.
    Full,
}

impl Connection {
    /// Whether input is welcome. It is not while too many bytes of deliveries are unread that no
    /// prefetch bounds, unless something is awaited that only more input can bring. It is not either
    /// while the peer does not read what is queued for it.
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

    /// A little is to be read although reading is paused.
    pub(super) fn trickle(&mut self, now: Instant) {
        self.link.read_pause.trickle = TRICKLE_BYTES;
        if self.wants_input() {
            self.link.heartbeat.received(now);
            self.link.read_pause.resumed = false;
        }
    }

    /// Whoever looked for a returned message of the channel found none.
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
    /// Whether the broker's silence counts.
    pub(super) const fn listens(&self) -> bool {
        !self.paused && !self.resumed
    }

    /// Whether a pause is to be interrupted after a time.
    pub(super) const fn trickles(&self) -> bool {
        self.interruptible
    }

    /// Whether reading goes on after a pause, since this was last asked.
    pub(super) const fn take_resumed(&mut self) -> bool {
        std::mem::replace(&mut self.resumed, false)
    }

    /// Input was taken.
    pub(super) const fn read(&mut self, bytes: usize) {
        self.trickle = self.trickle.saturating_sub(bytes);
    }
}
