//! The frames of a small publish at one go.
//!
//! Most messages that are published have no property but the delivery mode, and a body that fits one
//! frame. Their three frames have a length that is known beforehand, and are laid down without asking
//! for room field by field. The bytes are those of the long way, which a test compares.

use alloc::vec::Vec;

use crate::frame::{FRAME_END, FRAME_HEAD, FRAME_OVERHEAD, FrameKind, head_bytes};
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

    cursor.head(FrameKind::Method, channel, method_size);
    let [c0, c1, m0, m1] = basic::Publish::ID.to_bytes();
    cursor.array([c0, c1, m0, m1, 0, 0, exchange.len() as u8]);
    cursor.bytes(exchange);
    cursor.array([routing_key.len() as u8]);
    cursor.bytes(routing_key);
    let bits = u8::from(publish.mandatory) | u8::from(publish.immediate) << 1;
    cursor.array([bits, FRAME_END]);

    cursor.head(FrameKind::Header, channel, header_size);
    let [c0, c1] = CONTENT_CLASS.to_be_bytes();
    cursor.array([c0, c1, 0, 0]);
    cursor.array((body.len() as u64).to_be_bytes());
    match delivery_mode {
        Some(mode) => cursor.array([0x10, 0, mode, FRAME_END]),
        None => cursor.array([0, 0, FRAME_END]),
    }

    if !body.is_empty() {
        cursor.head(FrameKind::Body, channel, body.len());
        cursor.bytes(body);
        cursor.array([FRAME_END]);
    }
}

/// What is still to be filled.
struct Cursor<'a>(&'a mut [u8]);

impl Cursor<'_> {
    #[inline]
    fn head(&mut self, kind: FrameKind, channel: u16, size: usize) {
        self.array::<FRAME_HEAD>(head_bytes(kind, channel, size as u32));
    }

    #[inline]
    fn array<const N: usize>(&mut self, value: [u8; N]) {
        if let Some((place, rest)) = core::mem::take(&mut self.0).split_first_chunk_mut() {
            *place = value;
            self.0 = rest;
        }
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
