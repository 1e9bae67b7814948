//! A connection over one transport: handshake, open, closed. It never reconnects.
//!
//! [`input`] cuts the input into frames, and passes methods to [`replies`] and messages to the channels.
//! Commands on channels are methods of [`Channel`], a view ([`verbs`]). Output, events and deadlines are
//! polled.
//!
//! Everything that ends with the transport is in one value, the [`link`]. The rest of the connection consists
//! of the records of channels, consumers and calls.
//!
//! A connection that has closed keeps its cause. It still returns results of calls, outcomes of publishes,
//! and unread deliveries of consumers without acknowledgement.
//!
//! By itself, a connection never reconnects. A session that recovers it *detaches* its records from a link that
//! was lost ([`loss`]), replaces the link, and *attaches* them ([`attach`]). Until it opens the gates, what the
//! application calls waits.

mod attach;
mod clock;
mod ending;
mod graceful_drain;
mod handshake;
mod heartbeat;
mod held;
mod input;
mod link;
mod login;
mod loss;
mod output;
mod partial_input;
mod read_pause;
mod replies;
mod stats;
mod update_secret;
mod verbs;
mod whole_delivery;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use amqp_proto::FieldTable;
use amqp_proto::frame;
use amqp_proto::method::channel as wire;
use zeroize::Zeroizing;

use crate::channel::{Calls, ChannelState, Consumers, Origin, Phase, PhaseInput, Staging};
use crate::config::{Challenge, Config, Credentials};
use crate::error::{
    ChannelCause, CloseCause, ConnectFailure, ConnectStep, Error, InvalidArgument, Misuse,
    ProtocolDetail, ProtocolError, TransportError,
};
use crate::event::{Event, TimeoutReason};
use crate::ids::{Call, CallKey, ChannelId, ConsumerKey};
use crate::request::{FromReply, Pending, Reply};
use crate::slab::Slab;
use crate::topology::Topology;

pub use handshake::Tuning;
pub(crate) use held::{Held, Until};
pub use link::End;
pub(crate) use link::Link;
use link::{Input, State};
pub(crate) use stats::Counters;
pub use stats::Stats;
pub use verbs::{Channel, PublishRefused};

pub(crate) use handshake::{diagram as handshake_diagram, validate};
pub(crate) use link::diagram as link_diagram;

/// One connection over one transport.
///
/// Methods are of four kinds: getters; `handle_*` for inputs; plain verbs for commands; `poll_*` for
/// outputs. After any input or command, call [`poll_transmit`](Self::poll_transmit), which may free buffer
/// space and emit an event for it. Then call [`poll_event`](Self::poll_event) until it returns `None`, then
/// [`poll_timeout`](Self::poll_timeout). A connection reads no clock: every verb that sets a timer takes
/// `now`.
#[derive(Debug)]
pub struct Connection {
    pub(crate) config: Arc<Config>,
    /// Credentials that replace those of the configuration.
    provided: Option<Credentials>,
    /// Whether it emits [`Event::Opened`] itself.
    pub(crate) announces: bool,
    /// Whether the session decides what becomes of the channels when the transport is lost.
    pub(crate) recovers: bool,
    /// Whether the gates are closed: the transport was lost, and not everything is restored.
    pub(crate) recovering: bool,
    /// Why the last transport was lost, if the channels have outlived it.
    last_loss: Option<CloseCause>,
    /// The channels by the numbers that they had on the lost transport, until another one is dialled.
    detached: BTreeMap<u16, ChannelId>,
    /// What is declared again on the next transport. Empty unless the session recovers.
    pub(crate) topology: Topology,
    /// The consumers whose queue is gone and that are to start again when it is back.
    absent: Vec<ConsumerKey>,
    /// Restores that the broker has put off.
    pub(crate) held: Held,
    pub(crate) link: Link,
    pub(crate) channels: Slab<ChannelState>,
    pub(crate) consumers: Consumers,
    pub(crate) calls: Calls,
    pub(crate) events: VecDeque<Event>,
    staging: Staging,
    /// A buffer for encoding frames that may still be refused.
    pub(crate) scratch: Vec<u8>,
    /// The number of open publishes of all channels.
    pub(crate) unconfirmed: u64,
    /// The number of channels whose reader has found no returned message.
    returns_awaited: usize,
    /// The calls of `drain` that wait until nothing is outstanding.
    draining: BTreeSet<CallKey>,
    /// The index of the channel where a drain last found unacknowledged deliveries.
    drain_at: usize,
    pub(crate) counters: Counters,
}

impl Connection {
    /// Creates a connection without a transport.
    ///
    /// # Errors
    /// [`InvalidArgument`] if a value of the configuration cannot be sent.
    pub fn new(config: Arc<Config>, now: Instant) -> Result<Self, InvalidArgument> {
        validate(&config)?;
        Ok(Self::unchecked(config, now))
    }

