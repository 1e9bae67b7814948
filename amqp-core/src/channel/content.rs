//! Contents as they arrive: a method, a header, bodies, possibly interleaved with other channels'
//! frames (AMQP 0-9-1, 4.2.6).
//!
//! Exchange, routing key, properties and a small body are gathered in one staging buffer and stored
//! in the arena when the content is complete. A large body that fits one frame is taken from the
//! input without copying; one of several frames is copied once, into memory that grows as it
//! arrives. A body over the limit is thrown away as it arrives.

use std::ops::Range;
use std::sync::Arc;

use amqp_proto::{ContentHeader, RawProperties, ShortStr};
use bytes::{Bytes, BytesMut};

use crate::arena::Arena;
use crate::channel::fingerprint::BodyHash;
use crate::error::ProtocolDetail;
use crate::ids::ConsumerKey;
use crate::limits::{
    BODY_FIRST_BYTES, COPIED_BODY_BYTES, MESSAGE_BYTES, STAGING_BUFFER_BYTES, STAGING_BUFFERS_MAX,
};
use crate::message::{Apart, BODY_GAP, Fault, Message, PROPERTIES_GAP, ROUTING_KEY_GAP};

/// What a content is for.
#[derive(Debug)]
pub(crate) enum Target {
    Deliver {
        consumer: Option<ConsumerKey>,
        tag: u64,
        redelivered: bool,
    },
    Return {
        code: u16,
        text: Arc<str>,
        /// Of a body that is thrown away: its publish is found by it.
        body: Option<BodyHash>,
    },
    Got {
        tag: u64,
        redelivered: bool,
        message_count: u32,
    },
    /// The channel is closing: what was to be acknowledged is read and dropped.
    Nobody,
}

impl Target {
    /// A piece of the body is thrown away.
    fn discard(&mut self, piece: &[u8]) {
        if let Self::Return { body, .. } = self {
            body.get_or_insert_default().write(piece);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Without one, a method is due. It is changed where it stands: moving it would cost more than the
    /// message does.
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    /// Bodies are due; before that, the header is.
    has_header: bool,
    target: Target,
    staged: Vec<u8>,
    exchange_len: u8,
    routing_key_len: u8,
    properties_len: u32,
    size: u64,
    received: u64,
    body: LargeBody,
}

#[derive(Debug)]
enum LargeBody {
    /// It is small, and staged.
    Staged,
    Whole(Bytes),
    Growing(BytesMut),
    /// It is thrown away as it arrives.
    Discarded(Fault),
}

/// A complete content.
#[derive(Debug)]
pub(crate) struct Complete {
    pub(crate) target: Target,
    pub(crate) message: Message,
}

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

/// Memory shared by the contents of all channels.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    arena: Arena,
    spare: Vec<Vec<u8>>,
}

impl Content {
    pub(crate) const fn is_none(&self) -> bool {
        self.partial.is_none()
    }

    /// A method with content.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        staging: &mut Staging,
        target: Target,
        exchange: ShortStr<'_>,
        routing_key: ShortStr<'_>,
    ) {
        let mut staged = staging.spare.pop().unwrap_or_default();
        staged.extend_from_slice(exchange.as_bytes());
        staged.extend_from_slice(&[0; ROUTING_KEY_GAP]);
        staged.extend_from_slice(routing_key.as_bytes());
        self.partial = Some(Partial {
            has_header: false,
            target,
            staged,
            exchange_len: exchange.len() as u8,
            routing_key_len: routing_key.len() as u8,
            properties_len: 0,
            size: 0,
            received: 0,
            body: LargeBody::Staged,
        });
    }

    /// A header frame.
    #[inline]
    pub(crate) fn header(
        &mut self,
        staging: &mut Staging,
        header: &ContentHeader<'_>,
    ) -> Result<Option<Complete>, ProtocolDetail> {
        let Some(partial) = self.partial.as_mut().filter(|partial| !partial.has_header) else {
            return Err(ProtocolDetail::UnexpectedFrame);
        };
        partial.has_header = true;
        partial.stage_properties(header.properties);
        partial.size = header.body_size;
        if header.body_size > MESSAGE_BYTES {
            partial.body = LargeBody::Discarded(Fault::Oversize { size: header.body_size });
        } else if header.body_size >= COPIED_BODY_BYTES as u64 {
            partial.body = LargeBody::Growing(BytesMut::new());
        }
        Ok(self.take_complete(staging))
    }

    /// A header frame that is too large to be kept: the message comes without properties and body.
    pub(crate) fn skipped_header(
        &mut self,
        staging: &mut Staging,
        size: u32,
        body_size: u64,
    ) -> Result<Option<Complete>, ProtocolDetail> {
        let Some(partial) = self.partial.as_mut().filter(|partial| !partial.has_header) else {
            return Err(ProtocolDetail::UnexpectedFrame);
        };
        partial.has_header = true;
        partial.stage_properties(RawProperties::NONE);
        partial.size = body_size;
        partial.body = LargeBody::Discarded(Fault::HeaderTooLarge { size });
        Ok(self.take_complete(staging))
    }

