//! Cuts the input into frames and handles them. Each frame is parsed once.
//!
//! The head of a frame is checked as soon as it has arrived, before more is buffered. Methods and headers are
//! parsed in place. A body is copied, unless it is complete in the input and makes up about half of the
//! buffer or more. Then it is split off without a copy, and keeps the buffer's memory alive.

use std::time::Instant;

use amqp_proto::ContentHeader;
use amqp_proto::frame::{FRAME_END, FRAME_HEAD, FrameHead, FrameKind};
use amqp_proto::method::{Method, MethodId, WireMethod, basic, channel};
use amqp_proto::properties::CONTENT_HEADER_MIN;
use bytes::{Buf, BytesMut};

use crate::channel::{Complete, Phase, Piece, Returned, Target};
use crate::connection::Connection;
use crate::connection::handshake::{Greeting, Progress};
use crate::connection::link::State;
use crate::error::{ProtocolDetail, peer_text};
use crate::event::Event;
use crate::ids::{ChannelId, ConsumerKey, DeliveryTag, Epoch, TagKind};
use crate::limits::{HEADER_FRAME_BYTES, INPUT_BUDGET_BYTES};
use crate::message::{Delivery, ReturnedMessage};
use crate::request::Got;

/// The result of one step.
enum Step {
    /// This many bytes were handled.
    Taken(usize),
    /// At least this many bytes are missing.
    Lacking(usize),
}

