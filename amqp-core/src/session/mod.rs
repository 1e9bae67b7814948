//! The session: it finds a transport for a [`Connection`], and remains when the transport is lost.
//!
//! A session resolves the hosts of its configuration in turn, dials each address, and runs the handshake,
//! until one succeeds or all have failed. Then it waits and begins anew, as often as the configuration says. If a
//! broker refuses the login or the virtual host, nothing else is tried. When the session is open, its verbs are those
//! of the connection.
//!
//! When the transport of an open session is lost, the session ends with the cause, or it recovers ([`recovering`]): it
//! connects again, and restores what the application had.

mod backoff;
mod connecting;
mod credentials;
mod dice;
mod endpoints;
mod hook;
mod phases;
mod recovering;
mod replay;
mod resubscribing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amqp_proto::FieldValue;
use bytes::{Bytes, BytesMut};

use crate::config::{Config, Secret};
use crate::connection::{Channel, Connection, End, validate};
use crate::error::{CloseCause, ConnectError, ConnectFailure, ConnectStep, Error, TransportError};
use crate::event::{Action, Event, Target, TimeoutReason};
use crate::ids::{Attempt, Call, CallKey, ChannelId};
use crate::request::FromReply;
use crate::timers::Timers;
use crate::transmit::Transmit;

use backoff::Retries;
use connecting::not_secured;
use credentials::Renewal;
use endpoints::Endpoints;
pub(crate) use phases::diagram;
use phases::{Phase, PhaseInput};
use replay::Replay;
use resubscribing::Resubscribing;

/// A connection that finds its transport itself.
///
/// Methods are of four kinds: getters; `handle_*` for inputs; plain verbs for commands; `poll_*` for outputs.
/// After any input or command, call [`poll_transmit`](Self::poll_transmit), which may free buffer space and
/// emit an event for it. Then call [`poll_action`](Self::poll_action) and [`poll_event`](Self::poll_event)
/// until they return `None`, then [`poll_timeout`](Self::poll_timeout). A session reads no clock: every verb
/// that sets a timer takes `now`.
#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    phase: Phase,
    attempt: Attempt,
    endpoints: Endpoints,
    renewal: Renewal,
    /// Whether hosts are dialled by name, without a lookup.
    by_name: bool,
    /// Whether the one transport is connected already.
    is_dialled: bool,
    connection: Connection,
    timers: Timers,
    opened: bool,
    /// The attempt of the transport that was lost last.
    lost: Option<Attempt>,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    retries: Retries,
    /// The loss of which the driver is to decide whether to recover from it.
    undecided: Option<CloseCause>,
    replay: Option<Replay>,
    /// Whether consumers that the broker has cancelled start again.
    resubscribes: bool,
    resubscribing: Resubscribing,
    /// Why the session ended, if it has.
    cause: Option<CloseCause>,
    begun: Instant,
    /// Whether it replaces another session, whose calls have ended.
    replaces: bool,
}

impl Session {
    /// Creates a session, which starts to connect immediately: see [`poll_action`](Self::poll_action).
    ///
    /// `seed` decides the order of hosts that are [shuffled](crate::HostOrder::Shuffled). It should be another random
    /// number for each session. A session reads no other source of randomness.
    ///
    /// # Errors
    /// [`ConnectError::InvalidArgument`] if the configuration is invalid.
    pub fn new(config: Arc<Config>, now: Instant, seed: u64) -> Result<Self, ConnectError> {
        let endpoints = Endpoints::new(&config, seed);
        let mut session = Self::unresolved(config, now, endpoints, seed)?;
        session.connection.recovers = session.config.recovery.is_on();
        session.try_host(now);
        Ok(session)
    }

    /// Creates a session that dials hosts by name: it never requests their addresses. It is for drivers that
    /// reach hosts through something that resolves names itself, such as a proxy. For `seed`, see [`new`](Self::new).
    ///
    /// # Errors
    /// [`ConnectError::InvalidArgument`] if the configuration is invalid.
    pub fn dialling_by_name(
        config: Arc<Config>,
        now: Instant,
        seed: u64,
    ) -> Result<Self, ConnectError> {
        let endpoints = Endpoints::new(&config, seed);
        let mut session = Self::unresolved(config, now, endpoints, seed)?;
        session.connection.recovers = session.config.recovery.is_on();
        session.by_name = true;
        session.try_host(now);
        Ok(session)
    }

