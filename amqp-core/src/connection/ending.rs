//! How connections, channels and consumers end, and which calls and events report it.

use amqp_proto::ShortStr;
use amqp_proto::frame;
use amqp_proto::method::connection as wire_connection;

use crate::channel::{ChannelState, ConsumerInput, ConsumerPhase, Gate, Origin, Phase, PhaseInput};
use crate::connection::Connection;
use crate::connection::link::{End, Input, State};
use crate::error::{
    ChannelCause, CloseCause, ConnectFailure, Error, ProtocolDetail, ProtocolError,
};
use crate::event::Event;
use crate::ids::{CallKey, ChannelId, ConsumerKey, PublishSeq};
use crate::request::{Pending, Reply};

impl Connection {
    /// Why the connection ended, if it was open and has ended.
    pub(crate) const fn cause(&self) -> Option<&CloseCause> {
        self.link.cause()
    }

    /// Ends a connection that was never open.
    pub(super) fn fail_to_open(&mut self, failure: ConnectFailure) {
        if self.end_state().is_none() {
            self.link.enter(Input::End, State::Ended(End::Failed(failure)));
        }
    }

    /// Ends the connection because the peer broke the protocol, and sends a `connection.close` with the
    /// reason.
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

    /// Ends the connection because it is not used, and sends a `connection.close` with the reason.
    pub(crate) fn leave(&mut self, reason: &str) {
        self.end(CloseCause::ByClient);
        let close = wire_connection::Close {
            reply_code: 200,
            reply_text: ShortStr::new(reason).unwrap_or_default(),
            ..Default::default()
        };
        self.link.outbound.urgent_frame(|out| frame::write_method(out, 0, &close));
    }

    /// Ends the connection because the broker has blocked publishes for longer than the blocked timeout.
    pub(super) fn blocked_for_too_long(&mut self) {
        let timeout = self.config.blocked_timeout.unwrap_or_default();
        let reason = self.link.blocked.clone().unwrap_or_default();
        self.end(CloseCause::BlockedTimeout { reason, timeout });
    }

    /// Ends the connection at a moment when the progress of the driver is unknown. Everything that the driver
    /// has taken counts as written.
    pub(super) fn end(&mut self, cause: CloseCause) {
        let handed_over = self.link.outbound.handed_over();
        self.end_with_written(cause, handed_over);
    }

