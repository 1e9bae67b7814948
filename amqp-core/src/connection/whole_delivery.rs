//! The fast path for deliveries that are complete in the input: the method, the header and one small body
//! frame, adjacent to each other.
//!
//! Most deliveries are complete, and are handled in one step. Everything else is left to the general path,
//! which handles messages frame by frame (`channel/content.rs`) and could handle every delivery. That
//! includes a frame that is incomplete or malformed, a large body, a channel that closes or recovers, and a
//! consumer whose handle is dropped or whose queue may be a stream.

use amqp_proto::frame::{self, FRAME_OVERHEAD, FrameKind, FrameLimits};
use amqp_proto::method::{MethodId, WireMethod, basic};
use amqp_proto::properties::CONTENT_CLASS;
use amqp_proto::{ContentHeader, RawProperties};

use crate::channel::Phase;
use crate::connection::Connection;
use crate::error::ProtocolDetail;
use crate::event::Event;
use crate::ids::DeliveryTag;
use crate::limits::{COPIED_BODY_BYTES, HEADER_FRAME_BYTES};
use crate::message::{Delivery, ROUTING_KEY_GAP, ReceivedMessage};

impl Connection {
    /// Takes the delivery at the front of `input`, if there is one and it is complete. Returns the length of
    /// all its frames.
    #[inline]
    pub(super) fn whole_delivery(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolDetail> {
        if self.link.input.skipped > 0 {
            return Ok(None);
        }
        let Some((number, payload)) = method(input, self.link.frame_limits) else {
            return Ok(None);
        };
        let Ok((basic::Deliver::ID, arguments)) = MethodId::split(payload) else { return Ok(None) };
        let length = FRAME_OVERHEAD + payload.len();
        let after = input.get(length..).unwrap_or_default();
        let Some(content) = content(number, after, self.link.frame_limits) else { return Ok(None) };
        let Some(channel) = self.link.numbers.channel(number) else { return Ok(None) };
        let Self { channels, consumers, counters, events, .. } = self;
        let Some(state) = channels.find_mut(channel.0) else { return Ok(None) };
        if state.wire.phase != Phase::Open
            || state.wire.recovering > 0
            || !state.wire.content.is_none()
        {
            return Ok(None);
        }
        let deliver = basic::Deliver::decode(arguments)?;
        let key = state.consumers.find(deliver.consumer_tag.as_bytes());
        let Some(key) = key else { return Ok(None) };
        let Some((consumer, backlog, arena)) = consumers.find_with_memory(key) else {
            return Ok(None);
        };
        if consumer.released | consumer.suspected {
            return Ok(None);
        }
        if !consumer.no_ack() {
            state.delivered(deliver.delivery_tag)?;
        }
        let tag = DeliveryTag {
            channel,
            epoch: state.wire.epoch,
            tag: deliver.delivery_tag,
            kind: consumer.kind,
        };
        let (exchange, routing_key) = (deliver.exchange, deliver.routing_key);
        // The method frame ends with the exchange, the length of the routing key, and the routing key.
        let start = length - 1 - routing_key.len() - ROUTING_KEY_GAP - exchange.len();
        let end = length + content.length;
        let whole = start..end - 1;
        let properties_len = content.properties.as_bytes().len() as u32;
        let lengths = (exchange.len() as u8, routing_key.len() as u8, properties_len);
        let more = || input.get(end..).is_some_and(|next| follows(next, number, payload));
        let data = arena.store_part(key, &mut consumer.inbox.shelf, input, whole, more);
        let message = ReceivedMessage::new(data, lengths, None);
        counters.delivered += 1;
        counters.frames_received += 1 + content.frames;
        let delivery = Delivery { tag, redelivered: deliver.redelivered, message };
        if consumer.inbox.push(backlog, delivery) {
            events.push_back(Event::Deliverable(key));
        }
        Ok(Some(end))
    }
}

/// Returns the channel and the payload of the method frame at the front of `input`.
#[inline]
fn method(input: &[u8], limits: FrameLimits) -> Option<(u16, &[u8])> {
    let [_, c0, c1, ..] = *input else { return None };
    let channel = u16::from_be_bytes([c0, c1]);
    Some((channel, frame::peek_payload(input, FrameKind::Method, channel, limits.method)?))
}

/// Whether the next bytes look like the same method on the same channel.
#[inline]
fn follows(next: &[u8], channel: u16, payload: &[u8]) -> bool {
    let Some([1, c0, c1, _, _, _, _, ids @ ..]) = next.first_chunk::<11>() else { return false };
    u16::from_be_bytes([*c0, *c1]) == channel && payload.first_chunk::<4>() == Some(ids)
}

struct Content<'a> {
    properties: RawProperties<'a>,
    frames: u64,
    length: usize,
}

/// Returns the header and the small body at the front of `input`.
#[inline]
fn content(channel: u16, input: &[u8], limits: FrameLimits) -> Option<Content<'_>> {
    let header_max = limits.header.min(HEADER_FRAME_BYTES);
    let payload = frame::peek_payload(input, FrameKind::Header, channel, header_max)?;
    let length = payload.len() + FRAME_OVERHEAD;
    let ContentHeader { class_id, body_size, properties } = ContentHeader::decode(payload).ok()?;
    if class_id != CONTENT_CLASS || body_size >= COPIED_BODY_BYTES as u64 {
        return None;
    }
    if body_size == 0 {
        return Some(Content { properties, frames: 1, length });
    }
    let body = frame::peek_payload(input.get(length..)?, FrameKind::Body, channel, limits.body)?;
    let length = length + body.len() + FRAME_OVERHEAD;
    (body.len() as u64 == body_size).then_some(Content { properties, frames: 2, length })
}
