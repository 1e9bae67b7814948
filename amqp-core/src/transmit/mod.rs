//! The output buffer: everything that waits to be written.
//!
//! Frames are encoded into one flat buffer in wire order. Bodies of 4 KiB or more are inserted by reference,
//! at positions that are stored next to it. The driver takes the whole buffer as a [`Transmit`] ([`chunk`])
//! and writes it without a lock, while another buffer fills.
//!
//! Messages larger than a frame wait in lanes ([`lanes`]). They are cut into frames only when the driver asks
//! for bytes.
//!
//! Each byte has an offset in the stream. So when the transport is lost, publishes that were not written can
//! be distinguished from those that may have arrived.

mod chunk;
mod lanes;
mod unsent;

use amqp_proto::frame::{self, FRAME_END, FRAME_OVERHEAD};
use amqp_proto::method::basic;
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::limits::{
    COPIED_BODY_BYTES, DEAL_BYTES, IDLE_BUFFER_BYTES, IDLE_POLLS_MAX, OUTBOUND_HARD_BYTES,
    OUTBOUND_HELD_BYTES, OUTBOUND_HIGH_BYTES, OUTBOUND_LOW_BYTES, OUTBOUND_STEP_BYTES,
};
use crate::message::Body;

use chunk::Chunk;
pub use chunk::Transmit;
pub(crate) use lanes::Dealt;
use lanes::Lanes;

/// Describes which publishes of a channel the driver has taken completely: those that begin before `offset`
/// and have a number lower than `in_lane`, the first that waits in the channel's lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) offset: u64,
    pub(crate) in_lane: u64,
}

/// An ack that is the last frame queued on its channel, at position `at` of the flat buffer.
#[derive(Clone, Copy, Debug)]
struct LastAck {
    channel: u16,
    at: usize,
    tag: u64,
}

#[derive(Debug)]
pub(crate) struct Outbound {
    chunk: Chunk,
    lanes: Lanes,
    /// The stream offset of the first byte of `chunk`.
    offset: u64,
    /// The maximum payload of a body frame.
    body_max: usize,
    /// Whether a publish was refused because the flat buffer was full.
    refused_flat: bool,
    /// Whether a publish was refused because the lanes were full.
    refused_lanes: bool,
    /// Whether a publish was refused because much waits behind the `tx.commit` of its channel.
    refused_held: bool,
    /// Whether a publish had been refused when output was last taken.
    starved: bool,
    sealed: bool,
    last_ack: Option<LastAck>,
    /// The number of polls without output since there last was much output.
    idle_polls: u8,
    frames_queued: u64,
    /// Bodies of the application that will not be sent. The caller drops them where it holds no lock.
    discarded: Vec<Bytes>,
}

impl Outbound {
    pub(crate) fn new(frame_max: u32) -> Self {
        Self {
            chunk: Chunk::default(),
            lanes: Lanes::default(),
            offset: 0,
            body_max: frame_max as usize - FRAME_OVERHEAD,
            refused_flat: false,
            refused_lanes: false,
            refused_held: false,
            starved: false,
            sealed: false,
            last_ack: None,
            idle_polls: 0,
            frames_queued: 0,
            discarded: Vec::new(),
        }
    }

    pub(crate) const fn limit_frames(&mut self, frame_max: u32) {
        self.body_max = frame_max as usize - FRAME_OVERHEAD;
    }

    /// The number of bytes of the stream that the driver has taken.
    pub(crate) const fn handed_over(&self) -> u64 {
        self.offset
    }

    /// Returns which publishes of a channel the driver has taken.
    #[inline]
    pub(crate) fn sent(&self, channel: u16) -> Sent {
        Sent { offset: self.offset, in_lane: self.lanes.first_seq(channel).unwrap_or(u64::MAX) }
    }

    /// The number of frames queued so far.
    pub(crate) const fn frames_queued(&self) -> u64 {
        self.frames_queued
    }

    /// Counts frames that were queued without [`frames`](Self::frames).
    pub(crate) const fn count_frames(&mut self, frames: u64) {
        self.frames_queued += frames;
    }

