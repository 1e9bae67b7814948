use std::fmt;
use std::sync::Arc;

use amqp_proto::Properties;
use bytes::Bytes;

use crate::limits::COPIED_BODY_BYTES;

use super::{Message, property_setters};

/// A message to publish that borrows what it can (`basic.publish`; AMQP 0-9-1, 1.8.3.7). A [`Message`] is an owned
/// one.
///
/// ```
/// use amqp_core::Publish;
///
/// let publish = Publish::new("events", "order.created", b"{}")
///     .content_type("application/json")
///     .header("x-attempt", 1)
///     .persistent()
///     .mandatory();
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Publish<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
    pub(crate) body: Body<'a>,
    pub(crate) properties: PublishProperties<'a>,
    pub(crate) persistent: bool,
    pub(crate) mandatory: bool,
}

/// The properties of a [`Publish`], few of which own any. To drop an `Arc` is one branch where a `Box` is a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PublishProperties<'a> {
    None,
    Borrowed(&'a Properties),
    Owned(Arc<Properties>),
}

impl PublishProperties<'_> {
    #[inline]
    pub(crate) fn as_ref(&self) -> Option<&Properties> {
        match self {
            Self::None => None,
            Self::Borrowed(properties) => Some(properties),
            Self::Owned(properties) => Some(properties),
        }
    }

    fn into_owned(self) -> Arc<Properties> {
        match self {
            Self::None => Arc::default(),
            Self::Borrowed(properties) => Arc::new(properties.clone()),
            Self::Owned(properties) => properties,
        }
    }
}

impl<'a> Publish<'a> {
    /// Creates a transient message without properties. The exchange `""` is the default exchange: it routes to the
    /// queue with the name of the routing key ([`to_queue`](Self::to_queue)).
    pub fn new(exchange: &'a str, routing_key: &'a str, body: impl Into<Body<'a>>) -> Self {
        Self {
            exchange,
            routing_key,
            body: body.into(),
            properties: PublishProperties::None,
            persistent: false,
            mandatory: false,
        }
    }

    /// Creates a transient message to a queue, through the default exchange.
    pub fn to_queue(queue: &'a str, body: impl Into<Body<'a>>) -> Self {
        Self::new("", queue, body)
    }

    /// Asks the broker to return the message if it reaches no queue.
    #[must_use]
    pub const fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }

    /// Makes the message persistent (delivery mode 2, also if the properties say otherwise): in a durable queue, it
    /// survives a restart of the broker.
    #[must_use]
    pub const fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// Sets all properties, in place of those set before.
    #[must_use]
    pub fn properties(mut self, properties: &'a Properties) -> Self {
        self.properties = PublishProperties::Borrowed(properties);
        self
    }

    property_setters!();

    /// Whether the message has no property except the delivery mode, and is not mandatory.
    #[inline]
    pub(crate) const fn is_plain(&self) -> bool {
        matches!(self.properties, PublishProperties::None) && !self.mandatory
    }

    fn change(mut self, change: impl FnOnce(&mut Properties)) -> Self {
        let mut properties = self.properties.into_owned();
        change(Arc::make_mut(&mut properties));
        self.properties = PublishProperties::Owned(properties);
        self
    }
}

impl<'a> From<&'a Message> for Publish<'a> {
    fn from(message: &'a Message) -> Self {
        Self {
            exchange: &message.exchange,
            routing_key: &message.routing_key,
            body: Body::Shared(message.body.clone()),
            properties: if message.properties.is_empty() {
                PublishProperties::None
            } else {
                PublishProperties::Borrowed(&message.properties)
            },
            persistent: false,
            mandatory: message.mandatory,
        }
    }
}

/// The body of a message to publish.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Body<'a> {
    /// Copied once when the message is published.
    Borrowed(&'a [u8]),
    /// From 4 KiB, written without a copy (zero-copy). A smaller one is copied.
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

    /// The same body, whose memory can be shared unless it is so small that it is copied anyway.
    pub(crate) fn shared(&self) -> Body<'_> {
        match self {
            Self::Borrowed(bytes) if bytes.len() >= COPIED_BODY_BYTES => {
                Body::Shared(Bytes::copy_from_slice(bytes))
            }
            Self::Borrowed(bytes) => Body::Borrowed(bytes),
            Self::Shared(bytes) => Body::Shared(bytes.clone()),
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
