//! The verbs of a channel, as a view that borrows the connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use amqp_proto::ShortStr;
use amqp_proto::frame;
use amqp_proto::method::{WireMethod, basic, channel as wire};

use crate::channel::{
    ChannelState, Confirmation, Consumer, ConsumerInput, ConsumerPhase, Inbox, Phase, PhaseInput,
    PublishRefused,
};
use crate::connection::{Connection, Link};
use crate::error::{AckError, ChannelCause, Error, InvalidArgument, InvalidReason, Misuse};
use crate::event::Event;
use crate::ids::{Call, CallKey, ChannelId, ConsumerKey, DeliveryTag, PublishSeq, TagKind};
use crate::limits::CALLS_MAX;
use crate::message::{Delivery, ReturnedMessage};
use crate::request::sealed::Request;
use crate::request::{BasicConsume, ConsumeOk, NoWait, Pending, Reply, Rpc, short};

/// A channel of a connection, borrowed for one or more operations.
///
/// Verbs that are refused queue nothing. Verbs that queue frames are to be followed by
/// `poll_transmit` and `poll_event`.
#[derive(Debug)]
pub struct Channel<'c> {
    pub(super) connection: &'c mut Connection,
    pub(super) id: ChannelId,
}

impl<'c> Channel<'c> {
    pub(crate) const fn new(connection: &'c mut Connection, id: ChannelId) -> Self {
        Self { connection, id }
    }

    /// Queues a call. Its reply is reported by [`Event::CallDone`] and taken with `take_reply`.
    ///
    /// # Errors
    /// [`Error`]: nothing was queued.
    pub fn call<R: Rpc>(&mut self, now: Instant, request: &R) -> Result<Call<R::Reply>, Error> {
        self.check_open()?;
        self.check_calls()?;
        let pending = request.pending();
        if let Some(state) = self.state() {
            state.begin(pending)?;
        }
        let encode = |number, out: &mut Vec<u8>| request.encode(number, false, out);
        self.send_call(now, pending, encode).map(Call::new)
    }

    /// Queues a call that the broker is not to answer. If it refuses, it closes the channel.
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

    /// Starts a consumer: `basic.consume`, with `basic.qos` where its prefetch needs that.
    ///
    /// # Errors
    /// [`Error`]: nothing was queued. [`Misuse::DuplicateConsumerTag`], [`Misuse::StreamNeedsAck`] and
    /// [`Misuse::StreamNeedsPrefetch`] are among them: RabbitMQ would close the connection or the channel.
    pub fn consume(
        &mut self,
        now: Instant,
        request: &BasicConsume,
    ) -> Result<Call<ConsumeOk>, Error> {
        self.check_open()?;
        self.check_calls()?;
        let (id, old_broker) = (self.id, self.connection.link.refused_streams_are_fatal);
        let Some(state) = self.state() else { return Err(self.closed()) };
        let (kind, own) = (request.tag_kind(), request.prefetch);
        let start = match kind {
            TagKind::NoAck => state.prefetch.start_without_ack(),
            TagKind::Stream => state.prefetch.start(state.prefetch.of_stream(own)),
            _ => state.prefetch.start(own),
        };
        if request.is_stream() && kind == TagKind::NoAck {
            return Err(Misuse::StreamNeedsAck.into());
        } else if request.is_stream() && start.prefetch == 0 {
            return Err(Misuse::StreamNeedsPrefetch.into());
        }
        let tag: Arc<str> = match request.consumer_tag.as_deref() {
            Some("") => {
                return Err(InvalidArgument::new("consumer-tag", InvalidReason::Empty).into());
            }
            Some(tag) if state.consumers.contains(tag.as_bytes()) => {
                return Err(Misuse::DuplicateConsumerTag.into());
            }
            Some(tag) => tag.into(),
            None => loop {
                state.tags_made += 1;
                let tag = format!("ctag-{}.{}", state.number, state.tags_made);
                if !state.consumers.contains(tag.as_bytes()) {
                    break tag.into();
                }
            },
        };
        let consumer = Consumer {
            channel: id,
            tag: Arc::clone(&tag),
            queue: request.queue.as_str().into(),
            kind,
            suspected: old_broker && kind == TagKind::Ack,
            prefetch: start.prefetch,
            cancels: Vec::new(),
            phase: ConsumerPhase::Running,
            error: None,
            released: false,
            inbox: Inbox::new(start.prefetch.into()),
        };
        let key = self.connection.consumers.insert(consumer);
        let encode = |number, out: &mut Vec<u8>| {
            start.before.iter().try_for_each(|qos| qos.encode(number, false, out))?;
            request.encode_with_tag(number, &tag, out)?;
            start.behind.iter().try_for_each(|qos| qos.encode(number, false, out))
        };
        let before: Vec<_> = start.before.iter().map(Request::pending).collect();
        let behind: Vec<_> = start.behind.iter().map(Request::pending).collect();
        match self.send_calls(now, &before, Pending::Consume(key), &behind, encode) {
            Ok(call) => {
                if let Some(state) = self.state() {
                    if let Some(strays) = &mut state.strays {
                        strays.forget(tag.as_bytes());
                    }
                    state.consumers.insert(tag, key);
                    state.streams |= request.is_stream();
                    state.prefetch = start.next;
                }
                self.connection.link.outbound.count_frames((before.len() + behind.len()) as u64);
                Ok(Call::new(call))
            }
            Err(error) => {
                self.connection.discard_consumer(key);
                Err(error)
            }
        }
    }

