//! Assembles messages (the specification calls them contents) from their frames: a method, a header and
//! bodies. Frames of several channels may be interleaved (AMQP 0-9-1, 4.2.6).
//!
//! Exchange, routing key, properties and a small body are collected in a staging buffer. When the message is
//! complete, they are copied into memory of exactly their size. A large body that fits one frame may be taken
//! from the input without a copy. Any other large body is copied into memory that grows as the body arrives,
//! to at most twice the bytes received. A body over the limit is discarded as it arrives.
//!
//! The bytes of incomplete messages have a limit for all channels together, [`INCOMPLETE_BYTES`]. To stop
//! reading would not help, because only more input completes the messages. So a message that exceeds the
//! limit loses its body. RabbitMQ sends one message after the other, and does not come near the limit.

use std::sync::Arc;

use amqp_proto::{ContentHeader, RawProperties, ShortStr};
use bytes::Bytes;

use crate::channel::fingerprint::BodyHash;
use crate::error::ProtocolDetail;
use crate::ids::ConsumerKey;
use crate::limits::{
    COPIED_BODY_BYTES, INCOMPLETE_BYTES, MESSAGE_BYTES, STAGING_BUFFER_BYTES, STAGING_BUFFERS_MAX,
};
use crate::message::{BODY_GAP, Detached, Fault, PROPERTIES_GAP, ROUTING_KEY_GAP, ReceivedMessage};

/// What a message is: a delivery, a returned message, or the reply to `basic.get`.
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
        /// The hash of a body that is discarded. The return is matched to its publish by it.
        body: Option<Box<BodyHash>>,
    },
    Got {
        tag: u64,
        redelivered: bool,
        message_count: u32,
    },
    /// The delivery is read and dropped: its channel is closing or recovering, or its consumer is unknown.
    Discard,
}

impl Target {
    /// Discards a piece of the body. For a returned message, the piece is added to the hash of the body.
    fn discard(&mut self, piece: &[u8]) {
        if let Self::Return { body, .. } = self {
            body.get_or_insert_default().write(piece);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Content {
    /// The message that has arrived in part. `None` while the next frame must be a method. It is changed in
    /// place: moving it would cost more than the rest of the work for a message.
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    /// Whether the header has arrived, so that body frames must follow.
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
    /// The body is small, and collected in the staging buffer.
    Staged,
    Whole(Bytes),
    Growing(Vec<u8>),
    /// The body is discarded as it arrives.
    Discarded(Fault),
}

/// A complete message.
#[derive(Debug)]
pub(crate) struct Complete {
    pub(crate) target: Target,
    pub(crate) message: ReceivedMessage,
}

/// The payload of a body frame.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

/// Staging buffers, shared by all channels.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    spare: Vec<Vec<u8>>,
    /// The bytes of all incomplete messages.
    incomplete: usize,
}

impl Content {
    pub(crate) const fn is_none(&self) -> bool {
        self.partial.is_none()
    }

    /// Handles a method that carries a message.
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
        staging.incomplete += staged.len();
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

    /// Handles a header frame. Returns the message if its body is empty.
    #[inline]
    pub(crate) fn header(
        &mut self,
        staging: &mut Staging,
        header: &ContentHeader<'_>,
    ) -> Result<Option<Complete>, ProtocolDetail> {
        let Some(partial) = self.partial.as_mut().filter(|partial| !partial.has_header) else {
            return Err(ProtocolDetail::UnexpectedFrame);
        };
        let size = header.body_size;
        if staging.incomplete + header.properties.as_bytes().len() > INCOMPLETE_BYTES {
            partial.begin_body(staging, RawProperties::NONE, size);
            partial.body = LargeBody::Discarded(Fault::Crowded { size });
        } else {
            partial.begin_body(staging, header.properties, size);
            if size > MESSAGE_BYTES {
                partial.body = LargeBody::Discarded(Fault::Oversize { size });
            } else if size >= COPIED_BODY_BYTES as u64 {
                partial.body = LargeBody::Growing(Vec::new());
            }
        }
        Ok(self.take_complete(staging))
    }

    /// Handles a header frame that is too large to be kept. The message is reported without properties and
    /// body.
    pub(crate) fn skipped_header(
        &mut self,
        staging: &mut Staging,
        size: u32,
        body_size: u64,
    ) -> Result<Option<Complete>, ProtocolDetail> {
        let Some(partial) = self.partial.as_mut().filter(|partial| !partial.has_header) else {
            return Err(ProtocolDetail::UnexpectedFrame);
        };
        partial.begin_body(staging, RawProperties::NONE, body_size);
        partial.body = LargeBody::Discarded(Fault::HeaderTooLarge { size });
        Ok(self.take_complete(staging))
    }

    /// Returns whether a body frame of `length` bytes contains the whole of a large body. The caller then
    /// passes it as [`Piece::Owned`], so that it is not copied.
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

    /// Handles a body frame. Returns the message if it is complete.
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
            // An empty frame may follow a complete message. It is ignored.
            None if length == 0 => return Ok(None),
            _ => return Err(ProtocolDetail::UnexpectedFrame),
        };
        partial.received += length as u64;
        if partial.received > partial.size {
            return Err(ProtocolDetail::BodyTooLong);
        }
        staging.incomplete -= partial.held();
        if staging.incomplete + partial.held() + length > INCOMPLETE_BYTES {
            partial.discard();
        }
        match (&mut partial.body, piece) {
            (LargeBody::Staged, Piece::Borrowed(bytes)) => partial.staged.extend_from_slice(bytes),
            (LargeBody::Staged, Piece::Owned(bytes)) => partial.staged.extend_from_slice(&bytes),
            (LargeBody::Growing(body), Piece::Borrowed(bytes)) => append(body, partial.size, bytes),
            (body @ LargeBody::Growing(_), Piece::Owned(bytes)) => *body = LargeBody::Whole(bytes),
            (LargeBody::Discarded(_), Piece::Borrowed(bytes)) => partial.target.discard(bytes),
            (LargeBody::Discarded(_), Piece::Owned(bytes)) => partial.target.discard(&bytes),
            (LargeBody::Whole(_), _) => {}
        }
        staging.incomplete += partial.held();
        Ok(self.take_complete(staging))
    }

