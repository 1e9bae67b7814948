//! What the client writes, frame by frame: it must be well formed before a broker looks at it.

use std::collections::BTreeMap;

use amqp_core::proto::ContentHeader;
use amqp_core::proto::frame::{self, FrameKind, FrameLimits, Peek};
use amqp_core::proto::method::Method;

use super::log::Log;
use super::publishing::publish_id;

/// Looks at bytes as the driver takes them.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    frame_max: usize,
    rest: Vec<u8>,
    /// Bytes before `rest`.
    offset: u64,
    contents: BTreeMap<u16, Begun>,
}

/// A content that has begun: where, and how much of it is still to come.
#[derive(Debug, Default)]
struct Begun {
    offset: u64,
    /// `None` until its header has come.
    left: Option<u64>,
    properties: Vec<u8>,
    identified: bool,
}

impl Scan {
    pub(crate) fn new(frame_max: usize) -> Self {
        Self { frame_max, ..Self::default() }
    }

    /// The stream has this many bytes before what is looked at.
    pub(crate) const fn begin(&mut self, offset: u64) {
        self.offset = offset;
    }

    pub(crate) fn take(&mut self, bytes: &[u8], log: &mut Log) {
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let mut at = 0;
        while let Peek::Complete(frame) = frame::peek(&rest[at..], FrameLimits::default()).unwrap()
        {
            let length = frame.frame_len();
            assert!(length <= self.frame_max, "a frame of {length} bytes");
            self.frame(&frame, self.offset + at as u64, log);
            at += length;
        }
        self.offset += at as u64;
        self.rest = rest[at..].to_vec();
    }

    /// Contents are contiguous within their channel.
    fn frame(&mut self, frame: &frame::Frame<'_>, offset: u64, log: &mut Log) {
        let channel = frame.channel;
        match frame.kind {
            FrameKind::Method => {
                let method = Method::decode(frame.payload).unwrap();
                let begun = self.contents.get(&channel);
                assert!(begun.is_none(), "{method:?} in the middle of a content: {begun:?}");
                if matches!(method, Method::BasicPublish(_)) {
                    self.contents.insert(channel, Begun { offset, ..Begun::default() });
                }
            }
            FrameKind::Header => {
                let header = ContentHeader::decode(frame.payload).unwrap();
                let begun = self.contents.get_mut(&channel).expect("a header without a method");
                assert_eq!(begun.left.replace(header.body_size), None, "two headers");
                begun.properties = header.properties.as_bytes().to_vec();
                begun.identify(&[], log);
            }
            FrameKind::Body => {
                let begun = self.contents.get_mut(&channel).expect("a body without a method");
                let left = begun.left.expect("a body without a header");
                let size = frame.payload.len() as u64;
                assert!(size > 0 && size <= left, "{size} bytes of {left}");
                begun.left = Some(left - size);
                begun.identify(frame.payload, log);
            }
            FrameKind::Heartbeat => assert_eq!((channel, frame.payload.len()), (0, 0)),
        }
        if self.contents.get(&channel).is_some_and(|begun| begun.left == Some(0)) {
            self.contents.remove(&channel);
        }
    }
}

impl Begun {
    /// The publish is known by its properties, or by the beginning of its body.
    fn identify(&mut self, body: &[u8], log: &mut Log) {
        if self.identified {
            return;
        }
        if let Some(published) = log.published.get_mut(&publish_id(&self.properties, body)) {
            self.identified = true;
            assert_eq!(published.offset.replace(self.offset), None, "written twice");
        }
    }
}
