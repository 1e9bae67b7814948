//! Contents as they arrive: a method, a header, bodies, possibly interleaved with other channels'
//! frames (AMQP 0-9-1, 4.2.6).
//!
//! Exchange, routing key, properties and a small body are gathered in one staging buffer, and copied into
//! memory of their size when the content is complete. A large body that fits one frame may be taken from
//! the input without copying; others are copied into memory that grows as they arrive, to no more than
//! twice what has. A body over the limit is thrown away as it arrives.
//!
//! What has arrived of incomplete contents has a bound for all channels together, [`INCOMPLETE_BYTES`]. To
//! stop reading would be no help, since only more input completes them. So the content that goes beyond
//! the bound loses its body. RabbitMQ sends one content after the other, and never comes near the bound.

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
        body: Option<Box<BodyHash>>,
    },
    Got {
        tag: u64,
        redelivered: bool,
        message_count: u32,
    },
    /// The channel is closing: what was to be acknowledged is read and dropped.
    Discard,
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
    Growing(Vec<u8>),
    /// It is thrown away as it arrives.
    Discarded(Fault),
}

/// A complete content.
#[derive(Debug)]
pub(crate) struct Complete {
    pub(crate) target: Target,
    pub(crate) message: ReceivedMessage,
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
    spare: Vec<Vec<u8>>,
    /// Bytes of the contents that are incomplete.
    incomplete: usize,
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
        partial.begin_body(staging, RawProperties::NONE, body_size);
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

    /// Takes the content, if nothing more of it is due.
    #[inline]
    fn take_complete(&mut self, staging: &mut Staging) -> Option<Complete> {
        let partial = self.partial.take_if(|partial| partial.received == partial.size)?;
        staging.incomplete -= partial.held();
        Some(partial.complete(staging))
    }

    /// The rest will not come.
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

    /// Bytes that have arrived and are kept.
    #[inline]
    fn held(&self) -> usize {
        self.staged.len()
            + match &self.body {
                LargeBody::Growing(body) => body.len(),
                LargeBody::Whole(body) => body.len(),
                LargeBody::Staged | LargeBody::Discarded(_) => 0,
            }
    }

    /// Too much has arrived that is incomplete. A small body is kept all the same.
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
    /// Bytes of all contents that are incomplete.
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

/// Appends to a body that will have `size` bytes in the end. Memory is never set aside on the sender's
/// word: as much again as there is at most, and no more than the whole needs.
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

    /// A content whose header is due.
    fn begun(staging: &mut Staging) -> Content {
        let mut content = Content::default();
        content.begin(staging, Target::Discard, ShortStr::default(), ShortStr::default());
        content
    }

    fn header(body_size: u64) -> ContentHeader<'static> {
        ContentHeader { class_id: CONTENT_CLASS, body_size, properties: PROPERTIES }
    }

    /// Whether the body is kept, as far as it has arrived.
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

    /// Never more than twice what has arrived, and no more than the whole.
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
