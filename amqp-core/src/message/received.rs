//! Messages from the broker: deliveries and returned messages.

use std::fmt;
use std::sync::Arc;

use amqp_proto::frame::FRAME_OVERHEAD;
use amqp_proto::properties::CONTENT_HEADER_MIN;
use amqp_proto::{
    FieldTable, Malformed, Properties, PropertiesRef, RawProperties, ReplyCode, ShortStr,
    TABLE_DEPTH_MAX,
};
use bytes::Bytes;

use crate::ids::DeliveryTag;
use crate::limits::{HEADER_FRAME_BYTES, INCOMPLETE_BYTES, MESSAGE_BYTES};

/// The argument that makes a consumer one of a stream, and the header of a stream's deliveries.
pub(crate) const STREAM_OFFSET: &str = "x-stream-offset";

/// A message from the broker: its exchange, routing key, properties and body.
///
/// Properties are decoded when they are read. [`Message::try_from`](super::Message) makes an owned message of it,
/// which can be changed and published.
#[derive(Clone)]
pub struct ReceivedMessage {
    /// Exchange, routing key, encoded properties, and a small body. There are gaps between them as in the input, so
    /// that a message that is complete in the input is copied in one pass.
    data: Bytes,
    exchange_len: u8,
    routing_key_len: u8,
    properties_len: u32,
    /// Few messages have it. It is boxed because messages are moved often.
    detached: Option<Box<Detached>>,
}

/// The bytes between exchange and routing key: the length of the key.
pub(crate) const ROUTING_KEY_GAP: usize = 1;
/// The bytes between routing key and properties: the end of a frame, the head of the next, and the fixed part
/// of a content header.
pub(crate) const PROPERTIES_GAP: usize = FRAME_OVERHEAD + CONTENT_HEADER_MIN - 2;
/// The bytes between properties and body: the end of a frame and the head of the next.
pub(crate) const BODY_GAP: usize = FRAME_OVERHEAD;

/// What a message has instead of a small body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Detached {
    /// A large body.
    Body(Bytes),
    /// Nothing: the message was too large to keep.
    Missing(Fault),
}

impl ReceivedMessage {
    /// `data` contains exchange, routing key and properties of these lengths, and the body unless `detached` is
    /// given, with the gaps between them.
    #[inline]
    pub(crate) const fn new(
        data: Bytes,
        (exchange_len, routing_key_len, properties_len): (u8, u8, u32),
        detached: Option<Box<Detached>>,
    ) -> Self {
        Self { data, exchange_len, routing_key_len, properties_len, detached }
    }

    /// The exchange to which the message was published.
    #[inline]
    pub fn exchange(&self) -> ShortStr<'_> {
        short_str(&self.data, 0, self.exchange_len.into())
    }

    /// The routing key with which the message was published.
    pub fn routing_key(&self) -> ShortStr<'_> {
        let start = usize::from(self.exchange_len) + ROUTING_KEY_GAP;
        short_str(&self.data, start, self.routing_key_len.into())
    }

    /// The body, empty if the message was too large to keep.
    #[inline]
    pub fn body(&self) -> &[u8] {
        match self.detached.as_deref() {
            Some(Detached::Body(body)) => body,
            Some(Detached::Missing(_)) => &[],
            None => self.body_in_data(),
        }
    }

    /// Returns the body as `Bytes`. A body of less than 4 KiB is copied, so that it does not keep the memory of
    /// other messages. A larger one is not copied, and keeps at most about twice its size.
    pub fn into_body(mut self) -> Bytes {
        match self.detached.take().map(|detached| *detached) {
            Some(Detached::Body(body)) => body,
            Some(Detached::Missing(_)) => Bytes::new(),
            None => Bytes::copy_from_slice(self.body_in_data()),
        }
    }

    /// The properties in wire format.
    pub fn raw_properties(&self) -> RawProperties<'_> {
        let start = self.properties_start();
        let end = start + self.properties_len as usize;
        RawProperties::new(self.data.get(start..end).unwrap_or_default())
    }

    /// Decodes the properties without copying them. The headers stay encoded.
    ///
    /// # Errors
    /// [`Malformed`]: RabbitMQ relays malformed properties of publishers.
    pub fn properties_ref(&self) -> Result<PropertiesRef<'_>, Malformed> {
        self.raw_properties().decode()
    }

    /// Decodes and copies the properties, with the headers.
    ///
    /// # Errors
    /// [`Malformed`]: RabbitMQ relays malformed properties of publishers, such as strings that are not UTF-8 and
    /// tables that are nested too deep.
    pub fn properties(&self) -> Result<Properties, Malformed> {
        self.properties_ref()?.to_owned(TABLE_DEPTH_MAX)
    }

    /// Decodes and copies the headers. The table is empty if there are none.
    ///
    /// # Errors
    /// Those of [`properties`](Self::properties).
    pub fn headers(&self) -> Result<FieldTable, Malformed> {
        match self.properties_ref()?.headers {
            Some(headers) => headers.decode(TABLE_DEPTH_MAX),
            None => Ok(FieldTable::new()),
        }
    }

    /// Whether the message has the header that streams add to deliveries; `None` if the headers are malformed.
    pub(crate) fn has_stream_offset(&self) -> Option<bool> {
        if self.missing().is_some() {
            return None;
        }
        self.headers().ok().map(|headers| headers.get(STREAM_OFFSET).is_some())
    }

    /// Checks that names and properties can be decoded.
    fn check(&self) -> Result<(), Malformed> {
        self.exchange().as_str()?;
        self.routing_key().as_str()?;
        self.properties_ref()?.check(TABLE_DEPTH_MAX)
    }

    /// Copies the exchange and the routing key alone.
    fn envelope(&self) -> Self {
        let start = self.properties_start();
        let mut data = self.data.get(..start).unwrap_or_default().to_vec();
        data.extend_from_slice(RawProperties::NONE.as_bytes());
        let properties_len = RawProperties::NONE.as_bytes().len() as u32;
        let lengths = (self.exchange_len, self.routing_key_len, properties_len);
        Self::new(data.into(), lengths, None)
    }

    #[inline]
    fn body_in_data(&self) -> &[u8] {
        self.data.get(self.body_start()..).unwrap_or_default()
    }

    /// The number of bytes of its parts.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        match self.detached.as_deref() {
            Some(Detached::Body(body)) => self.data.len() + body.len(),
            _ => self.data.len(),
        }
    }

    /// Why the message was not kept, if it was too large.
    pub(crate) fn missing(&self) -> Option<Fault> {
        match self.detached.as_deref() {
            Some(Detached::Missing(fault)) => Some(*fault),
            _ => None,
        }
    }

    const fn properties_start(&self) -> usize {
        let envelope = self.exchange_len as usize + ROUTING_KEY_GAP + self.routing_key_len as usize;
        envelope + PROPERTIES_GAP
    }

    const fn body_start(&self) -> usize {
        self.properties_start() + self.properties_len as usize + BODY_GAP
    }
}

