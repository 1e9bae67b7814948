//! The publishes of a channel that are sent again when the transport is lost: copies of what was queued.
//!
//! Entries are removed from the front when all publishes up to theirs are resolved. So the entry of a publish
//! that is resolved out of order stays until those before it are resolved. The method and header frames and the
//! small bodies of all entries are in one buffer, so that storing a publish needs no allocation. Large bodies
//! share their memory with the output.
//!
//! The bytes are limited. A publish is accepted below the limit, so the outbox exceeds it by one message at most.

use std::collections::VecDeque;

use amqp_proto::frame::{FrameHead, FrameLimits};
use bytes::Bytes;

use crate::costs::count;
use crate::limits::{COPIED_BODY_BYTES, OUTBOX_IDLE_BYTES};
use crate::message::Body;
use crate::transmit;

#[derive(Debug)]
pub(crate) struct Outbox {
    /// In the order of their numbers.
    entries: VecDeque<Stored>,
    /// The frames and small bodies of the entries, one after the other.
    flat: VecDeque<u8>,
    /// The number of bytes that were removed from the front of `flat`.
    removed: u64,
    /// The number of bytes of large bodies.
    large_bytes: usize,
    limit: usize,
    /// Publishes from this number on are sent again.
    cursor: u64,
}

#[derive(Debug)]
struct Stored {
    seq: u64,
    /// Where it begins in `flat`, counted from the first byte that was ever stored.
    at: u64,
    /// The number of bytes of its method and header frames.
    head: usize,
    /// The number of bytes of its body in `flat`.
    small: usize,
    /// Its body, unless that is small.
    large: Bytes,
}

/// A publish to send again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resend {
    pub(crate) seq: u64,
    /// Its method and header frames, for any channel number.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Bytes,
}

impl Outbox {
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            flat: VecDeque::new(),
            removed: 0,
            large_bytes: 0,
            limit,
            cursor: 0,
        }
    }

    /// Whether another publish is accepted.
    pub(crate) fn has_space(&self) -> bool {
        self.bytes() < self.limit
    }

    /// Stores a publish whose number is higher than those before. `head` is its method frame and its header
    /// frame. A large body should be [shared](Body::Shared), because others are copied.
    pub(crate) fn push(&mut self, seq: u64, head: &[u8], body: &Body<'_>) {
        let at = self.removed + self.flat.len() as u64;
        self.flat.extend(head);
        let bytes = body.as_slice();
        let (small, large) = if bytes.len() < COPIED_BODY_BYTES {
            self.flat.extend(bytes);
            (bytes.len(), Bytes::new())
        } else {
            (0, transmit::by_reference(body))
        };
        self.large_bytes += large.len();
        self.entries.push_back(Stored { seq, at, head: head.len(), small, large });
        self.cursor = seq + 1;
    }

    /// Removes the publishes below `base`. Their large bodies move to `discarded`.
    pub(crate) fn release(&mut self, base: u64, discarded: &mut Vec<Bytes>) {
        while self.entries.front().is_some_and(|entry| entry.seq < base)
            && let Some(entry) = self.entries.pop_front()
        {
            count(1);
            let size = entry.head + entry.small;
            self.flat.drain(..size.min(self.flat.len()));
            self.removed += size as u64;
            if !entry.large.is_empty() {
                self.large_bytes -= entry.large.len();
                discarded.push(entry.large);
            }
        }
        if self.entries.is_empty() {
            self.flat.shrink_to(OUTBOX_IDLE_BYTES / 2);
            self.entries.shrink_to(OUTBOX_IDLE_BYTES / 2 / size_of::<Stored>());
        }
    }

    /// The numbers of the publishes, in their order.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().map(|entry| entry.seq)
    }

    /// Begins to send the publishes again.
    pub(crate) const fn rewind(&mut self) {
        self.cursor = 0;
    }

    /// Returns the next publish to send again for which `is_open` returns `true`. It remains the next one until
    /// it is [done](Self::resent).
    pub(crate) fn next_resend(&mut self, is_open: impl Fn(u64) -> bool) -> Option<Resend> {
        let mut index = self.entries.partition_point(|entry| entry.seq < self.cursor);
        let entry = loop {
            count(1);
            let entry = self.entries.get(index)?;
            self.cursor = entry.seq;
            if is_open(entry.seq) {
                break entry;
            }
            index += 1;
        };
        let mut bytes = self.flat.iter().skip((entry.at - self.removed) as usize).copied();
        let head = bytes.by_ref().take(entry.head).collect();
        let body = match entry.small {
            0 => entry.large.clone(),
            small => bytes.take(small).collect(),
        };
        Some(Resend { seq: entry.seq, head, body })
    }

    /// Records that a publish was sent again, or cannot be.
    pub(crate) const fn resent(&mut self, seq: u64) {
        self.cursor = seq + 1;
    }

    /// The number of bytes that count towards the limit.
    fn bytes(&self) -> usize {
        self.flat.len() + self.large_bytes + self.entries.len() * size_of::<Stored>()
    }
}

impl Resend {
    /// Whether its header frame is at most `frame_max` bytes long. The body is cut into frames when it is
    /// queued, and a method frame is always short enough.
    pub(crate) fn fits(&self, frame_max: u32) -> bool {
        let method = FrameHead::parse(&self.head, FrameLimits::default()).ok().flatten();
        let header = self.head.len() - method.map_or(0, FrameHead::frame_len).min(self.head.len());
        header <= frame_max as usize
    }
}

