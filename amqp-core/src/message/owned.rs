use std::time::Duration;

use amqp_proto::{DeliveryMode, Malformed, Properties};
use bytes::Bytes;

use super::{ReceivedMessage, property_setters};

/// An owned message: exchange, routing key, properties and body.
///
/// It is built in one chain, published with `publish(&message)`, kept and sent between threads. A delivery becomes
/// one with [`TryFrom`].
///
/// ```
/// use std::time::Duration;
/// use amqp_core::Message;
///
/// let message = Message::new("{}")
///     .to("events", "order.created")
///     .content_type("application/json")
///     .header("x-attempt", 1)
///     .expiration(Duration::from_secs(60))
///     .persistent()
///     .mandatory();
/// assert_eq!(message.properties.expiration.as_deref(), Some("60000"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Message {
    /// The exchange; empty for the default exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// The properties.
    pub properties: Properties,
    /// The body.
    #[cfg_attr(feature = "serde", serde(with = "serialized_body"))]
    pub body: Bytes,
    /// Whether the broker returns the message if it reaches no queue.
    pub mandatory: bool,
}

impl Message {
    /// Creates a transient message with a body, to the default exchange with an empty routing key.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// Creates a transient message whose body is a value in JSON, with the content type `application/json`.
    ///
    /// # Errors
    /// Those of [`serde_json::to_vec`].
    #[cfg(feature = "json")]
    pub fn json(value: &impl serde::Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self::new(serde_json::to_vec(value)?).content_type("application/json"))
    }

    /// Sets the exchange and the routing key.
    #[must_use]
    pub fn to(mut self, exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        (self.exchange, self.routing_key) = (exchange.into(), routing_key.into());
        self
    }

    /// Sends the message to a queue, through the default exchange.
    #[must_use]
    pub fn to_queue(self, queue: impl Into<String>) -> Self {
        self.to("", queue)
    }

    /// Asks the broker to return the message if it reaches no queue.
    #[must_use]
    pub const fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }

    /// Makes the message persistent (delivery mode 2): in a durable queue, it survives a restart of the broker.
    #[must_use]
    pub const fn persistent(mut self) -> Self {
        self.properties.delivery_mode = Some(DeliveryMode::Persistent as u8);
        self
    }

    property_setters!();

    fn change(mut self, change: impl FnOnce(&mut Properties)) -> Self {
        change(&mut self.properties);
        self
    }
}

/// Copies the names and the properties, the delivery mode among them. A body of less than 4 KiB is copied too.
///
/// The body is empty if the message was too large to keep. Check [`Delivery::fault`](super::Delivery::fault) before, or
/// the body is lost when the message is published and the delivery acknowledged.
///
/// Some properties are meant for the first publish. Before you publish the message elsewhere, look at
///
/// * `user_id`: if it is not the user of this connection, RabbitMQ may close the channel with 406. Set it to `None`.
/// * `expiration`: it applies in the next queue too. RabbitMQ removes it from messages that it dead-letters.
/// * the headers `CC` and `BCC`: RabbitMQ routes the message to the queues that they name. It removes `BCC` before it
///   delivers a message, but not `CC`.
///
/// # Errors
/// [`Malformed`]: RabbitMQ relays malformed names and properties of publishers.
impl TryFrom<&ReceivedMessage> for Message {
    type Error = Malformed;

    fn try_from(received: &ReceivedMessage) -> Result<Self, Malformed> {
        Ok(Self {
            exchange: received.exchange().as_str()?.into(),
            routing_key: received.routing_key().as_str()?.into(),
            properties: received.properties()?,
            body: received.clone().into_body(),
            mandatory: false,
        })
    }
}

/// Milliseconds as the property `expiration` has them: a time of less than one millisecond is one.
pub(super) fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_nanos().div_ceil(1_000_000);
    milliseconds.to_string()
}

#[cfg(feature = "serde")]
mod serialized_body {
    use amqp_proto::text_or_bytes;
    use bytes::Bytes;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(body: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        text_or_bytes::serialize(body, to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        text_or_bytes::deserialize(from).map(Bytes::from)
    }
}
