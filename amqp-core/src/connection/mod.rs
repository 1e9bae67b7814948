//! One transport: handshake, then open, then closed. It never reconnects.
//!
//! Input goes through [`input`], which cuts frames and hands methods to [`replies`] and contents to
//! the channels. Commands go through [`Channel`], a view. Output, events and deadlines are polled.
//!
//! A connection that has closed keeps its cause and goes on answering: results of calls, what became
//! of publishes, unread deliveries of consumers without acknowledgement.

mod drain;
mod ending;
mod handshake;
mod heartbeat;
mod input;
mod intake;
mod replies;
mod secret;
mod stats;
mod whole_delivery;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use amqp_proto::frame::{self, FrameLimits};
use amqp_proto::method::{channel as wire, connection as wire_connection};
use amqp_proto::{FieldTable, ShortStr};
use bytes::Bytes;

use crate::channel::{Calls, Channel, ChannelState, Consumers, Numbers, Phase, Staging};
use crate::config::Config;
use crate::error::{
    ChannelCause, CloseCause, ConnectFailure, ConnectStep, Error, InvalidArgument, Misuse,
    ProtocolDetail, ProtocolError, TransportError,
};
use crate::event::{Event, TimeoutReason};
use crate::ids::{Call, CallKey, ChannelId, Epoch};
use crate::limits::{HEADER_FRAME_BYTES, SKIPPED_HEADER_FRAME_BYTES};
use crate::request::{FromReply, Pending, Reply};
use crate::slab::Slab;
use crate::timers::Timers;
use crate::transmit::{Outbound, Transmit};

use handshake::Handshake;
pub use handshake::Tuning;
use heartbeat::Heartbeat;
use input::InputBuffer;
use intake::Intake;
pub(crate) use stats::Counters;
pub use stats::Stats;

pub(crate) use handshake::{diagram as handshake_diagram, validate};

/// One connection over one transport.
///
/// Methods are of four kinds: getters; `handle_*` for inputs; plain verbs for commands; `poll_*` for
/// outputs. After any input or command, call [`poll_transmit`](Self::poll_transmit), which may make room
/// and say so, then [`poll_event`](Self::poll_event) until it gives nothing, then
/// [`poll_timeout`](Self::poll_timeout). It reads no clock: every verb that arms a timer takes `now`.
#[derive(Debug)]
pub struct Connection {
    pub(crate) config: Arc<Config>,
    pub(crate) epoch: Epoch,
    state: State,
    pub(crate) tuning: Tuning,
    frame_limits: FrameLimits,
    server_properties: FieldTable,
    /// The broker ends the connection if a stream's delivery is refused: RabbitMQ before 3.11.
    pub(crate) refused_streams_are_fatal: bool,
    pub(crate) channels: Slab<ChannelState>,
    numbers: Numbers,
    pub(crate) consumers: Consumers,
    pub(crate) calls: Calls,
    pub(crate) outbound: Outbound,
    pub(crate) events: VecDeque<Event>,
    timers: Timers,
    heartbeat: Heartbeat,
    staging: Staging,
    /// Room for encoding what may yet be refused.
    pub(crate) scratch: Vec<u8>,
    /// Open publishes of all channels.
    pub(crate) unconfirmed: u64,
    /// Calls of `connection.update-secret` in their order.
    secret_calls: VecDeque<CallKey>,
    /// Calls that wait until there is nothing left to wait for.
    draining: BTreeSet<CallKey>,
    /// The index of the channel that had deliveries in hand when a drain last looked.
    drain_at: usize,
    blocked: Option<Arc<str>>,
    pub(crate) counters: Counters,
    /// Bytes of the stream that are known to have reached the socket, and since when no more have.
    written: u64,
    write_progress: Instant,
    /// Bytes of a frame that are still to be read past.
    skipped: usize,
    /// Bytes of an incomplete frame that were there at the last input.
    incomplete: usize,
    /// Bytes that this frame lacks.
    lacking: usize,
    input_buffer: InputBuffer,
    intake: Intake,
}

#[derive(Debug)]
enum State {
    /// No transport yet.
    Idle,
    Handshake(Handshake),
    Open,
    /// `connection.close` is to be sent, or was.
    Closing {
        sent: bool,
    },
    Ended(End),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// It was never opened.
    Failed(ConnectFailure),
    /// It was open.
    Closed(CloseCause),
}

impl Connection {
    /// A connection without a transport yet.
    ///
    /// # Errors
    /// [`InvalidArgument`] if the configuration cannot be sent.
    pub fn new(config: Arc<Config>, now: Instant) -> Result<Self, InvalidArgument> {
        validate(&config)?;
        Ok(Self::unchecked(config, Epoch(1), now))
    }