impl Connection {
    /// Takes complete frames from the front of `input`, about 16 KiB of them. Returns whether there may be
    /// more. An incomplete frame stays in the input: see [`lacking`](Self::lacking).
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) -> bool {
        // If the input has not grown, no byte has arrived, and the peer has not shown that it is alive.
        if input.len() > self.link.input.incomplete {
            self.link.heartbeat.received(now);
        }
        let length = input.len();
        self.link.input.buffer.see(input);
        self.link.input.lacking = 0;
        let more = self.handle_frames(now, input);
        self.link.read_pause.read(length - input.len());
        self.counters.bytes_received += (length - input.len()) as u64;
        self.link.input.incomplete = if more { 0 } else { input.len() };
        more
    }

    fn handle_frames(&mut self, now: Instant, input: &mut BytesMut) -> bool {
        self.consumers.begin_input();
        // Handled frames are removed from the front together, because removing each one costs as much as
        // cutting it.
        let (mut done, mut consumed) = (0, 0);
        while consumed < INPUT_BUDGET_BYTES {
            if self.end_state().is_some() {
                input.clear();
                return false;
            }
            match self.handle_frame(now, input, &mut done) {
                Ok(Step::Taken(length)) => consumed += length,
                Ok(Step::Lacking(length)) => {
                    input.advance(done);
                    self.link.input.lacking = length;
                    return false;
                }
                Err(detail) => self.protocol_error(detail),
            }
        }
        input.advance(done);
        true
    }

    /// Handles one frame, which begins at `done`.
    #[inline]
    fn handle_frame(
        &mut self,
        now: Instant,
        input: &mut BytesMut,
        done: &mut usize,
    ) -> Result<Step, ProtocolDetail> {
        let rest = input.get(*done..).unwrap_or_default();
        if let Some(length) = self.whole_delivery(rest)? {
            *done += length;
            return Ok(Step::Taken(length));
        }
        if let State::Handshake(handshake) = self.link.state() {
            match handshake.greeting(rest) {
                Greeting::Frames => {}
                Greeting::Incomplete => return Ok(Step::Lacking(0)),
                Greeting::Failed(failure) => {
                    self.fail_to_open(failure);
                    return Ok(Step::Taken(0));
                }
            }
        }
        if self.link.input.skipped > 0 {
            return self.skip(rest, done);
        }
        let Some(head) = FrameHead::parse(rest, self.link.frame_limits)? else {
            return Ok(Step::Lacking(FRAME_HEAD));
        };
        if head.size > HEADER_FRAME_BYTES && head.kind == FrameKind::Header {
            return self.skip_header(head, rest, done);
        }
        let length = head.frame_len();
        let Some(frame) = rest.get(..length) else {
            return Ok(Step::Lacking(length - rest.len()));
        };
        let [payload @ .., end] = frame.get(FRAME_HEAD..).unwrap_or_default() else {
            return Ok(Step::Lacking(FRAME_HEAD));
        };
        if *end != FRAME_END {
            return Err(amqp_proto::Malformed::BadFrameEnd(*end).into());
        }
        self.counters.frames_received += 1;
        match head.kind {
            FrameKind::Method => self.method(now, head.channel, payload)?,
            FrameKind::Header => self.header(head.channel, payload)?,
            FrameKind::Body => {
                if self.link.input.buffer.is_mostly(payload.len())
                    && self.takes_whole(head.channel, payload.len())
                {
                    input.advance(*done + FRAME_HEAD);
                    *done = 0;
                    let body = input.split_to(head.size as usize).freeze();
                    input.advance(1);
                    self.body(head.channel, Piece::Owned(body))?;
                    return Ok(Step::Taken(length));
                }
                self.body(head.channel, Piece::Borrowed(payload))?;
            }
            FrameKind::Heartbeat if head.channel != 0 => {
                return Err(ProtocolDetail::HeartbeatChannel(head.channel));
            }
            FrameKind::Heartbeat => {}
        }
        *done += length;
        Ok(Step::Taken(length))
    }

    /// Skips a header frame that is too large to be kept. Only its fixed part is read.
    #[cold]
    fn skip_header(
        &mut self,
        head: FrameHead,
        rest: &[u8],
        done: &mut usize,
    ) -> Result<Step, ProtocolDetail> {
        let fixed = FRAME_HEAD + CONTENT_HEADER_MIN;
        let Some(start) = rest.get(FRAME_HEAD..fixed) else {
            return Ok(Step::Lacking(fixed));
        };
        let header = self.content_header(start)?;
        let body_size = header.body_size;
        *done += fixed;
        self.counters.frames_received += 1;
        self.link.input.skipped = head.frame_len() - fixed;
        if let Some(id) = self.live_channel(head.channel)?
            && let Some(state) = self.channels.find_mut(id.0)
            && let Some(complete) =
                state.wire.content.skipped_header(&mut self.staging, head.size, body_size)?
        {
            let epoch = state.wire.epoch;
            self.complete(id, epoch, complete)?;
        }
        Ok(Step::Taken(fixed))
    }

    /// Skips more of a frame.
    #[cold]
    fn skip(&mut self, rest: &[u8], done: &mut usize) -> Result<Step, ProtocolDetail> {
        let length = rest.len().min(self.link.input.skipped);
        let Some(last) = rest.get(..length).and_then(<[u8]>::last) else {
            return Ok(Step::Lacking(FRAME_HEAD));
        };
        if length == self.link.input.skipped && *last != FRAME_END {
            return Err(amqp_proto::Malformed::BadFrameEnd(*last).into());
        }
        *done += length;
        self.link.input.skipped -= length;
        Ok(Step::Taken(length))
    }

    #[inline]
    fn method(&mut self, now: Instant, number: u16, payload: &[u8]) -> Result<(), ProtocolDetail> {
        let (method, arguments) = MethodId::split(payload)?;
        if number == 0 {
            return self.connection_method(now, Method::decode(payload)?);
        }
        let Some(id) = self.live_channel(number)? else { return Ok(()) };
        let Some(state) = self.channels.find_mut(id.0) else { return Ok(()) };
        if !state.wire.content.is_none() && method != channel::Close::ID {
            return Err(ProtocolDetail::UnexpectedFrame);
        }
        match method {
            basic::Deliver::ID => {
                let deliver = basic::Deliver::decode(arguments)?;
                let tag = deliver.delivery_tag;
                let consumers = &self.consumers;
                let consumer = state.consumers.find(deliver.consumer_tag.as_bytes());
                let found = consumer.and_then(|key| consumers.find(key));
                let Some(no_ack) = found.map(|it| it.no_ack()) else {
                    return self.stray(id, &deliver);
                };
                let counts = state.wire.phase == Phase::Open && state.wire.recovering == 0;
                // The tag of a delivery without acknowledgement is not checked: direct replies repeat theirs.
                if !no_ack {
                    state.delivered(tag)?;
                }
                // A delivery that needs an ack on a closing or recovering channel is requeued by the broker.
                // It is dropped here.
                let target = if counts || no_ack {
                    Target::Deliver { consumer, tag, redelivered: deliver.redelivered }
                } else {
                    Target::Discard
                };
                let (exchange, key) = (deliver.exchange, deliver.routing_key);
                state.wire.content.begin(&mut self.staging, target, exchange, key);
                Ok(())
            }
            basic::Ack::ID => {
                let ack = basic::Ack::decode(arguments)?;
                self.resolve_publishes(id, ack.delivery_tag, ack.multiple, true)
            }
            basic::Nack::ID => {
                let nack = basic::Nack::decode(arguments)?;
                self.resolve_publishes(id, nack.delivery_tag, nack.multiple, false)
            }
            basic::Return::ID => {
                let returned = basic::Return::decode(arguments)?;
                let text = peer_text(returned.reply_text.as_bytes());
                let target = Target::Return { code: returned.reply_code, text, body: None };
                let (exchange, key) = (returned.exchange, returned.routing_key);
                state.wire.content.begin(&mut self.staging, target, exchange, key);
                Ok(())
            }
            basic::GetOk::ID => {
                let got = basic::GetOk::decode(arguments)?;
                let tag = got.delivery_tag;
                let Some(no_ack) = self.next_get(id) else {
                    return Err(ProtocolDetail::UnexpectedMethod(method));
                };
                let Some(state) = self.channels.find_mut(id.0) else { return Ok(()) };
                if !no_ack {
                    state.delivered(tag)?;
                }
                let (redelivered, message_count) = (got.redelivered, got.message_count);
                let target = Target::Got { tag, redelivered, message_count };
                state.wire.content.begin(&mut self.staging, target, got.exchange, got.routing_key);
                Ok(())
            }
            _ => self.channel_method(now, id, Method::decode(payload)?),
        }
    }

    #[cold]
    fn connection_method(
        &mut self,
        now: Instant,
        method: Method<'_>,
    ) -> Result<(), ProtocolDetail> {
        let Some((handshake, outbound)) = self.link.handshake() else {
            return self.open_connection_method(now, &method);
        };
        let credentials = self.provided.as_ref().unwrap_or(&self.config.credentials);
        match handshake.handle(&method, &self.config, credentials, outbound) {
            Progress::Awaiting => {}
            Progress::Open => {
                self.link.opened(now);
                if self.announces {
                    self.events.push_back(Event::Opened);
                }
            }
            Progress::Failed(failure) => self.fail_to_open(failure),
        }
        Ok(())
    }

    #[inline]
    fn header(&mut self, number: u16, payload: &[u8]) -> Result<(), ProtocolDetail> {
        let header = self.content_header(payload)?;
        let Some(id) = self.live_channel(number)? else { return Ok(()) };
        let Some(state) = self.channels.find_mut(id.0) else { return Ok(()) };
        let epoch = state.wire.epoch;
        match state.wire.content.header(&mut self.staging, &header)? {
            Some(complete) => self.complete(id, epoch, complete),
            None => Ok(()),
        }
    }

    #[inline]
    fn content_header<'a>(&self, payload: &'a [u8]) -> Result<ContentHeader<'a>, ProtocolDetail> {
        let header = ContentHeader::decode(payload)?;
        if header.class_id != amqp_proto::properties::CONTENT_CLASS {
            return Err(ProtocolDetail::ContentClass(header.class_id));
        }
        Ok(header)
    }

    #[inline]
    fn body(&mut self, number: u16, piece: Piece<'_>) -> Result<(), ProtocolDetail> {
        let Some(id) = self.live_channel(number)? else { return Ok(()) };
        let Some(state) = self.channels.find_mut(id.0) else { return Ok(()) };
        let epoch = state.wire.epoch;
        match state.wire.content.body(&mut self.staging, piece)? {
            Some(complete) => self.complete(id, epoch, complete),
            None => Ok(()),
        }
    }

    #[inline]
    fn takes_whole(&self, number: u16, length: usize) -> bool {
        let id = self.link.numbers.channel(number);
        let state = id.and_then(|id| self.channels.find(id.0));
        state.is_some_and(|state| state.wire.content.takes_whole(length))
    }

    /// Returns the channel of this number. `None` if it has closed, so that the frame is late.
    #[inline]
    fn live_channel(&self, number: u16) -> Result<Option<ChannelId>, ProtocolDetail> {
        match self.link.numbers.channel(number) {
            Some(id) => Ok(Some(id)),
            None if self.link.numbers.was_used(number) => Ok(None),
            None => Err(ProtocolDetail::NotOpen(number)),
        }
    }

    #[inline]
    fn complete(
        &mut self,
        channel: ChannelId,
        epoch: Epoch,
        complete: Complete,
    ) -> Result<(), ProtocolDetail> {
        let Complete { target, message } = complete;
        match target {
            Target::Deliver { consumer, tag, redelivered } => {
                let tag = DeliveryTag { channel, epoch, tag, kind: TagKind::Ack };
                self.counters.delivered += 1;
                self.deliver(consumer, Delivery { tag, redelivered, message });
            }
            Target::Return { code, text, body } => {
                let Some(state) = self.channels.find_mut(channel.0) else { return Ok(()) };
                self.counters.returned += 1;
                let message =
                    ReturnedMessage { code: code.into(), text, message, is_stripped: false };
                let unclaimed = match state.mode.confirms_mut() {
                    Some(confirms) if confirms.is_selected() => {
                        let returned =
                            Returned::new(&message.message, body.as_deref(), &mut self.scratch);
                        confirms.returned(
                            returned,
                            message,
                            self.link.outbound.sent(state.wire.number),
                        )
                    }
                    _ => Some(message),
                };
                if let Some(message) = unclaimed {
                    self.returns_awaited -= state.stop_awaiting_returned();
                    state.keep_returned(message);
                    self.events.push_back(Event::Returned(channel));
                }
            }
            Target::Got { tag, redelivered, message_count } => {
                // RabbitMQ does not support `basic.get` on streams.
                let tag = DeliveryTag { channel, epoch, tag, kind: TagKind::Ack };
                self.counters.delivered += 1;
                let delivery = Delivery { tag, redelivered, message };
                self.got(channel, Got { delivery, message_count });
            }
            Target::Discard => {}
        }
        Ok(())
    }

    #[inline]
    fn deliver(&mut self, consumer: Option<ConsumerKey>, mut delivery: Delivery) {
        let found = consumer.and_then(|key| Some((key, self.consumers.find_mut(key)?)));
        let Some((key, consumer)) = found else {
            // The broker has a consumer that this side does not know.
            if self.link.refused_streams_are_fatal
                && delivery.message.has_stream_offset() == Some(true)
            {
                delivery.tag.kind = TagKind::MaybeStream;
                self.may_have_streams(delivery.tag.channel);
            }
            self.requeue(delivery.tag);
            return;
        };
        let released = consumer.released;
        delivery.tag.kind = consumer.kind_of(&delivery);
        if delivery.tag.kind == TagKind::MaybeStream {
            self.may_have_streams(delivery.tag.channel);
        }
        // A released consumer has no handle.
        if !released {
            if self.consumers.push(key, delivery) {
                self.events.push_back(Event::Deliverable(key));
            }
        } else {
            self.requeue(delivery.tag);
        }
    }

    /// A delivery of the channel may be a stream's, which `multiple` must not refuse.
    #[cold]
    fn may_have_streams(&mut self, channel: ChannelId) {
        if let Some(state) = self.channels.find_mut(channel.0) {
            state.streams = true;
        }
    }

    #[inline]
    fn resolve_publishes(
        &mut self,
        channel: ChannelId,
        tag: u64,
        multiple: bool,
        acked: bool,
    ) -> Result<(), ProtocolDetail> {
        let Some(state) = self.channels.find_mut(channel.0) else { return Ok(()) };
        let Some(confirms) = state.mode.confirms_mut() else {
            return Err(ProtocolDetail::ConfirmUnknown(tag));
        };
        let before = confirms.span();
        let resolved =
            confirms.resolve(tag, multiple, acked, self.link.outbound.sent(state.wire.number))?;
        self.unconfirmed = self.unconfirmed.saturating_sub(before - confirms.span());
        if confirms.has_outbox() {
            self.link.outbound.discard(|discarded| confirms.release(discarded));
        }
        let Some((first, last, count)) = resolved else { return Ok(()) };
        let counters = &mut self.counters;
        *(if acked { &mut counters.acked } else { &mut counters.nacked }) += count;
        // Consecutive acks are merged into one event.
        if let Some(Event::Resolved { channel: previous, last: end, .. }) = self.events.back_mut()
            && *previous == channel
            && end.0 + 1 == first
        {
            end.0 = last;
            return Ok(());
        }
        let (first, last) = (crate::ids::PublishSeq(first), crate::ids::PublishSeq(last));
        self.events.push_back(Event::Resolved { channel, first, last });
        Ok(())
    }
}