    pub(super) fn end_with_written(&mut self, cause: CloseCause, written: u64) {
        let cause = match (self.link.state(), cause) {
            (State::Ended(_), _) => return,
            // A close by this client was in progress, so the application sees a close by this client,
            // whatever ended it.
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
        let was_blocked = self.link.blocked.is_some();
        if self.recovers {
            self.link.unsent = self.link.outbound.unsent_publishes();
        }
        self.link.end(cause.clone());
        self.link.lost_after = written;
        if self.recovers && was_blocked {
            self.events.push_back(Event::Unblocked);
        }
        if !self.recovers {
            self.close_records(&cause);
        }
        self.arm();
    }

    /// Closes all channels, because their connection has ended for good.
    pub(crate) fn close_records(&mut self, cause: &CloseCause) {
        self.recovering = false;
        let written = self.link.lost_after;
        for key in self.channels.keys() {
            let cause = ChannelCause::Connection(cause.clone());
            self.close_channel(ChannelId(key), PhaseInput::ConnectionLost, cause, written);
        }
        self.fail_connection_calls(&Error::Connection(cause.clone()));
    }

    /// Fails the calls that belong to no channel.
    pub(super) fn fail_connection_calls(&mut self, error: &Error) {
        let draining = std::mem::take(&mut self.draining);
        let secrets = std::mem::take(&mut self.link.secret_calls);
        let calls = secrets.into_iter().map(|(call, _)| call).chain(draining);
        for call in calls {
            if self.calls.complete(call, Err(error.clone())) {
                self.events.push_back(Event::CallDone(call));
            }
        }
    }

    /// Closes the record of a channel that has closed on both sides, or whose connection has ended.
    pub(super) fn close_channel(
        &mut self,
        id: ChannelId,
        input: PhaseInput,
        cause: ChannelCause,
        written: u64,
    ) {
        let Some(state) = self.channels.find_mut(id.0) else { return };
        if state.wire.phase == Phase::Closed {
            return;
        }
        state.step(input);
        // The first reason for closing is the one that is reported.
        let cause = match state.cause() {
            Some(ChannelCause::Connection(CloseCause::ByClient)) | None => cause,
            Some(first) => first.clone(),
        };
        state.gate = Gate::Closed(cause.clone());
        state.wire.content.clear(&mut self.staging);
        self.returns_awaited -= state.stop_awaiting_returned();
        state.clear_unacked();
        let (number, origin) = (state.wire.number, state.origin);
        self.link.numbers.free(number);
        let calls = std::mem::take(&mut state.wire.calls);
        let waiting = state.waiting.take();
        let also_closing = std::mem::take(&mut state.also_closing);
        self.fail_calls(calls.into_keys(), &cause);
        self.fail_calls(waiting.into_iter().flat_map(|waiting| waiting.into_keys()), &cause);
        for call in also_closing.into_iter().flat_map(|calls| *calls) {
            if self.calls.complete(call, Ok(Reply::Done)) {
                self.events.push_back(Event::CallDone(call));
            }
        }
        let Some(state) = self.channels.find_mut(id.0) else { return };
        if let Some(confirms) = state.mode.confirms_mut() {
            self.unconfirmed = self.unconfirmed.saturating_sub(confirms.span());
            let resolved = confirms.end(cause.clone().into_error(), written);
            self.link.outbound.discard(|discarded| confirms.release(discarded));
            if let Some((first, last)) = resolved {
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
        if origin != Origin::Session {
            let cause = Box::new(cause);
            self.events.push_back(Event::ChannelClosed { channel: id, number, cause });
        }
        self.sweep_channel(id);
    }

    /// Fails the calls of a channel that has closed while they were awaiting replies. A close or a cancel
    /// among them succeeds, because its purpose is achieved.
    fn fail_calls(&mut self, calls: impl Iterator<Item = CallKey>, cause: &ChannelCause) {
        for call in calls {
            let result = match self.calls.pending(call) {
                Some((Pending::ChannelClose | Pending::Cancel(_), _)) => Ok(Reply::Done),
                Some((Pending::Consume(consumer), _)) => {
                    // No handle will be created for it.
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

    /// Ends a consumer: no more deliveries will arrive. The broker has requeued the unread deliveries that
    /// needed an ack. Those without acknowledgement can still be read.
    pub(super) fn end_consumer(
        &mut self,
        key: ConsumerKey,
        input: ConsumerInput,
        error: Option<Error>,
    ) {
        let Some(consumer) = self.consumers.find_mut(key) else { return };
        let ended_before = consumer.phase == ConsumerPhase::Ended;
        let channel_open = self
            .channels
            .find(consumer.channel.0)
            .is_some_and(|state| state.wire.phase == Phase::Open);
        let drop_unread = !consumer.no_ack() && !channel_open;
        let cancels = std::mem::take(&mut consumer.cancels);
        if !ended_before {
            consumer.error = error;
        }
        self.consumers.end(key, input);
        if !ended_before && self.recovers {
            match input {
                ConsumerInput::BrokerCancel => self.topology.consumer_cancelled(key),
                ConsumerInput::CancelOk | ConsumerInput::ChannelClosed => {
                    self.topology.consumer_ended(key);
                }
                _ => self.topology.consumer_lost(key),
            }
        }
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

    /// Frees the record of a closed channel whose handle is dropped.
    pub(crate) fn sweep_channel(&mut self, id: ChannelId) {
        let done = |state: &ChannelState| state.released && state.wire.phase == Phase::Closed;
        if self.channels.find(id.0).is_some_and(done) {
            self.channels.remove(id.0);
        }
    }

    /// Discards a consumer whose request could not be sent.
    pub(crate) fn discard_consumer(&mut self, key: ConsumerKey) {
        if let Some(consumer) = self.consumers.find_mut(key) {
            consumer.step(ConsumerInput::Refused);
            consumer.released = true;
        }
        self.consumers.sweep(key);
    }
}
