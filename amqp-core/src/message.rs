//! Messages: what is published ([`Publish`]), what is delivered ([`Delivery`]), what comes back
//! ([`ReturnedMessage`]).

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

/// The argument that makes a consumer one of a stream, and the header of a stream's deliveries.
pub(crate) const STREAM_OFFSET: &str = "x-stream-offset";

/// A message to publish (`basic.publish`; AMQP 0-9-1, 1.8.3.7).
///
/// ```
/// use amqp_core::Publish;
/// let publish = Publish::new("events", "order.created", b"{}").persistent().mandatory();
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Publish<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
    pub(crate) body: Body<'a>,
    pub(crate) properties: Option<&'a Properties>,
    pub(crate) persistent: bool,
    pub(crate) mandatory: bool,
}

impl<'a> Publish<'a> {
    /// Whether it has no property but the delivery mode, and need not be known again if it returns.
    #[inline]
    pub(crate) const fn is_plain(&self) -> bool {
        self.properties.is_none() && !self.mandatory
    }

    /// A transient message without properties. The exchange `""` is the default exchange: it routes
    /// to the queue that the routing key names.
    pub fn new(exchange: &'a str, routing_key: &'a str, body: impl Into<Body<'a>>) -> Self {
        Self {
            exchange,
            routing_key,
            body: body.into(),
            properties: None,
            persistent: false,
            mandatory: false,
        }
    }

    /// Asks for the message back if it reaches no queue.
    #[must_use]
    pub const fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }

    /// Delivery mode 2, whatever the properties say: a durable queue keeps the message over a restart
    /// of the broker.
    #[must_use]
    pub const fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// The message's properties.
    #[must_use]
    pub const fn properties(mut self, properties: &'a Properties) -> Self {
        self.properties = Some(properties);
        self
    }
}

/// A body: borrowed and copied when it is sent, or shared and sent from where it lies.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Body<'a> {
    /// Copied once when it is published.
    Borrowed(&'a [u8]),
    /// Kept by reference until it is written, from 4 KiB; copied below.
    Shared(Bytes),
}

impl Body<'_> {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.as_slice().len())
    }
}

macro_rules! body_from {
    ($($type:ty => |$value:ident| $body:expr;)*) => {
        $(impl<'a> From<$type> for Body<'a> {
            fn from($value: $type) -> Self {
                $body
            }
        })*
    };
}

body_from! {
    &'a [u8] => |bytes| Self::Borrowed(bytes);
    &'a Vec<u8> => |bytes| Self::Borrowed(bytes);
    &'a str => |text| Self::Borrowed(text.as_bytes());
    &'a String => |text| Self::Borrowed(text.as_bytes());
    &'a Bytes => |bytes| Self::Shared(bytes.clone());
    Bytes => |bytes| Self::Shared(bytes);
    Vec<u8> => |bytes| Self::Shared(bytes.into());
    String => |text| Self::Shared(text.into_bytes().into());
}

impl<'a, const LENGTH: usize> From<&'a [u8; LENGTH]> for Body<'a> {
    fn from(bytes: &'a [u8; LENGTH]) -> Self {
        Self::Borrowed(bytes)
    }
}

/// A message as received: where it was published to, its properties, its body.
///
/// Small messages share one piece of memory; the properties stay raw until they are asked for.
#[derive(Clone)]
pub struct Message {
    /// Exchange, routing key, raw properties, and a small body, with gaps between them as on the wire,
    /// so that a message that lay in the input whole was copied at one go.
    data: Bytes,
    exchange_len: u8,
    routing_key_len: u8,
    properties_len: u32,
    /// What few messages have stands apart: messages are moved often.
    detached: Option<Box<Detached>>,
}

/// Between exchange and routing key: the key's length.
pub(crate) const ROUTING_KEY_GAP: usize = 1;
/// Between routing key and properties: the end of a frame, the head of the next, and the fixed part of
/// a content header.
pub(crate) const PROPERTIES_GAP: usize = FRAME_OVERHEAD + CONTENT_HEADER_MIN - 2;
/// Between properties and body: the end of a frame and the head of the next.
pub(crate) const BODY_GAP: usize = FRAME_OVERHEAD;

/// What takes the place of a small body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Detached {
    /// A large body.
    Body(Bytes),
    /// The body, or all but the envelope, was not received whole.
    Missing(Fault),
}

impl Message {
    /// `data` holds exchange, routing key and properties of these lengths, and the body unless that
    /// stands apart, with the gaps between them.
    #[inline]
    pub(crate) const fn new(
        data: Bytes,
        (exchange_len, routing_key_len, properties_len): (u8, u8, u32),
        detached: Option<Box<Detached>>,
    ) -> Self {
        Self { data, exchange_len, routing_key_len, properties_len, detached }
    }

