//! `Message`: what applications send.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amqp_async::{DeliveryMode, FieldTable, FieldValue, Properties, Publish};
use bytes::Bytes;

#[cfg(any(feature = "cbor", feature = "msgpack"))]
use crate::formats;

/// A message that an application sends: where to, its properties and its body.
///
/// It is persistent, mandatory and has the time of its creation as its timestamp, unless it says otherwise. That is what
/// makes a confirm worth something: a queue has the message, and keeps it. See [`amqp_async::Message`] for messages
/// without these defaults; each converts into the other, and keeps what it has.
///
/// ```
/// use amqp_app::Message;
/// use std::time::Duration;
///
/// let message = Message::new("{}")
///     .to("amq.topic", "order.created")
///     .content_type("application/json")
///     .header("tenant", "north")
///     .expires(Duration::from_secs(60));
/// assert!(message.is_mandatory());
/// assert_eq!(message.properties().expiration.as_deref(), Some("60000"));
/// ```
///
/// With the feature `serde`, a `Message` implements `Serialize` and `Deserialize`, and keeps the exact types of its properties and
/// headers.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Message {
    message: amqp_async::Message,
    #[cfg_attr(feature = "serde", serde(default))]
    is_reply: bool,
}

/// Setters of single properties, with those of the message within.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(self, text: impl Into<String>) -> Self {
                self.change(|message| message.$name(text))
            }
        )*
    };
}

impl Message {
    /// Creates a message with a body, to the default exchange with an empty routing key.
    pub fn new(body: impl Into<Bytes>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let message = amqp_async::Message::new(body).persistent().mandatory();
        Self { message: message.timestamp(since.as_secs()), is_reply: false }
    }

    /// Creates a message whose body is a value in JSON, with the content type `application/json`.
    ///
    /// # Errors
    /// Those of [`serde_json::to_vec`].
    pub fn json(value: &impl serde::Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self::new(serde_json::to_vec(value)?).content_type("application/json"))
    }

    /// Creates a message whose body is a value in CBOR (RFC 8949), with the content type `application/cbor`.
    ///
    /// # Errors
    /// [`EncodeError`](crate::EncodeError) if CBOR cannot express the value.
    #[cfg(feature = "cbor")]
    pub fn cbor(value: &impl serde::Serialize) -> Result<Self, crate::EncodeError> {
        Ok(Self::new(formats::encode_cbor(value)?).content_type("application/cbor"))
    }

    /// Creates a message whose body is a value in MessagePack, with the content type `application/msgpack`. Structures are
    /// maps by the names of their fields, as programs in other languages expect.
    ///
    /// # Errors
    /// [`EncodeError`](crate::EncodeError) if MessagePack cannot express the value.
    #[cfg(feature = "msgpack")]
    pub fn msgpack(value: &impl serde::Serialize) -> Result<Self, crate::EncodeError> {
        Ok(Self::new(formats::encode_msgpack(value)?).content_type("application/msgpack"))
    }

    /// Sets the exchange and the routing key.
    #[must_use]
    pub fn to(self, exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        Self { is_reply: false, ..self.change(|message| message.to(exchange, routing_key)) }
    }

    /// Sends the message to a queue, through the default exchange.
    #[must_use]
    pub fn to_queue(self, queue: impl Into<String>) -> Self {
        self.to("", queue)
    }

    /// Sends the message to the queue that the request names in `reply_to`, with the request's `correlation_id` (RPC;
    /// <https://www.rabbitmq.com/tutorials/tutorial-six-python>). Only a handler can send it.
    #[must_use]
    pub fn reply(self) -> Self {
        Self { is_reply: true, ..self }
    }

    setters! {
        /// Sets the MIME type of the body.
        content_type
        /// Sets the MIME encoding of the body.
        content_encoding
        /// Sets the identifier with which a reply names its request.
        correlation_id
        /// Sets the queue to which replies are published.
        reply_to
        /// Sets the application's identifier of the message. What a handler sends gets one of its own without it.
        message_id
        /// Sets the application's name for this kind of message (`type` in the specification).
        kind
        /// Sets the user name, which must be that of the connection
        /// (<https://www.rabbitmq.com/docs/validated-user-id>).
        user_id
        /// Sets the name of the publishing application.
        app_id
    }

    /// Sets a header.
    #[must_use]
    pub fn header(self, name: impl Into<String>, value: impl Into<FieldValue>) -> Self {
        self.change(|message| message.header(name, value))
    }

    /// Sets all headers, in place of those set before.
    #[must_use]
    pub fn headers(self, headers: FieldTable) -> Self {
        self.change(|message| message.headers(headers))
    }

    /// Sets the priority, for queues with priorities (<https://www.rabbitmq.com/docs/priority>).
    #[must_use]
    pub fn priority(self, priority: u8) -> Self {
        self.change(|message| message.priority(priority))
    }

    /// Sets the time to live in a queue, in whole milliseconds rounded up
    /// (<https://www.rabbitmq.com/docs/ttl#per-message-ttl-in-publishers>).
    #[must_use]
    pub fn expires(self, ttl: Duration) -> Self {
        self.change(|message| message.expiration(ttl))
    }

    /// Changes any property with a function.
    #[must_use]
    pub fn property(mut self, change: impl FnOnce(&mut Properties)) -> Self {
        change(&mut self.message.properties);
        self
    }

    /// Makes the message transient (delivery mode 1): a restart of the broker loses it.
    #[must_use]
    pub fn transient(self) -> Self {
        let mode = DeliveryMode::Transient as u8;
        self.property(|properties| properties.delivery_mode = Some(mode))
    }

    /// Lets the broker drop the message if it reaches no queue. By default that is an error.
    #[must_use]
    pub const fn optional(mut self) -> Self {
        self.message.mandatory = false;
        self
    }

    /// Returns the exchange; empty for the default exchange.
    pub fn exchange(&self) -> &str {
        &self.message.exchange
    }

    /// Returns the routing key.
    pub fn routing_key(&self) -> &str {
        &self.message.routing_key
    }

    /// Returns the properties.
    pub const fn properties(&self) -> &Properties {
        &self.message.properties
    }

    /// Returns the body.
    pub const fn body(&self) -> &Bytes {
        &self.message.body
    }

    /// Returns whether the broker returns the message if it reaches no queue.
    pub const fn is_mandatory(&self) -> bool {
        self.message.mandatory
    }

    /// Returns whether it goes to the queue that a request names: see [`reply`](Self::reply).
    pub const fn is_reply(&self) -> bool {
        self.is_reply
    }

    fn change(self, change: impl FnOnce(amqp_async::Message) -> amqp_async::Message) -> Self {
        Self { message: change(self.message), ..self }
    }
}

