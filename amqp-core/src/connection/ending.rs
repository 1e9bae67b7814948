//! How connections, channels and consumers end, and which calls and events report it.

use amqp_proto::ShortStr;
use amqp_proto::frame;
use amqp_proto::method::connection as wire_connection;

use crate::channel::{ChannelState, ConsumerInput, ConsumerPhase, Phase, PhaseInput, ReplyQueue};
use crate::connection::Connection;
use crate::connection::link::{End, Input, State};
use crate::error::{
    ChannelCause, CloseCause, ConnectFailure, Error, ProtocolDetail, ProtocolError,
};
use crate::event::Event;
use crate::ids::{ChannelId, ConsumerKey, PublishSeq};
use crate::request::{Pending, Reply};

impl Connection {
    /// Why the connection ended, if it was open and has.
    pub(crate) const fn cause(&self) -> Option<&CloseCause> {
        self.link.cause()
    }

    /// Ends a connection that was never open.
    pub(super) fn fail_to_open(&mut self, failure: ConnectFailure) {
        if self.end_state().is_none() {
            self.link.enter(Input::End, State::Ended(End::Failed(failure)));
        }
    }

    /// Ends the connection because the peer broke the protocol, with a `connection.close` that says so.
    pub(super) fn protocol_error(&mut self, detail: ProtocolDetail) {
        let error = ProtocolError::new(detail);
        match self.link.state() {
            State::Ended(_) => return,
            State::Idle | State::Handshake(_) => {
                return self.fail_to_open(ConnectFailure::Protocol(error));
            }
            State::Open | State::Closing | State::CloseSent => {}
        }
        let text = error.detail.to_string();
        self.end(CloseCause::Protocol(error.clone()));
        let close = wire_connection::Close {
            reply_code: error.code.code(),
            reply_text: ShortStr::new(&text).unwrap_or_default(),
            ..Default::default()
        };
        self.link.outbound.urgent_frame(|out| frame::write_method(out, 0, &close));
    }

    /// The broker has blocked publishes for longer than it may.
    pub(super) fn blocked_for_too_long(&mut self) {
        let timeout = self.config.blocked_timeout.unwrap_or_default();
        let reason = self.link.blocked.clone().unwrap_or_default();
        self.end(CloseCause::BlockedTimeout { reason, timeout });
    }

    /// Ends the connection where the driver's progress is not known: everything handed to it counts
    /// as written.
    pub(super) fn end(&mut self, cause: CloseCause) {
        let handed_over = self.link.outbound.handed_over();
        self.end_with_written(cause, handed_over);
    }

    pub(super) fn end_with_written(&mut self, cause: CloseCause, written: u64) {
        let cause = match (self.link.state(), cause) {
            (State::Ended(_), _) => return,
            // However it ended, it was to be closed.
            (
                State::Closing | State::CloseSent,
                CloseCause::BlockedTimeout { .. }
                | CloseCause::HeartbeatTimeout { .. }
                | CloseCause::Protocol(_)
                | CloseCause::Transport(_)
                | CloseCause::WriteTimeout { .. },
            ) => CloseCause::ByClientForced,
            (_, cause) => cause,
        };
        self.link.end(cause.clone());
        for key in self.channels.keys() {
            let cause = ChannelCause::Connection(cause.clone());
            self.close_channel(ChannelId(key), PhaseInput::ConnectionLost, cause, written);
        }
        let draining = std::mem::take(&mut self.draining);
        let waiting = self.link.secret_calls.drain(..).chain(draining);
        for call in waiting.collect::<Vec<_>>() {
            if self.calls.complete(call, Err(Error::Connection(cause.clone()))) {
                self.events.push_back(Event::CallDone(call));
            }
        }
        self.arm();
    }