#[cfg(test)]
mod tests {
    use amqp_proto::frame;
    use amqp_proto::method::basic;
    use amqp_proto::{PropertiesRef, RawTable};
    use bytes::Bytes;

    use super::{Outbox, Stored};
    use crate::limits::{COPIED_BODY_BYTES, OUTBOX_IDLE_BYTES};
    use crate::message::Body;
    use crate::transmit::{Outbound, Transmit};

    const FRAME_MAX: u32 = 8_192;

    /// The method and header frames of a publish.
    fn head(channel: u16, headers: &[u8], body: usize) -> Vec<u8> {
        let mut head = Vec::new();
        frame::write_method(&mut head, channel, &basic::Publish::default());
        let properties =
            PropertiesRef { headers: Some(RawTable::new(headers)), ..PropertiesRef::default() };
        frame::write_header_ref(&mut head, channel, body as u64, &properties);
        head
    }

    fn written(mut outbound: Outbound) -> Vec<u8> {
        let (mut out, mut wire) = (Transmit::new(), Vec::new());
        while outbound.transmit(&mut out, &mut Vec::new()) {
            wire.extend(out.to_vec());
            out.advance(out.to_vec().len());
        }
        wire
    }

    #[test]
    fn publishes_are_sent_again_as_they_were_queued_under_another_channel_number() {
        let mut outbox = Outbox::new(usize::MAX);
        let (mut again, mut expected) = (Outbound::new(FRAME_MAX), Outbound::new(FRAME_MAX));
        let bodies: Vec<_> = [0, 1, COPIED_BODY_BYTES - 1, COPIED_BODY_BYTES, 20_000, 5]
            .into_iter()
            .map(|size| Bytes::from(vec![size as u8; size]))
            .collect();
        for (seq, body) in (1..).zip(&bodies) {
            outbox.push(seq, &head(3, b"h", body.len()), &Body::Borrowed(body));
            let buffer = expected.buffer(7);
            let start = buffer.len();
            buffer.extend(head(7, b"h", body.len()));
            expected.body(7, start, &Body::Borrowed(body), seq);
        }
        assert_eq!(outbox.next_resend(|_| true), None, "nothing was lost");
        outbox.rewind();
        while let Some(resend) = outbox.next_resend(|_| true) {
            let size = resend.body.len();
            let offset = again.offset(7, size);
            let body = Body::Shared(resend.body);
            assert_eq!(again.resend(7, &resend.head, &body, resend.seq), offset);
            outbox.resent(resend.seq);
        }
        assert_eq!(written(again), written(expected));
    }

    #[test]
    fn only_open_publishes_are_sent_again() {
        let mut outbox = Outbox::new(usize::MAX);
        (1..=5).for_each(|seq| outbox.push(seq, &[seq as u8], &Body::Borrowed(b"")));
        outbox.rewind();
        outbox.release(2, &mut Vec::new());
        let mut sent = Vec::new();
        while let Some(resend) = outbox.next_resend(|seq| seq != 3 && seq != 5) {
            assert_eq!(resend.head, [resend.seq as u8]);
            assert_eq!(outbox.next_resend(|seq| seq != 3 && seq != 5), Some(resend));
            let seq = outbox.next_resend(|seq| seq != 3).unwrap().seq;
            outbox.resent(seq);
            // The publishes that are sent again may be resolved meanwhile.
            outbox.release(seq + 1, &mut Vec::new());
            sent.push(seq);
        }
        assert_eq!(sent, [2, 4]);
    }

    #[test]
    fn bytes_are_limited_and_released_from_the_front() {
        let per_entry = 100 + size_of::<Stored>();
        for large in [0, COPIED_BODY_BYTES] {
            let body = Body::Shared(Bytes::from(vec![0; large]));
            let mut outbox = Outbox::new(10 * (per_entry + large));
            let mut seq = 0;
            while outbox.has_space() {
                seq += 1;
                outbox.push(seq, &[0; 100], &body);
            }
            assert_eq!(seq, 10);
            let mut discarded = Vec::new();
            outbox.release(1, &mut discarded);
            assert!(!outbox.has_space());
            outbox.release(4, &mut discarded);
            assert!(outbox.has_space());
            assert_eq!(discarded.len(), if large == 0 { 0 } else { 3 });
            assert_eq!(outbox.numbers().collect::<Vec<_>>(), (4..=10).collect::<Vec<_>>());
            outbox.release(11, &mut discarded);
            assert_eq!(outbox.bytes(), 0);
        }
    }

    #[test]
    fn an_empty_outbox_holds_little_memory() {
        let mut outbox = Outbox::new(usize::MAX);
        (0..10_000).for_each(|seq| outbox.push(seq, &[0; 100], &Body::Borrowed(b"small")));
        outbox.release(10_000, &mut Vec::new());
        let entries = outbox.entries.capacity() * size_of::<Stored>();
        assert!(outbox.flat.capacity() + entries <= OUTBOX_IDLE_BYTES);
    }

    #[test]
    fn a_header_frame_must_fit_the_next_transport() {
        let mut outbox = Outbox::new(usize::MAX);
        let mut method = Vec::new();
        frame::write_method(&mut method, 1, &basic::Publish::default());
        let head = head(1, &[0; 5_000], 0);
        outbox.push(1, &head, &Body::Borrowed(b""));
        outbox.rewind();
        let resend = outbox.next_resend(|_| true).unwrap();
        let header = (head.len() - method.len()) as u32;
        assert!(resend.fits(header) && !resend.fits(header - 1));
    }
}
