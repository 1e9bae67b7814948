//! The verbs of a channel, as a view that borrows the connection.
//!
//! A verb refuses what RabbitMQ would close the channel or the connection for. Everything else is queued and
//! recorded in one step.

mod acking;
mod consuming;
mod publishing;

use std::sync::Arc;
use std::time::Instant;

use amqp_proto::ShortStr;
use amqp_proto::frame;
use amqp_proto::method::channel as wire;

use crate::channel::{ChannelState, Origin, Phase, PhaseInput, Request};
use crate::connection::{Connection, Link};
use crate::error::{ChannelCause, Error, InvalidArgument, InvalidReason, Misuse};
use crate::event::Event;
use crate::ids::{Call, CallKey, ChannelId};
use crate::limits::CALLS_MAX;
use crate::request::{Change, NoWait, Pending, Reply, Rpc, TxRollback};

pub use publishing::PublishRefused;

/// A channel of a connection, borrowed for one or more operations.
///
/// A verb that returns an error has queued nothing. After a verb that queues frames, call `poll_transmit` and
/// `poll_event`.
#[derive(Debug)]
pub struct Channel<'c> {
    connection: &'c mut Connection,
    id: ChannelId,
}

impl<'c> Channel<'c> {
    pub(crate) const fn new(connection: &'c mut Connection, id: ChannelId) -> Self {
        Self { connection, id }
    }

    /// Queues a call. [`Event::CallDone`] reports its reply, and `take_reply` returns it.
    ///
    /// Calls are also accepted while the channel is opening (pipelining). They are answered after
    /// `channel.open`, and fail if it fails.
    ///
    /// # Errors
    /// [`Error`]: nothing was queued.
    pub fn call<R: Rpc>(&mut self, now: Instant, request: &R) -> Result<Call<R::Reply>, Error> {
        self.check_not_closing()?;
        self.check_calls()?;
        let pending = request.pending();
        let encode = |number, out: &mut Vec<u8>| request.encode(number, false, out);
        let Some(state) = self.state() else { return Err(self.closed()) };
        let origin = state.origin;
        if pending == Pending::TxCommit && state.is_poisoned() {
            return Err(self.interrupt_transaction(now));
        }
        state.end_transaction(pending);
        let call = if state.is_recovering() {
            state.begin_later(pending)?;
            self.wait_with_frame(now, pending, encode)?
        } else {
            state.begin(pending)?;
            self.send_call(now, pending, encode)?
        };
        let republish_bytes = self.connection.config.recovery.republish_bytes;
        if pending == Pending::ConfirmSelect
            && republish_bytes > 0
            && self.connection.recovers
            && let Some(state) = self.state().filter(|_| origin == Origin::User)
        {
            state.open_outbox(republish_bytes);
        }
        if self.connection.recovers && origin == Origin::User {
            self.connection.calls.keep_change(call, request.change());
        }
        Ok(Call::new(call))
    }

    /// Rolls back what is left of a transaction of which a part was lost. Returns the error of its commit.
    fn interrupt_transaction(&mut self, now: Instant) -> Error {
        // If it cannot be queued, the channel has closed, and the transaction has ended with it.
        if let Ok(call) = self.call(now, &TxRollback {}) {
            self.connection.forget(now, call.key());
        }
        let cause = self.connection.lost_cause();
        Error::Interrupted { cause, maybe_executed: false }
    }

    /// Queues a call that requests no reply (`no-wait`). If the broker refuses it, it closes the channel.
    ///
    /// # Errors
    /// [`PublishRefused`]: nothing was queued.
    pub fn call_no_wait<R: NoWait>(&mut self, request: &R) -> Result<(), PublishRefused> {
        if self.state().is_some_and(|state| state.is_recovering()) {
            return Err(PublishRefused::Full);
        }
        self.check_open()?;
        let Connection { channels, link, scratch, recovers, topology, .. } = &mut *self.connection;
        let Link { outbound, tuning, .. } = link;
        let Some(state) = channels.find_mut(self.id.0) else { return Err(self.closed().into()) };
        scratch.clear();
        request.encode(state.wire.number, true, scratch).map_err(Error::from)?;
        if scratch.len() > tuning.frame_max as usize {
            return Err(too_large("arguments", scratch.len(), tuning.frame_max).into());
        }
        if !outbound.admit(state.wire.number, scratch.len()) {
            return Err(PublishRefused::Full);
        }
        outbound.frames(state.wire.number, |out| out.extend_from_slice(scratch));
        // No reply confirms it. If the broker refuses it now, it does so again.
        if *recovers && state.origin == Origin::User {
            let Some(change) = request.change() else { return Ok(()) };
            if let Change::QueueDeclare(declare) = &*change {
                state.last_queue = Some(declare.queue.as_str().into());
            }
            topology.apply(*change, None, state.last_queue.as_deref());
        }
        Ok(())
    }

