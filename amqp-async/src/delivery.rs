//! Deliveries.

use std::fmt;
use std::sync::Arc;

use amqp_core::{
    AckError, Body, ConsumerKey, DeliveryTag, Fault, FieldTable, Got, Malformed, Properties,
    Publish, ReceivedMessage, ShortStr,
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

    /// A message to where this one was published: same exchange, same routing key.
    ///
    /// # Errors
    /// [`Malformed::NotUtf8`] if those are no text.
    pub fn reply<'a>(&'a self, body: impl Into<Body<'a>>) -> Result<Publish<'a>, Malformed> {
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