    /// Whether a body frame of `length` bytes is the whole of a large body: it is then to be given
    /// as [`Piece::Owned`].
    #[inline]
    pub(crate) const fn takes_whole(&self, length: usize) -> bool {
        match &self.partial {
            Some(partial) => {
                matches!(partial.body, LargeBody::Growing(_))
                    && partial.received == 0
                    && partial.size == length as u64
            }
            None => false,
        }
    }

    /// A body frame.
    #[inline]
    pub(crate) fn body(
        &mut self,
        staging: &mut Staging,
        piece: Piece<'_>,
    ) -> Result<Option<Complete>, ProtocolDetail> {
        let length = match &piece {
            Piece::Borrowed(bytes) => bytes.len(),
            Piece::Owned(bytes) => bytes.len(),
        };
        let partial = match &mut self.partial {
            Some(partial) if partial.has_header => partial,
            // An empty frame may follow a content that is complete, and adds nothing to it.
            None if length == 0 => return Ok(None),
            _ => return Err(ProtocolDetail::UnexpectedFrame),
        };
        partial.received += length as u64;
        if partial.received > partial.size {
            return Err(ProtocolDetail::BodyTooLong);
        }
        match (&mut partial.body, piece) {
            (LargeBody::Staged, Piece::Borrowed(bytes)) => partial.staged.extend_from_slice(bytes),
            (LargeBody::Staged, Piece::Owned(bytes)) => partial.staged.extend_from_slice(&bytes),
            (LargeBody::Growing(body), Piece::Borrowed(bytes)) => {
                if body.capacity() == 0 {
                    let size = usize::try_from(partial.size).unwrap_or(usize::MAX);
                    body.reserve(size.min(BODY_FIRST_BYTES).max(bytes.len()));
                }
                body.extend_from_slice(bytes);
            }
            (body @ LargeBody::Growing(_), Piece::Owned(bytes)) => *body = LargeBody::Whole(bytes),
            (LargeBody::Discarded(_), Piece::Borrowed(bytes)) => partial.target.discard(bytes),
            (LargeBody::Discarded(_), Piece::Owned(bytes)) => partial.target.discard(&bytes),
            (LargeBody::Whole(_), _) => {}
        }
        Ok(self.take_complete(staging))
    }

    /// Takes the content, if nothing more of it is due.
    #[inline]
    fn take_complete(&mut self, staging: &mut Staging) -> Option<Complete> {
        let partial = self.partial.take_if(|partial| partial.received == partial.size)?;
        Some(partial.complete(staging))
    }
}

impl Partial {
    #[inline]
    fn stage_properties(&mut self, properties: RawProperties<'_>) {
        let properties = properties.as_bytes();
        self.properties_len = properties.len() as u32;
        self.staged.extend_from_slice(&[0; PROPERTIES_GAP]);
        self.staged.extend_from_slice(properties);
        self.staged.extend_from_slice(&[0; BODY_GAP]);
    }

    #[inline]
    fn complete(self, staging: &mut Staging) -> Complete {
        let data = staging.arena.store(&self.staged);
        staging.reuse(self.staged);
        let apart = match self.body {
            LargeBody::Staged => None,
            LargeBody::Whole(bytes) => Some(Apart::Body(bytes)),
            LargeBody::Growing(bytes) => Some(Apart::Body(bytes.freeze())),
            LargeBody::Discarded(fault) => Some(Apart::Missing(fault)),
        };
        let lengths = (self.exchange_len, self.routing_key_len, self.properties_len);
        Complete { target: self.target, message: Message::new(data, lengths, apart.map(Box::new)) }
    }
}

impl Staging {
    /// The input is another, or has another end.
    pub(crate) fn begin_input(&mut self) {
        self.arena.begin_input();
    }

    /// A copy of a message that lies in the input whole, from its exchange to the end of its body, with
    /// the lengths of exchange, routing key and properties.
    #[inline]
    pub(crate) fn message(
        &mut self,
        input: &[u8],
        whole: Range<usize>,
        lengths: (u8, u8, u32),
        more: impl FnOnce() -> bool,
    ) -> Message {
        Message::new(self.arena.store_part(input, whole, more), lengths, None)
    }

    fn reuse(&mut self, mut staged: Vec<u8>) {
        if self.spare.len() < STAGING_BUFFERS_MAX && staged.capacity() <= STAGING_BUFFER_BYTES {
            staged.clear();
            self.spare.push(staged);
        }
    }
}
