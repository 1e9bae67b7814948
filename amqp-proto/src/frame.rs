//! Frames: a seven-byte head (type, channel, size), the payload, the octet 0xCE
//! (AMQP 0-9-1, 4.2.3).

use alloc::vec::Vec;

use crate::method::WireMethod;
use crate::{ContentHeader, Malformed, PropertiesRef};

pub use crate::publish::write_publish;

/// Bytes before a payload.
pub const FRAME_HEAD: usize = 7;
/// Bytes around a payload: the head and the end octet.
pub const FRAME_OVERHEAD: usize = 8;
/// The octet that ends every frame.
pub const FRAME_END: u8 = 0xce;
/// The smallest frame size that peers may agree on (AMQP 0-9-1, `frame-min-size`).
pub const FRAME_MIN_SIZE: u32 = 4096;
/// A whole heartbeat frame (AMQP 0-9-1, 4.2.7).
pub const HEARTBEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, FRAME_END];

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "the specification is frozen")]
pub enum FrameKind {
    /// A method.
    Method,
    /// A content header.
    Header,
    /// A piece of a content body.
    Body,
    /// Nothing: a sign of life.
    Heartbeat,
}

/// The largest payloads that are accepted, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "one limit for each kind of frame")]
pub struct FrameLimits {
    /// For body frames: the negotiated `frame_max` less [`FRAME_OVERHEAD`].
    pub body: u32,
    /// For header frames, which RabbitMQ lets grow beyond `frame_max`: a dead-lettered message gains
    /// headers on its way.
    pub header: u32,
    /// For method frames.
    pub method: u32,
}

impl Default for FrameLimits {
    /// What holds for RabbitMQ's default `frame_max` of 131,072, and 1 MiB for the other frames.
    fn default() -> Self {
        Self { body: 131_072 - FRAME_OVERHEAD as u32, header: 1 << 20, method: 1 << 20 }
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the specification is frozen")]
pub struct FrameHead {
    /// What the frame carries.
    pub kind: FrameKind,
    /// The channel's number, 0 for the connection itself.
    pub channel: u16,
    /// The payload's size in bytes.
    pub size: u32,
}

impl FrameHead {
    /// Reads the head at the start of `input`; `None` while there are fewer than seven bytes.
    ///
    /// # Errors
    /// As soon as the head shows it: [`Malformed::UnknownFrameType`], [`Malformed::FrameTooLarge`],
    /// [`Malformed::HeartbeatPayload`].
    #[inline]
    pub const fn parse(input: &[u8], limits: FrameLimits) -> Result<Option<Self>, Malformed> {
        let [kind, c0, c1, s0, s1, s2, s3, ..] = *input else {
            // The type octet alone tells garbage from frames before a head is complete.
            return match input {
                [kind, ..] if FrameKind::from_octet(*kind).is_none() => {
                    Err(Malformed::UnknownFrameType(*kind))
                }
                _ => Ok(None),
            };
        };
        let Some(kind) = FrameKind::from_octet(kind) else {
            return Err(Malformed::UnknownFrameType(kind));
        };
        let channel = u16::from_be_bytes([c0, c1]);
        let size = u32::from_be_bytes([s0, s1, s2, s3]);
        let limit = match kind {
            FrameKind::Body => limits.body,
            FrameKind::Header => limits.header,
            FrameKind::Method => limits.method,
            FrameKind::Heartbeat if size > 0 => return Err(Malformed::HeartbeatPayload),
            FrameKind::Heartbeat => 0,
        };
        if size > limit {
            return Err(Malformed::FrameTooLarge { size, limit });
        }
        Ok(Some(Self { kind, channel, size }))
    }

    /// The size of the whole frame in bytes, head and end octet included.
    #[inline]
    pub const fn frame_len(self) -> usize {
        self.size as usize + FRAME_OVERHEAD
    }
}

impl FrameKind {
    const fn from_octet(octet: u8) -> Option<Self> {
        match octet {
            1 => Some(Self::Method),
            2 => Some(Self::Header),
            3 => Some(Self::Body),
            8 => Some(Self::Heartbeat),
            _ => None,
        }
    }

    pub(crate) const fn octet(self) -> u8 {
        match self {
            Self::Method => 1,
            Self::Header => 2,
            Self::Body => 3,
            Self::Heartbeat => 8,
        }
    }
}

/// A whole frame within an input buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the specification is frozen")]
pub struct Frame<'a> {
    /// What the frame carries.
    pub kind: FrameKind,
    /// The channel's number, 0 for the connection itself.
    pub channel: u16,
    /// The payload; the end octet behind it was checked.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The size of the whole frame in bytes: what to consume.
    #[inline]
    pub const fn frame_len(&self) -> usize {
        self.payload.len() + FRAME_OVERHEAD
    }
}

/// What [`peek`] found at the start of an input buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a frame is there or it is not")]
pub enum Peek<'a> {
    /// A whole frame.
    Complete(Frame<'a>),
    /// At least so many more bytes are needed.
    Incomplete(usize),
}

/// Looks at the first frame of `input` without consuming it.
///
/// # Errors
/// Those of [`FrameHead::parse`], and [`Malformed::BadFrameEnd`].
#[inline]
pub fn peek(input: &[u8], limits: FrameLimits) -> Result<Peek<'_>, Malformed> {
    let Some(head) = FrameHead::parse(input, limits)? else {
        return Ok(Peek::Incomplete(FRAME_HEAD.saturating_sub(input.len())));
    };
    let size = head.size as usize;
    let after_head = input.get(FRAME_HEAD..).unwrap_or_default();
    match (after_head.get(..size), after_head.get(size)) {
        (Some(payload), Some(&FRAME_END)) => {
            Ok(Peek::Complete(Frame { kind: head.kind, channel: head.channel, payload }))
        }
        (_, Some(&end)) => Err(Malformed::BadFrameEnd(end)),
        (_, None) => Ok(Peek::Incomplete(size + 1 - after_head.len())),
    }
}

