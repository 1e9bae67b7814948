//! Output: queued bytes are passed to the driver, which reports how many were written.

use std::time::Instant;

use amqp_proto::ShortStr;
use amqp_proto::frame;
use amqp_proto::method::connection as wire;
use bytes::Bytes;

use crate::connection::Connection;
use crate::connection::link::{Input, State};
use crate::event::Event;
use crate::transmit::Transmit;

impl Connection {
    /// Fills `out`, which must be empty, with bytes to write. Returns whether there are any. Call it again
    /// when they are written.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        if !out.is_empty() {
            return false;
        }
        self.handle_written(now, self.link.outbound.handed_over());
        if matches!(self.link.state(), State::Closing) && !self.link.outbound.has_lanes() {
            self.link.enter(Input::CloseQueued, State::CloseSent);
            let close = wire::Close {
                reply_code: 200,
                reply_text: ShortStr::new("closed by the client").unwrap_or_default(),
                ..Default::default()
            };
            self.link.outbound.urgent_frame(|out| frame::write_method(out, 0, &close));
            self.link.outbound.seal();
        }
        // The caller has written what it took before. If the event were emitted earlier, publishers would
        // fill one buffer while the other is written, and each would slow the other down.
        if self.link.outbound.space_freed() {
            self.events.push_back(Event::BufferSpace);
        }
        let mut dealt = Vec::new();
        let any = self.link.outbound.transmit(out, &mut dealt);
        if self.link.outbound.space_freed_for_starved() {
            self.events.push_back(Event::BufferSpace);
        }
        for dealt in dealt {
            let id = self.link.numbers.channel(dealt.channel);
            if let Some(state) = id.and_then(|id| self.channels.find_mut(id.0))
                && let Some(confirms) = state.mode.confirms_mut()
            {
                confirms.dealt(dealt.seq, dealt.offset);
            }
        }
        if any {
            self.link.heartbeat.sent(now);
            self.link.write_progress = now;
        }
        any
    }

    /// Records that this many bytes of the stream have reached the socket. Without these reports, the
    /// transport counts as making progress only when `poll_transmit` is called after everything was written.
    /// A slow transport would then count as stalled.
    pub fn handle_written(&mut self, now: Instant, written: u64) {
        if written > self.link.written {
            self.link.written = written;
            self.link.write_progress = now;
        }
    }

    /// Counts the publishes among the output of the lost transport that was not written.
    pub(crate) fn handle_unwritten(&mut self, unwritten: &Transmit) {
        for number in unwritten.unsent_publishes() {
            if let Some(id) = self.detached.get(&number)
                && let Some(state) = self.channels.find_mut(id.0)
            {
                state.count_lost(1);
            }
        }
    }

    /// Whether `poll_transmit` has bytes to return.
    #[inline]
    pub fn wants_transmit(&self) -> bool {
        let outbound = &self.link.outbound;
        let closes = || matches!(self.link.state(), State::Closing) && !outbound.has_lanes();
        outbound.has_output() || closes()
    }

    /// Whether `take_discarded` has bodies to return.
    #[inline]
    pub const fn has_discarded(&self) -> bool {
        self.link.outbound.has_discarded()
    }

    /// Takes the bodies of the application that will not be sent. Their `Drop` is code of the application:
    /// drop them where it is safe to run, outside of any lock.
    pub fn take_discarded(&mut self) -> Vec<Bytes> {
        self.link.outbound.take_discarded()
    }
}
