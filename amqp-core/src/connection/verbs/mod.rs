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

use crate::channel::{ChannelState, Phase, PhaseInput};
use crate::connection::{Connection, Link};
use crate::error::{ChannelCause, Error, InvalidArgument, InvalidReason, Misuse};
use crate::event::Event;
use crate::ids::{Call, CallKey, ChannelId};
use crate::limits::CALLS_MAX;
use crate::request::{NoWait, Pending, Reply, Rpc};

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
        if let Some(state) = self.state() {
            state.begin(pending)?;
        }
        let encode = |number, out: &mut Vec<u8>| request.encode(number, false, out);
        self.send_call(now, pending, encode).map(Call::new)
    }

    /// Queues a call that requests no reply (`no-wait`). If the broker refuses it, it closes the channel.
    ///
    /// # Errors
    /// [`PublishRefused`]: nothing was queued.
    pub fn call_no_wait<R: NoWait>(&mut self, request: &R) -> Result<(), PublishRefused> {
        self.check_open()?;
        let Connection { channels, link, scratch, .. } = &mut *self.connection;
        let Link { outbound, tuning, .. } = link;
        let Some(state) = channels.find_mut(self.id.0) else { return Err(self.closed().into()) };
        scratch.clear();
        request.encode(state.number, true, scratch).map_err(Error::from)?;
        if scratch.len() > tuning.frame_max as usize {
            return Err(too_large("arguments", scratch.len(), tuning.frame_max).into());
        }
        if !outbound.admit(state.number, scratch.len()) {
            return Err(PublishRefused::Full);
        }
        outbound.frames(state.number, |out| out.extend_from_slice(scratch));
        Ok(())
    }

    /// Why the channel is closed or closing.
    pub fn cause(&mut self) -> Option<ChannelCause> {
        match self.state() {
            Some(state) => state.cause.clone(),
            None => self.connection.cause().cloned().map(ChannelCause::Connection),
        }
    }

    /// Why the channel is closed, once both sides have closed it or the connection has ended.
    pub fn closed_cause(&mut self) -> Option<ChannelCause> {
        match self.state() {
            Some(state) if state.phase != Phase::Closed => None,
            Some(_) => self.cause(),
            None => Some(self.cause().unwrap_or(ChannelCause::ByClient)),
        }
    }

    /// Whether the channel is open, and neither it nor its connection is closing.
    pub fn is_open(&mut self) -> bool {
        self.state().is_some_and(|state| state.is_open())
    }

    /// Returns the channel's number on the connection. Another channel may get it once this one has closed.
    /// `None` if the channel was released.
    pub fn number(&mut self) -> Option<u16> {
        self.state().map(|state| state.number)
    }

    /// Closes the channel after everything that it has queued is sent.
    pub fn close(&mut self, now: Instant) -> Call<()> {
        let pending = Pending::ChannelClose;
        let Some(state) = self.state() else {
            return Call::new(self.connection.calls.insert_done(pending, now, Reply::Done));
        };
        match state.phase {
            Phase::Opening | Phase::Open => state.step(PhaseInput::Close),
            // A second close waits for the first.
            Phase::Closing => {
                let deadline = now + self.connection.config.call_timeout;
                let pending = Pending::AlsoClose(self.id);
                let call = self.connection.calls.insert(pending, deadline);
                if let Some(state) = self.state() {
                    state.also_closing.insert(call);
                }
                return Call::new(call);
            }
            Phase::Closed => {
                let call = self.connection.calls.insert_done(pending, now, Reply::Done);
                self.connection.events.push_back(Event::CallDone(call));
                return Call::new(call);
            }
        }
        state.cause.get_or_insert(ChannelCause::ByClient);
        self.connection.events.push_back(Event::ChannelClosing(self.id));
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
        if matches!(state.phase, Phase::Opening | Phase::Open) {
            let call = self.close(now);
            self.connection.forget(now, call.key());
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
        let Connection { channels, calls, consumers, link, config, scratch, .. } =
            &mut *self.connection;
        let Link { outbound, tuning, .. } = link;
        let Some(state) = channels.find_mut(self.id.0) else { return Err(self.closed()) };
        scratch.clear();
        encode(state.number, scratch)?;
        if scratch.len() > tuning.frame_max as usize {
            return Err(too_large("arguments", scratch.len(), tuning.frame_max));
        }
        outbound.frames(state.number, |out| out.extend_from_slice(scratch));
        let deadline = now + config.call_timeout;
        let mut insert = |pending: &Pending| {
            let key = calls.insert(*pending, deadline);
            match pending.consumer().and_then(|consumer| consumers.find(consumer)) {
                Some(consumer) => state.calls.push_tagged(Arc::clone(&consumer.tag), key),
                None => state.calls.push(key),
            }
            key
        };
        let before: Vec<_> = before.iter().map(&mut insert).collect();
        let call = insert(&call);
        let behind: Vec<_> = behind.iter().map(&mut insert).collect();
        for key in before.into_iter().chain(behind) {
            calls.forget(key);
        }
        Ok(call)
    }

    #[inline]
    fn state(&mut self) -> Option<&mut ChannelState> {
        self.connection.channels.find_mut(self.id.0)
    }

    fn check_open(&mut self) -> Result<(), Error> {
        if self.is_open() { Ok(()) } else { Err(self.closed()) }
    }

    /// Returns an error unless calls are accepted: the channel must be opening or open.
    fn check_not_closing(&mut self) -> Result<(), Error> {
        let opening = |state: &ChannelState| state.phase == Phase::Opening && state.cause.is_none();
        if self.state().is_some_and(|state| state.is_open() || opening(state)) {
            Ok(())
        } else {
            Err(self.closed())
        }
    }

    /// Returns an error if the channel awaits too many replies. Calls whose deadline has passed count until
    /// the broker replies, because their frames may still be in the buffer.
    fn check_calls(&mut self) -> Result<(), Error> {
        let awaited = self.state().map_or(0, |state| state.calls.len());
        if awaited < CALLS_MAX { Ok(()) } else { Err(Misuse::TooManyCalls.into()) }
    }

    /// The error of a channel that is not open.
    fn closed(&mut self) -> Error {
        match self.state().map(|state| (state.cause.clone(), state.phase)) {
            Some((Some(cause), _)) => cause.into_error(),
            Some((None, Phase::Opening)) => Misuse::ChannelNotOpen.into(),
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