    /// The number of bytes that wait for the driver.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.chunk.len() + self.lanes.bytes()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.chunk.len() == 0 && self.lanes.is_empty()
    }

    /// Whether there is something for the driver to take.
    #[inline]
    pub(crate) fn has_output(&self) -> bool {
        self.chunk.len() > 0 || self.lanes.has_turn()
    }

    /// Holds back what a channel queues next, until its `tx.commit`, which is queued, is answered.
    pub(crate) fn hold(&mut self, channel: u16) {
        if !self.sealed {
            self.last_ack = self.last_ack.filter(|last| last.channel != channel);
            self.lanes.hold(channel);
        }
    }

    /// The first `tx.commit` of a channel is answered.
    pub(crate) fn release(&mut self, channel: u16) {
        self.lanes.release(channel);
        self.refused_lanes |= std::mem::take(&mut self.refused_held);
    }

    /// Whether a publish of `size` bytes is accepted. If not, a later [`space_freed`](Self::space_freed)
    /// returns `true`. Full lanes block large messages and the channels that have a lane, but no other
    /// publishes.
    #[inline]
    pub(crate) fn admit(&mut self, channel: u16, size: usize) -> bool {
        if size > self.body_max || self.lanes.has(channel) {
            // What waits behind a commit may wait for long, and only its own channel waits for it.
            if self.lanes.is_held(channel) {
                let fits = self.lanes.held_bytes(Some(channel)) < OUTBOUND_HIGH_BYTES;
                self.refused_held |= !fits;
                return fits;
            }
            let fits = self.lane_bytes() < OUTBOUND_HIGH_BYTES;
            self.refused_lanes |= !fits;
            return fits;
        }
        self.admit_direct()
    }

    /// Whether a publish that is [direct](Self::is_direct) is accepted.
    #[inline]
    pub(crate) fn admit_direct(&mut self) -> bool {
        let fits = self.chunk.len() < OUTBOUND_HIGH_BYTES;
        self.refused_flat |= !fits;
        fits
    }

    /// The number of bytes of messages in lanes that may send.
    fn lane_bytes(&self) -> usize {
        self.lanes.bytes() - self.lanes.held_bytes(None)
    }

    /// Whether there is buffer space after a refusal. Returns `true` once for each.
    pub(crate) fn space_freed(&mut self) -> bool {
        let flat = self.refused_flat && self.chunk.len() < OUTBOUND_LOW_BYTES;
        let lanes = self.refused_lanes && self.lane_bytes() < OUTBOUND_LOW_BYTES;
        self.refused_flat &= !flat;
        self.refused_lanes &= !lanes;
        flat || lanes
    }

    /// As [`space_freed`](Self::space_freed), to be called when the driver has taken output. Returns `true`
    /// only if a publish was refused before the last write: other publishers fill the buffer as fast as it is
    /// written, so the event for the refused one is due.
    pub(crate) fn space_freed_for_starved(&mut self) -> bool {
        let refused = self.refused_flat || self.refused_lanes;
        std::mem::replace(&mut self.starved, refused) && refused && self.space_freed()
    }

    /// Queues a frame of channel 0 at the next frame boundary.
    pub(crate) fn urgent_frame(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        self.frames_queued += 1;
        encode(self.urgent());
    }

    /// Queues a frame of channel 0 that holds a secret. It is not copied, and wiped once it is written.
    pub(crate) fn secret_frame(&mut self, frame: Zeroizing<Vec<u8>>) {
        self.frames_queued += 1;
        self.chunk.insert(Bytes::from_owner(frame));
    }

    /// Returns the flat buffer at a frame boundary, for channel 0.
    pub(crate) const fn urgent(&mut self) -> &mut Vec<u8> {
        &mut self.chunk.flat
    }

    /// Queues a frame behind everything that its channel has queued.
    pub(crate) fn frames(&mut self, channel: u16, encode: impl FnOnce(&mut Vec<u8>)) {
        if !self.sealed {
            self.frames_queued += 1;
            let buffer = self.buffer(channel);
            // If a peer makes this side answer and does not read, doubling could grow the buffer far beyond
            // the limit at which reading pauses.
            let spare = buffer.capacity() - buffer.len();
            if spare < IDLE_BUFFER_BYTES && buffer.capacity() >= OUTBOUND_HIGH_BYTES / 2 {
                buffer.reserve_exact(OUTBOUND_STEP_BYTES);
            }
            encode(buffer);
        }
    }

    /// Queues an ack. It is merged with the previous frame of the channel if that is an ack that the driver
    /// has not taken, and all deliveries below both are acked. `lowest` is the lowest unacknowledged tag.
    #[inline(always)]
    pub(crate) fn ack(&mut self, channel: u16, tag: u64, multiple: bool, lowest: Option<u64>) {
        if let Some(last) = self.last_ack.as_mut().filter(|last| last.channel == channel) {
            let tag = last.tag.max(tag);
            if lowest.is_none_or(|lowest| lowest > tag) {
                last.tag = tag;
                let frame = self.chunk.flat.get_mut(last.at..).unwrap_or_default();
                frame::rewrite_ack(frame, tag, true);
                return;
            }
        }
        let at = self.chunk.flat.len();
        self.frames(channel, |out| {
            frame::write_method(out, channel, &basic::Ack { delivery_tag: tag, multiple });
        });
        if self.chunk.flat.len() > at {
            self.last_ack = Some(LastAck { channel, at, tag });
        }
    }

    /// Records that our `connection.close` is queued, so that no frame of a channel may follow.
    pub(crate) const fn seal(&mut self) {
        self.sealed = true;
    }

    /// Whether so many bytes wait to be written that the peer should not be read.
    pub(crate) fn is_overfull(&mut self) -> bool {
        let queued = self.chunk.flat.len() + self.lanes.after_bytes();
        if queued < OUTBOUND_HARD_BYTES {
            return false;
        }
        // What waits behind a commit waits for its reply, which has to be read.
        let held = self.lanes.held_after_bytes().min(OUTBOUND_HELD_BYTES);
        queued - held >= OUTBOUND_HARD_BYTES
    }

    /// Returns the buffer to which the channel's next frames are appended.
    #[inline]
    pub(crate) fn buffer(&mut self, channel: u16) -> &mut Vec<u8> {
        // An ack may not be merged across another frame of its channel.
        if self.last_ack.is_some_and(|last| last.channel == channel) {
            self.last_ack = None;
        }
        if self.lanes.is_unused() {
            return &mut self.chunk.flat;
        }
        match self.lanes.frames(channel) {
            Some(frames) => frames,
            None => &mut self.chunk.flat,
        }
    }

    /// Returns the stream offset of a publish of `size` bytes that is queued next. `u64::MAX` if it goes to a
    /// lane, where its offset is known only when its first frame is sent.
    #[inline]
    pub(crate) fn offset(&self, channel: u16, size: usize) -> u64 {
        if size > self.body_max || self.lanes.has(channel) {
            u64::MAX
        } else {
            self.offset + self.chunk.len() as u64
        }
    }

    /// Whether a body of `size` bytes is copied into one frame in the flat buffer: it is small, and no lane
    /// exists.
    #[inline]
    pub(crate) fn is_direct(&self, size: usize) -> bool {
        size < COPIED_BODY_BYTES && size <= self.body_max && self.lanes.is_unused()
    }

    /// Queues a publish whose body is [direct](Self::is_direct) and that has no property except the delivery
    /// mode. Returns its stream offset.
    #[inline(always)]
    pub(crate) fn publish(
        &mut self,
        channel: u16,
        method: &basic::Publish<'_>,
        delivery_mode: Option<u8>,
        body: &[u8],
    ) -> u64 {
        self.frames_queued += 2 + u64::from(!body.is_empty());
        let offset = self.offset + self.chunk.len() as u64;
        frame::write_publish(self.buffer(channel), channel, method, delivery_mode, body);
        offset
    }

    /// Queues the body of a message whose method and header frames are at the end of `buffer(channel)`, from
    /// `head_start` on.
    #[inline]
    pub(crate) fn body(&mut self, channel: u16, head_start: usize, body: &Body<'_>, seq: u64) {
        let size = body.as_slice().len();
        self.frames_queued += 2 + size.div_ceil(self.body_max) as u64;
        if size > self.body_max {
            let bytes = by_reference(body);
            let buffer = self.buffer(channel);
            let head = buffer.get(head_start..).unwrap_or_default().to_vec();
            buffer.truncate(head_start);
            self.lanes.content(channel, head, bytes, seq);
        } else if self.lanes.has(channel) || size < COPIED_BODY_BYTES {
            if size > 0 {
                frame::write_body(self.buffer(channel), channel, body.as_slice());
            }
            if !self.lanes.is_empty() {
                self.lanes.published(channel, head_start, seq);
            }
        } else {
            let bytes = by_reference(body);
            frame::write_body_head(&mut self.chunk.flat, channel, size as u32);
            self.chunk.insert(bytes);
            self.chunk.flat.push(FRAME_END);
        }
    }

    /// Queues a publish again. `head` is its method frame and its header frame, for any channel number. Returns
    /// its stream [offset](Self::offset).
    pub(crate) fn resend(&mut self, channel: u16, head: &[u8], body: &Body<'_>, seq: u64) -> u64 {
        let offset = self.offset(channel, body.as_slice().len());
        let buffer = self.buffer(channel);
        let start = buffer.len();
        buffer.extend_from_slice(head);
        frame::set_channel(buffer.get_mut(start..).unwrap_or_default(), channel);
        self.body(channel, start, body, seq);
        offset
    }

    /// Drops the frames that a channel has queued, except the rest of a message that is partly sent: to omit
    /// that would break the framing of the connection.
    pub(crate) fn abandon(&mut self, channel: u16) {
        self.lanes.abandon(channel, &mut self.discarded);
    }

    pub(crate) fn has_lanes(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// Moves the queued bytes into `out`, which must be empty, and sends frames from the lanes.
    pub(crate) fn transmit(&mut self, out: &mut Transmit, dealt: &mut Vec<Dealt>) -> bool {
        if !out.is_empty() {
            return false;
        }
        // At least one round, so that the lanes make progress even if the flat buffer is full.
        let mut round = self.lanes.turns();
        while round > 0 || (self.chunk.len() < DEAL_BYTES && self.lanes.has_turn()) {
            round = round.saturating_sub(1);
            self.lanes.deal(&mut self.chunk, self.offset, self.body_max, dealt);
        }
        out.clear();
        if self.chunk.len() == 0 {
            self.idle_polls = self.idle_polls.saturating_add(1);
            if self.idle_polls > IDLE_POLLS_MAX {
                for flat in [&mut self.chunk.flat, &mut out.chunk.flat] {
                    flat.shrink_to(IDLE_BUFFER_BYTES);
                }
            }
            return false;
        }
        if self.chunk.flat.len() > IDLE_BUFFER_BYTES {
            self.idle_polls = 0;
        }
        self.offset += self.chunk.len() as u64;
        self.last_ack = None;
        std::mem::swap(&mut self.chunk, &mut out.chunk);
        true
    }

    #[inline]
    pub(crate) const fn has_discarded(&self) -> bool {
        !self.discarded.is_empty()
    }

    /// Takes the bodies that will not be sent. The caller drops them where the application's `Drop` may run.
    pub(crate) fn take_discarded(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.discarded)
    }

    /// Adds bodies of the application that are not needed any more, for the driver to drop.
    pub(crate) fn discard(&mut self, release: impl FnOnce(&mut Vec<Bytes>)) {
        release(&mut self.discarded);
    }

    /// Takes the bodies that another output will not send.
    pub(crate) fn discard_all_of(&mut self, mut other: Self) {
        other.clear();
        self.discarded.append(&mut other.discarded);
    }

    /// Drops all queued output, because the transport is lost.
    pub(crate) fn clear(&mut self) {
        self.last_ack = None;
        self.refused_held = false;
        self.discarded.extend(self.chunk.drain_inserts());
        self.chunk.clear();
        self.lanes.clear(&mut self.discarded);
    }
}