    /// The channel has closed on both sides, or its connection has.
    pub(super) fn close_channel(
        &mut self,
        id: ChannelId,
        input: PhaseInput,
        cause: ChannelCause,
        written: u64,
    ) {
        let Some(state) = self.channels.find_mut(id.0) else { return };
        if state.phase == Phase::Closed {
            return;
        }
        state.step(input);
        // What closed it first stays the reason that is reported.
        let cause = match &state.cause {
            Some(ChannelCause::Connection(CloseCause::ByClient)) | None => cause,
            Some(first) => first.clone(),
        };
        state.cause = Some(cause.clone());
        state.content.clear(&mut self.staging);
        self.returns_awaited -= state.stop_awaiting_returned();
        state.clear_unacked();
        self.link.numbers.free(state.number);
        let calls = std::mem::take(&mut state.calls);
        let also_closing = std::mem::take(&mut state.also_closing);
        self.fail_calls(calls, &cause);
        for call in also_closing {
            if self.calls.complete(call, Ok(Reply::Done)) {
                self.events.push_back(Event::CallDone(call));
            }
        }
        let Some(state) = self.channels.find_mut(id.0) else { return };
        if let Some(confirms) = state.mode.confirms_mut() {
            self.unconfirmed = self.unconfirmed.saturating_sub(confirms.span());
            if let Some((first, last)) = confirms.end(cause.clone(), written) {
                let (first, last) = (PublishSeq(first), PublishSeq(last));
                self.events.push_back(Event::Resolved { channel: id, first, last });
            }
        }
        state.consumers.clear();
        for key in self.consumers.of_channel(id) {
            let error = cause.clone().into_error();
            let by_client = matches!(cause, ChannelCause::ByClient)
                || matches!(cause, ChannelCause::Connection(CloseCause::ByClient));
            self.end_consumer(key, ConsumerInput::ChannelClosed, (!by_client).then_some(error));
        }
        self.events.push_back(Event::ChannelClosed(id));
        self.sweep_channel(id);
    }

    /// The channel has closed while these calls were on their way. A close or a cancel among them has
    /// got what it wanted.
    pub(super) fn fail_calls(&mut self, calls: ReplyQueue, cause: &ChannelCause) {
        for call in calls.into_keys() {
            let result = match self.calls.pending(call) {
                Some((Pending::ChannelClose | Pending::Cancel(_), _)) => Ok(Reply::Done),
                Some((Pending::Consume(consumer), _)) => {
                    // No handle will be made for it.
                    if let Some(consumer) = self.consumers.find_mut(consumer) {
                        consumer.released = true;
                    }
                    Err(cause.clone().into_error())
                }
                _ => Err(cause.clone().into_error()),
            };
            if self.calls.complete(call, result) {
                self.events.push_back(Event::CallDone(call));
            }
        }
    }

    /// No more deliveries will come. The broker has requeued unread ones that were to be
    /// acknowledged; those without acknowledgement are still to be read.
    pub(super) fn end_consumer(
        &mut self,
        key: ConsumerKey,
        input: ConsumerInput,
        error: Option<Error>,
    ) {
        let Some(consumer) = self.consumers.find_mut(key) else { return };
        let ended_before = consumer.phase == ConsumerPhase::Ended;
        let channel_open =
            self.channels.find(consumer.channel.0).is_some_and(|state| state.phase == Phase::Open);
        let drop_unread = !consumer.no_ack() && !channel_open;
        let cancels = std::mem::take(&mut consumer.cancels);
        if !ended_before {
            consumer.error = error;
        }
        self.consumers.end(key, input);
        if drop_unread {
            self.consumers.take_unread(key);
        }
        for call in cancels {
            if self.calls.complete(call, Ok(Reply::Done)) {
                self.events.push_back(Event::CallDone(call));
            }
        }
        self.events.push_back(Event::Deliverable(key));
        self.consumers.sweep(key);
    }

    /// Drops a closed channel's record once nobody holds it.
    pub(crate) fn sweep_channel(&mut self, id: ChannelId) {
        let done = |state: &ChannelState| state.released && state.phase == Phase::Closed;
        if self.channels.find(id.0).is_some_and(done) {
            self.channels.remove(id.0);
        }
    }

    /// A consumer whose request was refused.
    pub(crate) fn discard_consumer(&mut self, key: ConsumerKey) {
        if let Some(consumer) = self.consumers.find_mut(key) {
            consumer.step(ConsumerInput::Refused);
            consumer.released = true;
        }
        self.consumers.sweep(key);
    }
}
