//! `Delivery`: ack, nack, reject, and the parts of the message.

use std::fmt;
use std::sync::Arc;

use amqp_core::errors::Malformed;
use amqp_core::requests::Got;
use amqp_core::types::ShortStr;
use amqp_core::{
    AckError, Body, ConsumerKey, DeliveryTag, Fault, FieldTable, FieldValue, Properties, Publish,
    ReceivedMessage,
};
use bytes::Bytes;

use crate::call::{Calling, CancelConsumer, Cancelling};
use crate::channel::Channel;
use crate::holders::ChannelHolder;
use crate::trace::{Once, QueueName, Step};

/// A message delivered to a consumer (`basic.deliver`; AMQP 0-9-1, 1.8.3.9), or fetched with `basic.get`.
///
/// Ack, nack or reject it, from any thread, unless it came without acknowledgement
/// (<https://www.rabbitmq.com/docs/confirms#consumer-acknowledgements>).
///
/// A stream does not take messages back. If the consumer has a
/// [`stream_offset`](amqp_core::BasicConsume::stream_offset), a nack or reject acks the delivery. Without it,
/// a nack of a delivery that may come from a stream returns [`AckError::MaybeStream`] on RabbitMQ before
/// 3.11.
///
/// If it is dropped without an ack or nack, nothing is sent. It stays unacknowledged until its channel
/// closes, and counts towards the prefetch until then.
/// [`ConnectionEvent::DeliveriesDropped`](crate::ConnectionEvent::DeliveriesDropped) reports it. With
/// [`requeue_on_drop`](amqp_core::BasicConsume::requeue_on_drop) it is requeued instead.
///
/// ```
/// # use amqp_async::{Delivery, core::AckError};
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
pub struct Delivery {
    origin: Arc<Origin>,
    delivery: amqp_core::Delivery,
    /// Whether it is acked, or needs no ack.
    acknowledged: bool,
}

