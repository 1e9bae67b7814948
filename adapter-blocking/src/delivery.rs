use std::fmt;

use amqp_async::AnswerError;
use amqp_async::core::{
    AckError, BasicGet, Body, DeliveryTag, Error, Fault, FieldTable, FieldValue, Malformed,
    Properties, Publish, ReceivedMessage, ShortStr,
};
use bytes::Bytes;

use crate::channel::Channel;
use crate::wait::wait;

impl Channel {
    /// Asks for one message (AMQP 0-9-1, 1.8.3.10): the name of a queue, or a [`BasicGet`]. A consumer
    /// is the better way to get more than now and then one. `None` if the queue is empty.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn basic_get(&self, get: impl Into<BasicGet>) -> Result<Option<Delivery>, Error> {
        wait(self.shared().basic_get(get)).map(|got| got.map(Delivery::new))
    }
}

/// A message delivered to a consumer, or got.
///
/// It is to be acknowledged or refused, from any thread, unless the consumer is without
/// acknowledgement. A stream takes no message back: where a consumer has a
/// [`stream_offset`](crate::BasicConsume::stream_offset), refusing is acknowledging.
///
/// When it is dropped without an ack or nack, nothing is sent. The message stays unacknowledged until its
/// channel closes, counts towards the prefetch until then, and
/// [`ConnectionEvent::DeliveriesDropped`](crate::ConnectionEvent::DeliveriesDropped) reports it. With
/// [`requeue_on_drop`](crate::BasicConsume::requeue_on_drop) it is requeued.
pub struct Delivery(amqp_async::Delivery);

impl Delivery {
    pub(crate) const fn new(delivery: amqp_async::Delivery) -> Self {
        Self(delivery)
    }

    /// Acknowledges it (`basic.ack`; AMQP 0-9-1, 1.8.3.13). For a consumer without acknowledgement,
    /// nothing is sent.
    ///
    /// # Errors
    /// [`AckError`]: its channel or connection has closed, `multiple` covered it before, or
    /// `basic.recover` was called since. In each case the broker has it back, or has forgotten it.
    pub fn ack(self) -> Result<(), AckError> {
        self.0.ack()
    }

    /// Acknowledges it and every earlier unacknowledged delivery of the channel, from any consumer.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack).
    pub fn ack_multiple(self) -> Result<(), AckError> {
        self.0.ack_multiple()
    }

    /// Refuses it (`basic.nack`; <https://www.rabbitmq.com/docs/nack>): requeued, or else
    /// dead-lettered or dropped.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack).
    pub fn nack(self, requeue: bool) -> Result<(), AckError> {
        self.0.nack(requeue)
    }

    /// Refuses it and every earlier unacknowledged delivery of the channel, from any consumer.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack), and [`AckError::Stream`] if the channel has consumed a stream: then
    /// nothing is sent, as if this delivery was dropped.
    pub fn nack_multiple(self, requeue: bool) -> Result<(), AckError> {
        self.0.nack_multiple(requeue)
    }

    /// Refuses it (`basic.reject`; AMQP 0-9-1, 1.8.3.14): requeued, or else dead-lettered or dropped.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack).
    pub fn reject(self, requeue: bool) -> Result<(), AckError> {
        self.0.reject(requeue)
    }

    /// Puts it back into its queue: [`nack(true)`](Self::nack).
    ///
    /// # Errors
    /// Those of [`nack`](Self::nack).
    pub fn requeue(self) -> Result<(), AckError> {
        self.0.requeue()
    }

    /// Removes it from its queue without success: [`nack(false)`](Self::nack). The broker dead-letters it if the queue
    /// has a dead-letter exchange (<https://www.rabbitmq.com/docs/dlx>), and drops it otherwise.
    ///
    /// # Errors
    /// Those of [`nack`](Self::nack).
    pub fn discard(self) -> Result<(), AckError> {
        self.0.discard()
    }