    /// Creates a session on a transport that is connected already, and returns the attempt that reports must
    /// name. The session never dials, and never recovers. The first host of the configuration only names the peer in
    /// errors. TLS is up to the transport.
    ///
    /// # Errors
    /// [`ConnectError::InvalidArgument`] if the configuration is invalid.
    pub fn connected(config: Arc<Config>, now: Instant) -> Result<(Self, Attempt), ConnectError> {
        let endpoints = Endpoints::first_of(&config);
        let mut session = Self::unresolved(config, now, endpoints, 0)?;
        session.is_dialled = true;
        session.step(PhaseInput::Resolved);
        let address_timeout = session.config.address_timeout;
        session.timers.set(TimeoutReason::Address, Some(now + address_timeout));
        session.dial_or_fetch(now);
        let attempt = session.attempt;
        Ok((session, attempt))
    }

    /// Reports that dialling or encrypting failed, or that the transport was lost after `written` bytes had
    /// reached the socket.
    pub fn handle_disconnected(
        &mut self,
        now: Instant,
        attempt: Attempt,
        error: TransportError,
        written: u64,
    ) {
        if attempt != self.attempt {
            return;
        }
        match self.phase {
            Phase::Dialling
            | Phase::Handshake
            | Phase::Replaying
            | Phase::SettingUp
            | Phase::Attaching
            | Phase::Open => {
                self.connection.handle_disconnected(error, written);
                self.react(now);
            }
            Phase::FetchingCredentials if self.is_dialled => {
                let step = ConnectStep::Credentials;
                self.attempt_failed(now, ConnectFailure::Lost { step, error });
            }
            Phase::Securing => self.attempt_failed(now, not_secured(error)),
            Phase::Resolving | Phase::FetchingCredentials | Phase::Waiting | Phase::Ended => {}
        }
    }

    /// Reports the output of the attempt's transport that was taken and never written. Call it when the transport is
    /// dropped, after [`handle_disconnected`](Self::handle_disconnected) if that reports the loss. Without it, publishes
    /// without confirms that were taken are not among those of [`Error::PublishesLost`].
    pub fn handle_unwritten(&mut self, attempt: Attempt, unwritten: &Transmit) {
        if Some(attempt) == self.lost {
            self.connection.handle_unwritten(unwritten);
        }
    }

