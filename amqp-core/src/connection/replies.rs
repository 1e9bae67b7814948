//! Methods from the broker other than contents and confirms: replies to calls, closes, cancels.

use std::sync::Arc;
use std::time::Instant;

use amqp_proto::ShortStr;
use amqp_proto::frame;
use amqp_proto::method::{Method, basic, channel as wire, connection as wire_connection};

use crate::channel::{ConsumerInput, ConsumerPhase, Fate, Numbers, Phase, PhaseInput, Target};
use crate::connection::Connection;
use crate::connection::link::State;
use crate::error::{BrokerError, ChannelCause, CloseCause, Error, ProtocolDetail, peer_text};
use crate::event::{Event, TimeoutReason};
use crate::ids::{CallKey, ChannelId, ConsumerKey, DeliveryTag, TagKind};
use crate::request::{Got, Pending, Reply};
use crate::transmit::Outbound;

impl Connection {
    /// A method on channel 0, after the handshake.
    pub(super) fn open_connection_method(
        &mut self,
        now: Instant,
        method: &Method<'_>,
    ) -> Result<(), ProtocolDetail> {
        match method {
            Method::ConnectionClose(close) => {
                let error = BrokerError::new(
                    close.reply_code,
                    close.reply_text,
                    close.class_id,
                    close.method_id,
                );
                // A close of ours that crosses the broker's has what it wanted.
                let cause = match self.link.state() {
                    State::CloseSent => CloseCause::ByClient,
                    _ => CloseCause::ByBroker(error),
                };
                self.end(cause);
                let close_ok = wire_connection::CloseOk::default();
                self.link.outbound.urgent_frame(|out| frame::write_method(out, 0, &close_ok));
            }
            Method::ConnectionCloseOk(_) if matches!(self.link.state(), State::CloseSent) => {
                self.end(CloseCause::ByClient);
            }
            Method::ConnectionBlocked(blocked) => {
                let reason = peer_text(blocked.reason.as_bytes());
                if self.link.blocked.is_none() {
                    let deadline = self.config.blocked_timeout.map(|timeout| now + timeout);
                    self.link.timers.set(TimeoutReason::Blocked, deadline);
                }
                self.link.blocked = Some(Arc::clone(&reason));
                self.events.push_back(Event::Blocked(reason));
            }
            Method::ConnectionUnblocked(_) => {
                self.link.blocked = None;
                self.link.timers.set(TimeoutReason::Blocked, None);
                self.link.write_progress = now;
                self.events.push_back(Event::Unblocked);
            }
            Method::ConnectionUpdateSecretOk(_) if !self.link.secret_calls.is_empty() => {
                if let Some(call) = self.link.secret_calls.pop_front()
                    && self.calls.complete(call, Ok(Reply::Done))
                {
                    self.events.push_back(Event::CallDone(call));
                }
            }
            method => return Err(ProtocolDetail::UnexpectedMethod(method.id())),
        }
        Ok(())
    }

    /// A method on a channel.
    pub(super) fn channel_method(
        &mut self,
        now: Instant,
        id: ChannelId,
        method: Method<'_>,
    ) -> Result<(), ProtocolDetail> {
        let closing = self.channels.find(id.0).is_some_and(|state| state.phase == Phase::Closing);
        match method {
            Method::ChannelClose(close) => {
                self.closed_by_broker(id, &close);
                Ok(())
            }
            // An answer behind our close would be on a channel that is not open.
            Method::ChannelFlow(_) | Method::BasicCancel(_) if closing => Ok(()),
            Method::ChannelFlow(flow) => {
                let Some(state) = self.channels.find_mut(id.0) else { return Ok(()) };
                state.flow_stopped = !flow.active;
                let number = state.number;
                let flow_ok = wire::FlowOk { active: flow.active };
                self.link.outbound.frames(number, |out| frame::write_method(out, number, &flow_ok));
                if flow.active {
                    self.events.push_back(Event::BufferSpace);
                }
                Ok(())
            }
            Method::BasicCancel(cancel) => {
                self.cancelled_by_broker(id, &cancel);
                Ok(())
            }
            reply => self.reply(now, id, &reply),
        }
    }