/// Keeps what the message has, without the defaults of this type.
impl From<amqp_async::Message> for Message {
    fn from(message: amqp_async::Message) -> Self {
        Self { message, is_reply: false }
    }
}

impl From<Message> for amqp_async::Message {
    fn from(message: Message) -> Self {
        message.message
    }
}

impl AsRef<amqp_async::Message> for Message {
    fn as_ref(&self) -> &amqp_async::Message {
        &self.message
    }
}

/// For the publishers of the client: `publisher.publish(&message)`.
impl<'a> From<&'a Message> for Publish<'a> {
    fn from(message: &'a Message) -> Self {
        Self::from(&message.message)
    }
}

#[cfg(test)]
mod tests {
    use super::Message;

    #[test]
    fn a_message_is_persistent_mandatory_and_timestamped() {
        let message = Message::new("body").to("amq.topic", "key").header("a", 1);
        assert_eq!((message.exchange(), message.routing_key()), ("amq.topic", "key"));
        let properties = message.properties();
        assert_eq!(properties.delivery_mode, Some(2));
        assert!(properties.timestamp.is_some_and(|seconds| seconds > 1_600_000_000));
        assert!(message.is_mandatory() && !message.is_reply());
        let other = message.transient().optional().property(|it| it.priority = Some(3));
        assert_eq!((other.properties().delivery_mode, other.is_mandatory()), (Some(1), false));
        assert_eq!(other.properties().priority, Some(3));
        let plain: amqp_async::Message = other.clone().into();
        assert_eq!(Message::from(plain), other);
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_message_is_stored_with_its_exact_types() {
        let message = Message::new(&b"\xff\0body"[..]).to("amq.topic", "key").header("a", 1_u8);
        let message = message.header("b", -1_i64).header("c", 0.5_f32).reply().message_id("id");
        let text = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), message, "{text}");
    }

    #[test]
    fn a_reply_that_is_sent_elsewhere_is_none() {
        assert!(Message::new("pong").reply().is_reply());
        assert!(!Message::new("pong").reply().to_queue("answers").is_reply());
    }
}
