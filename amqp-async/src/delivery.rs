//! Deliveries.

use std::fmt;
use std::sync::Arc;

use amqp_core::{
    AckError, Body, ConsumerKey, DeliveryTag, Fault, FieldTable, FieldValue, Got, Malformed,
    Properties, Publish, ReceivedMessage, ShortStr,
};
use bytes::Bytes;

use crate::call::{Calling, CancelConsumer, Cancelling};
use crate::channel::Channel;
use crate::holders::ChannelHolder;

/// A message delivered to a consumer, or fetched with `basic.get`.
///
/// Ack, nack or reject it, from any thread, unless the consumer is without acknowledgement. A stream takes no
/// message back: where a consumer has a [`stream_offset`](amqp_core::BasicConsume::stream_offset), a nack or
/// reject acknowledges. Without it, a nack of what may come from a stream is [`AckError::MaybeStream`] on
/// RabbitMQ before 3.11.
///
/// When it is dropped without an ack or nack, nothing is sent. The message stays unacknowledged until its
/// channel closes, counts towards the prefetch until then, and
/// [`ConnectionEvent::DeliveriesDropped`](crate::ConnectionEvent::DeliveriesDropped) reports it. With
/// [`requeue_on_drop`](amqp_core::BasicConsume::requeue_on_drop) it is requeued.
pub struct Delivery {
    origin: Arc<Origin>,
    delivery: amqp_core::Delivery,
    /// Or does not need to be.
    acknowledged: bool,
}

/// Where deliveries come from.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) channel: Arc<ChannelHolder>,
    /// The consumer; none for a message that was asked for.
    pub(crate) consumer: Option<(ConsumerKey, String)>,
    /// The messages behind one that was asked for.
    pub(crate) message_count: Option<u32>,
    pub(crate) no_ack: bool,
    pub(crate) requeue_on_drop: bool,
}

impl Origin {
    pub(crate) fn tag(&self) -> &str {
        self.consumer.as_ref().map_or("", |(_, tag)| tag)
    }
}

impl Delivery {
    #[inline]
    pub(crate) fn new(origin: Arc<Origin>, delivery: amqp_core::Delivery) -> Self {
        let acknowledged = origin.no_ack;
        Self { origin, delivery, acknowledged }
    }

    pub(crate) fn got(origin: Origin, got: Got) -> Self {
        let origin = Origin { message_count: Some(got.message_count), ..origin };
        Self::new(Arc::new(origin), got.delivery)
    }

    /// Acknowledges it (`basic.ack`; AMQP 0-9-1, 1.8.3.13). Of a consumer without acknowledgement,
    /// nothing is sent.
    ///
    /// # Errors
    /// [`AckError`]: its channel or connection has closed, it was covered by `multiple` before, or
    /// `basic.recover` was called since. In each case the broker has it back, or has forgotten it.
    #[inline]
    pub fn ack(self) -> Result<(), AckError> {
        self.acknowledge(|channel, tag| channel.ack(tag, false))
    }

    /// Acknowledges it and every earlier unacknowledged delivery of the channel, from any consumer.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack).
    pub fn ack_multiple(self) -> Result<(), AckError> {
        self.acknowledge(|channel, tag| channel.ack(tag, true))
    }

    /// Refuses it (`basic.nack`; <https://www.rabbitmq.com/docs/nack>): requeued, or else
    /// dead-lettered or dropped.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack), and [`AckError::MaybeStream`]: then this delivery is as if dropped.
    pub fn nack(self, requeue: bool) -> Result<(), AckError> {
        self.acknowledge(|channel, tag| channel.nack(tag, false, requeue))
    }

    /// Refuses it and every earlier unacknowledged delivery of the channel, from any consumer.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack), and [`AckError::Stream`] if the channel has consumed a stream: then
    /// nothing is sent, as if this delivery was dropped.
    pub fn nack_multiple(self, requeue: bool) -> Result<(), AckError> {
        self.acknowledge(|channel, tag| channel.nack(tag, true, requeue))
    }

    /// Refuses it (`basic.reject`; AMQP 0-9-1, 1.8.3.14): requeued, or else dead-lettered or dropped.
    ///
    /// # Errors
    /// Those of [`nack`](Self::nack).
    pub fn reject(self, requeue: bool) -> Result<(), AckError> {
        self.acknowledge(|channel, tag| channel.reject(tag, requeue))
    }

