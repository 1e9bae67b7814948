//! The state of one transport, from before it is connected until after it is lost.
//!
//! Everything that ends with the transport is in this one value. To use another transport, the value is
//! replaced. State that lives longer (channels, consumers, calls, events) is in the [`Connection`].
//!
//! A link that has ended keeps its cause. Its queued output may still be written: the close-ok for the
//! broker's close, or a `connection.close` with the reason why this side ends the connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use amqp_proto::FieldTable;
use amqp_proto::frame::{self, FrameLimits};

use crate::channel::Numbers;
use crate::config::{Config, Secret};
use crate::connection::handshake::{self, Handshake, Tuning};
use crate::connection::heartbeat::Heartbeat;
use crate::connection::partial_input::PartialInput;
use crate::connection::read_pause::ReadPause;
use crate::error::{CloseCause, ConnectFailure, ConnectStep, Error, Misuse};
use crate::event::TimeoutReason;
use crate::ids::CallKey;
use crate::limits::{HEADER_FRAME_BYTES, SKIPPED_HEADER_FRAME_BYTES};
use crate::machine::{self, Transition};
use crate::timers::Timers;
use crate::transmit::Outbound;

#[derive(Debug)]
pub(crate) struct Link {
    state: State,
    /// The step at which the handshake ended, if it has.
    ended_at: ConnectStep,
    pub(crate) tuning: Tuning,
    pub(super) frame_limits: FrameLimits,
    pub(super) server_properties: FieldTable,
    /// Whether the broker closes the connection if a delivery of a stream is nacked or rejected: RabbitMQ
    /// before 3.11.
    pub(crate) refused_streams_are_fatal: bool,
    pub(super) numbers: Numbers,
    pub(crate) outbound: Outbound,
    pub(super) timers: Timers,
    pub(super) heartbeat: Heartbeat,
    /// The calls of `connection.update-secret` in their order, with their secrets.
    pub(super) secret_calls: VecDeque<(CallKey, Secret)>,
    /// The reason why the broker blocks publishes, while it does.
    pub(super) blocked: Option<Arc<str>>,
    /// The number of bytes of the stream that are known to have reached the socket, and the time of the last
    /// progress.
    pub(super) written: u64,
    /// How many bytes of the stream may have been written when the link ended.
    pub(super) lost_after: u64,
    /// The number of publishes of each channel that waited for the driver when the link ended, sorted by channel.
    pub(super) unsent: Vec<(u16, u64)>,
    pub(super) write_progress: Instant,
    pub(super) input: PartialInput,
    pub(super) read_pause: ReadPause,
}

#[derive(Debug)]
pub(super) enum State {
    /// There is no transport yet.
    Idle,
    Handshake(Handshake),
    Open,
    /// `connection.close` is to be sent after everything that is queued.
    Closing,
    /// `connection.close` is queued.
    CloseSent,
    Ended(End),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The connection was never open.
    Failed(ConnectFailure),
    /// The connection was open.
    Closed(CloseCause),
}

/// A [`State`] without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Handshake,
    Open,
    Closing,
    CloseSent,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Connected,
    OpenOk,
    Close,
    CloseQueued,
    End,
}

const TRANSITIONS: &[Transition<Phase, Input>] = &[
    (Phase::Idle, Input::Connected, Phase::Handshake),
    (Phase::Idle, Input::End, Phase::Ended),
    (Phase::Handshake, Input::OpenOk, Phase::Open),
    (Phase::Handshake, Input::End, Phase::Ended),
    (Phase::Open, Input::Close, Phase::Closing),
    (Phase::Open, Input::End, Phase::Ended),
    (Phase::Closing, Input::CloseQueued, Phase::CloseSent),
    (Phase::Closing, Input::End, Phase::Ended),
    (Phase::CloseSent, Input::End, Phase::Ended),
];

/// The states of a connection as a Mermaid diagram.
pub(crate) fn diagram() -> String {
    machine::diagram(TRANSITIONS)
}