/// The source of deliveries: their channel, and their consumer or `basic.get`.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) channel: Arc<ChannelHolder>,
    /// The consumer. `None` for a message from `basic.get`.
    pub(crate) consumer: Option<(ConsumerKey, String)>,
    /// The number of ready messages that remain in the queue, for a message from `basic.get`.
    pub(crate) message_count: Option<u32>,
    pub(crate) no_ack: bool,
    pub(crate) requeue_on_drop: bool,
    pub(crate) queue: QueueName,
    /// Whether it was logged that a delivery was dropped.
    pub(crate) drop_logged: Once,
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

    /// Acknowledges the delivery (`basic.ack`; AMQP 0-9-1, 1.8.3.13). Sends nothing if it came without
    /// acknowledgement.
    ///
    /// # Errors
    /// [`AckError`] if the channel or connection has closed, an ack or nack with `multiple` has covered the
    /// delivery, or `basic.recover` was called since. Then the broker has requeued the message, or it is
    /// acked or nacked already.
    #[inline]
    pub fn ack(self) -> Result<(), AckError> {
        self.acknowledge(|channel, tag| channel.ack(tag, false))
    }

    /// Acknowledges this delivery and all earlier unacknowledged ones of the channel, from any consumer
    /// (`basic.ack` with `multiple`).
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack).
    pub fn ack_multiple(self) -> Result<(), AckError> {
        self.acknowledge(|channel, tag| channel.ack(tag, true))
    }

    /// Refuses the delivery (`basic.nack`; <https://www.rabbitmq.com/docs/nack>). With `requeue` it is
    /// requeued; without, it is dead-lettered or dropped.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack). With [`AckError::MaybeStream`], the delivery stays unacknowledged as if
    /// it was dropped.
    pub fn nack(self, requeue: bool) -> Result<(), AckError> {
        self.acknowledge(|channel, tag| channel.nack(tag, false, requeue))
    }

    /// Refuses this delivery and all earlier unacknowledged ones of the channel, from any consumer
    /// (`basic.nack` with `multiple`).
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack), and [`AckError::Stream`] if the channel has consumed from a stream. Then
    /// nothing is sent, and this delivery stays unacknowledged as if it was dropped.
    pub fn nack_multiple(self, requeue: bool) -> Result<(), AckError> {
        self.acknowledge(|channel, tag| channel.nack(tag, true, requeue))
    }

    /// Refuses the delivery (`basic.reject`; AMQP 0-9-1, 1.8.3.14). With `requeue` it is requeued; without,
    /// it is dead-lettered or dropped.
    ///
    /// # Errors
    /// Those of [`nack`](Self::nack).
    pub fn reject(self, requeue: bool) -> Result<(), AckError> {
        self.acknowledge(|channel, tag| channel.reject(tag, requeue))
    }

    /// Returns the message to its queue: [`nack(true)`](Self::nack).
    ///
    /// # Errors
    /// Those of [`nack`](Self::nack).
    pub fn requeue(self) -> Result<(), AckError> {
        self.nack(true)
    }

    /// Removes the message from its queue: [`nack(false)`](Self::nack). The broker dead-letters it if the
    /// queue has a dead-letter exchange (<https://www.rabbitmq.com/docs/dlx>), and drops it otherwise.
    ///
    /// # Errors
    /// Those of [`nack`](Self::nack).
    pub fn discard(self) -> Result<(), AckError> {
        self.nack(false)
    }

    /// Returns whether an ack, nack or reject would return an error. That is the case if the channel or the
    /// connection has closed, a call with `multiple` has covered the delivery, or `basic.recover` was called
    /// since. `false` if the delivery came without acknowledgement.
    pub fn is_stale(&self) -> bool {
        let (channel, tag) = (&self.origin.channel, self.delivery.tag);
        !self.acknowledged
            && channel.shared().with(|state| state.session.channel(channel.id()).is_stale(tag))
    }

    /// Returns the body. It is empty if the message was too large: check [`fault`](Self::fault) first.
    pub fn body(&self) -> &[u8] {
        self.delivery.message.body()
    }

    /// Returns the body as `Bytes`, which can be kept longer than the delivery. A body of less than 4 KiB is
    /// copied. A larger one is shared without a copy (zero-copy).
    pub fn shared_body(&self) -> Bytes {
        self.delivery.message.clone().into_body()
    }

    /// Returns what is wrong with the message, if anything is: it was too large, or its properties are
    /// malformed. The message can still be acked, nacked or rejected. Checks the properties without copying
    /// them.
    pub fn fault(&self) -> Option<Fault> {
        self.delivery.fault()
    }

    /// Returns whether the message may have been delivered before.
    pub const fn redelivered(&self) -> bool {
        self.delivery.redelivered
    }

    /// Returns the exchange to which the message was published.
    pub fn exchange(&self) -> ShortStr<'_> {
        self.delivery.message.exchange()
    }

    /// Returns the routing key with which the message was published.
    pub fn routing_key(&self) -> ShortStr<'_> {
        self.delivery.message.routing_key()
    }

    /// Decodes and copies the properties.
    ///
    /// # Errors
    /// [`Malformed`] if the publisher sent malformed properties, which RabbitMQ relays.
    pub fn properties(&self) -> Result<Properties, Malformed> {
        self.delivery.message.properties()
    }

    /// Decodes and copies the headers. The table is empty if there are none.
    ///
    /// # Errors
    /// [`Malformed`] if the publisher sent malformed properties, which RabbitMQ relays.
    pub fn headers(&self) -> Result<FieldTable, Malformed> {
        self.delivery.message.headers()
    }

    /// Returns the message, which has more methods.
    pub const fn message(&self) -> &ReceivedMessage {
        &self.delivery.message
    }

    /// Returns the delivery tag.
    pub const fn tag(&self) -> DeliveryTag {
        self.delivery.tag
    }

    /// Returns the channel on which the delivery arrived.
    pub fn channel(&self) -> Channel {
        Channel::new(Arc::clone(&self.origin.channel))
    }

    /// Returns the tag of its consumer. It is empty for a message from `basic.get`.
    pub fn consumer_tag(&self) -> &str {
        self.origin.tag()
    }

    /// Returns the number of ready messages that remain in the queue, for a message from `basic.get`.
    pub fn message_count(&self) -> Option<u32> {
        self.origin.message_count
    }

    /// Returns a header, `None` if the message does not have it. [`headers`](Self::headers) decodes all of
    /// them at once.
    ///
    /// # Errors
    /// Those of [`headers`](Self::headers).
    pub fn header(&self, name: &str) -> Result<Option<FieldValue>, Malformed> {
        Ok(self.headers()?.remove(name))
    }

    /// Returns the offset of the message in its stream (header `x-stream-offset`;
    /// <https://www.rabbitmq.com/docs/streams>). `None` if the message does not come from a stream, or if its
    /// headers are malformed.
    pub fn stream_offset(&self) -> Option<u64> {
        let offset = self.header("x-stream-offset").ok()??;
        u64::try_from(offset.as_i64()?).ok()
    }

    /// Returns the number of times that the message was dead-lettered from the queue, for any reason (header
    /// `x-death`; <https://www.rabbitmq.com/docs/dlx#effects>). A consumer that retries uses it to stop after
    /// some attempts. In its queue, the number is that of the failed attempts before this one: `< 5` allows
    /// five retries, which are six attempts. The guide has a complete retry
    /// ([`acknowledging`](crate::guide::acknowledging)).
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

    /// Returns an answer to this request (RPC): a message to the queue that its `reply_to` names, with its
    /// `correlation_id`.
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

    /// Returns a message with the exchange and the routing key of this one.
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

    /// Cancels the consumer of this delivery, as [`Consumer::cancel`](crate::Consumer::cancel) does. Resolves
    /// when the broker has confirmed it. For a message from `basic.get`, nothing is sent.
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
        let Origin { channel, consumer, requeue_on_drop, queue, .. } = &*self.origin;
        // Each message that was got has an origin of its own: those are logged once for the channel.
        let drop_logged = match consumer {
            Some(_) => &self.origin.drop_logged,
            None => channel.drop_logged(),
        };
        let tag = self.delivery.tag;
        channel.shared().with(|state| {
            let mut view = state.session.channel(channel.id());
            let stays = if *requeue_on_drop { view.requeue(tag) } else { view.drop_unacked(tag) };
            if stays && drop_logged.is_first() {
                let number = view.number().unwrap_or_default();
                state.log(|| Step::DeliveryDropped {
                    channel: number,
                    queue: queue.name(),
                    consumer_tag: self.origin.tag().into(),
                });
            }
        });
    }
}

/// Why [`Delivery::answer`] cannot create an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The properties of the request are malformed.
    #[error("malformed properties of the request: {0}")]
    Malformed(Malformed),
    /// The request has no `reply_to` property.
    #[error("the request has no reply_to property")]
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