    /// Why the channel is closed or closing.
    pub fn cause(&mut self) -> Option<ChannelCause> {
        match self.state() {
            Some(state) => state.cause().cloned(),
            None => self.connection.cause().cloned().map(ChannelCause::Connection),
        }
    }

    /// Why the channel is closed, once both sides have closed it or the connection has ended.
    pub fn closed_cause(&mut self) -> Option<ChannelCause> {
        match self.state() {
            Some(state) if state.wire.phase != Phase::Closed => None,
            Some(_) => self.cause(),
            None => Some(self.cause().unwrap_or(ChannelCause::ByClient)),
        }
    }

    /// Whether the channel is open, and neither it nor its connection is closing.
    pub fn is_open(&mut self) -> bool {
        self.state().is_some_and(|state| state.is_open())
    }

    /// Returns the channel's number on the connection. Another channel may get it once this one has closed.
    /// `None` if the channel was released, or has no transport at the moment.
    pub fn number(&mut self) -> Option<u16> {
        self.state().map(|state| state.wire.number).filter(|number| *number > 0)
    }

    /// Closes the channel after everything that it has queued is sent.
    pub fn close(&mut self, now: Instant) -> Call<()> {
        let pending = Pending::ChannelClose;
        let Some(state) = self.state() else {
            return Call::new(self.connection.calls.insert_done(pending, now, Reply::Done));
        };
        match state.wire.phase {
            Phase::Opening | Phase::Open => state.step(PhaseInput::Close),
            // A second close waits for the first.
            Phase::Closing => {
                let deadline = now + self.connection.config.call_timeout;
                let pending = Pending::AlsoClose(self.id);
                let call = self.connection.calls.insert(pending, deadline);
                if let Some(state) = self.state() {
                    state.also_closing.get_or_insert_default().insert(call);
                }
                return Call::new(call);
            }
            Phase::Closed => {
                let call = self.connection.calls.insert_done(pending, now, Reply::Done);
                self.connection.events.push_back(Event::CallDone(call));
                return Call::new(call);
            }
            // The broker does not know it.
            Phase::Detached => {
                let (input, cause) = (PhaseInput::CloseOk, ChannelCause::ByClient);
                self.connection.close_channel(self.id, input, cause, 0);
                let call = self.connection.calls.insert_done(pending, now, Reply::Done);
                self.connection.events.push_back(Event::CallDone(call));
                return Call::new(call);
            }
        }
        state.close_gate(ChannelCause::ByClient);
        if state.origin != Origin::Session {
            self.connection.events.push_back(Event::ChannelClosing(self.id));
        }
        let sent = self.send_call(now, pending, |number, out| {
            let close = wire::Close {
                reply_code: 200,
                reply_text: ShortStr::new("closed by the client").unwrap_or_default(),
                ..Default::default()
            };
            frame::write_method(out, number, &close);
            Ok(())
        });
        // The frame is small and has no argument from the application, so it cannot be refused.
        let call =
            sent.unwrap_or_else(|_| self.connection.calls.insert_done(pending, now, Reply::Done));
        Call::new(call)
    }

    /// Closes a channel whose handle is dropped, and frees its record when it has closed.
    pub fn release(&mut self, now: Instant) {
        let Some(state) = self.state() else { return };
        state.released = true;
        match state.wire.phase {
            Phase::Opening | Phase::Open => {
                let call = self.close(now);
                self.connection.forget(now, call.key());
            }
            // The broker does not know it.
            Phase::Detached => {
                let (input, cause) = (PhaseInput::CloseOk, ChannelCause::ByClient);
                self.connection.close_channel(self.id, input, cause, 0);
            }
            Phase::Closing | Phase::Closed => {}
        }
        self.connection.sweep_channel(self.id);
    }

    /// Queues the frame that `encode` appends, and records the call that it begins.
    fn send_call(
        &mut self,
        now: Instant,
        pending: Pending,
        encode: impl FnOnce(u16, &mut Vec<u8>) -> Result<(), InvalidArgument>,
    ) -> Result<CallKey, Error> {
        self.send_calls(now, &[], pending, &[], encode)
    }