    /// Puts it back into its queue: [`nack(true)`](Self::nack).
    ///
    /// # Errors
    /// Those of [`nack`](Self::nack).
    pub fn requeue(self) -> Result<(), AckError> {
        self.nack(true)
    }

    /// Removes it from its queue without success: [`nack(false)`](Self::nack). The broker dead-letters it if the queue
    /// has a dead-letter exchange (<https://www.rabbitmq.com/docs/dlx>), and drops it otherwise.
    ///
    /// # Errors
    /// Those of [`nack`](Self::nack).
    pub fn discard(self) -> Result<(), AckError> {
        self.nack(false)
    }

    /// Whether it is too late for an ack, nack or reject: the channel or the connection has closed, a call with
    /// `multiple` covered it, or `basic.recover` was called since. `false` if it needs none.
    pub fn is_stale(&self) -> bool {
        let (channel, tag) = (&self.origin.channel, self.delivery.tag);
        !self.acknowledged
            && channel.shared().with(|state| state.session.channel(channel.id()).is_stale(tag))
    }

    /// The body; empty if the message was too large.
    pub fn body(&self) -> &[u8] {
        self.delivery.message.body()
    }

    /// The body, to keep beyond the delivery. One of less than 4 KiB is copied; a larger one is shared
    /// without copying.
    pub fn shared_body(&self) -> Bytes {
        self.delivery.message.clone().into_body()
    }

    /// What is wrong with the message, if anything is: it was too large, or its properties are
    /// malformed. It can be acknowledged or refused all the same. Checks the properties without copying them.
    pub fn fault(&self) -> Option<Fault> {
        self.delivery.fault()
    }

    /// Whether the message may have been delivered before.
    pub const fn redelivered(&self) -> bool {
        self.delivery.redelivered
    }

