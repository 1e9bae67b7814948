//! Starts and ends consumers, and hands over their deliveries.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use amqp_proto::frame;
use amqp_proto::method::{WireMethod, basic};

use crate::channel::{Consumer, ConsumerInput, ConsumerPhase, Inbox, Request as WaitingRequest};
use crate::connection::{Channel, Connection};
use crate::error::{ChannelCause, Error, InvalidArgument, InvalidReason, Misuse};
use crate::event::Event;
use crate::ids::{Call, CallKey, ConsumerKey, DeliveryTag, TagKind};
use crate::message::Delivery;
use crate::request::sealed::Request;
use crate::request::{BasicConsume, ConsumeOk, Pending, Reply, short};

impl Channel<'_> {
    /// Starts a consumer: sends `basic.consume`, and `basic.qos` before it if the prefetch needs that. As
    /// with [`call`](Self::call), the channel may still be opening.
    ///
    /// # Errors
    /// [`Error`]: nothing was queued. Among them are [`Misuse::DuplicateConsumerTag`], [`Misuse::StreamNeedsAck`] and
    /// [`Misuse::StreamNeedsPrefetch`], for which RabbitMQ would close the connection or the channel.
    pub fn consume(
        &mut self,
        now: Instant,
        request: &BasicConsume,
    ) -> Result<Call<ConsumeOk>, Error> {
        self.check_not_closing()?;
        self.check_calls()?;
        let (id, old_broker) = (self.id, self.connection.link.refused_streams_are_fatal);
        let Some(state) = self.state() else { return Err(self.closed()) };
        let (kind, own) = (request.tag_kind(), request.prefetch);
        let start = state.prefetch.start_as(kind, own);
        if request.is_stream() && kind == TagKind::NoAck {
            return Err(Misuse::StreamNeedsAck.into());
        } else if request.is_stream() && !start.has_own_limit() {
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
                let tag = format!("ctag-{}.{}", state.wire.number, state.tags_made);
                if !state.consumers.contains(tag.as_bytes()) {
                    break tag.into();
                }
            },
        };
        let waits = state.is_recovering();
        let limits = (!waits).then(|| state.prefetch.limits());
        let consumer = Consumer {
            channel: id,
            tag: Arc::clone(&tag),
            queue: request.queue.as_str().into(),
            request: Box::new(request.clone()),
            limits,
            established: false,
            absent: false,
            kind,
            suspected: old_broker && kind == TagKind::Ack,
            prefetch: own.unwrap_or(start.prefetch),
            cancels: Vec::new(),
            phase: ConsumerPhase::Running,
            error: None,
            released: false,
            inbox: Inbox::new(start.prefetch.into()),
        };
        let key = self.connection.consumers.insert(consumer);
        if waits {
            return self.consume_when_restored(now, key, &tag, request).map(Call::new);
        }
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
                    if let Some(strays) = &mut state.wire.strays {
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

    /// Starts a consumer when the channel is restored.
    fn consume_when_restored(
        &mut self,
        now: Instant,
        key: ConsumerKey,
        tag: &Arc<str>,
        request: &BasicConsume,
    ) -> Result<CallKey, Error> {
        let mut frame = Vec::new();
        let checked = request.encode_with_tag(0, tag, &mut frame).map_err(Error::from);
        let call = checked
            .and_then(|()| self.wait(now, Pending::Consume(key), WaitingRequest::Consume(key)))
            .inspect_err(|_| self.connection.discard_consumer(key))?;
        if let Some(consumer) = self.connection.consumers.find_mut(key) {
            consumer.step(ConsumerInput::TransportLost);
        }
        if let Some(state) = self.state() {
            state.consumers.insert(Arc::clone(tag), key);
            state.streams |= request.is_stream();
        }
        Ok(call)
    }

    /// Cancels a consumer (`basic.cancel`). Deliveries may still arrive until the reply. A second cancel
    /// waits for the reply to the first.
    ///
    /// # Errors
    /// [`Error`]: nothing was queued. Cancelling a consumer that has ended or does not exist is not an error.
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
            Some((key, consumer)) if consumer.phase == ConsumerPhase::Suspended => {
                let call = calls.insert_done(Pending::done(basic::CancelOk::ID), now, Reply::Done);
                events.push_back(Event::CallDone(call));
                self.end_suspended(key);
                return Ok(Call::new(call));
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
        if !self.state().is_some_and(|state| state.takes_cancels()) {
            return Err(self.closed());
        }
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

    /// Ends a consumer of which the broker does not know.
    fn end_suspended(&mut self, key: ConsumerKey) {
        let tag = self.connection.consumers.find(key).map(|consumer| Arc::clone(&consumer.tag));
        if let (Some(state), Some(tag)) = (self.state(), tag) {
            state.consumers.remove(tag.as_bytes());
            let waiting = state.waiting.as_mut().and_then(|waiting| waiting.remove_consume(key));
            if let Some(waiting) = waiting {
                let error = Error::Channel(ChannelCause::ByClient);
                self.connection.finish_call(waiting, Err(error));
            }
        }
        self.connection.end_consumer(key, ConsumerInput::CancelOk, None);
    }

    /// Cancels a consumer whose handle is dropped. Its unread deliveries are requeued, and so are those in
    /// `taken`, which the handle had taken and not read.
    pub fn release_consumer(
        &mut self,
        now: Instant,
        key: ConsumerKey,
        taken: impl IntoIterator<Item = DeliveryTag>,
    ) {
        let Some(consumer) = self.connection.consumers.find_mut(key) else { return };
        let phase = consumer.phase;
        let unread = self.connection.consumers.release(key);
        if phase == ConsumerPhase::Suspended {
            self.end_suspended(key);
        } else if phase == ConsumerPhase::Running
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

    /// Takes the next unread delivery.
    #[inline]
    pub fn next_delivery(&mut self, consumer: ConsumerKey) -> Option<Delivery> {
        self.connection.consumers.pop(consumer)
    }

    /// Moves unread deliveries behind those in `into`: all of them, or 1 MiB. Returns the number of bytes of
    /// memory that they take. These count as unread until the next call, so call this again as soon as they
    /// are read.
    #[inline]
    pub fn pull_deliveries(
        &mut self,
        consumer: ConsumerKey,
        into: &mut VecDeque<Delivery>,
    ) -> usize {
        self.connection.consumers.pull(consumer, into)
    }

    /// Returns whether the consumer has ended, and why unless this client has cancelled it. The reason is
    /// returned once.
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
}
