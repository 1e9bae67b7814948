//! Frames (AMQP 0-9-1, 4.2.3): a header of seven bytes (type, channel, size), the payload, and the octet 0xCE.

use alloc::vec::Vec;

use crate::method::WireMethod;
use crate::{ContentHeader, Malformed, PropertiesRef};

pub use crate::publish::write_publish;

/// The number of bytes before a payload.
pub const FRAME_HEAD: usize = 7;
/// The number of bytes around a payload: the head and the end octet.
pub const FRAME_OVERHEAD: usize = 8;
/// The octet that ends every frame.
pub const FRAME_END: u8 = 0xce;
/// The smallest frame size that peers may agree on (AMQP 0-9-1, `frame-min-size`).
pub const FRAME_MIN_SIZE: u32 = 4096;
/// A complete heartbeat frame (AMQP 0-9-1, 4.2.7).
pub const HEARTBEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, FRAME_END];

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "the specification is frozen")]
pub enum FrameKind {
    /// A method.
    Method,
    /// A content header.
    Header,
    /// A part of a content body.
    Body,
    /// Nothing: it shows that the peer is alive.
    Heartbeat,
}

/// The maximum size of a payload for each kind of frame, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "one limit for each kind of frame")]
pub struct FrameLimits {
    /// For body frames: the negotiated `frame_max` less [`FRAME_OVERHEAD`].
    pub body: u32,
    /// For header frames. RabbitMQ sends them even beyond `frame_max`: each time a message is
    /// dead-lettered, its headers grow.
    pub header: u32,
    /// For method frames.
    pub method: u32,
}

impl Default for FrameLimits {
    /// The limits for RabbitMQ's default `frame_max` of 131,072, and 1 MiB for other frames.
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
    /// The channel number, 0 for the connection itself.
    pub channel: u16,
    /// The payload's size in bytes.
    pub size: u32,
}

impl FrameHead {
    /// Reads the head at the start of `input`. `None` means that fewer than seven bytes are there.
    ///
    /// # Errors
    /// As soon as the bytes show it: [`Malformed::UnknownFrameType`], [`Malformed::FrameTooLarge`],
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

    /// The size of the complete frame in bytes, with head and end octet.
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

/// A complete frame in an input buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the specification is frozen")]
pub struct Frame<'a> {
    /// What the frame carries.
    pub kind: FrameKind,
    /// The channel number, 0 for the connection itself.
    pub channel: u16,
    /// The payload. The end octet after it has been checked.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The size of the complete frame in bytes: how much of the input to consume.
    #[inline]
    pub const fn frame_len(&self) -> usize {
        self.payload.len() + FRAME_OVERHEAD
    }
}

/// The result of [`peek`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a frame is there or it is not")]
pub enum Peek<'a> {
    /// A complete frame.
    Complete(Frame<'a>),
    /// The frame is incomplete: at least this number of bytes is missing.
    Incomplete(usize),
}

/// Decodes the first frame of `input`, which the caller then consumes.
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

/// Returns the payload of the frame at the start of `input`, if it is a complete and well-formed frame of this
/// kind and channel with a payload of at most `limit` bytes.
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

/// Changes the arguments of a `basic.ack` frame at the start of `frame`, which [`write_method`] has written.
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

/// Changes the channel of all frames in `frames`, which must be complete.
pub fn set_channel(frames: &mut [u8], channel: u16) {
    let mut at = 0;
    while let Some([_, c0, c1, size @ ..]) =
        frames.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<FRAME_HEAD>)
    {
        [*c0, *c1] = channel.to_be_bytes();
        at += u32::from_be_bytes(*size) as usize + FRAME_OVERHEAD;
    }
}

/// Appends a content header frame.
pub fn write_header(out: &mut Vec<u8>, channel: u16, header: &ContentHeader<'_>) {
    let frame = FrameInProgress::begin(out, FrameKind::Header, channel);
    header.encode(out);
    frame.end(out);
}

/// Appends a content header frame for a body of `body_size` bytes, from borrowed properties.
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

/// Appends the head of a body frame whose payload is sent from another buffer. The payload and the end
/// octet [`FRAME_END`] must follow.
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

/// A frame whose payload is being appended. Its size is filled in at the end.
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