    /// Queues the frames that `encode` appends, which are answered in turn. The caller gets the key of
    /// `call`. The replies to the other calls are consumed.
    fn send_calls(
        &mut self,
        now: Instant,
        before: &[Pending],
        call: Pending,
        behind: &[Pending],
        encode: impl FnOnce(u16, &mut Vec<u8>) -> Result<(), InvalidArgument>,
    ) -> Result<CallKey, Error> {
        let Connection { channels, calls, consumers, link, config, scratch, recovers, .. } =
            &mut *self.connection;
        let Link { outbound, tuning, .. } = link;
        let Some(state) = channels.find_mut(self.id.0) else { return Err(self.closed()) };
        scratch.clear();
        let number = state.wire.number;
        encode(number, scratch)?;
        if scratch.len() > tuning.frame_max as usize {
            return Err(too_large("arguments", scratch.len(), tuning.frame_max));
        }
        let offset = outbound.offset(number, 0);
        outbound.frames(number, |out| out.extend_from_slice(scratch));
        if call == Pending::TxCommit {
            outbound.hold(number);
        }
        let deadline = now + config.call_timeout;
        let mut insert = |pending: &Pending| {
            let key = calls.insert(*pending, deadline);
            match pending.consumer().and_then(|consumer| consumers.find(consumer)) {
                Some(consumer) => state.wire.calls.push_tagged(Arc::clone(&consumer.tag), key),
                None => state.wire.calls.push(key),
            }
            key
        };
        let before: Vec<_> = before.iter().map(&mut insert).collect();
        let call = insert(&call);
        let behind: Vec<_> = behind.iter().map(&mut insert).collect();
        for key in before.into_iter().chain(behind) {
            calls.forget(key);
        }
        if *recovers && offset != u64::MAX {
            calls.keep_frame(call, offset, scratch);
        }
        Ok(call)
    }

    /// Keeps the frame that `encode` appends until the channel is restored, and records the call that it begins.
    fn wait_with_frame(
        &mut self,
        now: Instant,
        pending: Pending,
        encode: impl FnOnce(u16, &mut Vec<u8>) -> Result<(), InvalidArgument>,
    ) -> Result<CallKey, Error> {
        self.connection.scratch.clear();
        encode(0, &mut self.connection.scratch)?;
        let frame = self.connection.scratch.as_slice().into();
        self.wait(now, pending, Request::Frame(frame))
    }

    /// Records a call that is sent when the channel is restored.
    fn wait(&mut self, now: Instant, pending: Pending, request: Request) -> Result<CallKey, Error> {
        let Connection { channels, calls, config, .. } = &mut *self.connection;
        let Some(state) = channels.find_mut(self.id.0) else { return Err(self.closed()) };
        let call = calls.insert(pending, now + config.call_timeout);
        state.waiting.get_or_insert_default().push(call, request);
        Ok(call)
    }

    #[inline]
    fn state(&mut self) -> Option<&mut ChannelState> {
        self.connection.channels.find_mut(self.id.0)
    }

    fn check_open(&mut self) -> Result<(), Error> {
        if self.is_open() { Ok(()) } else { Err(self.closed()) }
    }

    /// Returns an error unless calls are accepted: the channel must be opening or open, or wait to be restored.
    fn check_not_closing(&mut self) -> Result<(), Error> {
        let accepts = |state: &ChannelState| {
            state.cause().is_none() && !matches!(state.wire.phase, Phase::Closing | Phase::Closed)
        };
        if self.state().is_some_and(|state| accepts(state)) { Ok(()) } else { Err(self.closed()) }
    }

    /// Returns an error if the channel awaits too many replies. Calls whose deadline has passed count until
    /// the broker replies, because their frames may still be in the buffer.
    fn check_calls(&mut self) -> Result<(), Error> {
        let awaited = |channel: &mut Self| channel.state().map_or(0, |state| state.calls_open());
        if awaited(self) >= CALLS_MAX {
            self.connection.drop_forgotten(self.id);
        }
        if awaited(self) < CALLS_MAX { Ok(()) } else { Err(Misuse::TooManyCalls.into()) }
    }

    /// The error of a channel that is not open.
    fn closed(&mut self) -> Error {
        let opening =
            |state: &ChannelState| state.wire.phase == Phase::Opening && !state.is_recovering();
        match self.state().map(|state| (state.cause().cloned(), opening(state))) {
            Some((Some(cause), _)) => cause.into_error(),
            Some((None, true)) => Misuse::ChannelNotOpen.into(),
            Some((None, false)) if self.connection.last_loss.is_some() => {
                self.connection.lost_error()
            }
            _ => self.connection.cause().cloned().map_or_else(gone, Error::Connection),
        }
    }
}

/// The error if the channel was released or never opened, so that no handle refers to it.
fn gone() -> Error {
    Error::Channel(ChannelCause::ByClient)
}

fn too_large(argument: &'static str, size: usize, frame_max: u32) -> Error {
    InvalidArgument::new(argument, InvalidReason::FrameTooLarge { size, frame_max }).into()
}