    /// Takes the message if all of its body has arrived.
    #[inline]
    fn take_complete(&mut self, staging: &mut Staging) -> Option<Complete> {
        let partial = self.partial.take_if(|partial| partial.received == partial.size)?;
        staging.incomplete -= partial.held();
        Some(partial.complete(staging))
    }

    /// Drops the incomplete message, because the rest will not arrive.
    pub(crate) fn clear(&mut self, staging: &mut Staging) {
        if let Some(partial) = self.partial.take() {
            staging.incomplete -= partial.held();
        }
    }
}

impl Partial {
    #[inline]
    fn begin_body(&mut self, staging: &mut Staging, properties: RawProperties<'_>, size: u64) {
        (self.has_header, self.size) = (true, size);
        staging.incomplete -= self.staged.len();
        let properties = properties.as_bytes();
        self.properties_len = properties.len() as u32;
        self.staged.extend_from_slice(&[0; PROPERTIES_GAP]);
        self.staged.extend_from_slice(properties);
        self.staged.extend_from_slice(&[0; BODY_GAP]);
        staging.incomplete += self.staged.len();
    }

    /// The number of bytes that have arrived and are kept.
    #[inline]
    fn held(&self) -> usize {
        self.staged.len()
            + match &self.body {
                LargeBody::Growing(body) => body.len(),
                LargeBody::Whole(body) => body.len(),
                LargeBody::Staged | LargeBody::Discarded(_) => 0,
            }
    }

    /// Discards a large body, because incomplete messages hold too many bytes. A small body is kept.
    fn discard(&mut self) {
        if let LargeBody::Growing(body) = &self.body {
            self.target.discard(body);
            self.body = LargeBody::Discarded(Fault::Crowded { size: self.size });
        }
    }

    #[inline]
    fn complete(self, staging: &mut Staging) -> Complete {
        let data = Bytes::copy_from_slice(&self.staged);
        staging.reuse(self.staged);
        let detached = match self.body {
            LargeBody::Staged => None,
            LargeBody::Whole(bytes) => Some(Detached::Body(bytes)),
            LargeBody::Growing(bytes) => Some(Detached::Body(bytes.into())),
            LargeBody::Discarded(fault) => Some(Detached::Missing(fault)),
        };
        let lengths = (self.exchange_len, self.routing_key_len, self.properties_len);
        Complete {
            target: self.target,
            message: ReceivedMessage::new(data, lengths, detached.map(Box::new)),
        }
    }
}

impl Staging {
    /// The number of bytes of all incomplete messages.
    pub(crate) const fn incomplete_bytes(&self) -> usize {
        self.incomplete
    }