/// Returns the body as bytes that are kept until they are written.
pub(crate) fn by_reference(body: &Body<'_>) -> Bytes {
    match body {
        Body::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
        Body::Shared(bytes) => bytes.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Dealt, Outbound, Transmit};
    use crate::message::Body;
    use bytes::Bytes;

    /// Writes in pieces of `step` bytes through at most two slices.
    fn write_out(outbound: &mut Outbound, step: usize) -> (Vec<u8>, Vec<Dealt>) {
        let (mut wire, mut dealt) = (Vec::new(), Vec::new());
        let mut out = Transmit::new();
        while outbound.transmit(&mut out, &mut dealt) {
            assert!(!out.is_empty());
            while !out.is_empty() {
                let mut slices = [std::io::IoSlice::new(&[]); 2];
                let filled = out.slices(&mut slices);
                let mut written = 0;
                for slice in &slices[..filled] {
                    let take = slice.len().min(step - written);
                    wire.extend_from_slice(&slice[..take]);
                    written += take;
                }
                assert!(written > 0);
                let rest = out.to_vec();
                out.advance(written);
                assert_eq!(out.to_vec(), rest[written..]);
            }
        }
        (wire, dealt)
    }

    fn publish(outbound: &mut Outbound, channel: u16, body: &Body<'_>, seq: u64) {
        let start = outbound.buffer(channel).len();
        outbound.buffer(channel).extend_from_slice(b"head");
        outbound.body(channel, start, body, seq);
    }

    #[test]
    fn partial_writes_keep_the_order_of_flat_and_inserted_bytes() {
        let body = Bytes::from(vec![7; 5_000]);
        for step in [1, 3, 4_999, 100_000] {
            let mut outbound = Outbound::new(8_192);
            publish(&mut outbound, 1, &Body::Borrowed(b"small"), 1);
            publish(&mut outbound, 1, &Body::Shared(body.clone()), 2);
            publish(&mut outbound, 1, &Body::Shared(body.clone()), 3);
            publish(&mut outbound, 1, &Body::Borrowed(b""), 4);
            let (wire, dealt) = write_out(&mut outbound, step);
            let mut expected = b"head\x03\0\x01\0\0\0\x05small\xce".to_vec();
            let large = [b"head\x03\0\x01\0\0\x13\x88", &body[..], b"\xce"].concat();
            expected.extend(large.repeat(2));
            expected.extend_from_slice(b"head");
            assert_eq!(wire, expected);
            assert_eq!(dealt, []);
        }
    }

    #[test]
    fn large_contents_are_dealt_in_turn_and_stay_whole() {
        let mut outbound = Outbound::new(4_096);
        publish(&mut outbound, 1, &Body::Shared(Bytes::from(vec![1; 10_000])), 5);
        publish(&mut outbound, 2, &Body::Shared(Bytes::from(vec![2; 5_000])), 6);
        // After the channel's own large message, and immediately on a channel without one.
        publish(&mut outbound, 1, &Body::Borrowed(b"after"), 7);
        publish(&mut outbound, 3, &Body::Borrowed(b"quick"), 8);
        assert_eq!(outbound.offset(1, 1), u64::MAX);
        let (wire, dealt) = write_out(&mut outbound, 1_000);
        let frames: Vec<(u16, usize)> = bodies(&wire);
        let expected = [(3, 5), (1, 4_088), (2, 4_088), (1, 4_088), (2, 912), (1, 1_824), (1, 5)];
        assert_eq!(frames, expected);
        let offsets: Vec<_> = dealt.iter().map(|dealt| (dealt.channel, dealt.seq)).collect();
        assert_eq!(offsets, [(1, 5), (2, 6), (1, 7)]);
        assert!(dealt.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    }

    #[test]
    fn an_abandoned_channel_finishes_what_it_began() {
        let mut outbound = Outbound::new(4_096);
        publish(&mut outbound, 1, &Body::Shared(Bytes::from(vec![1; 600_000])), 1);
        publish(&mut outbound, 1, &Body::Borrowed(b"behind"), 2);
        publish(&mut outbound, 1, &Body::Shared(Bytes::from(vec![2; 600_000])), 3);
        let mut out = Transmit::new();
        assert!(outbound.transmit(&mut out, &mut Vec::new()));
        let mut wire = out.to_vec();
        outbound.abandon(1);
        assert_eq!(outbound.take_discarded().len(), 1);
        outbound.frames(1, |buffer| buffer.extend_from_slice(b"end"));
        out.advance(wire.len());
        let (rest, dealt) = write_out(&mut outbound, 5_000);
        wire.extend(rest);
        assert_eq!(dealt, [], "what was dropped is not sent");
        assert_eq!(bodies(&wire).iter().map(|(_, size)| size).sum::<usize>(), 600_000);
        assert!(wire.ends_with(b"end"));
    }

    /// The channel and the size of each body frame. Other bytes are those that `publish` wrote.
    fn bodies(mut wire: &[u8]) -> Vec<(u16, usize)> {
        let mut frames = Vec::new();
        while let Some((&first, _)) = wire.split_first() {
            if first == 3 {
                let size = u32::from_be_bytes(wire[3..7].try_into().unwrap()) as usize;
                frames.push((u16::from_be_bytes([wire[1], wire[2]]), size));
                assert_eq!(wire[7 + size], 0xce);
                wire = &wire[8 + size..];
            } else {
                wire = &wire[if wire.starts_with(b"head") { 4 } else { 3 }..];
            }
        }
        frames
    }
}
