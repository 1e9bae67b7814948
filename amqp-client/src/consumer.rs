//! Consumers and deliveries.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use amqp_core::limits::PULLED_DELIVERIES_MAX;
use amqp_core::{
    AckError, ConsumeOk, ConsumerKey, DeliveryTag, Error, Fault, FieldTable, Got, Malformed,
    Message, Properties, ShortStr,
};
use bytes::Bytes;
use futures_core::Stream;

use crate::calling::{Calling, CancelConsumer};
use crate::channel::ChannelInner;

/// A consumer of a queue: a stream of deliveries, in the order in which the broker sent them.
///
/// Dropped, it is cancelled in the background, and deliveries that were not taken from it are
/// requeued.
#[derive(Debug)]
pub struct Consumer {
    origin: Arc<Origin>,
    key: ConsumerKey,
    /// Taken from the core, and not from here.
    pulled: VecDeque<amqp_core::Delivery>,
    ended: bool,
}

/// Where deliveries come from.
#[derive(Debug)]
struct Origin {
    channel: Arc<ChannelInner>,
    /// Empty for a message that was asked for.
    consumer_tag: String,
    no_ack: bool,
}

impl Consumer {
    pub(crate) fn new(channel: Arc<ChannelInner>, ok: ConsumeOk, no_ack: bool) -> Self {
        let origin = Arc::new(Origin { channel, consumer_tag: ok.consumer_tag, no_ack });
        Self { origin, key: ok.consumer, pulled: VecDeque::new(), ended: false }
    }

    /// The consumer's tag on its channel.
    pub fn tag(&self) -> &str {
        &self.origin.consumer_tag
    }

    /// The next delivery; `None` once the consumer was cancelled from here. An error ends the
    /// consumer: the channel or connection closed, or the broker cancelled it.
    #[allow(clippy::should_implement_trait, reason = "the stream's name for it")]
    pub fn next(&mut self) -> Next<'_> {
        Next { consumer: self }
    }

    /// Cancels the consumer (`basic.cancel`). Deliveries that the broker had sent still come from
    /// [`next`](Self::next), then `None`.
    pub fn cancel(&mut self) -> Cancelling {
        Calling::new(Arc::clone(&self.origin.channel), CancelConsumer(self.key))
    }

    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, Error>>> {
        if self.pulled.is_empty() && !self.ended {
            match self.pull(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {}
                Poll::Ready(Some(Ok(()))) => self.ended = true,
                Poll::Ready(Some(Err(error))) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        let origin = &self.origin;
        Poll::Ready(self.pulled.pop_front().map(|delivery| {
            Ok(Delivery { origin: Arc::clone(origin), delivery, message_count: None })
        }))
    }

    /// Takes deliveries from the core; ready with `Some` when there will be no more.
    fn pull(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), Error>>> {
        let Self { origin, pulled, .. } = self;
        let (id, key) = (origin.channel.id(), self.key);
        origin.channel.shared().with(|state| {
            let mut channel = state.session.channel(id);
            pulled.extend(
                std::iter::from_fn(|| channel.next_delivery(key)).take(PULLED_DELIVERIES_MAX),
            );
            if !pulled.is_empty() {
                return Poll::Ready(None);
            }
            if let Some(end) = channel.consumer_end(key) {
                return Poll::Ready(Some(end));
            }
            state.consumers.register(key.index(), cx.waker(), &mut state.released);
            Poll::Pending
        })
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_delivery(cx)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let (Origin { channel, no_ack, .. }, key) = (&*self.origin, self.key);
        let now = channel.shared().now();
        let pulled = std::mem::take(&mut self.pulled);
        channel.shared().with(|state| {
            let waker = state.consumers.take(key.index());
            state.released.drop_waker(waker);
            let mut channel = state.session.channel(channel.id());
            channel.release_consumer(now, key);
            if !no_ack {
                for delivery in &pulled {
                    // Stale ones have been requeued by the broker already.
                    let _ = channel.nack(delivery.tag, false, true);
                }
            }
        });
    }
}

/// A consumer that is being cancelled. For errors and cancel safety see [`Calling`].
pub type Cancelling = Calling<CancelConsumer>;

/// The next delivery of a consumer.
///
/// # Errors
/// An error ends the consumer: [`Error::Channel`], [`Error::Connection`],
/// [`Error::ConsumerCancelled`].
///
/// # Cancel safety
/// A delivery is taken in the poll that resolves, or not at all.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Next<'a> {
    consumer: &'a mut Consumer,
}

