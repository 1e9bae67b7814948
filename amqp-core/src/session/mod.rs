//! The durable connection: it finds a transport for a [`Connection`], and outlives it.
//!
//! A session resolves the hosts of its configuration in turn, dials every address, and runs the
//! handshake on each transport, until one is open or all have failed. Refusals of the login or the
//! virtual host are not tried elsewhere. Once open, the session's verbs are the connection's.
//!
//! When the transport is lost the session ends, with the cause.

mod connecting;
mod endpoints;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::config::{Config, Secret};
use crate::connection::{Channel, Connection, End, validate};
use crate::error::{CloseCause, ConnectError, Error, TransportError};
use crate::event::{Action, Event, TimeoutReason};
use crate::ids::{Attempt, Call, CallKey, ChannelId, Epoch};
use crate::machine::{self, Transition};
use crate::request::FromReply;
use crate::timers::Timers;
use crate::transmit::Transmit;

use endpoints::Endpoints;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Resolving,
    Dialling,
    /// A transport is there: handshake, open or closing.
    Connected,
    /// What is queued is still to be written.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PhaseInput {
    Resolved,
    Connected,
    /// The attempt failed and there is another address.
    NextAddress,
    /// The attempt failed and there is another host.
    NextHost,
    End,
}

const TRANSITIONS: &[Transition<Phase, PhaseInput>] = &[
    (Phase::Resolving, PhaseInput::Resolved, Phase::Dialling),
    (Phase::Resolving, PhaseInput::NextHost, Phase::Resolving),
    (Phase::Resolving, PhaseInput::End, Phase::Ended),
    (Phase::Dialling, PhaseInput::Connected, Phase::Connected),
    (Phase::Dialling, PhaseInput::NextAddress, Phase::Dialling),
    (Phase::Dialling, PhaseInput::NextHost, Phase::Resolving),
    (Phase::Dialling, PhaseInput::End, Phase::Ended),
    (Phase::Connected, PhaseInput::NextAddress, Phase::Dialling),
    (Phase::Connected, PhaseInput::NextHost, Phase::Resolving),
    (Phase::Connected, PhaseInput::End, Phase::Ended),
];

/// The life of a session as a diagram.
pub(crate) fn diagram() -> String {
    machine::diagram(TRANSITIONS)
}

/// A connection that looks for its transport itself.
///
/// Methods are of four kinds: getters; `handle_*` for inputs; plain verbs for commands; `poll_*` for
/// outputs. After any input or command, call [`poll_transmit`](Self::poll_transmit), which may free buffer
/// space and emit an event for it. Then call [`poll_action`](Self::poll_action) and
/// [`poll_event`](Self::poll_event) until they return `None`, then [`poll_timeout`](Self::poll_timeout). A
/// session reads no clock: every verb that sets a timer takes `now`.
#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    phase: Phase,
    attempt: Attempt,
    endpoints: Endpoints,
    /// Hosts are dialled without looking their addresses up.
    by_name: bool,
    connection: Connection,
    timers: Timers,
    opened: bool,
    action: Option<Action>,
    events: std::collections::VecDeque<Event>,
    /// Why it ended, if it has.
    cause: Option<CloseCause>,
    begun: Instant,
    /// It replaces another session, whose calls have ended.
    replaces: bool,
}

impl Session {
    /// Creates a session, which begins to connect at once: see [`poll_action`](Self::poll_action).
    ///
    /// # Errors
    /// [`ConnectError::InvalidArgument`] if the configuration cannot be used.
    pub fn new(config: Arc<Config>, now: Instant) -> Result<Self, ConnectError> {
        let mut session = Self::unresolved(config, now)?;
        session.try_host(now);
        Ok(session)
    }

    /// Creates a session that dials hosts by their names: it never asks for their addresses. For drivers that reach
    /// hosts through something that resolves names itself, such as a proxy.
    ///
    /// # Errors
    /// [`ConnectError::InvalidArgument`] if the configuration cannot be used.
    pub fn dialling_by_name(config: Arc<Config>, now: Instant) -> Result<Self, ConnectError> {
        let mut session = Self::unresolved(config, now)?;
        session.by_name = true;
        session.try_host(now);
        Ok(session)
    }