    fn reuse(&mut self, mut staged: Vec<u8>) {
        if self.spare.len() < STAGING_BUFFERS_MAX && staged.capacity() <= STAGING_BUFFER_BYTES {
            staged.clear();
            self.spare.push(staged);
        }
    }
}

/// Appends to a body whose final size is `size`. Memory is not reserved for a size that is only announced:
/// the capacity is at most twice the bytes received, and at most the final size.
fn append(body: &mut Vec<u8>, size: u64, bytes: &[u8]) {
    let length = body.len() + bytes.len();
    if body.capacity() < length {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let capacity = (2 * length).min(size).max(length);
        body.reserve_exact(capacity - body.len());
    }
    body.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use amqp_proto::properties::CONTENT_CLASS;
    use amqp_proto::{ContentHeader, RawProperties, ShortStr};

    use super::{Content, LargeBody, Piece, Staging, Target, append};
    use crate::limits::{
        INCOMPLETE_BYTES, MESSAGE_BYTES, STAGING_BUFFER_BYTES, STAGING_BUFFERS_MAX,
    };
    use crate::message::Fault;

    /// The properties of a message with a message id.
    const PROPERTIES: RawProperties<'_> = RawProperties::new(&[0, 0x80, 3, b'a', b'b', b'c']);

    /// A content that awaits its header.
    fn begun(staging: &mut Staging) -> Content {
        let mut content = Content::default();
        content.begin(staging, Target::Discard, ShortStr::default(), ShortStr::default());
        content
    }

    fn header(body_size: u64) -> ContentHeader<'static> {
        ContentHeader { class_id: CONTENT_CLASS, body_size, properties: PROPERTIES }
    }

    /// Whether the body that has arrived is kept.
    fn grows(content: &Content) -> bool {
        matches!(content.partial.as_ref().unwrap().body, LargeBody::Growing(_))
    }

    #[test]
    fn what_has_arrived_is_kept_up_to_the_limit_and_no_further() {
        for (over, kept) in [(0, true), (1, false)] {
            let mut staging = Staging::default();
            let mut content = begun(&mut staging);
            staging.incomplete = INCOMPLETE_BYTES - PROPERTIES.as_bytes().len() + over;
            let complete = content.header(&mut staging, &header(0)).unwrap().unwrap();
            let fault = (!kept).then_some(Fault::Crowded { size: 0 });
            assert_eq!(complete.message.missing(), fault);

            let mut staging = Staging::default();
            let mut content = begun(&mut staging);
            content.header(&mut staging, &header(10_000)).unwrap();
            staging.incomplete = INCOMPLETE_BYTES - 1_000 + over;
            content.body(&mut staging, Piece::Borrowed(&[7; 1_000])).unwrap();
            assert_eq!(grows(&content), kept);
        }
    }

    #[test]
    fn a_body_is_kept_up_to_the_limit_and_no_further() {
        for (size, kept) in [(MESSAGE_BYTES, true), (MESSAGE_BYTES + 1, false)] {
            let mut staging = Staging::default();
            let mut content = begun(&mut staging);
            assert!(content.header(&mut staging, &header(size)).unwrap().is_none());
            assert_eq!(grows(&content), kept);
        }
    }

    #[test]
    fn a_few_small_buffers_are_used_again() {
        let mut staging = Staging::default();
        staging.reuse(Vec::with_capacity(STAGING_BUFFER_BYTES + 1));
        assert!(staging.spare.is_empty());
        let mut largest = Vec::with_capacity(STAGING_BUFFER_BYTES);
        largest.push(7);
        staging.reuse(largest);
        assert_eq!(staging.spare, [Vec::<u8>::new()]);
        (0..2 * STAGING_BUFFERS_MAX).for_each(|_| staging.reuse(Vec::new()));
        assert_eq!(staging.spare.len(), STAGING_BUFFERS_MAX);
    }

    /// The capacity is at most twice the bytes received, and at most the final size.
    #[test]
    fn memory_grows_with_what_arrives() {
        let mut body = Vec::new();
        let capacities = [2_000, 2_000, 6_000, 6_000, 6_000, 6_000, 8_500].map(|expected| {
            append(&mut body, 8_500, &[7; 1_000]);
            (body.capacity(), expected)
        });
        assert!(
            capacities.iter().all(|(capacity, expected)| capacity == expected),
            "{capacities:?}"
        );
        assert_eq!(body, [7; 7_000]);
    }
}
