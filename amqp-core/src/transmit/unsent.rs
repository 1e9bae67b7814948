//! Counts the publishes of which nothing was written, when the transport is lost.
//!
//! Publishes without confirms have no record, so that they cost nothing while the transport works. Their method
//! frames are searched in the bytes that were left: those that the driver took and has not written, those that
//! wait for the driver, and the lanes.

use std::collections::{BTreeMap, vec_deque};
use std::iter::Peekable;

use amqp_proto::frame::{FRAME_END, FRAME_HEAD, FrameHead, FrameKind, FrameLimits};
use amqp_proto::method::{MethodId, WireMethod, basic};

use crate::transmit::Outbound;
use crate::transmit::chunk::{Chunk, Insert};

impl Outbound {
    /// Returns the number of publishes per channel that wait for the driver, sorted by channel. Those of which a part
    /// was taken are not among them.
    pub(crate) fn unsent_publishes(&self) -> Vec<(u16, u64)> {
        let mut counts = BTreeMap::new();
        let mut add = |channel, publishes| *counts.entry(channel).or_insert(0) += publishes;
        for channel in self.chunk.publishes_from(0, 0) {
            add(channel, 1);
        }
        for (channel, publishes) in self.lanes.unsent_publishes() {
            add(channel, publishes);
        }
        counts.into_iter().filter(|(_, publishes)| *publishes > 0).collect()
    }
}

impl Chunk {
    /// Returns the channel of each publish that begins at or after `unwritten` in the flat bytes. A frame must
    /// begin at `start`, or the end octet of one, and the inserts before it must be removed.
    pub(super) fn publishes_from(
        &self,
        start: usize,
        unwritten: usize,
    ) -> impl Iterator<Item = u16> {
        let end_octet = self.flat.get(start) == Some(&FRAME_END);
        let at = start + usize::from(end_octet);
        let publishes = Publishes { flat: &self.flat, inserts: self.inserts.iter().peekable(), at };
        publishes.filter(move |(at, _)| *at >= unwritten).map(|(_, channel)| channel)
    }
}

/// Finds the position and the channel of each publish in a chunk.
struct Publishes<'a> {
    flat: &'a [u8],
    inserts: Peekable<vec_deque::Iter<'a, Insert>>,
    /// Where the next frame begins in the flat bytes.
    at: usize,
}

impl Iterator for Publishes<'_> {
    type Item = (usize, u16);

    fn next(&mut self) -> Option<(usize, u16)> {
        const ANY: FrameLimits = FrameLimits { body: u32::MAX, header: u32::MAX, method: u32::MAX };
        loop {
            // A complete frame, which holds a secret.
            if self.inserts.next_if(|insert| insert.at == self.at).is_some() {
                continue;
            }
            let start = self.at;
            // Nothing can be published before the protocol header is written, which is not a frame.
            let head = FrameHead::parse(self.flat.get(start..)?, ANY).ok()??;
            let payload = start + FRAME_HEAD;
            let inserted = self.inserts.next_if(|insert| insert.at == payload).is_some();
            let end = payload + if inserted { 0 } else { head.size as usize };
            self.at = end + 1;
            if head.kind == FrameKind::Method && is_publish(self.flat.get(payload..end)?) {
                return Some((start, head.channel));
            }
        }
    }
}