    /// Ends a consumer. Deliveries that are on their way still come, until the reply. A second cancel
    /// waits for the reply to the first.
    ///
    /// # Errors
    /// [`Error`]: nothing was queued. A consumer that has ended already, or none, is no error.
    pub fn cancel(
        &mut self,
        now: Instant,
        consumer: impl Into<Option<ConsumerKey>>,
    ) -> Result<Call<()>, Error> {
        let Connection { consumers, calls, config, events, .. } = &mut *self.connection;
        let found = consumer.into().and_then(|key| Some((key, consumers.find_mut(key)?)));
        let of_channel = found.filter(|(_, consumer)| consumer.channel == self.id);
        let (key, tag) = match of_channel {
            Some((key, consumer)) if consumer.phase == ConsumerPhase::Running => {
                (key, Arc::clone(&consumer.tag))
            }
            Some((key, consumer)) if consumer.phase == ConsumerPhase::Cancelling => {
                let call = calls.insert(Pending::Cancel(key), now + config.call_timeout);
                consumer.cancels.push(call);
                return Ok(Call::new(call));
            }
            _ => {
                let pending = Pending::done(basic::CancelOk::ID);
                let call = calls.insert_done(pending, now, Reply::Done);
                events.push_back(Event::CallDone(call));
                return Ok(Call::new(call));
            }
        };
        self.check_open()?;
        let call = self.send_call(now, Pending::Cancel(key), |number, out| {
            let consumer_tag = short("consumer-tag", &tag)?;
            frame::write_method(out, number, &basic::Cancel { consumer_tag, no_wait: false });
            Ok(())
        })?;
        if let Some(consumer) = self.connection.consumers.find_mut(key) {
            consumer.step(ConsumerInput::Cancel);
        }
        Ok(Call::new(call))
    }

    /// The consumer's handle is gone: it is cancelled, and its unread deliveries are requeued, as are
    /// those that were `taken` and that nobody will read.
    pub fn release_consumer(
        &mut self,
        now: Instant,
        key: ConsumerKey,
        taken: impl IntoIterator<Item = DeliveryTag>,
    ) {
        let Some(consumer) = self.connection.consumers.find_mut(key) else { return };
        let phase = consumer.phase;
        let unread = self.connection.consumers.release(key);
        if phase == ConsumerPhase::Running
            && let Ok(call) = self.cancel(now, key)
        {
            self.connection.forget(now, call.key());
        }
        let unread = unread.into_iter().map(|delivery| delivery.tag);
        for tag in taken.into_iter().chain(unread) {
            self.requeue(tag);
        }
        self.connection.consumers.sweep(key);
    }

    /// Nobody holds the delivery: it is requeued, or acknowledged if it is a stream's, if it is still
    /// to be settled. One that may be a stream's at an old RabbitMQ is given up: see
    /// [`AckError::MaybeStream`].
    pub fn requeue(&mut self, tag: DeliveryTag) {
        if tag.epoch == self.connection.link.epoch && tag.channel == self.id {
            self.connection.requeue(tag);
        }
    }

    /// The next unread delivery.
    #[inline]
    pub fn next_delivery(&mut self, consumer: ConsumerKey) -> Option<Delivery> {
        self.connection.consumers.pop(consumer)
    }

    /// Moves unread deliveries behind those in `into`: all, or 1 MiB of them. Returns the bytes of
    /// memory that they take, which count against the limit of unread ones until the next time: it is
    /// best as soon as they are read.
    #[inline]
    pub fn pull_deliveries(
        &mut self,
        consumer: ConsumerKey,
        into: &mut VecDeque<Delivery>,
    ) -> usize {
        self.connection.consumers.pull(consumer, into)
    }

    /// Whether the consumer gets no more deliveries, and why unless it was cancelled from here.
    pub fn consumer_end(&mut self, key: ConsumerKey) -> Option<Result<(), Error>> {
        let Some(consumer) = self.connection.consumers.find_mut(key) else {
            let cause = self.connection.cause().cloned();
            return Some(cause.map_or(Ok(()), |cause| Err(Error::Connection(cause))));
        };
        if consumer.phase != ConsumerPhase::Ended || !consumer.inbox.is_empty() {
            return None;
        }
        Some(consumer.error.take().map_or(Ok(()), Err))
    }