impl Link {
    /// Creates a link whose transport is not connected yet.
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        let tuning = Tuning {
            channel_max: config.channel_max,
            frame_max: frame::FRAME_MIN_SIZE,
            heartbeat: 0,
        };
        Self {
            state: State::Idle,
            ended_at: ConnectStep::Dial,
            tuning,
            frame_limits: frame_limits(tuning.frame_max),
            server_properties: FieldTable::new(),
            refused_streams_are_fatal: false,
            numbers: Numbers::new(tuning.channel_max),
            outbound: Outbound::new(tuning.frame_max),
            timers: Timers::default(),
            heartbeat: Heartbeat::new(0, now),
            secret_calls: VecDeque::new(),
            blocked: None,
            written: 0,
            lost_after: 0,
            unsent: Vec::new(),
            write_progress: now,
            input: PartialInput::default(),
            read_pause: ReadPause::default(),
        }
    }

    /// Begins the handshake on a connected transport.
    pub(super) fn connected(&mut self, now: Instant, config: &Config) {
        self.heartbeat.received(now);
        let handshake = Handshake::begin(&mut self.outbound, config);
        self.enter(Input::Connected, State::Handshake(handshake));
    }

    /// Ends the handshake: the connection is open.
    pub(super) fn opened(&mut self, now: Instant) {
        let State::Handshake(handshake) = &mut self.state else { return };
        self.tuning = handshake.tuning();
        self.server_properties = handshake.take_server_properties();
        let version = handshake::rabbitmq_version(&self.server_properties);
        self.refused_streams_are_fatal = version.is_some_and(|version| version < (3, 11));
        self.frame_limits = frame_limits(self.tuning.frame_max);
        self.numbers.limit(self.tuning.channel_max);
        self.outbound.limit_frames(self.tuning.frame_max);
        self.heartbeat = Heartbeat::new(self.tuning.heartbeat, now);
        self.enter(Input::OpenOk, State::Open);
    }

    /// Keeps the bodies of the link that this one replaces, until the driver takes them.
    pub(super) fn take_over_discarded(&mut self, before: Self) {
        self.outbound.discard_all_of(before.outbound);
    }

    /// Ends the link, and drops the queued output.
    pub(super) fn end(&mut self, cause: CloseCause) {
        self.enter(Input::End, State::Ended(End::Closed(cause)));
        self.outbound.clear();
        self.blocked = None;
        self.timers.set(TimeoutReason::Blocked, None);
    }

    /// Changes to the next state, which the transition table must list.
    pub(super) fn enter(&mut self, input: Input, next: State) {
        debug_assert_eq!(
            machine::next(TRANSITIONS, self.state.phase(), input),
            Some(next.phase()),
            "{:?} on {input:?}",
            self.state.phase(),
        );
        self.ended_at = self.handshake_step();
        self.state = next;
    }

    #[inline]
    pub(super) const fn state(&self) -> &State {
        &self.state
    }

    /// Returns the handshake while it is in progress.
    pub(super) fn handshake(&mut self) -> Option<(&mut Handshake, &mut Outbound)> {
        match &mut self.state {
            State::Handshake(handshake) => Some((handshake, &mut self.outbound)),
            _ => None,
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether the handshake is done and the transport in use.
    pub(super) const fn is_up(&self) -> bool {
        matches!(self.state, State::Open | State::Closing | State::CloseSent)
    }

    /// How the link ended, if it has.
    #[inline]
    pub(super) const fn end_state(&self) -> Option<&End> {
        match &self.state {
            State::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// Why the link ended, if it was open and has ended.
    pub(super) const fn cause(&self) -> Option<&CloseCause> {
        match &self.state {
            State::Ended(End::Closed(cause)) => Some(cause),
            _ => None,
        }
    }

    /// The handshake step that is in progress, or that failed.
    pub(super) const fn handshake_step(&self) -> ConnectStep {
        match &self.state {
            State::Handshake(handshake) => handshake.step(),
            State::Ended(_) => self.ended_at,
            _ => ConnectStep::Dial,
        }
    }

    /// Returns an error unless the link is open.
    pub(super) fn check_open(&self) -> Result<(), Error> {
        match &self.state {
            State::Open => Ok(()),
            State::Ended(End::Closed(cause)) => Err(Error::Connection(cause.clone())),
            State::Idle | State::Handshake(_) => Err(Misuse::NotConnected.into()),
            _ => Err(Error::Connection(CloseCause::ByClient)),
        }
    }
}

impl State {
    const fn phase(&self) -> Phase {
        match self {
            Self::Idle => Phase::Idle,
            Self::Handshake(_) => Phase::Handshake,
            Self::Open => Phase::Open,
            Self::Closing => Phase::Closing,
            Self::CloseSent => Phase::CloseSent,
            Self::Ended(_) => Phase::Ended,
        }
    }
}

const fn frame_limits(frame_max: u32) -> FrameLimits {
    FrameLimits {
        body: frame_max - frame::FRAME_OVERHEAD as u32,
        header: SKIPPED_HEADER_FRAME_BYTES,
        method: HEADER_FRAME_BYTES,
    }
}
