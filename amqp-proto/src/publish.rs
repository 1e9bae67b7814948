//! The frames of a small publish at one go.
//!
//! Most messages that are published have no property but the delivery mode, and a body that fits one
//! frame. Their three frames have a length that is known beforehand, and are laid down without asking
//! for room field by field. The bytes are those of the long way, which a test compares.

use alloc::vec::Vec;

use crate::frame::{FRAME_END, FRAME_HEAD, FRAME_OVERHEAD, FrameKind};
use crate::method::{WireMethod, basic};
use crate::properties::{CONTENT_CLASS, CONTENT_HEADER_MIN};

/// Appends method, header and body frame of a publish whose body fits one frame and whose only
/// property is the delivery mode, if it has any.
#[inline]
pub fn write_publish(
    out: &mut Vec<u8>,
    channel: u16,
    publish: &basic::Publish<'_>,
    delivery_mode: Option<u8>,
    body: &[u8],
) {
    let (exchange, routing_key) = (publish.exchange.as_bytes(), publish.routing_key.as_bytes());
    // Ids, the reserved short, two lengths, the bits.
    let method_size = 4 + 2 + 1 + exchange.len() + 1 + routing_key.len() + 1;
    let header_size = CONTENT_HEADER_MIN + usize::from(delivery_mode.is_some());
    let body_frame = if body.is_empty() { 0 } else { FRAME_OVERHEAD + body.len() };
    let start = out.len();
    out.resize(start + 2 * FRAME_OVERHEAD + method_size + header_size + body_frame, 0);
    let mut cursor = Cursor(out.get_mut(start..).unwrap_or_default());

    if let Some(place) = cursor.chunk::<14>() {
        place[..8].copy_from_slice(&head_and_zero(FrameKind::Method, channel, method_size));
        let [_, class, m0, m1] = basic::Publish::ID.to_bytes();
        place[8..].copy_from_slice(&[class, m0, m1, 0, 0, exchange.len() as u8]);
    }
    cursor.bytes(exchange);
    if let Some(place) = cursor.chunk::<1>() {
        *place = [routing_key.len() as u8];
    }
    cursor.bytes(routing_key);
    if let Some(place) = cursor.chunk::<23>() {
        let bits = u8::from(publish.mandatory) | u8::from(publish.immediate) << 1;
        place[..2].copy_from_slice(&[bits, FRAME_END]);
        place[2..10].copy_from_slice(&head_and_zero(FrameKind::Header, channel, header_size));
        let [_, class] = CONTENT_CLASS.to_be_bytes();
        place[10..13].copy_from_slice(&[class, 0, 0]);
        place[13..21].copy_from_slice(&(body.len() as u64).to_be_bytes());
        place[21..].copy_from_slice(&[if delivery_mode.is_some() { 0x10 } else { 0 }, 0]);
    }
    match delivery_mode {
        Some(mode) => cursor.bytes(&[mode, FRAME_END]),
        None => cursor.bytes(&[FRAME_END]),
    }

    if let Some((first, rest)) = body.split_first()
        && let Some(place) = cursor.chunk::<8>()
    {
        *place = head_and_zero(FrameKind::Body, channel, body.len());
        place[7] = *first;
        cursor.bytes(rest);
        cursor.bytes(&[FRAME_END]);
    }
}

/// The head of a frame and the first octet of its payload, which is zero: class ids are below 256.
#[inline]
const fn head_and_zero(kind: FrameKind, channel: u16, size: usize) -> [u8; FRAME_HEAD + 1] {
    let head = (kind.octet() as u64) << 56 | (channel as u64) << 40 | (size as u32 as u64) << 8;
    head.to_be_bytes()
}

/// What is still to be filled.
struct Cursor<'a>(&'a mut [u8]);

impl<'a> Cursor<'a> {
    #[inline]
    fn chunk<const N: usize>(&mut self) -> Option<&'a mut [u8; N]> {
        let (place, rest) = core::mem::take(&mut self.0).split_first_chunk_mut()?;
        self.0 = rest;
        Some(place)
    }

    #[inline]
    fn bytes(&mut self, value: &[u8]) {
        if let Some((place, rest)) = core::mem::take(&mut self.0).split_at_mut_checked(value.len())
        {
            place.copy_from_slice(value);
            self.0 = rest;
        }
    }
}
