//! Where the frames of a stream begin that arrives in pieces of any size.

use amqp_proto::PROTOCOL_HEADER;
use amqp_proto::frame::{FrameHead, FrameKind, FrameLimits};
use amqp_proto::method::MethodId;

/// The bytes of a frame before its payload.
const HEAD_BYTES: usize = 7;
/// The bytes of a frame by which its method is known.
const METHOD_BYTES: usize = HEAD_BYTES + 4;

const ANY_SIZE: FrameLimits = FrameLimits { method: u32::MAX, header: u32::MAX, body: u32::MAX };

/// The place in a stream of frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// The bytes that are left of the frame that has begun.
    left: usize,
    /// What has passed of a head that is not complete.
    head: Vec<u8>,
    /// The method of the frame that begins here has been asked about.
    asked: bool,
}

/// What a frame is that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    Method(MethodId),
    /// The header of a content.
    Header,
    /// A part of the body of a content.
    Body,
}

/// Why a scan has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The bytes have ended.
    End,
    /// A frame begins that is to be stopped at.
    Here,
    /// A frame begins whose method is not known yet.
    Unknown,
}

impl Frames {
    /// The frames behind the protocol header of a client.
    pub(crate) fn of_client() -> Self {
        Self { left: PROTOCOL_HEADER.len(), ..Self::default() }
    }

    /// Passes over `bytes`, up to the first frame for which `stops` is true. Each frame but heartbeats is asked about once.
    ///
    /// Returns how many bytes were passed over, and why no more.
    pub(crate) fn scan(
        &mut self,
        bytes: &[u8],
        mut stops: impl FnMut(Begun) -> bool,
    ) -> (usize, Stop) {
        let mut passed = 0;
        while passed < bytes.len() {
            let rest = &bytes[passed..];
            if self.left == 0 && self.head.is_empty() && !self.asked {
                let begun = match FrameHead::parse(rest, ANY_SIZE) {
                    Ok(None) => return (passed, Stop::Unknown),
                    Ok(Some(head)) => match head.kind {
                        FrameKind::Method if rest.len() < METHOD_BYTES => {
                            return (passed, Stop::Unknown);
                        }
                        FrameKind::Method => {
                            let split = MethodId::split(&rest[HEAD_BYTES..]);
                            split.ok().map(|(id, _)| Begun::Method(id))
                        }
                        FrameKind::Header => Some(Begun::Header),
                        FrameKind::Body => Some(Begun::Body),
                        FrameKind::Heartbeat => None,
                    },
                    Err(_) => None,
                };
                self.asked = true;
                if begun.is_some_and(&mut stops) {
                    return (passed, Stop::Here);
                }
            }
            passed += self.step(rest);
        }
        (passed, Stop::End)
    }

    /// Passes over `bytes`.
    pub(crate) fn skip(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let passed = self.step(bytes);
            bytes = &bytes[passed..];
        }
    }

    /// Passes over a part of `bytes` that belongs to one frame. Returns its size.
    fn step(&mut self, bytes: &[u8]) -> usize {
        self.asked = false;
        if self.left > 0 {
            let count = self.left.min(bytes.len());
            self.left -= count;
            return count;
        }
        let count = (HEAD_BYTES - self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..count]);
        match FrameHead::parse(&self.head, ANY_SIZE) {
            Ok(None) => {}
            Ok(Some(head)) => {
                self.left = (head.size as usize).saturating_add(1);
                self.head.clear();
            }
            // Not a stream of frames.
            Err(_) => self.left = usize::MAX,
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use amqp_proto::method::{WireMethod, basic};

    use super::{Begun, Frames, Stop};

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = (payload.len() as u32).to_be_bytes();
        [&[kind, 0, 1][..], &size, payload, &[0xce]].concat()
    }

    fn ack() -> Vec<u8> {
        let mut payload = Vec::new();
        basic::Ack::default().encode(&mut payload);
        frame(1, &payload)
    }

    /// A client's stream with an acknowledgement at the end, and inside of a body.
    fn stream() -> (Vec<u8>, usize) {
        let before = [&b"AMQP\x00\x00\x09\x01"[..], &frame(8, &[]), &frame(3, &ack())].concat();
        ([&before[..], &ack(), &frame(8, &[])].concat(), before.len())
    }

    #[test]
    fn a_method_is_found_wherever_the_stream_is_cut() {
        let (stream, at) = stream();
        for cut in 0..stream.len() {
            let mut frames = Frames::of_client();
            let mut stops = |begun| begun == Begun::Method(basic::Ack::ID);
            let (first, stop) = frames.scan(&stream[..cut], &mut stops);
            if stop == Stop::Here {
                assert_eq!(first, at);
                continue;
            }
            let (second, stop) = frames.scan(&stream[first..], &mut stops);
            let found = cut < at + 11;
            assert_eq!(
                (first + second, stop == Stop::Here),
                if found { (at, true) } else { (stream.len(), false) }
            );
        }
    }

    #[test]
    fn each_frame_is_asked_about_once() {
        let (stream, at) = stream();
        let mut frames = Frames::of_client();
        let mut asked = 0;
        let mut stops = |_| {
            asked += 1;
            true
        };
        let body = at - ack().len() - 8;
        assert_eq!(frames.scan(&stream, &mut stops), (body, Stop::Here));
        assert_eq!(frames.scan(&stream[body..], &mut stops), (at - body, Stop::Here));
        assert_eq!(frames.scan(&stream[at..], &mut stops), (stream.len() - at, Stop::End));
        assert_eq!(asked, 2, "not about heartbeats");
    }

    #[test]
    fn frames_of_contents_are_told_apart() {
        let stream = [frame(2, b"header"), frame(3, b"body"), frame(3, b"more")].concat();
        let mut frames = Frames::default();
        let mut begun = Vec::new();
        frames.scan(&stream, |it| {
            begun.push(it);
            false
        });
        assert_eq!(begun, [Begun::Header, Begun::Body, Begun::Body]);
    }

    #[test]
    fn what_has_passed_is_followed_byte_by_byte() {
        let (stream, at) = stream();
        let mut frames = Frames::of_client();
        stream[..at].chunks(1).for_each(|byte| frames.skip(byte));
        let is_ack = |begun| begun == Begun::Method(basic::Ack::ID);
        assert_eq!(frames.scan(&stream[at..], is_ack), (0, Stop::Here));
        // A head of which a part has passed cannot be stopped at.
        frames.skip(&stream[at..at + 3]);
        assert_eq!(frames.scan(&stream[at + 3..], |_| true), (stream.len() - at - 3, Stop::End));
    }

    #[test]
    fn what_is_no_stream_of_frames_has_no_methods() {
        let mut frames = Frames::default();
        assert_eq!(frames.scan(b"hello", |_| true), (5, Stop::End));
        assert_eq!(frames.scan(&ack(), |_| true), (ack().len(), Stop::End));
    }
}