    /// The exchange that the message was published to.
    #[inline]
    pub fn exchange(&self) -> ShortStr<'_> {
        short_str(&self.data, 0, self.exchange_len.into())
    }

    /// The routing key that it was published with.
    pub fn routing_key(&self) -> ShortStr<'_> {
        let start = usize::from(self.exchange_len) + ROUTING_KEY_GAP;
        short_str(&self.data, start, self.routing_key_len.into())
    }

    /// The body.
    #[inline]
    pub fn body(&self) -> &[u8] {
        match self.detached.as_deref() {
            Some(Detached::Body(body)) => body,
            Some(Detached::Missing(_)) => &[],
            None => self.body_in_data(),
        }
    }

    /// The body, to keep beyond the message. One of less than 4 KiB is copied, so that it does not hold
    /// the memory that it shares with other messages. A larger one is not: it holds no more than about
    /// twice its size.
    pub fn into_body(mut self) -> Bytes {
        match self.detached.take().map(|detached| *detached) {
            Some(Detached::Body(body)) => body,
            Some(Detached::Missing(_)) => Bytes::new(),
            None => Bytes::copy_from_slice(self.body_in_data()),
        }
    }

    /// The properties as they stand on the wire.
    pub fn raw_properties(&self) -> RawProperties<'_> {
        let start = self.properties_start();
        let end = start + self.properties_len as usize;
        RawProperties::new(self.data.get(start..end).unwrap_or_default())
    }

    /// A view of the properties, without copying; the headers stay raw.
    ///
    /// # Errors
    /// [`Malformed`] if the publisher sent nonsense, which RabbitMQ relays.
    pub fn properties_ref(&self) -> Result<PropertiesRef<'_>, Malformed> {
        self.raw_properties().decode()
    }

    /// A copy of the properties, headers included.
    ///
    /// # Errors
    /// [`Malformed`] if the publisher sent nonsense, which RabbitMQ relays: texts that are not
    /// UTF-8, tables nested too deep.
    pub fn properties(&self) -> Result<Properties, Malformed> {
        self.properties_ref()?.to_owned(TABLE_DEPTH_MAX)
    }

    /// A copy of the headers; empty if there are none.
    ///
    /// # Errors
    /// Those of [`properties`](Self::properties).
    pub fn headers(&self) -> Result<FieldTable, Malformed> {
        match self.properties_ref()?.headers {
            Some(headers) => headers.decode(TABLE_DEPTH_MAX),
            None => Ok(FieldTable::new()),
        }
    }

    /// Whether there is a header that streams add to what they deliver; `None` if that cannot be read.
    pub(crate) fn has_stream_offset(&self) -> Option<bool> {
        if self.missing().is_some() {
            return None;
        }
        self.headers().ok().map(|headers| headers.get(STREAM_OFFSET).is_some())
    }

    /// Whether routing key and properties are what the protocol wants them to be.
    fn check(&self) -> Result<(), Malformed> {
        self.exchange().as_str()?;
        self.routing_key().as_str()?;
        self.properties_ref()?.check(TABLE_DEPTH_MAX)
    }

    /// Exchange and routing key alone, in memory of their own.
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

    /// Bytes of memory that its parts take.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        match self.detached.as_deref() {
            Some(Detached::Body(body)) => self.data.len() + body.len(),
            _ => self.data.len(),
        }
    }

    /// Why it was not received whole, if so.
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

/// What lies in the gaps is no matter.
impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.exchange() == other.exchange()
            && self.routing_key() == other.routing_key()
            && self.raw_properties() == other.raw_properties()
            && self.body() == other.body()
            && self.missing() == other.missing()
    }
}

impl Eq for Message {}

fn short_str(data: &[u8], start: usize, length: usize) -> ShortStr<'_> {
    let bytes = data.get(start..start + length).unwrap_or_default();
    ShortStr::from_bytes(bytes).unwrap_or_default()
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
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
    /// The tag to ack or nack it with.
    pub tag: DeliveryTag,
    /// Whether the message may have been delivered before.
    pub redelivered: bool,
    /// The message; its body is empty if it was not received whole.
    pub message: Message,
}

impl Delivery {
    /// What is wrong with the message, if anything is. It can be acked or nacked all the same.
    ///
    /// Looks through the properties, so that what they hold can then be decoded.
    pub fn fault(&self) -> Option<Fault> {
        self.message.missing().or_else(|| self.message.check().err().map(Fault::Malformed))
    }
}

/// What is wrong with a message. It costs that message alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// More bytes of messages were half received at once, on all channels together, than may be. The
    /// body was thrown away as it arrived.
    #[error("body of {size} bytes thrown away: too many messages were half received at once")]
    Crowded {
        /// The size that the header announced, in bytes.
        size: u64,
    },
    /// The header frame is larger than the limit: it and the body were thrown away as they arrived.
    #[error("header frame of {size} bytes is over the limit")]
    HeaderTooLarge {
        /// The size of the frame's payload in bytes.
        size: u32,
    },
    /// The publisher sent nonsense, which RabbitMQ relays: texts that are not UTF-8, tables nested
    /// too deep or cut short. The body is there.
    #[error("malformed properties: {0}")]
    Malformed(Malformed),
    /// The body is larger than the limit, and was thrown away as it arrived.
    #[error("body of {size} bytes is over the limit")]
    Oversize {
        /// The size that the header announced, in bytes.
        size: u64,
    },
}

/// A mandatory message that reached no queue (`basic.return`; AMQP 0-9-1, 1.8.3.8).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReturnedMessage {
    /// Why: 312 NO_ROUTE.
    pub code: ReplyCode,
    /// The broker's words for it.
    pub text: Arc<str>,
    /// The message as it came back.
    pub message: Message,
    /// Whether properties and body were thrown away: more than 8 MiB of other messages had come back
    /// whose acks had not.
    pub is_stripped: bool,
}

impl fmt::Display for ReturnedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, text, message, .. } = self;
        write!(f, "{code}")?;
        // RabbitMQ's text is the name of the code.
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