/// The payload of the frame at the start of `input`, if it is a whole and well-formed frame of this
/// kind and channel, with a payload of at most `limit` bytes.
#[inline]
pub fn peek_payload(input: &[u8], kind: FrameKind, channel: u16, limit: u32) -> Option<&[u8]> {
    let ([octet, c0, c1, size @ ..], rest) = input.split_first_chunk::<FRAME_HEAD>()?;
    let size = u32::from_be_bytes(*size);
    if *octet != kind.octet() || u16::from_be_bytes([*c0, *c1]) != channel || size > limit {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(size as usize)?;
    (rest.first() == Some(&FRAME_END)).then_some(payload)
}

/// Appends a method frame.
#[inline]
pub fn write_method<'a>(out: &mut Vec<u8>, channel: u16, method: &impl WireMethod<'a>) {
    let frame = FrameInProgress::begin(out, FrameKind::Method, channel);
    method.encode(out);
    frame.end(out);
}

/// Changes a frame of `basic.ack` that [`write_method`] laid down at the start of `frame`.
#[inline]
pub fn rewrite_ack(frame: &mut [u8], delivery_tag: u64, multiple: bool) {
    const TAG: usize = FRAME_HEAD + 4;
    if let Some(([tag @ .., bits], _)) =
        frame.get_mut(TAG..).and_then(<[u8]>::split_first_chunk_mut::<9>)
    {
        *tag = delivery_tag.to_be_bytes();
        *bits = multiple.into();
    }
}

/// Appends a header frame for a basic content of `body_size` bytes.
pub fn write_header(out: &mut Vec<u8>, channel: u16, header: &ContentHeader<'_>) {
    let frame = FrameInProgress::begin(out, FrameKind::Header, channel);
    header.encode(out);
    frame.end(out);
}

/// Appends a header frame from borrowed properties.
#[inline]
pub fn write_header_ref(
    out: &mut Vec<u8>,
    channel: u16,
    body_size: u64,
    properties: &PropertiesRef<'_>,
) {
    let frame = FrameInProgress::begin(out, FrameKind::Header, channel);
    ContentHeader::encode_head(out, body_size);
    properties.encode(out);
    frame.end(out);
}

/// Appends the head of a body frame, for a payload that is sent from where it lies; the end octet
/// [`FRAME_END`] must follow it.
#[inline]
pub fn write_body_head(out: &mut Vec<u8>, channel: u16, size: u32) {
    out.extend_from_slice(&head_bytes(FrameKind::Body, channel, size));
}

/// Appends a body frame.
#[inline]
pub fn write_body(out: &mut Vec<u8>, channel: u16, payload: &[u8]) {
    write_body_head(out, channel, payload.len() as u32);
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

#[inline]
const fn head_bytes(kind: FrameKind, channel: u16, size: u32) -> [u8; FRAME_HEAD] {
    let [c0, c1] = channel.to_be_bytes();
    let [s0, s1, s2, s3] = size.to_be_bytes();
    [kind.octet(), c0, c1, s0, s1, s2, s3]
}

/// A frame whose payload is being appended: its size is filled in at the end.
struct FrameInProgress {
    payload_start: usize,
}

impl FrameInProgress {
    #[inline]
    fn begin(out: &mut Vec<u8>, kind: FrameKind, channel: u16) -> Self {
        out.extend_from_slice(&head_bytes(kind, channel, 0));
        Self { payload_start: out.len() }
    }

    #[inline]
    fn end(self, out: &mut Vec<u8>) {
        let size = (out.len() - self.payload_start) as u32;
        if let Some(field) = out.get_mut(self.payload_start - 4..self.payload_start) {
            field.copy_from_slice(&size.to_be_bytes());
        }
        out.push(FRAME_END);
    }
}