    /// A connection whose configuration was validated.
    pub(crate) fn unchecked(config: Arc<Config>, epoch: Epoch, now: Instant) -> Self {
        let tuning = Tuning {
            channel_max: config.channel_max,
            frame_max: frame::FRAME_MIN_SIZE,
            heartbeat: 0,
        };
        Self {
            epoch,
            state: State::Idle,
            tuning,
            frame_limits: frame_limits(tuning.frame_max),
            server_properties: FieldTable::new(),
            refused_streams_are_fatal: false,
            channels: Slab::new(),
            numbers: Numbers::new(tuning.channel_max),
            consumers: Consumers::new(),
            calls: Calls::new(),
            outbound: Outbound::new(tuning.frame_max),
            events: VecDeque::new(),
            timers: Timers::default(),
            heartbeat: Heartbeat::new(0, now),
            staging: Staging::default(),
            scratch: Vec::new(),
            unconfirmed: 0,
            secret_calls: VecDeque::new(),
            draining: BTreeSet::new(),
            drain_at: 0,
            blocked: None,
            counters: Counters::default(),
            written: 0,
            write_progress: now,
            skipped: 0,
            incomplete: 0,
            lacking: 0,
            input_buffer: InputBuffer::default(),
            intake: Intake::default(),
            config,
        }
    }

    /// The transport is connected: the handshake begins.
    pub fn handle_connected(&mut self, now: Instant) {
        if matches!(self.state, State::Idle) {
            self.heartbeat.received(now);
            self.state = State::Handshake(Handshake::begin(self.outbound.urgent(), &self.config));
        }
    }

    /// The transport is lost, after `written` bytes of the stream had reached the socket. What input
    /// had arrived before is to be handed in first.
    pub fn handle_disconnected(&mut self, error: TransportError, written: u64) {
        let cause = match &self.state {
            State::Ended(_) => return,
            State::Idle => return self.fail(ConnectFailure::Dial(error)),
            State::Handshake(handshake) => {
                let failure = handshake.lost(error);
                return self.fail(failure);
            }
            State::Open => CloseCause::Transport(error),
            State::Closing { .. } => CloseCause::ByClientForced,
        };
        self.end(cause, written);
    }

