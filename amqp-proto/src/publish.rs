//! The fast path for small publishes: method, header and body frame in one pass.
//!
//! Most messages have no property except the delivery mode, and a body that fits one frame. The length of
//! their three frames is known in advance, so space is reserved once instead of for each field. A test
//! compares the bytes with those of the general path.

use alloc::vec::Vec;

use crate::frame::{FRAME_END, FRAME_HEAD, FRAME_OVERHEAD, FrameKind};
use crate::method::{WireMethod, basic};
use crate::properties::{CONTENT_CLASS, CONTENT_HEADER_MIN};

/// Appends the method, header and body frames of a publish with a body that fits one frame and with no
/// property except the delivery mode.
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
    out.reserve(2 * FRAME_OVERHEAD + method_size + header_size + body_frame);

    let mut method = [0; FRAME_HEAD + 7];
    method[..8].copy_from_slice(&head_and_zero(FrameKind::Method, channel, method_size));
    let [_, class, m0, m1] = basic::Publish::ID.to_bytes();
    method[8..].copy_from_slice(&[class, m0, m1, 0, 0, exchange.len() as u8]);
    out.extend_from_slice(&method);
    out.extend_from_slice(exchange);
    out.push(routing_key.len() as u8);
    out.extend_from_slice(routing_key);

    let mut header = [0; 2 + FRAME_HEAD + CONTENT_HEADER_MIN];
    let bits = u8::from(publish.mandatory) | u8::from(publish.immediate) << 1;
    header[..2].copy_from_slice(&[bits, FRAME_END]);
    header[2..10].copy_from_slice(&head_and_zero(FrameKind::Header, channel, header_size));
    let [_, class] = CONTENT_CLASS.to_be_bytes();
    header[10..13].copy_from_slice(&[class, 0, 0]);
    header[13..21].copy_from_slice(&(body.len() as u64).to_be_bytes());
    header[21] = if delivery_mode.is_some() { 0x10 } else { 0 };
    out.extend_from_slice(&header);
    match delivery_mode {
        Some(mode) => out.extend_from_slice(&[mode, FRAME_END]),
        None => out.push(FRAME_END),
    }

    if let [first, rest @ ..] = body {
        let mut head = head_and_zero(FrameKind::Body, channel, body.len());
        head[FRAME_HEAD] = *first;
        out.extend_from_slice(&head);
        out.extend_from_slice(rest);
        out.push(FRAME_END);
    }
}

/// The head of a frame and the first octet of its payload. That octet is zero, because class ids are below 256.
#[inline]
const fn head_and_zero(kind: FrameKind, channel: u16, size: usize) -> [u8; FRAME_HEAD + 1] {
    let head = (kind.octet() as u64) << 56 | (channel as u64) << 40 | (size as u32 as u64) << 8;
    head.to_be_bytes()
}
