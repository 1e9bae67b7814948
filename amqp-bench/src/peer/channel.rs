//! One channel of the peer: the content that is being received, and the flood that is being sent.

use amqp_proto::frame::{self, FRAME_OVERHEAD};
use amqp_proto::method::{WireMethod, basic};
use amqp_proto::{ContentHeader, RawProperties, ShortStr};

use super::{Deliveries, Ended};
use crate::tags::Tags;
use crate::workload::QUEUE;

/// Every content of AMQP 0-9-1 is of the class `basic`.
const CONTENT_CLASS: u16 = 60;
/// The negotiated frame size.
pub(super) const FRAME_MAX: u32 = 131_072;

#[derive(Clone, Default)]
pub(super) struct Channel {
    pub(super) open: bool,
    /// Messages that arrived whole.
    pub(super) published: u64,
    pub(super) body_bytes: u64,
    pub(super) confirms: bool,
    /// Publishes that are confirmed with the next write.
    pub(super) unconfirmed: bool,
    pub(super) prefetch: u64,
    pub(super) flood: Option<Flood>,
    /// Acknowledged deliveries of floods that were cancelled.
    acked_before: u64,
    last_size: u64,
    expected: Expected,
}

/// The frame that must come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expected {
    #[default]
    Method,
    Header,
    /// So many more bytes of a body of the size.
    Body {
        left: u64,
        size: u64,
    },
}

/// A consumer's deliveries: one message laid down many times, with its tag filled in.
#[derive(Clone)]
pub(super) struct Flood {
    message: Vec<u8>,
    tag_at: usize,
    left: u64,
    sent: u64,
    acked: Tags,
    no_ack: bool,
}

impl Channel {
    /// An error unless a method may come.
    pub(super) fn expects_method(&self) -> Result<(), Ended> {
        match self.expected {
            Expected::Method => Ok(()),
            expected => Err(Ended::Wrong(format!("a method instead of {expected:?}"))),
        }
    }

    #[inline]
    pub(super) fn publish(&mut self, arguments: &[u8]) -> Result<(), Ended> {
        let publish = basic::Publish::decode(arguments).map_err(wrong)?;
        if publish.routing_key.as_bytes() != QUEUE.as_bytes() || !publish.exchange.is_empty() {
            return Err(Ended::Wrong(format!("a publish to nowhere: {publish:?}")));
        }
        self.expected = Expected::Header;
        Ok(())
    }

    #[inline]
    pub(super) fn header(&mut self, payload: &[u8]) -> Result<(), Ended> {
        let header = ContentHeader::decode(payload).map_err(wrong)?;
        if self.expected != Expected::Header || header.class_id != CONTENT_CLASS {
            let class = header.class_id;
            let expected = self.expected;
            return Err(Ended::Wrong(format!("a header of class {class} instead of {expected:?}")));
        }
        match header.body_size {
            0 => self.published(0),
            size => self.expected = Expected::Body { left: size, size },
        }
        Ok(())
    }

    #[inline]
    pub(super) fn body(&mut self, payload: &[u8]) -> Result<(), Ended> {
        let length = payload.len() as u64;
        match self.expected {
            Expected::Body { left, size } if length == left => self.published(size),
            Expected::Body { left, size } if (1..left).contains(&length) => {
                self.expected = Expected::Body { left: left - length, size };
            }
            expected => {
                return Err(Ended::Wrong(format!("a body of {length} B instead of {expected:?}")));
            }
        }
        Ok(())
    }

    /// A message of so many bytes arrived whole.
    #[inline]
    pub(super) fn published(&mut self, body_size: u64) {
        self.expected = Expected::Method;
        self.published += 1;
        self.body_bytes += body_size;
        self.last_size = body_size;
        self.unconfirmed = self.confirms;
    }

    /// Bytes of the body of the last message.
    pub(super) const fn last_size(&self) -> u64 {
        self.last_size
    }

    #[inline]
    pub(super) fn ack(&mut self, arguments: &[u8]) -> Result<(), Ended> {
        let ack = basic::Ack::decode(arguments).map_err(wrong)?;
        match &mut self.flood {
            Some(flood) if !flood.no_ack => {
                flood.acked.ack(ack.delivery_tag, ack.multiple, flood.sent).map_err(wrong)
            }
            _ => Err(Ended::Wrong("an acknowledgement of nothing".into())),
        }
    }

    /// Acknowledged deliveries.
    pub(super) fn acked(&self) -> u64 {
        self.acked_before + self.flood.as_ref().map_or(0, |flood| flood.acked.count())
    }

    pub(super) fn cancel(&mut self) {
        self.acked_before = self.acked();
        self.flood = None;
    }

    pub(super) fn may_send(&self) -> u64 {
        let Some(flood) = &self.flood else { return 0 };
        if flood.no_ack || self.prefetch == 0 {
            flood.left
        } else {
            flood.left.min(self.prefetch.saturating_sub(flood.sent - flood.acked.count()))
        }
    }

    /// Lays down what the consumer may have, up to so many bytes in all.
    pub(super) fn flood(&mut self, output: &mut Vec<u8>, limit: usize) {
        let may_send = self.may_send();
        let Some(flood) = &mut self.flood else { return };
        for _ in 0..may_send {
            if output.len() >= limit {
                break;
            }
            flood.sent += 1;
            flood.left -= 1;
            let tag = output.len() + flood.tag_at;
            output.extend_from_slice(&flood.message);
            output[tag..tag + 8].copy_from_slice(&flood.sent.to_be_bytes());
        }
    }
}

impl Flood {
    pub(super) fn new(number: u16, consume: &basic::Consume<'_>, deliveries: Deliveries) -> Self {
        let deliver = basic::Deliver {
            consumer_tag: consume.consumer_tag,
            routing_key: ShortStr::new(QUEUE).unwrap_or_default(),
            ..Default::default()
        };
        let mut message = Vec::new();
        frame::write_method(&mut message, number, &deliver);
        let header = ContentHeader {
            class_id: CONTENT_CLASS,
            body_size: deliveries.size as u64,
            properties: RawProperties::NONE,
        };
        frame::write_header(&mut message, number, &header);
        for piece in vec![b'x'; deliveries.size].chunks(FRAME_MAX as usize - FRAME_OVERHEAD) {
            frame::write_body(&mut message, number, piece);
        }
        // Frame head, ids, the tag's length and the consumer's tag come before it.
        let tag_at = 7 + 4 + 1 + consume.consumer_tag.len();
        Self {
            message,
            tag_at,
            left: deliveries.count,
            sent: 0,
            acked: Tags::default(),
            no_ack: consume.no_ack,
        }
    }
}

pub(super) fn wrong(error: impl std::fmt::Display) -> Ended {
    Ended::Wrong(error.to_string())
}