/// Whether a method frame with this payload is a publish.
fn is_publish(payload: &[u8]) -> bool {
    MethodId::split(payload).is_ok_and(|(id, _)| id == <basic::Publish<'_> as WireMethod<'_>>::ID)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use amqp_proto::PropertiesRef;
    use amqp_proto::frame::{self, FRAME_OVERHEAD, FrameKind, FrameLimits, Peek};
    use amqp_proto::method::basic;
    use bytes::Bytes;
    use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
    use proptest::sample::Index;
    use zeroize::Zeroizing;

    use super::is_publish;
    use crate::limits::COPIED_BODY_BYTES;
    use crate::message::Body;
    use crate::transmit::{Outbound, Transmit};

    const FRAME_MAX: usize = 8_192;

    #[derive(Clone, Debug)]
    enum Step {
        Publish {
            channel: u16,
            size: usize,
        },
        Ack {
            channel: u16,
        },
        Secret,
        Abandon {
            channel: u16,
        },
        /// The driver writes this part of what it has, and takes more when it has written all.
        Write(Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let body_max = FRAME_MAX - FRAME_OVERHEAD;
        let size = prop_oneof![
            8 => Just(0),
            8 => 1..COPIED_BODY_BYTES,
            4 => COPIED_BODY_BYTES..=body_max,
            1 => body_max + 1..4 * body_max,
        ];
        let step = prop_oneof![
            20 => (1_u16..4, size).prop_map(|(channel, size)| Step::Publish { channel, size }),
            5 => (1_u16..4).prop_map(|channel| Step::Ack { channel }),
            1 => Just(Step::Secret),
            1 => (1_u16..4).prop_map(|channel| Step::Abandon { channel }),
            10 => any::<Index>().prop_map(Step::Write),
        ];
        prop::collection::vec(step, 0..60)
    }

    struct World {
        outbound: Outbound,
        out: Transmit,
        /// All bytes that were taken and then written.
        written: Vec<u8>,
    }

    impl World {
        fn step(&mut self, step: &Step) {
            let frame = |channel| {
                let mut frame = Vec::new();
                let ack = basic::Ack { delivery_tag: 1, multiple: true };
                frame::write_method(&mut frame, channel, &ack);
                frame
            };
            match step {
                Step::Publish { channel, size } => self.publish(*channel, *size),
                Step::Ack { channel } => {
                    self.outbound.frames(*channel, |out| out.extend(frame(*channel)));
                }
                Step::Secret => self.outbound.secret_frame(Zeroizing::new(frame(0))),
                Step::Abandon { channel } => self.outbound.abandon(*channel),
                Step::Write(part) => {
                    self.outbound.transmit(&mut self.out, &mut Vec::new());
                    let rest = self.out.to_vec();
                    self.write(part.index(rest.len() + 1));
                }
            }
        }

        /// As `Channel::publish` does.
        fn publish(&mut self, channel: u16, size: usize) {
            // The octets of frames and of their ends, to be taken for frames.
            let body: Vec<u8> =
                [1, 0, 1, 0, 0, 0, 4, 0, 60, 0, 40, 0xce].into_iter().cycle().take(size).collect();
            let method = basic::Publish::default();
            if self.outbound.is_direct(size) {
                self.outbound.publish(channel, &method, None, &body);
                return;
            }
            let buffer = self.outbound.buffer(channel);
            let start = buffer.len();
            frame::write_method(buffer, channel, &method);
            let properties = PropertiesRef::default();
            frame::write_header_ref(buffer, channel, size as u64, &properties);
            self.outbound.body(channel, start, &Body::Shared(Bytes::from(body)), 0);
        }

        fn write(&mut self, count: usize) {
            self.written.extend_from_slice(&self.out.to_vec()[..count]);
            self.out.advance(count);
        }
    }

    /// Returns the channel and the position of each publish in the whole stream.
    fn publishes(mut stream: &[u8]) -> Vec<(u16, usize)> {
        let (length, mut publishes) = (stream.len(), Vec::new());
        while let Ok(Peek::Complete(frame)) = frame::peek(stream, FrameLimits::default()) {
            if frame.kind == FrameKind::Method && is_publish(frame.payload) {
                publishes.push((frame.channel, length - stream.len()));
            }
            stream = &stream[frame.frame_len()..];
        }
        assert!(stream.is_empty());
        publishes
    }

    proptest! {
        #[test]
        fn publishes_of_which_nothing_was_written_are_counted(steps in steps()) {
            let outbound = Outbound::new(FRAME_MAX as u32);
            let mut world = World { outbound, out: Transmit::new(), written: Vec::new() };
            for step in &steps {
                world.step(step);
            }
            let mut counted: BTreeMap<_, _> = world.outbound.unsent_publishes().into_iter().collect();
            for channel in world.out.unsent_publishes() {
                *counted.entry(channel).or_insert(0) += 1;
            }
            let written = world.written.len();
            loop {
                world.write(world.out.to_vec().len());
                if !world.outbound.transmit(&mut world.out, &mut Vec::new()) {
                    break;
                }
            }
            let mut expected = BTreeMap::new();
            for (channel, at) in publishes(&world.written) {
                *expected.entry(channel).or_insert(0) += u64::from(at >= written);
            }
            expected.retain(|_, count| *count > 0);
            assert_eq!(counted, expected);
        }
    }
}