    /// The broker answers a call of the channel: the oldest, but for consumers.
    ///
    /// RabbitMQ's queues answer `basic.consume` and `basic.cancel` by way of the channel, so that
    /// those answers may come behind the answers to later calls; they name the consumer's tag.
    fn reply(
        &mut self,
        now: Instant,
        id: ChannelId,
        method: &Method<'_>,
    ) -> Result<(), ProtocolDetail> {
        let unexpected = ProtocolDetail::UnexpectedMethod(method.id());
        let Some(state) = self.channels.find_mut(id.0) else { return Err(unexpected) };
        let (number, closes) = (state.number, matches!(method, Method::ChannelCloseOk(_)));
        let stray = |numbers: &mut Numbers| match closes && numbers.take_owed_close_ok(number) {
            true => Ok(()),
            false => Err(unexpected),
        };
        let tag = match method {
            Method::BasicConsumeOk(ok) => Some(ok.consumer_tag.as_bytes()),
            Method::BasicCancelOk(ok) => Some(ok.consumer_tag.as_bytes()),
            _ => None,
        };
        // Calls are pipelined behind the open: no reply overtakes its own.
        if state.phase == Phase::Opening && !matches!(method, Method::ChannelOpenOk(_)) {
            return stray(&mut self.link.numbers);
        }
        let calls = &self.calls;
        let answers = |call| calls.pending(call).is_some_and(|(it, _)| it.reply() == method.id());
        let answered = match tag {
            Some(tag) => state.calls.tagged(tag, answers),
            None => state.calls.front(),
        };
        let Some(call) = answered else {
            // RabbitMQ 3.10 answers a cancel twice if the quorum queue is deleted meanwhile.
            if let Method::BasicCancelOk(ok) = method
                && state.consumers.find(ok.consumer_tag.as_bytes()).is_none()
            {
                return Ok(());
            }
            return stray(&mut self.link.numbers);
        };
        let Some((pending, awaited)) = self.calls.pending(call) else { return Err(unexpected) };
        if closes && matches!(pending, Pending::ChannelOpen(_)) && state.phase == Phase::Closing {
            // RabbitMQ answers the open first. A peer that answers the close has answered both, unless it
            // still owes one for the channel that had the number before.
            if !self.link.numbers.take_owed_close_ok(number) {
                self.closed_by_client(id);
            }
            return Ok(());
        }
        if pending.reply() != method.id() {
            return stray(&mut self.link.numbers);
        }
        let reply = pending.read(method)?;
        match tag {
            Some(tag) => state.calls.remove_tagged(tag, call),
            // It goes with the channel.
            None if pending == Pending::ChannelClose => {}
            None => state.calls.pop_front(),
        }
        match pending {
            Pending::ChannelOpen(_) => {
                self.link.numbers.opened(number);
                state.step(PhaseInput::OpenOk);
            }
            Pending::ConfirmSelect => {
                if let Some(confirms) = state.mode.confirms_mut() {
                    confirms.selected();
                }
            }
            Pending::Recover => self.recovered(id),
            Pending::ChannelClose => {
                self.closed_by_client(id);
                return Ok(());
            }
            Pending::Cancel(consumer) => {
                self.forget_tag(id, consumer);
                self.end_consumer(consumer, ConsumerInput::CancelOk, None);
            }
            _ => {}
        }
        if !awaited {
            self.compensate(now, pending, &reply);
        }
        if self.calls.complete(call, Ok(reply)) {
            self.events.push_back(Event::CallDone(call));
        }
        Ok(())
    }

    /// Whether the broker's next answer on the channel may be a message that was asked for, and if so,
    /// whether that is without acknowledgement.
    pub(super) fn next_get(&self, id: ChannelId) -> Option<bool> {
        match self.next_call(id)? {
            (_, Pending::Get { no_ack }, _) => Some(no_ack),
            _ => None,
        }
    }

    /// The broker has requeued what was unacknowledged on the channel: it comes again, under new tags.
    fn recovered(&mut self, id: ChannelId) {
        let Some(state) = self.channels.find_mut(id.0) else { return };
        state.recovering = state.recovering.saturating_sub(1);
        state.recovered_to = state.delivered;
        for key in self.consumers.of_channel(id) {
            if self.consumers.find(key).is_some_and(|consumer| !consumer.no_ack()) {
                self.consumers.take_unread(key);
            }
        }
    }