/// The bytes in the gaps do not count.
impl PartialEq for ReceivedMessage {
    fn eq(&self, other: &Self) -> bool {
        self.exchange() == other.exchange()
            && self.routing_key() == other.routing_key()
            && self.raw_properties() == other.raw_properties()
            && self.body() == other.body()
            && self.missing() == other.missing()
    }
}

impl Eq for ReceivedMessage {}

fn short_str(data: &[u8], start: usize, length: usize) -> ShortStr<'_> {
    let bytes = data.get(start..start + length).unwrap_or_default();
    ShortStr::from_bytes(bytes).unwrap_or_default()
}

impl fmt::Debug for ReceivedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedMessage")
            .field("exchange", &self.exchange())
            .field("routing_key", &self.routing_key())
            .field("properties_bytes", &self.properties_len)
            .field("body_bytes", &self.body().len())
            .finish()
    }
}

/// A message delivered to a consumer (`basic.deliver`; AMQP 0-9-1, 1.8.3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// The tag with which it is acknowledged.
    pub tag: DeliveryTag,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// The message.
    pub message: ReceivedMessage,
}

impl Delivery {
    /// Returns what is wrong with the message, if anything is. Such a message can still be acknowledged or
    /// rejected.
    ///
    /// It checks the properties without copying them.
    pub fn fault(&self) -> Option<Fault> {
        self.message.missing().or_else(|| self.message.check().err().map(Fault::Malformed))
    }
}

/// What is wrong with a message. Other messages are not affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Too many bytes of incomplete messages arrived at once on all channels together. The body was dropped as
    /// it arrived.
    #[error(
        "body of {size} bytes dropped: more than {INCOMPLETE_BYTES} bytes of incomplete messages arrived at once"
    )]
    Crowded {
        /// The size of the body in bytes.
        size: u64,
    },
    /// The header frame is larger than the limit. It and the body were dropped as they arrived.
    #[error("header frame of {size} bytes is over the limit of {HEADER_FRAME_BYTES}")]
    HeaderTooLarge {
        /// The size of the frame's payload in bytes.
        size: u32,
    },
    /// The publisher sent malformed names or properties, which RabbitMQ relays: strings that are not UTF-8,
    /// tables that are truncated or nested too deep. The body is complete.
    #[error("malformed properties: {0}")]
    Malformed(Malformed),
    /// The body is larger than the limit. It was dropped as it arrived.
    #[error("body of {size} bytes is over the limit of {MESSAGE_BYTES}")]
    Oversize {
        /// The size of the body in bytes.
        size: u64,
    },
}

/// A mandatory message that reached no queue (`basic.return`; AMQP 0-9-1, 1.8.3.8).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReturnedMessage {
    /// The reason: 312 NO_ROUTE.
    pub code: ReplyCode,
    /// The text of the broker.
    pub text: Arc<str>,
    /// The returned message.
    pub message: ReceivedMessage,
    /// Whether properties and body were dropped, because more than 8 MiB of returned messages awaited their
    /// acks.
    pub is_stripped: bool,
}

impl fmt::Display for ReturnedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, text, message, .. } = self;
        write!(f, "{code}")?;
        // The text of RabbitMQ is the name of the code.
        if code.name() != Some(&**text) && !text.is_empty() {
            write!(f, " {text}")?;
        }
        let (exchange, key) = (message.exchange(), message.routing_key());
        write!(f, " (exchange {exchange:?}, routing key {key:?})")
    }
}

impl ReturnedMessage {
    /// Without properties and body.
    pub(crate) fn stripped(self) -> Self {
        Self { message: self.message.envelope(), is_stripped: true, ..self }
    }
}