    /// Creates a connection from a configuration that was validated.
    pub(crate) fn unchecked(config: Arc<Config>, now: Instant) -> Self {
        Self {
            link: Link::new(&config, now),
            channels: Slab::new(),
            consumers: Consumers::new(),
            calls: Calls::new(),
            events: VecDeque::new(),
            staging: Staging::default(),
            scratch: Vec::new(),
            unconfirmed: 0,
            returns_awaited: 0,
            draining: BTreeSet::new(),
            drain_at: 0,
            counters: Counters::default(),
            provided: None,
            announces: true,
            recovers: false,
            recovering: false,
            last_loss: None,
            detached: BTreeMap::new(),
            topology: Topology::default(),
            absent: Vec::new(),
            held: Held::default(),
            config,
        }
    }

    /// Replaces the credentials for the next login. Returns those that were replaced before, which may have code of
    /// the application in their `Drop`: drop them outside of any lock.
    ///
    /// # Errors
    /// [`InvalidArgument`] if they cannot be sent, and the credentials, to be dropped in the same way.
    pub fn provide(
        &mut self,
        credentials: Credentials,
    ) -> Result<Option<Credentials>, (InvalidArgument, Credentials)> {
        match login::check(&self.config, &credentials) {
            Ok(()) => Ok(self.provided.replace(credentials)),
            Err(error) => Err((error, credentials)),
        }
    }

    /// Takes the challenge that waits for a response of a mechanism of the application, if there is one: see
    /// [`handle_response`](Self::handle_response).
    pub fn take_challenge(&mut self) -> Option<Challenge> {
        self.link.handshake()?.0.take_challenge()
    }

    /// Sends the response of a mechanism of the application to [its challenge](Self::take_challenge). An error fails
    /// the handshake.
    pub fn handle_response(&mut self, response: Result<Vec<u8>, String>) {
        let response = response.map(Zeroizing::new);
        let Some((handshake, outbound)) = self.link.handshake() else { return };
        if let Err(failure) = handshake.respond(&self.config, response, outbound) {
            self.fail_to_open(failure);
        }
    }

    /// The error of what belonged to an earlier transport.
    pub(crate) fn lost_error(&self) -> Error {
        Error::ConnectionLost(self.lost_cause())
    }

    /// Why the last transport was lost.
    pub(crate) fn lost_cause(&self) -> CloseCause {
        self.last_loss.clone().unwrap_or(CloseCause::ByClient)
    }

    /// Replaces the link after a transport on which the connection was never open.
    pub(crate) fn relink(&mut self, now: Instant) {
        let before = std::mem::replace(&mut self.link, Link::new(&self.config, now));
        match self.recovering {
            true => self.counters.end_of_link(&before),
            false => self.counters = Counters::default(),
        }
        self.link.take_over_discarded(before);
    }

    /// Records that the transport is connected. The handshake begins.
    pub fn handle_connected(&mut self, now: Instant) {
        if matches!(self.link.state(), State::Idle) {
            self.link.connected(now, &self.config);
        }
    }

    /// Records that the transport is lost, after `written` bytes of the stream had reached the socket. Pass
    /// in the input that arrived before the loss first.
    pub fn handle_disconnected(&mut self, error: TransportError, written: u64) {
        let cause = match self.link.state() {
            State::Ended(_) => return,
            State::Idle => return self.fail_to_open(ConnectFailure::Dial(error)),
            State::Handshake(handshake) => {
                let failure = handshake.lost(error);
                return self.fail_to_open(failure);
            }
            State::Open => CloseCause::Transport(error),
            State::Closing | State::CloseSent => CloseCause::ByClientForced,
        };
        self.end_with_written(cause, written);
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// [`Error::Connection`] unless the connection is open. [`Misuse::NoFreeChannels`] if all channel numbers
    /// are in use.
    pub fn open_channel(&mut self, now: Instant) -> Result<(ChannelId, Call<()>), Error> {
        if self.recovering {
            return self.open_when_restored(now);
        }
        self.open_on_link(now, Origin::User)
    }

    /// Opens a channel that ends with the present transport. It is not restored on the next one, and may be used
    /// while the others are being restored.
    ///
    /// # Errors
    /// Those of [`open_channel`](Self::open_channel).
    pub fn open_setup_channel(&mut self, now: Instant) -> Result<(ChannelId, Call<()>), Error> {
        self.open_on_link(now, Origin::Setup)
    }

    fn open_on_link(
        &mut self,
        now: Instant,
        origin: Origin,
    ) -> Result<(ChannelId, Call<()>), Error> {
        self.link.check_open()?;
        let channels = &mut self.channels;
        let open = |number| ChannelId(channels.insert(ChannelState::new(number, origin)));
        let Some(id) = self.link.numbers.allocate(open) else {
            let channel_max = self.link.numbers.max();
            let by_broker = channel_max < self.config.channel_max;
            return Err(Misuse::NoFreeChannels { channel_max, by_broker }.into());
        };
        let call = self.calls.insert(Pending::ChannelOpen(id), now + self.config.call_timeout);
        if let Some(state) = self.channels.find_mut(id.0) {
            state.wire.calls.push(call);
            let number = state.wire.number;
            let open = wire::Open::default();
            self.link.outbound.frames(number, |out| frame::write_method(out, number, &open));
        }
        Ok((id, Call::new(call)))
    }

    /// Returns a view of a channel, for its verbs.
    #[inline]
    pub const fn channel(&mut self, id: ChannelId) -> Channel<'_> {
        Channel::new(self, id)
    }