    /// The message that the channel's oldest call asked for is complete.
    pub(super) fn got(&mut self, id: ChannelId, mut got: Got) {
        let Some((call, pending, awaited)) = self.next_call(id) else { return };
        if pending == (Pending::Get { no_ack: true }) {
            got.delivery.tag.kind = TagKind::NoAck;
        }
        if let Some(state) = self.channels.find_mut(id.0) {
            state.calls.pop_front();
        }
        let reply = Reply::Got(Some(Box::new(got)));
        if !awaited {
            self.give_back(pending, &reply);
        }
        if self.calls.complete(call, Ok(reply)) {
            self.events.push_back(Event::CallDone(call));
        }
    }

    /// The oldest call of the channel that is answered in order, and whether somebody awaits it.
    fn next_call(&self, id: ChannelId) -> Option<(CallKey, Pending, bool)> {
        let call = self.channels.find(id.0)?.calls.front()?;
        let (pending, awaited) = self.calls.pending(call)?;
        Some((call, pending, awaited))
    }

    /// A message that nobody waits for goes back to its queue.
    fn give_back(&mut self, pending: Pending, reply: &Reply) {
        if let (Pending::Get { no_ack: false }, Reply::Got(Some(got))) = (pending, reply) {
            self.requeue(got.delivery.tag);
        }
    }

    /// Undoes what a reply opened that nobody waits for.
    pub(super) fn compensate(&mut self, now: Instant, pending: Pending, reply: &Reply) {
        match (pending, reply) {
            (Pending::ChannelOpen(channel), _) => self.channel(channel).release(now),
            (Pending::Get { .. }, reply) => self.give_back(pending, reply),
            (Pending::Consume(consumer), _) => {
                if let Some(channel) = self.consumers.find(consumer).map(|found| found.channel) {
                    self.channel(channel).release_consumer(now, consumer, []);
                }
            }
            _ => {}
        }
    }

    /// Our close is answered.
    fn closed_by_client(&mut self, id: ChannelId) {
        let handed_over = self.link.outbound.handed_over();
        self.close_channel(id, PhaseInput::CloseOk, ChannelCause::ByClient, handed_over);
    }

    fn closed_by_broker(&mut self, id: ChannelId, close: &wire::Close<'_>) {
        let Some(state) = self.channels.find_mut(id.0) else { return };
        let number = state.number;
        let error =
            BrokerError::new(close.reply_code, close.reply_text, close.class_id, close.method_id);
        // RabbitMQ repeats a close until it is answered; a second answer would be one too many.
        let opening = |call| matches!(self.calls.pending(call), Some((Pending::ChannelOpen(_), _)));
        if self.link.numbers.is_copy(number, &error) && state.calls.front().is_some_and(opening) {
            return;
        }
        self.link.numbers.closed_by_broker(number, error.clone());
        // What has begun goes on to its end: RabbitMQ ends the connection on a close-ok in the middle
        // of a content. Nothing else of the channel does.
        self.link.outbound.abandon(number);
        if state.phase == Phase::Closing {
            self.link.numbers.owe_close_ok(number);
        }
        let close_ok = wire::CloseOk::default();
        self.link.outbound.frames(number, |out| frame::write_method(out, number, &close_ok));
        state.content.clear(&mut self.staging);
        let cause = ChannelCause::ByBroker(error);
        match state.cause {
            Some(ChannelCause::ByClient) | None => state.cause = Some(cause.clone()),
            Some(_) => {}
        }
        let handed_over = self.link.outbound.handed_over();
        self.close_channel(id, PhaseInput::BrokerClose, cause, handed_over);
    }

    fn cancelled_by_broker(&mut self, id: ChannelId, cancel: &basic::Cancel<'_>) {
        let Some(state) = self.channels.find_mut(id.0) else { return };
        let number = state.number;
        if !cancel.no_wait {
            let cancel_ok = basic::CancelOk { consumer_tag: cancel.consumer_tag };
            self.link.outbound.frames(number, |out| frame::write_method(out, number, &cancel_ok));
        }
        let tag = cancel.consumer_tag.as_bytes();
        let Some(key) = state.consumers.find(tag) else { return };
        let Some(consumer) = self.consumers.find(key) else { return };
        // A cancel of ours that is on its way will be answered all the same.
        if consumer.phase == ConsumerPhase::Cancelling {
            return;
        }
        let (queue, consumer_tag) = (Arc::clone(&consumer.queue), Arc::clone(&consumer.tag));
        state.consumers.remove(tag);
        state.strays.get_or_insert_default().remember(tag, consumer.no_ack(), consumer.prefetch);
        if cancel.no_wait {
            cancel_no_wait(&mut self.link.outbound, number, cancel.consumer_tag);
        }
        let error = Error::ConsumerCancelled { queue, consumer_tag };
        self.end_consumer(key, ConsumerInput::BrokerCancel, Some(error));
    }

