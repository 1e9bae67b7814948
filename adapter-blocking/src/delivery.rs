use std::fmt;

use amqp_async::AnswerError;
use amqp_async::core::errors::Malformed;
use amqp_async::core::types::ShortStr;
use amqp_async::core::{
    AckError, BasicGet, Body, DeliveryTag, Error, Fault, FieldTable, FieldValue, Properties,
    Publish, ReceivedMessage,
};
use bytes::Bytes;

use crate::channel::Channel;
use crate::wait::wait;

impl Channel {
    /// Fetches one message from a queue (`basic.get`; AMQP 0-9-1, 1.8.3.10;
    /// <https://www.rabbitmq.com/docs/consumers#polling>). Takes the name of the queue, or a [`BasicGet`].
    /// Returns `None` if the queue is empty.
    ///
    /// Each message costs a round trip. To read more than a few, start a consumer.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn basic_get(&self, get: impl Into<BasicGet>) -> Result<Option<Delivery>, Error> {
        wait(self.shared().basic_get(get)).map(|got| got.map(Delivery::new))
    }
}

/// A message delivered to a consumer (`basic.deliver`; AMQP 0-9-1, 1.8.3.9), or fetched with `basic.get`.
///
/// Ack, nack or reject it, from any thread, unless it came without acknowledgement
/// (<https://www.rabbitmq.com/docs/confirms#consumer-acknowledgements>).
///
/// A stream does not take messages back. If the consumer has a
/// [`stream_offset`](crate::BasicConsume::stream_offset), a nack or reject acks the delivery. Without it, a
/// nack of a delivery that may come from a stream returns [`AckError::MaybeStream`] on RabbitMQ before 3.11.
///
/// If it is dropped without an ack or nack, nothing is sent. It stays unacknowledged until its channel
/// closes, and counts towards the prefetch until then.
/// [`ConnectionEvent::DeliveriesDropped`](crate::ConnectionEvent::DeliveriesDropped) reports it. With
/// [`requeue_on_drop`](crate::BasicConsume::requeue_on_drop) it is requeued instead.
///
/// ```
/// # use amqp_blocking::{AckError, Delivery};
/// # fn handle(_: &[u8]) -> std::io::Result<()> { Ok(()) }
/// # fn example(delivery: Delivery) -> Result<(), AckError> {
/// if delivery.fault().is_some() {
///     // Malformed or oversize: the body may be missing.
///     return delivery.discard();
/// }
/// match handle(delivery.body()) {
///     Ok(()) => delivery.ack()?,
///     // The first failure may be temporary: try once more.
///     Err(_) if !delivery.redelivered() => delivery.requeue()?,
///     // Dead-letter or drop the message.
///     Err(_) => delivery.discard()?,
/// }
/// # Ok(())
/// # }
/// ```
pub struct Delivery(pub(crate) amqp_async::Delivery);

impl Delivery {
    pub(crate) const fn new(delivery: amqp_async::Delivery) -> Self {
        Self(delivery)
    }

    /// Acknowledges the delivery (`basic.ack`; AMQP 0-9-1, 1.8.3.13). Sends nothing if it came without
    /// acknowledgement.
    ///
    /// # Errors
    /// [`AckError`] if the channel or connection has closed, an ack or nack with `multiple` has covered the
    /// delivery, or `basic.recover` was called since. Then the broker has requeued the message, or it is
    /// acked or nacked already.
    pub fn ack(self) -> Result<(), AckError> {
        self.0.ack()
    }