    /// Acknowledges a delivery, or with `multiple` all up to it (`basic.ack`).
    ///
    /// # Errors
    /// [`AckError`]: nothing was queued.
    #[inline(always)]
    pub fn ack(&mut self, tag: DeliveryTag, multiple: bool) -> Result<(), AckError> {
        let (number, lowest) = self.settle(tag, multiple)?;
        self.connection.link.outbound.ack(number, tag.tag, multiple, lowest);
        Ok(())
    }

    /// Refuses a delivery, or with `multiple` all up to it (`basic.nack`): they are requeued, or else
    /// dead-lettered or dropped. A stream takes no message back: one of its deliveries is acknowledged.
    ///
    /// # Errors
    /// [`AckError`]: nothing was queued. [`AckError::MaybeStream`] is among them, and with `multiple`
    /// [`AckError::Stream`].
    pub fn nack(
        &mut self,
        tag: DeliveryTag,
        multiple: bool,
        requeue: bool,
    ) -> Result<(), AckError> {
        if tag.kind == TagKind::NoAck {
            return Err(AckError::NoAck(tag.tag));
        }
        let (id, epoch) = (self.id, self.connection.link.epoch);
        let streams = self.state().is_some_and(|state| state.is_open() && state.streams);
        if multiple && streams && tag.channel == id && tag.epoch == epoch {
            return Err(AckError::Stream(tag.tag));
        }
        match tag.kind {
            TagKind::Stream => return self.ack(tag, false),
            TagKind::MaybeStream => return Err(AckError::MaybeStream(tag.tag)),
            TagKind::Ack | TagKind::NoAck => {}
        }
        let nack = basic::Nack { delivery_tag: tag.tag, multiple, requeue };
        let (number, _) = self.settle(tag, multiple)?;
        self.connection.link.outbound.frames(number, |out| frame::write_method(out, number, &nack));
        Ok(())
    }

    /// Refuses a delivery (`basic.reject`): it is requeued, or else dead-lettered or dropped; or
    /// acknowledged if it is a stream's.
    ///
    /// # Errors
    /// [`AckError`]: nothing was queued. [`AckError::MaybeStream`] is among them.
    pub fn reject(&mut self, tag: DeliveryTag, requeue: bool) -> Result<(), AckError> {
        match tag.kind {
            TagKind::Stream => return self.ack(tag, false),
            TagKind::MaybeStream => return Err(AckError::MaybeStream(tag.tag)),
            TagKind::Ack | TagKind::NoAck => {}
        }
        let reject = basic::Reject { delivery_tag: tag.tag, requeue };
        let (number, _) = self.settle(tag, false)?;
        self.connection.link.outbound.frames(number, |out| frame::write_method(out, number, &reject));
        Ok(())
    }

    /// Whoever held the delivery has dropped it without settling it. Nothing is sent: it stays
    /// unacknowledged until the channel closes. [`Event::Dropped`] says so, unless there is nothing
    /// left to settle.
    pub fn give_up(&mut self, tag: DeliveryTag) {
        if tag.epoch == self.connection.link.epoch
            && tag.channel == self.id
            && self.state().is_some_and(|state| state.is_open())
        {
            self.connection.give_up(tag);
        }
    }

    /// Whether the publish was confirmed, as far as that is plain to see: `false` says nothing.
    #[inline]
    pub fn is_confirmed(&mut self, seq: PublishSeq) -> bool {
        let confirms = self.state().and_then(|state| state.mode.confirms());
        confirms.is_some_and(|confirms| confirms.is_confirmed(seq))
    }

    /// Returns what became of a publish, `None` while that is open. A nack and a return are reported
    /// once: asked again, the publish looks confirmed.
    #[inline]
    pub fn confirmed(&mut self, seq: PublishSeq) -> Option<Confirmation> {
        let Some(state) = self.state() else {
            return Some(Confirmation::Unknown(self.closed()));
        };
        match state.mode.confirms_mut() {
            Some(confirms) => confirms.take(seq),
            None => Some(Confirmation::Unknown(Misuse::NotConfirmMode.into())),
        }
    }

    /// Drops what became of the publish, or what becomes of it later.
    pub fn forget_publish(&mut self, seq: PublishSeq) {
        if let Some(confirms) = self.state().and_then(|state| state.mode.confirms_mut()) {
            confirms.forget(seq);
        }
    }

    /// Whether publishes are confirmed here.
    pub fn confirms(&mut self) -> bool {
        self.state().is_some_and(|state| state.mode.confirms().is_some())
    }