    /// Takes the result of a call, if it has arrived.
    pub fn take_reply<R: FromReply>(&mut self, call: &Call<R>) -> Option<Result<R, Error>> {
        match self.calls.take(call.key)? {
            Ok(reply) => Some(R::from_reply(reply).ok_or_else(|| {
                let detail = ProtocolDetail::UnexpectedFrame;
                Error::Connection(CloseCause::Protocol(ProtocolError::new(detail)))
            })),
            Err(error) => Some(Err(error)),
        }
    }

    /// Forgets a call whose caller is gone. Its reply is still consumed, and what that opens is closed again.
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
                if let Some(state) = self.channels.find_mut(channel.0)
                    && let Some(closing) = &mut state.also_closing
                {
                    closing.remove(&call);
                }
                answered = false;
            }
            _ => {}
        }
        let pending = self.calls.pending(call).map(|(pending, _)| pending);
        if let Some((pending, Ok(reply))) = self.calls.forget(call) {
            self.compensate(now, pending, &reply);
        }
        if let Some(Pending::ChannelOpen(channel)) = pending {
            self.drop_unopened(channel);
        }
        if !answered {
            // No frame will arrive that would free its entry.
            self.calls.complete(call, Ok(Reply::Done));
        }
    }

    /// Closes the record of a channel that was to be opened on the next transport, because its caller is gone.
    fn drop_unopened(&mut self, id: ChannelId) {
        let Some(state) = self.channels.find_mut(id.0) else { return };
        let unopened = state.waiting.as_ref().is_some_and(|waiting| waiting.open.is_some());
        if state.wire.phase == Phase::Detached && unopened {
            state.released = true;
            self.close_channel(id, PhaseInput::CloseOk, ChannelCause::ByClient, 0);
        }
    }

    /// Closes the connection after everything that is queued is sent. A second close has no effect.
    pub fn close(&mut self, now: Instant) {
        match self.link.state() {
            State::Open => {
                self.link.enter(Input::Close, State::Closing);
                let deadline = now + self.config.close_timeout;
                self.link.timers.set(TimeoutReason::Close, Some(deadline));
                for key in self.channels.keys() {
                    if let Some(state) = self.channels.find_mut(key)
                        && state.wire.phase != Phase::Closed
                    {
                        state.close_gate(ChannelCause::Connection(CloseCause::ByClient));
                        if state.origin != Origin::Session {
                            self.events.push_back(Event::ChannelClosing(ChannelId(key)));
                        }
                    }
                }
            }
            State::Idle | State::Handshake(_) => self.end(CloseCause::ByClient),
            State::Closing | State::CloseSent | State::Ended(_) => {}
        }
    }

    /// Ends the connection immediately, for a reason outside of it.
    pub fn abort(&mut self, cause: CloseCause) {
        self.end(cause);
    }

    /// Returns what has changed. Call it until it returns `None`.
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

    /// The minimum number of bytes that the incomplete frame at the front of the input lacks. The frame's
    /// size was checked against the limits. A buffer with this much space after the input does not have to be
    /// moved.
    pub const fn lacking(&self) -> usize {
        self.link.input.lacking
    }

    /// How the connection ended, if it has. Its queued output is still to be written.
    #[inline]
    pub const fn end_state(&self) -> Option<&End> {
        self.link.end_state()
    }

    /// Why the last transport was lost that the channels have outlived.
    pub(crate) const fn last_loss(&self) -> Option<&CloseCause> {
        self.last_loss.as_ref()
    }

    /// Whether the handshake is done and no close has begun.
    pub const fn is_open(&self) -> bool {
        self.link.is_open()
    }

    /// The handshake step in progress.
    pub(crate) const fn handshake_step(&self) -> ConnectStep {
        self.link.handshake_step()
    }

    /// The negotiated limits. They have no meaning before the connection is open.
    pub const fn tuning(&self) -> Tuning {
        self.link.tuning
    }

    /// The broker's properties: product, version, capabilities.
    pub const fn server_properties(&self) -> &FieldTable {
        &self.link.server_properties
    }

    /// The broker's reason for blocking publishes, while it does.
    pub fn blocked(&self) -> Option<&Arc<str>> {
        self.link.blocked.as_ref()
    }
}