    /// Whether it is too late for an ack, nack or reject: the channel or the connection has closed, a call with
    /// `multiple` covered it, or `basic.recover` was called since. `false` if it needs none.
    pub fn is_stale(&self) -> bool {
        self.0.is_stale()
    }

    /// Cancels the consumer that it came to, as [`Consumer::cancel`](crate::Consumer::cancel) does, and
    /// waits for the broker's answer. A message from `basic.get` has no consumer: nothing is sent then.
    ///
    /// # Errors
    /// Those of a [call](crate::Channel#calls).
    pub fn cancel_consumer(&self) -> Result<(), Error> {
        wait(self.0.cancel_consumer())
    }

    /// The body; empty if the message was too large.
    pub fn body(&self) -> &[u8] {
        self.0.body()
    }

    /// The body, to keep beyond the delivery without copying.
    pub fn shared_body(&self) -> Bytes {
        self.0.shared_body()
    }

    /// What is wrong with the message, if anything is: it was too large, or its properties are
    /// malformed. It can be acknowledged or refused all the same. Checks the properties without copying them.
    pub fn fault(&self) -> Option<Fault> {
        self.0.fault()
    }

    /// Whether the message may have been delivered before.
    pub const fn redelivered(&self) -> bool {
        self.0.redelivered()
    }

    /// The exchange that the message was published to.
    pub fn exchange(&self) -> ShortStr<'_> {
        self.0.exchange()
    }

    /// The routing key that it was published with.
    pub fn routing_key(&self) -> ShortStr<'_> {
        self.0.routing_key()
    }

    /// The properties.
    ///
    /// # Errors
    /// [`Malformed`] if the publisher sent malformed properties, which RabbitMQ forwards.
    pub fn properties(&self) -> Result<Properties, Malformed> {
        self.0.properties()
    }

    /// The headers; empty if there are none.
    ///
    /// # Errors
    /// [`Malformed`] if the publisher sent malformed headers, which RabbitMQ forwards.
    pub fn headers(&self) -> Result<FieldTable, Malformed> {
        self.0.headers()
    }

    /// The message, for what else it offers.
    pub const fn message(&self) -> &ReceivedMessage {
        self.0.message()
    }

    /// The delivery's tag.
    pub const fn tag(&self) -> DeliveryTag {
        self.0.tag()
    }

    /// The channel that it came on.
    pub fn channel(&self) -> Channel {
        Channel::new(self.0.channel())
    }

    /// The tag of the consumer that it came to; empty for a message from `basic.get`.
    pub fn consumer_tag(&self) -> &str {
        self.0.consumer_tag()
    }

    /// The number of ready messages behind it, for a message from `basic.get`.
    pub fn message_count(&self) -> Option<u32> {
        self.0.message_count()
    }

    /// Returns a header, `None` if the message does not have it. [`headers`](Self::headers) decodes all of them at once.
    ///
    /// # Errors
    /// Those of [`headers`](Self::headers).
    pub fn header(&self, name: &str) -> Result<Option<FieldValue>, Malformed> {
        self.0.header(name)
    }

    /// The offset of the message in its stream (header `x-stream-offset`; <https://www.rabbitmq.com/docs/streams>).
    /// `None` if it does not come from a stream, or if its headers are malformed.
    pub fn stream_offset(&self) -> Option<u64> {
        self.0.stream_offset()
    }

    /// How often the message was dead-lettered from the queue, for any reason (header `x-death`;
    /// <https://www.rabbitmq.com/docs/dlx#effects>). A consumer that retries uses it to stop after some attempts.
    ///
    /// # Errors
    /// Those of [`headers`](Self::headers).
    pub fn death_count(&self, queue: &str) -> Result<u64, Malformed> {
        self.0.death_count(queue)
    }

    /// Returns an answer to this request: a message to the queue that its `reply_to` names, with its `correlation_id`.
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

    /// Returns a message to where this one was published: with the same exchange and the same routing key.
    ///
    /// # Errors
    /// [`Malformed::NotUtf8`] if those are not text.
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