    /// Takes frames from the front of `input`. Returns whether there may be more. Each call does a limited
    /// amount of work: see [`Connection::handle_input`].
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) -> bool {
        if !self.phase.has_link() {
            input.clear();
            return false;
        }
        let more = self.connection.handle_input(now, input);
        self.react(now);
        more
    }

    /// Handles the deadlines that have passed. Pass in the input that has arrived before calling this: it may
    /// show that the broker is alive.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(reason) = self.timers.expired(now) {
            match reason {
                TimeoutReason::Connect => self.connect_timed_out(now),
                TimeoutReason::Address => self.address_timed_out(now),
                TimeoutReason::Held => self.held_due(now),
                TimeoutReason::Hook => self.hook_timed_out(now),
                TimeoutReason::Resubscribe => self.ask_for_queues(now),
                TimeoutReason::Retry => self.retry(now),
                TimeoutReason::Credentials => self.credentials_due(now),
                _ => {}
            }
        }
        self.connection.handle_timeout(now);
        self.react(now);
    }

    /// Opens a channel. While the connection is being recovered, it is opened when that is done.
    ///
    /// # Errors
    /// Those of [`Connection::open_channel`].
    pub fn open_channel(&mut self, now: Instant) -> Result<(ChannelId, Call<()>), Error> {
        self.check_ended()?;
        self.connection.open_channel(now)
    }

    /// Opens a channel for a hook that sets up the transport of this attempt: see [`Action::RunHook`]. It may be used
    /// while other channels wait. It ends with the transport, and what it declares is not declared again.
    ///
    /// # Errors
    /// Those of [`Connection::open_channel`]. [`Error::ConnectionLost`] if the transport is another one.
    pub fn open_setup_channel(
        &mut self,
        now: Instant,
        attempt: Attempt,
    ) -> Result<(ChannelId, Call<()>), Error> {
        self.check_ended()?;
        if attempt != self.attempt {
            return Err(self.connection.lost_error());
        }
        self.connection.open_setup_channel(now)
    }

    /// Returns a view of a channel, for its verbs.
    #[inline]
    pub const fn channel(&mut self, id: ChannelId) -> Channel<'_> {
        self.connection.channel(id)
    }

    /// Takes the result of a call, if it has arrived.
    pub fn take_reply<R: FromReply>(&mut self, call: &Call<R>) -> Option<Result<R, Error>> {
        let reply = self.connection.take_reply(call);
        if reply.is_none() && self.replaces { self.check_ended().err().map(Err) } else { reply }
    }

    /// Forgets a call whose caller is gone. Its reply is still consumed, and what that opens is closed again.
    pub fn forget(&mut self, now: Instant, call: CallKey) {
        self.connection.forget(now, call);
    }

    /// Closes the connection after everything that is queued is sent. A session that is still connecting
    /// stops. One that waits for its next attempt to recover ends at once.
    pub fn close(&mut self, now: Instant) {
        match self.phase {
            Phase::Ended => {}
            phase if phase.is_up() => {
                self.connection.close(now);
                self.react(now);
            }
            // The broker has no connection that it would have to know of.
            _ if self.opened => self.end(CloseCause::ByClient),
            _ => self.end(CloseCause::Connect(Arc::new(ConnectError::Aborted))),
        }
    }

    /// Sends the broker a new secret for the login; see [`Connection::update_secret`].
    ///
    /// # Errors
    /// [`Error`]: nothing was queued. [`Error::Interrupted`] while the session recovers.
    pub fn update_secret(
        &mut self,
        now: Instant,
        secret: &Secret,
        reason: &str,
    ) -> Result<Call<()>, Error> {
        self.check_not_recovering()?;
        self.connection.update_secret(now, secret, reason)
    }

    /// Cancels every consumer, and waits until nothing is outstanding: see [`Connection::drain`].
    ///
    /// # Errors
    /// [`Error::Connection`] unless the connection is open. [`Error::Interrupted`] while it is being recovered.
    pub fn drain(&mut self, now: Instant, timeout: Duration) -> Result<Call<()>, Error> {
        self.check_not_recovering()?;
        self.connection.drain(now, timeout)
    }

    /// Records that this many bytes of the attempt's stream have reached the socket: see
    /// [`Connection::handle_written`]. Reports about other attempts are ignored.
    pub fn handle_written(&mut self, now: Instant, attempt: Attempt, written: u64) {
        if attempt == self.attempt {
            self.connection.handle_written(now, written);
        }
    }

    /// Ends the session immediately, for this cause. If the connection is not open yet, connecting fails for
    /// this cause.
    pub fn abort(&mut self, cause: CloseCause) {
        let error = match cause {
            CloseCause::DriverGone if !self.opened => ConnectError::DriverGone,
            CloseCause::Transport(error) if !self.opened => ConnectError::DriverNotStarted(error),
            cause => return self.end(cause),
        };
        self.end(CloseCause::Connect(Arc::new(error)));
    }

    /// Creates a session that has ended for this cause. It replaces a session that a panic left in an
    /// inconsistent state. Channels, calls, consumers and publishes of the old session are reported as ended.
    pub fn replacement(&self, cause: CloseCause) -> Self {
        let endpoints = Endpoints::first_of(&self.config);
        let mut session = Self::unchecked(Arc::clone(&self.config), self.begun, endpoints, 0);
        (session.attempt, session.opened, session.replaces) = (self.attempt, true, true);
        session.end(cause);
        session
    }

    /// Returns the next action for the driver. Call it until it returns `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Fills `out`, which must be empty, with bytes to write. Returns whether there are any. Call it again
    /// when they are written.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        let any = self.connection.poll_transmit(now, out);
        if self.phase == Phase::Attaching {
            // There may be space for more publishes that are sent again.
            self.continue_restore(now);
        }
        any
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

    /// Returns when to call [`handle_timeout`](Self::handle_timeout), and why. The answer may change with any
    /// other call.
    pub fn poll_timeout(&mut self) -> Option<(Instant, TimeoutReason)> {
        [self.timers.poll(), self.connection.poll_timeout()].into_iter().flatten().min()
    }

    /// Whether a deadline was set since the last [`poll_timeout`](Self::poll_timeout). If not, `poll_timeout`
    /// need not be called after a publish.
    #[inline]
    pub fn has_new_timeout(&self) -> bool {
        self.timers.has_new() || self.connection.has_new_timeout()
    }

    /// Whether the connection is open, set up, and restored if it was lost, and no close has begun.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open && self.connection.is_open()
    }

    /// Whether the connection is open on the transport of this attempt, for a hook that sets it up.
    pub fn is_connected(&self, attempt: Attempt) -> bool {
        attempt == self.attempt && self.phase.is_up() && self.connection.is_open()
    }

    /// Whether `poll_action` has an action to return.
    #[inline]
    pub fn wants_action(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Returns whether the driver should read: see [`Connection::wants_input`].
    pub fn wants_input(&mut self) -> bool {
        self.phase.has_link() && self.connection.wants_input()
    }

    /// Returns the connection over the current transport, for its getters.
    #[inline]
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether the session was opened once. Until it has ended, it is open or recovers.
    pub const fn was_opened(&self) -> bool {
        self.opened
    }

    /// Whether the session recovers: the transport was lost, and not everything is restored.
    pub fn is_recovering(&self) -> bool {
        self.opened && !matches!(self.phase, Phase::Open | Phase::Ended)
    }

    /// What the current transport is connected to, or is to be. Over a transport that was connected before, it is the
    /// configuration's first host.
    pub fn target(&self) -> Target {
        let mut target = Target::new(self.endpoints.host().clone(), self.endpoints.address());
        if let Some(name) = &self.config.tls.server_name {
            target.server_name = Arc::clone(name);
        }
        target.tcp = self.config.tcp.clone();
        target
    }

    /// The name of the connection that is configured.
    pub fn connection_name(&self) -> Option<&str> {
        self.config.client_properties.get("connection_name").and_then(FieldValue::as_str)
    }

    /// Why the session ended, if it has.
    pub const fn cause(&self) -> Option<&CloseCause> {
        self.cause.as_ref()
    }

    /// Takes the bodies of the application that will not be sent: see [`Connection::take_discarded`].
    pub fn take_discarded(&mut self) -> Vec<Bytes> {
        self.connection.take_discarded()
    }

    /// Creates a session that has not started to connect.
    fn unresolved(
        config: Arc<Config>,
        now: Instant,
        endpoints: Endpoints,
        seed: u64,
    ) -> Result<Self, ConnectError> {
        validate(&config)?;
        Ok(Self::unchecked(config, now, endpoints, seed))
    }

    fn unchecked(config: Arc<Config>, now: Instant, endpoints: Endpoints, seed: u64) -> Self {
        let mut session = Self {
            phase: Phase::Resolving,
            attempt: Attempt(0),
            endpoints,
            renewal: Renewal::default(),
            by_name: false,
            is_dialled: false,
            connection: Connection::unchecked(Arc::clone(&config), now),
            timers: Timers::default(),
            opened: false,
            lost: None,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            retries: Retries::new(&config.recovery, seed),
            undecided: None,
            replay: None,
            resubscribes: config.recovery.resubscribe,
            resubscribing: Resubscribing::new(Retries::new(&config.recovery, seed)),
            cause: None,
            begun: now,
            replaces: false,
            config,
        };
        session.connection.announces = false;
        session.timers.set(TimeoutReason::Connect, Some(now + session.config.connect_timeout));
        session
    }

    /// Returns an error if the session has ended.
    fn check_ended(&self) -> Result<(), Error> {
        self.cause.clone().map_or(Ok(()), |cause| Err(Error::Connection(cause)))
    }

    /// Returns an error if the session has ended or recovers.
    fn check_not_recovering(&self) -> Result<(), Error> {
        self.check_ended()?;
        match self.connection.last_loss() {
            Some(cause) if self.is_recovering() => {
                Err(Error::Interrupted { cause: cause.clone(), maybe_executed: false })
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self, input: PhaseInput) {
        self.phase.step(input);
    }

    /// Updates the session when the state of the connection has changed.
    #[inline]
    fn react(&mut self, now: Instant) {
        // Most input arrives while the connection is open, and leaves it so.
        if self.phase == Phase::Open && self.connection.is_open() && !self.resubscribes {
            return;
        }
        self.react_to_change(now);
    }

    fn react_to_change(&mut self, now: Instant) {
        if !self.phase.has_link() && self.phase != Phase::Dialling {
            return;
        }
        match self.connection.end_state() {
            Some(End::Failed(failure)) => {
                let failure = failure.clone();
                self.attempt_failed(now, failure);
            }
            Some(End::Closed(cause)) => {
                let cause = cause.clone();
                self.lost(now, cause);
            }
            None if self.phase.is_up() => self.continue_restore(now),
            None if self.connection.is_open() => {
                self.timers.set(TimeoutReason::Connect, None);
                self.timers.set(TimeoutReason::Address, None);
                self.await_expiry();
                match self.opened {
                    true => self.restore(now),
                    false if self.config.runs_hook => self.run_hook(now),
                    false => self.now_open(),
                }
            }
            None => self.authenticate(),
        }
    }

    fn end(&mut self, cause: CloseCause) {
        if self.phase == Phase::Ended {
            return;
        }
        self.step(PhaseInput::End);
        self.timers = Timers::default();
        self.undecided = None;
        self.connection.abort(cause.clone());
        if self.connection.recovers {
            self.connection.close_records(&cause);
        }
        let at_once =
            matches!(cause, CloseCause::Aborted | CloseCause::DriverGone | CloseCause::Panicked);
        self.actions.clear();
        self.actions.push_back(Action::Finish { attempt: self.attempt, at_once });
        self.events.push_back(Event::Closed(cause.clone()));
        self.cause = Some(cause);
    }
}