    /// The exchange that the message was published to.
    pub fn exchange(&self) -> ShortStr<'_> {
        self.delivery.message.exchange()
    }

    /// The routing key that it was published with.
    pub fn routing_key(&self) -> ShortStr<'_> {
        self.delivery.message.routing_key()
    }

    /// The properties.
    ///
    /// # Errors
    /// [`Malformed`] if the publisher sent nonsense, which RabbitMQ relays.
    pub fn properties(&self) -> Result<Properties, Malformed> {
        self.delivery.message.properties()
    }

    /// The headers; empty if there are none.
    ///
    /// # Errors
    /// [`Malformed`] if the publisher sent nonsense, which RabbitMQ relays.
    pub fn headers(&self) -> Result<FieldTable, Malformed> {
        self.delivery.message.headers()
    }

    /// The message, for what else it offers.
    pub const fn message(&self) -> &ReceivedMessage {
        &self.delivery.message
    }

    /// The delivery's tag.
    pub const fn tag(&self) -> DeliveryTag {
        self.delivery.tag
    }

    /// The channel that it came on.
    pub fn channel(&self) -> Channel {
        Channel::new(Arc::clone(&self.origin.channel))
    }

    /// The tag of the consumer that it came to; empty if it was got.
    pub fn consumer_tag(&self) -> &str {
        self.origin.tag()
    }

    /// The messages that are ready behind it, if it was got.
    pub fn message_count(&self) -> Option<u32> {
        self.origin.message_count
    }

    /// Returns a header, `None` if the message does not have it. [`headers`](Self::headers) decodes all of them at once.
    ///
    /// # Errors
    /// Those of [`headers`](Self::headers).
    pub fn header(&self, name: &str) -> Result<Option<FieldValue>, Malformed> {
        Ok(self.headers()?.remove(name))
    }

    /// The offset of the message in its stream (header `x-stream-offset`; <https://www.rabbitmq.com/docs/streams>).
    /// `None` if it does not come from a stream, or if its headers are malformed.
    pub fn stream_offset(&self) -> Option<u64> {
        let offset = self.header("x-stream-offset").ok()??;
        u64::try_from(offset.as_i64()?).ok()
    }

    /// How often the message was dead-lettered from the queue, for any reason (header `x-death`;
    /// <https://www.rabbitmq.com/docs/dlx#effects>). A consumer that retries uses it to stop after some attempts.
    ///
    /// ```
    /// # fn example(delivery: amqp_async::Delivery) -> Result<(), Box<dyn std::error::Error>> {
    /// if delivery.death_count("tasks")? < 5 {
    ///     delivery.discard()?; // Dead-lettered into the queue for retries.
    /// } else {
    ///     eprintln!("not tried again");
    ///     delivery.ack()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`headers`](Self::headers).
    pub fn death_count(&self, queue: &str) -> Result<u64, Malformed> {
        let deaths = self.header("x-death")?;
        let deaths = deaths.as_ref().and_then(FieldValue::as_array).unwrap_or_default();
        let of_queue = deaths
            .iter()
            .filter_map(FieldValue::as_table)
            .filter(|death| death.get("queue").and_then(FieldValue::as_str) == Some(queue));
        let counts = of_queue.filter_map(|death| death.get("count")?.as_i64()?.try_into().ok());
        Ok(counts.fold(0, u64::saturating_add))
    }

    /// Returns an answer to this request: a message to the queue that its `reply_to` names, with its `correlation_id`.
    ///
    /// ```
    /// # use amqp_async::{Channel, Delivery};
    /// # async fn example(channel: &Channel, request: Delivery) -> Result<(), Box<dyn std::error::Error>> {
    /// channel.basic_publish(request.answer(b"42")?).await?;
    /// request.ack()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AnswerError`]: the request has no `reply_to`, or malformed properties.
    pub fn answer<'a>(&'a self, body: impl Into<Body<'a>>) -> Result<Publish<'a>, AnswerError> {
        let request = self.delivery.message.properties_ref()?;
        let reply_to = request.reply_to.ok_or(AnswerError::NoReplyTo)?.as_str()?;
        let answer = Publish::to_queue(reply_to, body);
        Ok(match request.correlation_id {
            Some(id) => answer.correlation_id(id.as_str()?),
            None => answer,
        })
    }

    /// Returns a message to where this one was published: with the same exchange and the same routing key.
    ///
    /// # Errors
    /// [`Malformed::NotUtf8`] if one of them is not UTF-8.
    pub fn publish_again<'a>(
        &'a self,
        body: impl Into<Body<'a>>,
    ) -> Result<Publish<'a>, Malformed> {
        let message = &self.delivery.message;
        Ok(Publish::new(message.exchange().as_str()?, message.routing_key().as_str()?, body))
    }

    /// Cancels the consumer that it came to, as [`Consumer::cancel`](crate::Consumer::cancel) does. A
    /// message that was got has none: nothing is sent then.
    pub fn cancel_consumer(&self) -> Cancelling {
        let consumer = self.origin.consumer.as_ref().map(|(key, _)| *key);
        Calling::new(Arc::clone(&self.origin.channel), CancelConsumer(consumer))
    }

    #[inline]
    fn acknowledge(
        mut self,
        send: impl FnOnce(&mut amqp_core::Channel<'_>, DeliveryTag) -> Result<(), AckError>,
    ) -> Result<(), AckError> {
        if self.acknowledged {
            return Ok(());
        }
        let channel = &self.origin.channel;
        let tag = self.delivery.tag;
        let result =
            channel.shared().with(|state| send(&mut state.session.channel(channel.id()), tag));
        self.acknowledged = result.is_ok();
        result
    }

    fn drop_unacknowledged(&self) {
        let Origin { channel, requeue_on_drop, .. } = &*self.origin;
        let tag = self.delivery.tag;
        channel.shared().with(|state| {
            let mut channel = state.session.channel(channel.id());
            if *requeue_on_drop {
                channel.requeue(tag);
            } else {
                channel.drop_unacked(tag);
            }
        });
    }
}

/// Why a delivery cannot be answered; see [`Delivery::answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// Its properties are malformed.
    #[error("malformed properties of the request: {0}")]
    Malformed(Malformed),
    /// It does not say where the answer is expected.
    #[error("the request has no reply-to")]
    NoReplyTo,
}

impl From<Malformed> for AnswerError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("consumer_tag", &self.consumer_tag())
            .field("delivery", &self.delivery)
            .finish()
    }
}

impl Drop for Delivery {
    #[inline]
    fn drop(&mut self) {
        if !self.acknowledged {
            self.drop_unacknowledged();
        }
    }
}
