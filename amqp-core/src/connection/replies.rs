//! Handles all methods from the broker except messages and confirms: replies to calls, closes and cancels.

use std::sync::Arc;
use std::time::Instant;

use amqp_proto::ShortStr;
use amqp_proto::frame;
use amqp_proto::method::{Method, basic, channel as wire, connection as wire_connection};

use crate::channel::{
    ConsumerInput, ConsumerPhase, Fate, Gate, Numbers, Origin, Phase, PhaseInput, Target,
};
use crate::connection::Connection;
use crate::connection::link::State;
use crate::error::{BrokerError, ChannelCause, CloseCause, Error, ProtocolDetail, peer_text};
use crate::event::{CancelledConsumer, Event, TimeoutReason};
use crate::ids::{CallKey, ChannelId, ConsumerKey, DeliveryTag, TagKind};
use crate::request::{Got, Pending, Reply};
use crate::transmit::Outbound;

impl Connection {
    /// Handles a method on channel 0 after the handshake.
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
                // If a close by this client is queued, or crosses the broker's, the application sees a close by
                // this client.
                let cause = match self.link.state() {
                    State::Closing | State::CloseSent => CloseCause::ByClient,
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
                let Some((call, secret)) = self.link.secret_calls.pop_front() else {
                    return Ok(());
                };
                let credentials = self.provided.as_ref().unwrap_or(&self.config.credentials);
                self.provided = Some(credentials.with_secret(&secret));
                if self.calls.complete(call, Ok(Reply::Done)) {
                    self.events.push_back(Event::CallDone(call));
                }
            }
            method => return Err(ProtocolDetail::UnexpectedMethod(method.id())),
        }
        Ok(())
    }

    /// Handles a method on a channel.
    pub(super) fn channel_method(
        &mut self,
        now: Instant,
        id: ChannelId,
        method: Method<'_>,
    ) -> Result<(), ProtocolDetail> {
        let closing =
            self.channels.find(id.0).is_some_and(|state| state.wire.phase == Phase::Closing);
        match method {
            Method::ChannelClose(close) => {
                self.closed_by_broker(now, id, &close);
                Ok(())
            }
            // An answer after our close would be on a channel that is not open.
            Method::ChannelFlow(_) | Method::BasicCancel(_) if closing => Ok(()),
            Method::ChannelFlow(flow) => {
                let Some(state) = self.channels.find_mut(id.0) else { return Ok(()) };
                state.wire.flow_stopped = !flow.active;
                let number = state.wire.number;
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

    /// Handles a reply: it belongs to the oldest call of the channel, except for consumers.
    ///
    /// RabbitMQ's queue processes answer `basic.consume` and `basic.cancel` through the channel. So these
    /// replies may arrive after replies to later calls. They are matched by the consumer tag.
    fn reply(
        &mut self,
        now: Instant,
        id: ChannelId,
        method: &Method<'_>,
    ) -> Result<(), ProtocolDetail> {
        let unexpected = ProtocolDetail::UnexpectedMethod(method.id());
        let Some(state) = self.channels.find_mut(id.0) else { return Err(unexpected) };
        let (number, closes) = (state.wire.number, matches!(method, Method::ChannelCloseOk(_)));
        let stray = |numbers: &mut Numbers| match closes && numbers.take_owed_close_ok(number) {
            true => Ok(()),
            false => Err(unexpected),
        };
        let tag = match method {
            Method::BasicConsumeOk(ok) => Some(ok.consumer_tag.as_bytes()),
            Method::BasicCancelOk(ok) => Some(ok.consumer_tag.as_bytes()),
            _ => None,
        };
        // Calls are pipelined behind `channel.open`. No reply to them may arrive before open-ok.
        if state.wire.phase == Phase::Opening && !matches!(method, Method::ChannelOpenOk(_)) {
            return stray(&mut self.link.numbers);
        }
        let calls = &self.calls;
        let answers = |call| calls.pending(call).is_some_and(|(it, _)| it.reply() == method.id());
        let answered = match tag {
            Some(tag) => state.wire.calls.tagged(tag, answers),
            None => state.wire.calls.front(),
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
        if closes
            && matches!(pending, Pending::ChannelOpen(_))
            && state.wire.phase == Phase::Closing
        {
            // RabbitMQ answers the open first. A close-ok answers both the open and the close, unless the
            // peer still owes one for the channel that had the number before.
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
            Some(tag) => state.wire.calls.remove_tagged(tag, call),
            // It is completed with the other calls of the channel when that is closed.
            None if pending == Pending::ChannelClose => {}
            None => state.wire.calls.pop_front(),
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
            Pending::Consume(key) => {
                if let Some(consumer) = self.consumers.find_mut(key) {
                    consumer.established = true;
                    if let (true, Some(queue)) = (consumer.queue.is_empty(), &state.last_queue) {
                        consumer.queue = Arc::clone(queue);
                    }
                    if self.recovers && state.origin == Origin::User {
                        self.topology.consumer_started(key, &consumer.queue);
                    }
                }
            }
            Pending::QueueDeclare { .. } => {
                if let Reply::Queue(ok) = &reply {
                    state.last_queue = Some(ok.queue.as_str().into());
                }
            }
            Pending::Recover => self.recovered(id),
            Pending::TxCommit => self.link.outbound.release(number),
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
        if let Some(change) = self.calls.take_change(call) {
            let declared = match &reply {
                Reply::Queue(ok) => Some(ok.queue.as_str()),
                _ => None,
            };
            let last_queue = self.channels.find(id.0).and_then(|state| state.last_queue.as_deref());
            self.topology.apply(*change, declared, last_queue);
        }
        if !awaited {
            self.compensate(now, pending, &reply);
        }
        if self.calls.complete(call, Ok(reply)) {
            self.events.push_back(Event::CallDone(call));
        }
        Ok(())
    }

    /// Whether the broker's next reply on the channel may be a message for `basic.get`, and if so, whether
    /// the message needs no acknowledgement.
    pub(super) fn next_get(&self, id: ChannelId) -> Option<bool> {
        match self.next_call(id)? {
            (_, Pending::Get { no_ack }, _) => Some(no_ack),
            _ => None,
        }
    }

    /// Handles `basic.recover-ok`: the broker has requeued the unacknowledged deliveries of the channel, and
    /// sends them again with new tags.
    fn recovered(&mut self, id: ChannelId) {
        let Some(state) = self.channels.find_mut(id.0) else { return };
        state.wire.recovering = state.wire.recovering.saturating_sub(1);
        state.wire.recovered_to = state.wire.delivered;
        for key in self.consumers.of_channel(id) {
            if self.consumers.find(key).is_some_and(|consumer| !consumer.no_ack()) {
                self.consumers.take_unread(key);
            }
        }
    }

    /// Completes the `basic.get` call of the channel with its message.
    pub(super) fn got(&mut self, id: ChannelId, mut got: Got) {
        let Some((call, pending, awaited)) = self.next_call(id) else { return };
        if pending == (Pending::Get { no_ack: true }) {
            got.delivery.tag.kind = TagKind::NoAck;
        }
        if let Some(state) = self.channels.find_mut(id.0) {
            state.wire.calls.pop_front();
        }
        let reply = Reply::Got(Some(Box::new(got)));
        if !awaited {
            self.give_back(pending, &reply);
        }
        if self.calls.complete(call, Ok(reply)) {
            self.events.push_back(Event::CallDone(call));
        }
    }

    /// Returns the oldest call of the channel that is answered in order, and whether a caller waits for it.
    fn next_call(&self, id: ChannelId) -> Option<(CallKey, Pending, bool)> {
        let call = self.channels.find(id.0)?.wire.calls.front()?;
        let (pending, awaited) = self.calls.pending(call)?;
        Some((call, pending, awaited))
    }

    /// Requeues a message for which no caller waits.
    fn give_back(&mut self, pending: Pending, reply: &Reply) {
        if let (Pending::Get { no_ack: false }, Reply::Got(Some(got))) = (pending, reply) {
            self.requeue(got.delivery.tag);
        }
    }

    /// Undoes what a reply opened for which no caller waits.
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

    /// Handles the close-ok for our close.
    fn closed_by_client(&mut self, id: ChannelId) {
        let handed_over = self.link.outbound.handed_over();
        self.close_channel(id, PhaseInput::CloseOk, ChannelCause::ByClient, handed_over);
    }

    fn closed_by_broker(&mut self, now: Instant, id: ChannelId, close: &wire::Close<'_>) {
        let Some(state) = self.channels.find_mut(id.0) else { return };
        let number = state.wire.number;
        let error =
            BrokerError::new(close.reply_code, close.reply_text, close.class_id, close.method_id);
        // RabbitMQ repeats a close until it is answered. Two answers would be one too many.
        let opening = |call| matches!(self.calls.pending(call), Some((Pending::ChannelOpen(_), _)));
        if self.link.numbers.is_copy(number, &error)
            && state.wire.calls.front().is_some_and(opening)
        {
            return;
        }
        self.link.numbers.closed_by_broker(number, error.clone());
        // A message that is partly sent is sent to its end: RabbitMQ closes the connection if a close-ok
        // arrives in the middle of a message. Everything else that the channel has queued is dropped.
        self.link.outbound.abandon(number);
        if state.wire.phase == Phase::Closing {
            self.link.numbers.owe_close_ok(number);
        }
        let close_ok = wire::CloseOk::default();
        self.link.outbound.frames(number, |out| frame::write_method(out, number, &close_ok));
        state.wire.content.clear(&mut self.staging);
        if state.is_recovering() && state.wire.phase != Phase::Closing {
            return self.attach_refused(now, id, error);
        }
        let cause = ChannelCause::ByBroker(error);
        if matches!(state.cause(), Some(ChannelCause::ByClient) | None) {
            state.gate = Gate::Closed(cause.clone());
        }
        let handed_over = self.link.outbound.handed_over();
        self.close_channel(id, PhaseInput::BrokerClose, cause, handed_over);
    }

    fn cancelled_by_broker(&mut self, id: ChannelId, cancel: &basic::Cancel<'_>) {
        let Some(state) = self.channels.find_mut(id.0) else { return };
        let number = state.wire.number;
        if !cancel.no_wait {
            let cancel_ok = basic::CancelOk { consumer_tag: cancel.consumer_tag };
            self.link.outbound.frames(number, |out| frame::write_method(out, number, &cancel_ok));
        }
        let tag = cancel.consumer_tag.as_bytes();
        let Some(key) = state.consumers.find(tag) else { return };
        let Some(consumer) = self.consumers.find(key) else { return };
        // If a cancel of ours is in flight, the broker answers it as well.
        if consumer.phase == ConsumerPhase::Cancelling {
            return;
        }
        let (queue, consumer_tag) = (Arc::clone(&consumer.queue), Arc::clone(&consumer.tag));
        let returns = self.config.recovery.resubscribe
            && self.recovers
            && state.origin == Origin::User
            && consumer.established;
        if !returns {
            state.consumers.remove(tag);
        }
        state.wire.strays.get_or_insert_default().remember(
            tag,
            consumer.no_ack(),
            consumer.prefetch,
        );
        if cancel.no_wait {
            cancel_no_wait(&mut self.link.outbound, number, cancel.consumer_tag);
        }
        self.events.push_back(Event::ConsumerCancelled(Box::new(CancelledConsumer {
            number,
            queue: Arc::clone(&queue),
            consumer_tag: Arc::clone(&consumer_tag),
        })));
        if returns {
            self.topology.consumer_cancelled(key);
            // What it had delivered can still be read and acknowledged.
            if let Some(consumer) = self.consumers.find_mut(key) {
                consumer.step(ConsumerInput::TransportLost);
            }
            return self.await_queue(key);
        }
        let error = Error::ConsumerCancelled { queue, consumer_tag };
        self.end_consumer(key, ConsumerInput::BrokerCancel, Some(error));
    }

    /// Handles a delivery for an unknown consumer: see `channel/strays.rs`.
    #[cold]
    pub(super) fn stray(
        &mut self,
        id: ChannelId,
        deliver: &basic::Deliver<'_>,
    ) -> Result<(), ProtocolDetail> {
        let Some(state) = self.channels.find_mut(id.0) else { return Ok(()) };
        // A delivery on a channel that closes or recovers is requeued by that.
        let counts = state.wire.phase == Phase::Open && state.wire.recovering == 0;
        let fate = match counts {
            true => {
                state.wire.strays.get_or_insert_default().delivered(deliver.consumer_tag.as_bytes())
            }
            false => Fate::Keep,
        };
        let tag = deliver.delivery_tag;
        if fate != Fate::Drop {
            state.delivered(tag)?;
        }
        let target = match fate {
            Fate::Requeue { first } => {
                if first {
                    cancel_no_wait(
                        &mut self.link.outbound,
                        state.wire.number,
                        deliver.consumer_tag,
                    );
                }
                Target::Deliver { consumer: None, tag, redelivered: deliver.redelivered }
            }
            Fate::Keep | Fate::Drop => Target::Discard,
        };
        state.wire.content.begin(&mut self.staging, target, deliver.exchange, deliver.routing_key);
        if fate == Fate::Keep {
            let kind = TagKind::Ack;
            let epoch = state.wire.epoch;
            self.drop_unacked(DeliveryTag { channel: id, epoch, tag, kind });
        }
        Ok(())
    }

    pub(super) fn forget_tag(&mut self, id: ChannelId, key: ConsumerKey) {
        if let Some(consumer) = self.consumers.find(key)
            && let Some(state) = self.channels.find_mut(id.0)
        {
            state.consumers.remove(consumer.tag.as_bytes());
        }
    }

    /// Records that the holder has dropped the delivery. It stays unacknowledged until its channel closes.
    /// Returns `false` if it was acknowledged or dropped before.
    pub(crate) fn drop_unacked(&mut self, tag: DeliveryTag) -> bool {
        let Some(state) = self.channels.find_mut(tag.channel.0) else { return false };
        if tag.epoch != state.wire.epoch {
            return false;
        }
        let stays = tag.kind != TagKind::NoAck && state.unacked().mark_dropped(tag.tag);
        if stays {
            self.counters.dropped += 1;
            self.events.push_back(Event::Dropped(tag.channel));
        }
        stays
    }

    /// Requeues an unacknowledged delivery that no handle holds. A delivery of a stream is acked instead,
    /// because a stream keeps its messages. Returns whether the delivery stays unacknowledged.
    pub(crate) fn requeue(&mut self, tag: DeliveryTag) -> bool {
        let Some(state) = self.channels.find_mut(tag.channel.0) else { return false };
        if state.wire.phase != Phase::Open
            || tag.epoch != state.wire.epoch
            || tag.kind == TagKind::NoAck
        {
            return false;
        }
        if tag.kind == TagKind::MaybeStream {
            return self.drop_unacked(tag);
        }
        let transactional = state.mode.is_tx();
        // If a rollback makes it unacknowledged again, it has no holder.
        state.unacked().mark_dropped(tag.tag);
        if !state.unacked().ack(tag.tag, transactional) {
            return false;
        }
        self.counters.acks_sent += 1;
        let number = state.wire.number;
        let (delivery_tag, multiple) = (tag.tag, false);
        self.link.outbound.frames(number, |out| match tag.kind == TagKind::Stream {
            true => frame::write_method(out, number, &basic::Ack { delivery_tag, multiple }),
            false => {
                let nack = basic::Nack { delivery_tag, multiple, requeue: true };
                frame::write_method(out, number, &nack);
            }
        });
        false
    }
}

/// Cancels a consumer at the broker without requesting a reply.
fn cancel_no_wait(outbound: &mut Outbound, number: u16, consumer_tag: ShortStr<'_>) {
    let cancel = basic::Cancel { consumer_tag, no_wait: true };
    outbound.frames(number, |out| frame::write_method(out, number, &cancel));
}