impl Future for Next<'_> {
    type Output = Option<Result<Delivery, Error>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.consumer.poll_delivery(cx)
    }
}

/// A message delivered to a consumer, or got.
///
/// It is to be acknowledged or refused, from any thread, unless the consumer is without
/// acknowledgement. Dropped without that, nothing is sent: the message stays unacknowledged until its
/// channel closes, and takes one place of the prefetch until then.
pub struct Delivery {
    origin: Arc<Origin>,
    delivery: amqp_core::Delivery,
    message_count: Option<u32>,
}

impl Delivery {
    pub(crate) fn got(channel: Arc<ChannelInner>, got: Got, no_ack: bool) -> Self {
        let origin = Origin { channel, consumer_tag: String::new(), no_ack };
        let message_count = Some(got.message_count);
        Self { origin: Arc::new(origin), delivery: got.delivery, message_count }
    }

    /// Acknowledges it (`basic.ack`; AMQP 0-9-1, 1.8.3.13). Of a consumer without acknowledgement,
    /// nothing is sent.
    ///
    /// # Errors
    /// [`AckError::Stale`]: the channel or connection has closed, and the broker has requeued it.
    pub fn ack(self) -> Result<(), AckError> {
        self.settle(|channel, tag| channel.ack(tag, false))
    }

    /// Acknowledges it and every earlier delivery of the channel that is not settled, from whatever
    /// consumer.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack).
    pub fn ack_multiple(self) -> Result<(), AckError> {
        self.settle(|channel, tag| channel.ack(tag, true))
    }

    /// Refuses it (`basic.nack`; <https://www.rabbitmq.com/docs/nack>): requeued, or else
    /// dead-lettered or dropped.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack).
    pub fn nack(self, requeue: bool) -> Result<(), AckError> {
        self.settle(|channel, tag| channel.nack(tag, false, requeue))
    }

    /// Refuses it and every earlier delivery of the channel that is not settled, from whatever
    /// consumer.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack).
    pub fn nack_multiple(self, requeue: bool) -> Result<(), AckError> {
        self.settle(|channel, tag| channel.nack(tag, true, requeue))
    }

    /// Refuses it (`basic.reject`; AMQP 0-9-1, 1.8.3.14): requeued, or else dead-lettered or dropped.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack).
    pub fn reject(self, requeue: bool) -> Result<(), AckError> {
        self.settle(|channel, tag| channel.reject(tag, requeue))
    }

    /// The body; empty if there is a [`fault`](Self::fault).
    pub fn body(&self) -> &[u8] {
        self.delivery.message.body()
    }

    /// The body, to keep beyond the delivery without copying.
    pub fn shared_body(&self) -> Bytes {
        self.delivery.message.clone().into_body()
    }

    /// What kept the message from being received whole. It can be settled all the same.
    pub const fn fault(&self) -> Option<Fault> {
        self.delivery.fault
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
    pub const fn message(&self) -> &Message {
        &self.delivery.message
    }

    /// The delivery's tag.
    pub const fn tag(&self) -> DeliveryTag {
        self.delivery.tag
    }

    /// The tag of the consumer that it came to; empty if it was got.
    pub fn consumer_tag(&self) -> &str {
        &self.origin.consumer_tag
    }

    /// The messages that are ready behind it, if it was got.
    pub const fn message_count(&self) -> Option<u32> {
        self.message_count
    }

    fn settle(
        &self,
        settle: impl FnOnce(&mut amqp_core::Channel<'_>, DeliveryTag) -> Result<(), AckError>,
    ) -> Result<(), AckError> {
        if self.origin.no_ack {
            return Ok(());
        }
        let channel = &self.origin.channel;
        let tag = self.delivery.tag;
        channel.shared().with(|state| settle(&mut state.session.channel(channel.id()), tag))
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("consumer_tag", &self.origin.consumer_tag)
            .field("delivery", &self.delivery)
            .finish()
    }
}