    /// Acknowledges this delivery and all earlier unacknowledged ones of the channel, from any consumer
    /// (`basic.ack` with `multiple`).
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack).
    pub fn ack_multiple(self) -> Result<(), AckError> {
        self.0.ack_multiple()
    }

    /// Refuses the delivery (`basic.nack`; <https://www.rabbitmq.com/docs/nack>). With `requeue` it is
    /// requeued; without, it is dead-lettered or dropped.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack). With [`AckError::MaybeStream`], the delivery stays unacknowledged as if
    /// it was dropped.
    pub fn nack(self, requeue: bool) -> Result<(), AckError> {
        self.0.nack(requeue)
    }

    /// Refuses this delivery and all earlier unacknowledged ones of the channel, from any consumer
    /// (`basic.nack` with `multiple`).
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack), and [`AckError::Stream`] if the channel has consumed from a stream. Then
    /// nothing is sent, and this delivery stays unacknowledged as if it was dropped.
    pub fn nack_multiple(self, requeue: bool) -> Result<(), AckError> {
        self.0.nack_multiple(requeue)
    }

    /// Refuses the delivery (`basic.reject`; AMQP 0-9-1, 1.8.3.14). With `requeue` it is requeued; without,
    /// it is dead-lettered or dropped.
    ///
    /// # Errors
    /// Those of [`nack`](Self::nack).
    pub fn reject(self, requeue: bool) -> Result<(), AckError> {
        self.0.reject(requeue)
    }

    /// Returns the message to its queue: [`nack(true)`](Self::nack).
    ///
    /// # Errors
    /// Those of [`nack`](Self::nack).
    pub fn requeue(self) -> Result<(), AckError> {
        self.0.requeue()
    }

    /// Removes the message from its queue: [`nack(false)`](Self::nack). The broker dead-letters it if the
    /// queue has a dead-letter exchange (<https://www.rabbitmq.com/docs/dlx>), and drops it otherwise.
    ///
    /// # Errors
    /// Those of [`nack`](Self::nack).
    pub fn discard(self) -> Result<(), AckError> {
        self.0.discard()
    }

    /// Returns whether an ack, nack or reject would return an error. That is the case if the channel or the
    /// connection has closed, a call with `multiple` has covered the delivery, or `basic.recover` was called
    /// since. `false` if the delivery came without acknowledgement.
    pub fn is_stale(&self) -> bool {
        self.0.is_stale()
    }

    /// Cancels the consumer of this delivery, as [`Consumer::cancel`](crate::Consumer::cancel) does, and
    /// waits until the broker has confirmed it. For a message from `basic.get`, nothing is sent.
    ///
    /// # Errors
    /// Those of a [call](crate::Channel#calls).
    pub fn cancel_consumer(&self) -> Result<(), Error> {
        wait(self.0.cancel_consumer())
    }

    /// Returns the body. It is empty if the message was too large: check [`fault`](Self::fault) first.
    pub fn body(&self) -> &[u8] {
        self.0.body()
    }

    /// Returns the body as `Bytes`, which can be kept longer than the delivery. A body of less than 4 KiB is
    /// copied. A larger one is shared without a copy (zero-copy).
    pub fn shared_body(&self) -> Bytes {
        self.0.shared_body()
    }

    /// Returns what is wrong with the message, if anything is: it was too large, or its properties are
    /// malformed. The message can still be acked, nacked or rejected. Checks the properties without copying
    /// them.
    pub fn fault(&self) -> Option<Fault> {
        self.0.fault()
    }

    /// Returns whether the message may have been delivered before.
    pub const fn redelivered(&self) -> bool {
        self.0.redelivered()
    }

    /// Returns the exchange to which the message was published.
    pub fn exchange(&self) -> ShortStr<'_> {
        self.0.exchange()
    }

    /// Returns the routing key with which the message was published.
    pub fn routing_key(&self) -> ShortStr<'_> {
        self.0.routing_key()
    }

    /// Decodes and copies the properties.
    ///
    /// # Errors
    /// [`Malformed`] if the publisher sent malformed properties, which RabbitMQ relays.
    pub fn properties(&self) -> Result<Properties, Malformed> {
        self.0.properties()
    }

    /// Decodes and copies the headers. The table is empty if there are none.
    ///
    /// # Errors
    /// [`Malformed`] if the publisher sent malformed properties, which RabbitMQ relays.
    pub fn headers(&self) -> Result<FieldTable, Malformed> {
        self.0.headers()
    }

    /// Returns the message, which has more methods.
    pub const fn message(&self) -> &ReceivedMessage {
        self.0.message()
    }

    /// Returns the delivery tag.
    pub const fn tag(&self) -> DeliveryTag {
        self.0.tag()
    }

    /// Returns the channel on which the delivery arrived.
    pub fn channel(&self) -> Channel {
        Channel::new(self.0.channel())
    }

    /// Returns the tag of its consumer. It is empty for a message from `basic.get`.
    pub fn consumer_tag(&self) -> &str {
        self.0.consumer_tag()
    }

    /// Returns the number of ready messages that remain in the queue, for a message from `basic.get`.
    pub fn message_count(&self) -> Option<u32> {
        self.0.message_count()
    }

    /// Returns a header, `None` if the message does not have it. [`headers`](Self::headers) decodes all of
    /// them at once.
    ///
    /// # Errors
    /// Those of [`headers`](Self::headers).
    pub fn header(&self, name: &str) -> Result<Option<FieldValue>, Malformed> {
        self.0.header(name)
    }

    /// Returns the offset of the message in its stream (header `x-stream-offset`;
    /// <https://www.rabbitmq.com/docs/streams>). `None` if the message does not come from a stream, or if its
    /// headers are malformed.
    pub fn stream_offset(&self) -> Option<u64> {
        self.0.stream_offset()
    }

    /// Returns the number of times that the message was dead-lettered from the queue, for any reason (header
    /// `x-death`; <https://www.rabbitmq.com/docs/dlx#effects>). A consumer that retries uses it to stop after
    /// some attempts. In its queue, the number is that of the failed attempts before this one: `< 5` allows
    /// five retries, which are six attempts.
    ///
    /// # Errors
    /// Those of [`headers`](Self::headers).
    pub fn death_count(&self, queue: &str) -> Result<u64, Malformed> {
        self.0.death_count(queue)
    }

    /// Returns an answer to this request: a message to the queue that its `reply_to` names, with its
    /// `correlation_id`.
    ///
    /// ```
    /// # use amqp_blocking::{Channel, Delivery};
    /// # fn example(channel: &Channel, request: Delivery) -> Result<(), Box<dyn std::error::Error>> {
    /// channel.basic_publish(request.answer(b"42")?)?;
    /// request.ack()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AnswerError`]: the request has no `reply_to`, or malformed properties.
    pub fn answer<'a>(&'a self, body: impl Into<Body<'a>>) -> Result<Publish<'a>, AnswerError> {
        self.0.answer(body)
    }

    /// Returns a message with the exchange and the routing key of this one.
    ///
    /// # Errors
    /// [`Malformed::NotUtf8`] if one of them is not UTF-8.
    pub fn publish_again<'a>(
        &'a self,
        body: impl Into<Body<'a>>,
    ) -> Result<Publish<'a>, Malformed> {
        self.0.publish_again(body)
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