    /// A delivery for a consumer that is not there begins; see `channel/strays.rs`.
    #[cold]
    pub(super) fn stray(
        &mut self,
        id: ChannelId,
        deliver: &basic::Deliver<'_>,
    ) -> Result<(), ProtocolDetail> {
        let Some(state) = self.channels.find_mut(id.0) else { return Ok(()) };
        // What comes on a channel that closes or recovers goes back to its queue by that.
        let counts = state.phase == Phase::Open && state.recovering == 0;
        let fate = match counts {
            true => state.strays.get_or_insert_default().delivered(deliver.consumer_tag.as_bytes()),
            false => Fate::Keep,
        };
        let tag = deliver.delivery_tag;
        if fate != Fate::Drop {
            state.delivered(tag)?;
        }
        let target = match fate {
            Fate::Requeue { first } => {
                if first {
                    cancel_no_wait(&mut self.link.outbound, state.number, deliver.consumer_tag);
                }
                Target::Deliver { consumer: None, tag, redelivered: deliver.redelivered }
            }
            Fate::Keep | Fate::Drop => Target::Discard,
        };
        state.content.begin(&mut self.staging, target, deliver.exchange, deliver.routing_key);
        if fate == Fate::Keep {
            let kind = TagKind::Ack;
            self.drop_unacked(DeliveryTag { channel: id, epoch: self.link.epoch, tag, kind });
        }
        Ok(())
    }

    fn forget_tag(&mut self, id: ChannelId, key: ConsumerKey) {
        if let Some(consumer) = self.consumers.find(key)
            && let Some(state) = self.channels.find_mut(id.0)
        {
            state.consumers.remove(consumer.tag.as_bytes());
        }
    }

    /// Its holder has dropped the delivery, which stays unacknowledged until its channel closes.
    pub(crate) fn drop_unacked(&mut self, tag: DeliveryTag) {
        let Some(state) = self.channels.find_mut(tag.channel.0) else { return };
        if tag.kind != TagKind::NoAck && state.unacked().mark_dropped(tag.tag) {
            self.counters.dropped += 1;
            self.events.push_back(Event::Dropped(tag.channel));
        }
    }

    /// Requeues a delivery that no handle holds, if it is unacked. A stream keeps its messages: there it is
    /// acknowledged.
    pub(crate) fn requeue(&mut self, tag: DeliveryTag) {
        let Some(state) = self.channels.find_mut(tag.channel.0) else { return };
        if state.phase != Phase::Open || tag.kind == TagKind::NoAck {
            return;
        }
        if tag.kind == TagKind::MaybeStream {
            return self.drop_unacked(tag);
        }
        let transactional = state.mode.is_tx();
        // A rollback opens it again, for nobody.
        state.unacked().mark_dropped(tag.tag);
        if !state.unacked().ack(tag.tag, transactional) {
            return;
        }
        self.counters.acks_sent += 1;
        let number = state.number;
        let (delivery_tag, multiple) = (tag.tag, false);
        self.link.outbound.frames(number, |out| match tag.kind == TagKind::Stream {
            true => frame::write_method(out, number, &basic::Ack { delivery_tag, multiple }),
            false => {
                let nack = basic::Nack { delivery_tag, multiple, requeue: true };
                frame::write_method(out, number, &nack);
            }
        });
    }
}

/// Ends a consumer at the broker, which is not to answer.
fn cancel_no_wait(outbound: &mut Outbound, number: u16, consumer_tag: ShortStr<'_>) {
    let cancel = basic::Cancel { consumer_tag, no_wait: true };
    outbound.frames(number, |out| frame::write_method(out, number, &cancel));
}