    /// Deadlines may be over. Hand in what input there is first, so that silence is real.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.intake.take_resumed() {
            self.heartbeat.received(now);
        }
        self.arm();
        while let Some(reason) = self.timers.expired(now) {
            match reason {
                TimeoutReason::Blocked => self.blocked_for_too_long(),
                TimeoutReason::Call => self.expire_calls(now),
                TimeoutReason::Close => self.end_now(CloseCause::ByClientForced),
                TimeoutReason::HeartbeatReceive => {
                    let silence = self.heartbeat.silence(now);
                    self.end_now(CloseCause::HeartbeatTimeout { silence });
                }
                TimeoutReason::HeartbeatSend => {
                    // Bytes that wait to be written are as good a sign of life.
                    if self.outbound.is_empty() {
                        self.outbound.urgent_frame(|out| out.extend_from_slice(&frame::HEARTBEAT));
                    }
                    self.heartbeat.sent(now);
                }
                TimeoutReason::Trickle => self.trickle(now),
                TimeoutReason::WriteStall => {
                    let stalled = now.saturating_duration_since(self.write_progress);
                    self.end_now(CloseCause::WriteTimeout { stalled });
                }
                TimeoutReason::Address | TimeoutReason::Connect => {}
            }
            self.arm();
        }
    }

    /// Gives up a handshake that takes too long.
    pub(crate) fn time_out_handshake(&mut self, timeout: std::time::Duration) {
        let step = self.handshake_step();
        self.fail(ConnectFailure::TimedOut { timeout, step });
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// [`Error::Connection`] unless the connection is open; [`Misuse::NoFreeChannels`].
    pub fn open_channel(&mut self, now: Instant) -> Result<(ChannelId, Call<()>), Error> {
        self.check_open()?;
        let channels = &mut self.channels;
        let open = |number| ChannelId(channels.insert(ChannelState::new(number)));
        let Some(id) = self.numbers.allocate(open) else {
            let channel_max = self.numbers.max();
            let by_broker = channel_max < self.config.channel_max;
            return Err(Misuse::NoFreeChannels { channel_max, by_broker }.into());
        };
        let call = self.calls.insert(Pending::ChannelOpen(id), now + self.config.call_timeout);
        if let Some(state) = self.channels.find_mut(id.0) {
            state.calls.push(call);
            let number = state.number;
            let open = wire::Open::default();
            self.outbound.frames(number, |out| frame::write_method(out, number, &open));
        }
        Ok((id, Call::new(call)))
    }

    /// A view of a channel, for its verbs.
    #[inline]
    pub const fn channel(&mut self, id: ChannelId) -> Channel<'_> {
        Channel::new(self, id)
    }

    /// Takes the result of a call, once it is there.
    pub fn take_reply<R: FromReply>(&mut self, call: &Call<R>) -> Option<Result<R, Error>> {
        match self.calls.take(call.key)? {
            Ok(reply) => Some(R::from_reply(reply).ok_or_else(|| {
                let detail = ProtocolDetail::UnexpectedFrame;
                Error::Connection(CloseCause::Protocol(ProtocolError::new(detail)))
            })),
            Err(error) => Some(Err(error)),
        }
    }

    /// The caller is gone: the reply will be consumed, and what it opens is closed again.
    pub fn forget(&mut self, now: Instant, call: CallKey) {
        let mut answered = true;
        match self.calls.pending(call) {
            Some((Pending::ChannelOpen(channel), _)) => {
                if let Some(state) = self.channels.find_mut(channel.0) {
                    state.released = true;
                }
                self.sweep_channel(channel);
            }
            Some((Pending::Drain, _)) => {
                self.draining.remove(&call);
                answered = false;
            }
            Some((Pending::AlsoClose(channel), _)) => {
                if let Some(state) = self.channels.find_mut(channel.0) {
                    state.also_closing.remove(&call);
                }
                answered = false;
            }
            _ => {}
        }
        if let Some((pending, Ok(reply))) = self.calls.forget(call) {
            self.compensate(now, pending, &reply);
        }
        if !answered {
            // No frame is due that would free its place.
            self.calls.complete(call, Ok(Reply::Done));
        }
    }

    /// Closes the connection, behind everything that is queued. A second close changes nothing.
    pub fn close(&mut self, now: Instant) {
        match &self.state {
            State::Open => {
                self.state = State::Closing { sent: false };
                self.timers.set(TimeoutReason::Close, Some(now + self.config.close_timeout));
                for key in self.channels.keys() {
                    if let Some(state) = self.channels.find_mut(key)
                        && state.phase != Phase::Closed
                    {
                        let cause = ChannelCause::Connection(CloseCause::ByClient);
                        state.cause.get_or_insert(cause);
                        self.events.push_back(Event::ChannelClosing(ChannelId(key)));
                    }
                }
            }
            State::Idle | State::Handshake(_) => self.end_now(CloseCause::ByClient),
            State::Closing { .. } | State::Ended(_) => {}
        }
    }

    /// Ends the connection at once, for a reason that lies outside of it.
    pub fn abort(&mut self, cause: CloseCause) {
        self.end_now(cause);
    }

    /// So many bytes of the stream have reached the socket. Without this, only a call of
    /// `poll_transmit` with everything written shows that the transport takes bytes, and a slow one
    /// may count as stalled.
    pub fn handle_written(&mut self, now: Instant, written: u64) {
        if written > self.written {
            self.written = written;
            self.write_progress = now;
        }
    }

    /// Fills `out`, which must be empty, with bytes to write. Call it again once they are written.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        if !out.is_empty() {
            return false;
        }
        self.handle_written(now, self.outbound.handed_over());
        if let State::Closing { sent: sent @ false } = &mut self.state
            && !self.outbound.has_lanes()
        {
            *sent = true;
            let close = wire_connection::Close {
                reply_code: 200,
                reply_text: ShortStr::new("closed by the client").unwrap_or_default(),
                ..Default::default()
            };
            self.outbound.urgent_frame(|out| frame::write_method(out, 0, &close));
            self.outbound.seal();
        }
        // Whoever asks has written what was taken before. To tell earlier would have publishers fill one
        // buffer while the other is written, each slowed down by the other.
        if self.outbound.room_again() {
            self.events.push_back(Event::Room);
        }
        let mut dealt = Vec::new();
        let any = self.outbound.transmit(out, &mut dealt);
        if self.outbound.room_at_last() {
            self.events.push_back(Event::Room);
        }
        for dealt in dealt {
            let id = self.numbers.channel(dealt.channel);
            if let Some(state) = id.and_then(|id| self.channels.find_mut(id.0))
                && let Some(confirms) = &mut state.confirms
            {
                confirms.dealt(dealt.seq, dealt.offset);
            }
        }
        if any {
            self.heartbeat.sent(now);
            self.write_progress = now;
        }
        any
    }

    /// What has changed. Call it until it gives `None`.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        if !self.draining.is_empty() {
            self.finish_drains();
        }
        self.events.pop_front()
    }

    /// Whether there may be something for `poll_event`.
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty() || !self.draining.is_empty()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and why. May change after any other
    /// call.
    pub fn poll_timeout(&mut self) -> Option<(Instant, TimeoutReason)> {
        self.arm();
        self.timers.poll()
    }

    /// Whether a deadline was set since [`poll_timeout`](Self::poll_timeout).
    #[inline]
    pub fn has_new_timeout(&self) -> bool {
        self.timers.has_new() || self.calls.has_new_deadline()
    }

    /// Whether there are bytes for `poll_transmit`.
    #[inline]
    pub fn wants_transmit(&self) -> bool {
        !self.outbound.is_empty() || matches!(self.state, State::Closing { sent: false })
    }

    /// Bytes that the incomplete frame at the front of the input lacks at least, its size checked
    /// against the limits: with so much room behind it, it need not be moved.
    pub const fn lacking(&self) -> usize {
        self.lacking
    }

    /// How the connection ended, if it has. What is queued then is still to be written.
    pub const fn end_state(&self) -> Option<&End> {
        match &self.state {
            State::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// Whether the handshake is done and no close has begun.
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// What was negotiated; of no meaning before the connection is open.
    pub const fn tuning(&self) -> Tuning {
        self.tuning
    }

    /// What the broker says of itself.
    pub const fn server_properties(&self) -> &FieldTable {
        &self.server_properties
    }

    /// Why the broker reads no publishes, while it does not.
    pub fn blocked(&self) -> Option<&Arc<str>> {
        self.blocked.as_ref()
    }

    /// Whether there is something for `take_discarded`.
    #[inline]
    pub const fn has_discarded(&self) -> bool {
        self.outbound.has_discarded()
    }

    /// Bodies of the user's that will not be sent. Their `Drop` is the user's code: drop them where
    /// that may run.
    pub fn take_discarded(&mut self) -> Vec<Bytes> {
        self.outbound.take_discarded()
    }

    pub(crate) const fn handshake_step(&self) -> ConnectStep {
        match &self.state {
            State::Handshake(handshake) => handshake.step(),
            _ => ConnectStep::Dial,
        }
    }

    /// The error of a connection that is not open.
    fn check_open(&self) -> Result<(), Error> {
        match &self.state {
            State::Open => Ok(()),
            State::Ended(End::Closed(cause)) => Err(Error::Connection(cause.clone())),
            State::Idle | State::Handshake(_) => Err(Misuse::NotConnected.into()),
            _ => Err(Error::Connection(CloseCause::ByClient)),
        }
    }

    /// Brings the timers in line with what they stand for.
    fn arm(&mut self) {
        let up = matches!(self.state, State::Open | State::Closing { .. });
        let listening = up && self.intake.listens();
        let dead_at = if listening { self.heartbeat.dead_at() } else { None };
        let trickles = up && self.intake.trickles();
        let trickle_at = if trickles { self.heartbeat.trickle_at() } else { None };
        let send_at = if up { self.heartbeat.send_at() } else { None };
        let unwritten = self.outbound.handed_over() > self.written;
        let stalled_at = if up && unwritten && self.blocked.is_none() {
            self.heartbeat.interval().map(|interval| self.write_progress + interval * 2)
        } else {
            None
        };
        self.timers.set(TimeoutReason::Trickle, trickle_at);
        self.timers.set(TimeoutReason::WriteStall, stalled_at);
        self.timers.set(TimeoutReason::HeartbeatReceive, dead_at);
        self.timers.set(TimeoutReason::HeartbeatSend, send_at);
        self.timers.set(TimeoutReason::Call, self.calls.poll_deadline());
        if self.end_state().is_some() {
            self.timers.set(TimeoutReason::Close, None);
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
        }
    }

    /// The handshake is done.
    fn opened(&mut self, now: Instant) {
        let State::Handshake(handshake) = &mut self.state else { return };
        self.tuning = handshake.tuning();
        self.server_properties = handshake.take_server_properties();
        let version = handshake::rabbitmq_version(&self.server_properties);
        self.refused_streams_are_fatal = version.is_some_and(|version| version < (3, 11));
        self.frame_limits = frame_limits(self.tuning.frame_max);
        self.numbers.limit(self.tuning.channel_max);
        self.outbound.limit_frames(self.tuning.frame_max);
        self.heartbeat = Heartbeat::new(self.tuning.heartbeat, now);
        // Start-ok, tune-ok and open have been sent.
        self.outbound.count_frames(3);
        self.state = State::Open;
        self.events.push_back(Event::Opened);
    }
}

const fn frame_limits(frame_max: u32) -> FrameLimits {
    FrameLimits {
        body: frame_max - frame::FRAME_OVERHEAD as u32,
        header: SKIPPED_HEADER_FRAME_BYTES,
        method: HEADER_FRAME_BYTES,
    }
}
