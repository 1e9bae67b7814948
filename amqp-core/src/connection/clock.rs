//! Time: the deadlines of a connection, and what happens when they pass.

use std::time::{Duration, Instant};

use amqp_proto::frame;

use crate::connection::Connection;
use crate::error::{CloseCause, ConnectFailure, Error};
use crate::event::{Event, TimeoutReason};
use crate::request::Pending;

impl Connection {
    /// Handles the deadlines that have passed. Pass in the input that has arrived before calling this: it may
    /// show that the broker is alive.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.link.read_pause.take_resumed() {
            self.link.heartbeat.received(now);
        }
        self.arm();
        while let Some(reason) = self.link.timers.expired(now) {
            match reason {
                TimeoutReason::Blocked => self.blocked_for_too_long(),
                TimeoutReason::Call => self.expire_calls(now),
                TimeoutReason::Close => self.end(CloseCause::ByClientForced),
                TimeoutReason::HeartbeatReceive => {
                    let silence = self.link.heartbeat.silence(now);
                    self.end(CloseCause::HeartbeatTimeout { silence });
                }
                TimeoutReason::HeartbeatSend => {
                    // Bytes that wait to be written show that this side is alive, too.
                    if !self.link.outbound.has_output() {
                        self.link
                            .outbound
                            .urgent_frame(|out| out.extend_from_slice(&frame::HEARTBEAT));
                    }
                    self.link.heartbeat.sent(now);
                }
                TimeoutReason::Trickle => self.trickle(now),
                TimeoutReason::WriteStall => {
                    let stalled = now.saturating_duration_since(self.link.write_progress);
                    self.end(CloseCause::WriteTimeout { stalled });
                }
                TimeoutReason::Address
                | TimeoutReason::Held
                | TimeoutReason::Hook
                | TimeoutReason::Connect
                | TimeoutReason::Credentials
                | TimeoutReason::Resubscribe
                | TimeoutReason::Retry => {}
            }
            self.arm();
        }
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout), and why. The answer may change with any
    /// other call.
    pub fn poll_timeout(&mut self) -> Option<(Instant, TimeoutReason)> {
        self.arm();
        self.link.timers.poll()
    }

    /// Whether a deadline was set since [`poll_timeout`](Self::poll_timeout).
    #[inline]
    pub fn has_new_timeout(&self) -> bool {
        self.link.timers.has_new() || self.calls.has_new_deadline()
    }

    /// Ends a handshake whose timeout has passed.
    pub(crate) fn time_out_handshake(&mut self, timeout: Duration) {
        let step = self.link.handshake_step();
        self.fail_to_open(ConnectFailure::TimedOut { timeout, step });
    }

    /// Updates the timers from the state that they depend on.
    pub(super) fn arm(&mut self) {
        let link = &mut self.link;
        let up = link.is_up();
        let listening = up && link.read_pause.listens();
        let dead_at = if listening { link.heartbeat.dead_at() } else { None };
        let trickles = up && link.read_pause.trickles();
        let trickle_at = if trickles { link.heartbeat.trickle_at() } else { None };
        let send_at = if up { link.heartbeat.send_at() } else { None };
        let unwritten = link.outbound.handed_over() > link.written;
        let stalled_at = if up && unwritten && link.blocked.is_none() {
            link.heartbeat.interval().map(|interval| link.write_progress + interval * 2)
        } else {
            None
        };
        link.timers.set(TimeoutReason::Trickle, trickle_at);
        link.timers.set(TimeoutReason::WriteStall, stalled_at);
        link.timers.set(TimeoutReason::HeartbeatReceive, dead_at);
        link.timers.set(TimeoutReason::HeartbeatSend, send_at);
        link.timers.set(TimeoutReason::Call, self.calls.poll_deadline());
        if link.end_state().is_some() {
            link.timers.set(TimeoutReason::Close, None);
        }
    }

    fn expire_calls(&mut self, now: Instant) {
        while let Some((key, pending)) = self.calls.expired(now) {
            let timeout = self.config.call_timeout;
            let error = match pending {
                Pending::Drain => self.drain_failed(key),
                pending => Error::Deadline { method: pending.request(), timeout },
            };
            if self.calls.expire(key, error) {
                self.events.push_back(Event::CallDone(key));
            }
            if let Pending::ChannelOpen(channel) = pending {
                self.drop_unopened(channel);
            }
        }
    }
}