    /// Creates a session on a transport that is connected already; reports name it by the attempt. The session
    /// never dials. The configuration's first host is only the name in errors, and TLS is up to the transport.
    ///
    /// # Errors
    /// [`ConnectError::InvalidArgument`] if the configuration cannot be used.
    pub fn connected(config: Arc<Config>, now: Instant) -> Result<(Self, Attempt), ConnectError> {
        let mut session = Self::unresolved(config, now)?;
        session.endpoints.keep_first();
        session.step(PhaseInput::Resolved);
        session.step(PhaseInput::Connected);
        let address_timeout = session.config.address_timeout;
        session.timers.set(TimeoutReason::Address, Some(now + address_timeout));
        session.connection.handle_connected(now);
        let attempt = session.attempt;
        Ok((session, attempt))
    }

    /// Dialling failed, or the transport is lost after `written` bytes had reached the socket.
    pub fn handle_disconnected(
        &mut self,
        now: Instant,
        attempt: Attempt,
        error: TransportError,
        written: u64,
    ) {
        if attempt != self.attempt || !matches!(self.phase, Phase::Dialling | Phase::Connected) {
            return;
        }
        self.connection.handle_disconnected(error, written);
        self.react(now);
    }

    /// Takes frames from the front of `input`; returns whether there may be more to take. Bounded
    /// work; see [`Connection::handle_input`].
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) -> bool {
        if self.phase != Phase::Connected {
            input.clear();
            return false;
        }
        let more = self.connection.handle_input(now, input);
        self.react(now);
        more
    }

    /// Acts on the deadlines that have passed. Hand in the input that has arrived first: it may prove that the
    /// broker is alive.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(reason) = self.timers.expired(now) {
            match reason {
                TimeoutReason::Connect => self.connect_timed_out(),
                TimeoutReason::Address => {
                    self.connection.time_out_handshake(self.config.address_timeout);
                    self.react(now);
                }
                _ => {}
            }
        }
        self.connection.handle_timeout(now);
        self.react(now);
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// Those of [`Connection::open_channel`].
    pub fn open_channel(&mut self, now: Instant) -> Result<(ChannelId, Call<()>), Error> {
        self.check_ended()?;
        self.connection.open_channel(now)
    }

    /// A view of a channel, for its verbs.
    #[inline]
    pub const fn channel(&mut self, id: ChannelId) -> Channel<'_> {
        self.connection.channel(id)
    }

    /// Takes the result of a call, if it has come.
    pub fn take_reply<R: FromReply>(&mut self, call: &Call<R>) -> Option<Result<R, Error>> {
        let reply = self.connection.take_reply(call);
        if reply.is_none() && self.replaces { self.check_ended().err().map(Err) } else { reply }
    }

    /// Forgets a call whose caller has gone. Its reply is consumed, and what that opens is closed again.
    pub fn forget(&mut self, now: Instant, call: CallKey) {
        self.connection.forget(now, call);
    }

    /// Closes the connection, behind everything that is queued. A session that is still connecting stops.
    pub fn close(&mut self, now: Instant) {
        match self.phase {
            Phase::Connected if self.opened => {
                self.connection.close(now);
                self.react(now);
            }
            Phase::Resolving | Phase::Dialling | Phase::Connected => {
                self.end(CloseCause::Connect(Arc::new(ConnectError::Aborted)));
            }
            Phase::Ended => {}
        }
    }

    /// Sends the broker a new secret for the login; see [`Connection::update_secret`].
    ///
    /// # Errors
    /// [`Error`]: nothing was queued.
    pub fn update_secret(
        &mut self,
        now: Instant,
        secret: &Secret,
        reason: &str,
    ) -> Result<Call<()>, Error> {
        self.check_ended()?;
        self.connection.update_secret(now, secret, reason)
    }

    /// Cancels every consumer, and waits until nothing is under way; see [`Connection::drain`].
    ///
    /// # Errors
    /// [`Error::Connection`] unless the connection is open.
    pub fn drain(&mut self, now: Instant, timeout: Duration) -> Result<Call<()>, Error> {
        self.check_ended()?;
        self.connection.drain(now, timeout)
    }

    /// Notes that this many bytes of the attempt's stream have reached the socket; see
    /// [`Connection::handle_written`]. Reports about other attempts are ignored.
    pub fn handle_written(&mut self, now: Instant, attempt: Attempt, written: u64) {
        if attempt == self.attempt {
            self.connection.handle_written(now, written);
        }
    }

    /// Ends everything at once, for this cause. Before the connection is open, this is why connecting failed.
    pub fn abort(&mut self, cause: CloseCause) {
        let error = match cause {
            CloseCause::DriverGone if !self.opened => ConnectError::DriverGone,
            CloseCause::Transport(error) if !self.opened => ConnectError::DriverNotStarted(error),
            cause => return self.end(cause),
        };
        self.end(CloseCause::Connect(Arc::new(error)));
    }

    /// Creates a session that has ended for this cause. It replaces one that a panic left halfway through a
    /// change. Channels, calls, consumers and publishes of the other session are reported as ended.
    pub fn replacement(&self, cause: CloseCause) -> Self {
        let mut session = Self::unchecked(Arc::clone(&self.config), self.begun);
        (session.attempt, session.opened, session.replaces) = (self.attempt, true, true);
        session.end(cause);
        session
    }

    /// Returns what the driver has to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.action.take()
    }

    /// Fills `out`, which must be empty, with bytes to write. Call it again once they are written.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        self.connection.poll_transmit(now, out)
    }

    /// Returns what has changed. Call it until it returns `None`.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        // The session's own event is the last one.
        self.connection.poll_event().or_else(|| self.events.pop_front())
    }

    /// Whether there may be something for `poll_event`.
    #[inline]
    pub fn has_events(&self) -> bool {
        self.connection.has_events() || !self.events.is_empty()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and why. May change after any other
    /// call.
    pub fn poll_timeout(&mut self) -> Option<(Instant, TimeoutReason)> {
        [self.timers.poll(), self.connection.poll_timeout()].into_iter().flatten().min()
    }

    /// Whether a deadline was set since the last [`poll_timeout`](Self::poll_timeout). If not, `poll_timeout`
    /// need not be called after a publish.
    #[inline]
    pub fn has_new_timeout(&self) -> bool {
        self.timers.has_new() || self.connection.has_new_timeout()
    }

    /// Whether there is something for `poll_action`.
    #[inline]
    pub const fn wants_action(&self) -> bool {
        self.action.is_some()
    }

    /// Whether input is welcome; see [`Connection::wants_input`].
    pub fn wants_input(&mut self) -> bool {
        self.phase == Phase::Connected && self.connection.wants_input()
    }

    /// The connection over the current transport, for its getters.
    #[inline]
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Why the session ended, if it has.
    pub const fn cause(&self) -> Option<&CloseCause> {
        self.cause.as_ref()
    }

    /// Takes bodies of the application that will not be sent; see [`Connection::take_discarded`].
    pub fn take_discarded(&mut self) -> Vec<Bytes> {
        self.connection.take_discarded()
    }

    /// A session that has not begun to look for a transport.
    fn unresolved(config: Arc<Config>, now: Instant) -> Result<Self, ConnectError> {
        validate(&config)?;
        Ok(Self::unchecked(config, now))
    }

    fn unchecked(config: Arc<Config>, now: Instant) -> Self {
        let mut session = Self {
            phase: Phase::Resolving,
            attempt: Attempt(0),
            endpoints: Endpoints::new(&config.endpoints),
            by_name: false,
            connection: Connection::unchecked(Arc::clone(&config), Epoch(1), now),
            timers: Timers::default(),
            opened: false,
            action: None,
            events: std::collections::VecDeque::new(),
            cause: None,
            begun: now,
            replaces: false,
            config,
        };
        session.timers.set(TimeoutReason::Connect, Some(now + session.config.connect_timeout));
        session
    }

    /// The error of a session that has ended.
    fn check_ended(&self) -> Result<(), Error> {
        self.cause.clone().map_or(Ok(()), |cause| Err(Error::Connection(cause)))
    }

    fn step(&mut self, input: PhaseInput) {
        machine::step(TRANSITIONS, &mut self.phase, input);
    }

    /// Follows the state of the connection.
    fn react(&mut self, now: Instant) {
        if self.phase != Phase::Connected && self.phase != Phase::Dialling {
            return;
        }
        match self.connection.end_state() {
            Some(End::Failed(failure)) => {
                let failure = failure.clone();
                self.attempt_failed(now, failure);
            }
            Some(End::Closed(cause)) => {
                let cause = cause.clone();
                self.end(cause);
            }
            None if self.connection.is_open() => {
                self.opened = true;
                self.timers.set(TimeoutReason::Connect, None);
                self.timers.set(TimeoutReason::Address, None);
            }
            None => {}
        }
    }

    fn end(&mut self, cause: CloseCause) {
        if self.phase == Phase::Ended {
            return;
        }
        self.step(PhaseInput::End);
        self.timers = Timers::default();
        self.connection.abort(cause.clone());
        let at_once =
            matches!(cause, CloseCause::Aborted | CloseCause::DriverGone | CloseCause::Panicked);
        self.action = Some(Action::Disconnect { attempt: self.attempt, at_once });
        self.events.push_back(Event::Closed(cause.clone()));
        self.cause = Some(cause);
    }
}