    /// The oldest returned message of an unconfirmed publish. If there is none, one is awaited from here
    /// on, for which reading goes on beside unread deliveries.
    pub fn take_returned(&mut self) -> Option<ReturnedMessage> {
        let message = self.state()?.take_returned();
        if message.is_none() {
            self.connection.returned_is_awaited(self.id);
        }
        message
    }

    /// Why the channel is closed, if it is or is about to be.
    pub fn cause(&mut self) -> Option<ChannelCause> {
        match self.state() {
            Some(state) => state.cause.clone(),
            None => self.connection.cause().cloned().map(ChannelCause::Connection),
        }
    }

    /// Closes the channel, behind everything it has queued.
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
        // The frame is small and has no argument of the user's.
        let call =
            sent.unwrap_or_else(|_| self.connection.calls.insert_done(pending, now, Reply::Done));
        Call::new(call)
    }

    /// The channel's handle is gone: it is closed, and its record dropped once it has.
    pub fn release(&mut self, now: Instant) {
        let Some(state) = self.state() else { return };
        state.released = true;
        if matches!(state.phase, Phase::Opening | Phase::Open) {
            let call = self.close(now);
            self.connection.forget(now, call.key());
        }
        self.connection.sweep_channel(self.id);
    }

    /// Records that a delivery is acknowledged or refused. Returns what the frame that says so needs: the
    /// channel's number and the lowest tag that stays open.
    #[inline(always)]
    fn settle(&mut self, tag: DeliveryTag, multiple: bool) -> Result<(u16, Option<u64>), AckError> {
        if tag.kind == TagKind::NoAck {
            return Err(AckError::NoAck(tag.tag));
        }
        let Connection { channels, link, counters, .. } = &mut *self.connection;
        let Some(state) = channels.find_mut(self.id.0) else {
            return Err(AckError::Stale(self.closed()));
        };
        if !state.is_open() || tag.epoch != link.epoch {
            return Err(AckError::Stale(self.closed()));
        }
        if tag.channel != self.id {
            return Err(AckError::OtherChannel(tag.tag));
        }
        if tag.tag == 0 || tag.tag > state.delivered {
            return Err(AckError::Unknown(tag.tag));
        }
        let (number, transactional) = (state.number, state.mode.is_tx());
        let recovered = state.recovering > 0 || state.recovered_to > 0;
        let unsettled = state.unsettled();
        let settled = match multiple {
            true => unsettled.settle_up_to(tag.tag, transactional),
            false => unsettled.settle(tag.tag, transactional),
        };
        if !settled {
            let recovered = state.recovering > 0 || tag.tag <= state.recovered_to;
            return Err(match recovered {
                true => AckError::Recovered(tag.tag),
                false => AckError::Settled(tag.tag),
            });
        }
        counters.settled += 1;
        // A rollback opens settled ones again, and what came about the time of a recover is not known
        // here: then all count as open.
        let lowest = if transactional || recovered { Some(0) } else { unsettled.lowest() };
        Ok((number, lowest))
    }

    fn send_call(
        &mut self,
        now: Instant,
        pending: Pending,
        encode: impl FnOnce(u16, &mut Vec<u8>) -> Result<(), InvalidArgument>,
    ) -> Result<CallKey, Error> {
        self.send_calls(now, &[], pending, &[], encode)
    }

    /// Queues the frames that `encode` appends, which are answered in turn. The caller gets `call`; the
    /// replies to the others are consumed.
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
        if self.state().is_some_and(|state| state.is_open()) { Ok(()) } else { Err(self.closed()) }
    }

    /// Whether the channel may await one more reply. Calls whose time is over count until the broker
    /// answers: it may be blocked, and their frames take memory.
    fn check_calls(&mut self) -> Result<(), Error> {
        let awaited = self.state().map_or(0, |state| state.calls.len());
        if awaited < CALLS_MAX { Ok(()) } else { Err(Misuse::TooManyCalls.into()) }
    }

    /// The error of a channel that is not open.
    pub(super) fn closed(&mut self) -> Error {
        match self.state().map(|state| (state.cause.clone(), state.phase)) {
            Some((Some(cause), _)) => cause.into_error(),
            Some((None, Phase::Opening)) => Misuse::ChannelNotOpen.into(),
            _ => self.connection.cause().cloned().map_or_else(gone, Error::Connection),
        }
    }
}

/// The channel was released, or has not been opened: no handle leads here.
fn gone() -> Error {
    Error::Channel(ChannelCause::ByClient)
}

pub(super) fn too_large(argument: &'static str, size: usize, frame_max: u32) -> Error {
    InvalidArgument::new(argument, InvalidReason::FrameTooLarge { size, frame_max }).into()
}
