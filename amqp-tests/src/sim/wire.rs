//! One direction of a connection, frame by frame. Whatever the simulation knows of a conversation it reads here.

use std::collections::BTreeMap;

use amqp_core::proto::ContentHeader;
use amqp_core::proto::frame::{self, FrameKind, FrameLimits, Peek};
use amqp_core::proto::method::Method;

/// The number of bytes of a body that identify its message.
pub(super) const ID_BYTES: usize = 8;

/// Where a frame is in the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) channel: u16,
    pub(super) start: u64,
    pub(super) end: u64,
}

#[derive(Debug)]
pub(super) enum Seen<'a> {
    Heartbeat,
    Method(&'a Method<'a>),
    /// The last frame of a message with this id.
    Message(Carrier, u64),
}

/// The method that carries a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Publish,
    Deliver { consumer: Vec<u8>, tag: u64 },
    Got { tag: u64 },
    Return,
}

#[derive(Debug)]
pub(super) struct Wire {
    frame_max: usize,
    rest: Vec<u8>,
    /// The number of bytes before `rest`.
    offset: u64,
    /// The number of bytes to skip, of the protocol header.
    skip: usize,
    contents: BTreeMap<u16, Content>,
}

#[derive(Debug)]
struct Content {
    carrier: Carrier,
    /// The number of bytes of the body that are missing, `None` until its header has come.
    left: Option<u64>,
    id: Vec<u8>,
}

impl Wire {
    pub(super) fn new(frame_max: usize, skip: usize) -> Self {
        Self { frame_max, rest: Vec::new(), offset: 0, skip, contents: BTreeMap::new() }
    }

    /// Takes bytes, and reports each frame that is complete.
    pub(super) fn take(&mut self, bytes: &[u8], mut seen: impl FnMut(At, Seen<'_>)) {
        self.rest.extend_from_slice(bytes);
        if self.skip > 0 {
            if self.rest.len() < self.skip {
                return;
            }
            self.rest.drain(..self.skip);
            self.offset += std::mem::take(&mut self.skip) as u64;
        }
        let rest = std::mem::take(&mut self.rest);
        let mut taken = 0;
        loop {
            let left = &rest[taken..];
            let peeked = frame::peek(left, FrameLimits::default());
            let Peek::Complete(frame) = peeked.expect("frames are well formed") else { break };
            let length = frame.frame_len();
            assert!(length <= self.frame_max, "a frame of {length} bytes");
            let start = self.offset + taken as u64;
            let at = At { channel: frame.channel, start, end: start + length as u64 };
            self.frame(at, frame.kind, frame.payload, &mut seen);
            taken += length;
        }
        self.offset += taken as u64;
        self.rest = rest[taken..].to_vec();
    }

    /// Contents are whole: method, header, and as many bytes as the header announces, with nothing between them on
    /// their channel (I5).
    fn frame(
        &mut self,
        at: At,
        kind: FrameKind,
        payload: &[u8],
        seen: &mut impl FnMut(At, Seen<'_>),
    ) {
        match kind {
            FrameKind::Heartbeat => {
                assert_eq!((at.channel, payload.len()), (0, 0), "I5: a heartbeat");
                seen(at, Seen::Heartbeat);
            }
            FrameKind::Method => {
                let method = Method::decode(payload).expect("methods are well formed");
                let content = self.contents.get(&at.channel);
                assert!(content.is_none(), "I5: {method:?} within a content: {content:?}");
                if let Some(carrier) = Carrier::of(&method) {
                    let content = Content { carrier, left: None, id: Vec::new() };
                    self.contents.insert(at.channel, content);
                }
                seen(at, Seen::Method(&method));
            }
            FrameKind::Header => {
                let header = ContentHeader::decode(payload).expect("headers are well formed");
                let content = self.contents.get_mut(&at.channel);
                let content = content.expect("I5: a header follows its method");
                assert_eq!(content.left.replace(header.body_size), None, "I5: two headers");
                assert!(header.body_size >= ID_BYTES as u64, "a message without its id");
            }
            FrameKind::Body => {
                let content = self.contents.get_mut(&at.channel);
                let content = content.expect("I5: a body follows its method");
                let left = content.left.expect("I5: a body follows its header");
                let size = payload.len() as u64;
                assert!(size > 0 && size <= left, "I5: {size} bytes of {left}");
                content.left = Some(left - size);
                let missing = ID_BYTES - content.id.len();
                content.id.extend(payload.iter().take(missing));
                if left == size
                    && let Some(content) = self.contents.remove(&at.channel)
                {
                    seen(at, Seen::Message(content.carrier, message_id(&content.id)));
                }
            }
        }
    }
}

impl Carrier {
    fn of(method: &Method<'_>) -> Option<Self> {
        Some(match method {
            Method::BasicPublish(_) => Self::Publish,
            Method::BasicDeliver(deliver) => Self::Deliver {
                consumer: deliver.consumer_tag.as_bytes().to_vec(),
                tag: deliver.delivery_tag,
            },
            Method::BasicGetOk(got) => Self::Got { tag: got.delivery_tag },
            Method::BasicReturn(_) => Self::Return,
            _ => return None,
        })
    }
}

/// Returns the id of the message that has this body.
pub(super) fn message_id(body: &[u8]) -> u64 {
    let id = body.first_chunk::<ID_BYTES>().expect("a message with its id");
    u64::from_be_bytes(*id)
}
