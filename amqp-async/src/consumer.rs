//! `basic.consume`, `Consumer` and `Canceller`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use crate::limits::PULLED_REPORTED_BYTES;
use amqp_core::{BasicConsume, ConsumerKey, Error};
use futures_core::{FusedFuture, FusedStream, Stream};

use crate::budget::{self, Cost};
use crate::call::{Calling, CancelConsumer, Cancelling, StartConsumer};
use crate::channel::Channel;
use crate::delivery::{Delivery, Origin};
use crate::holders::ChannelHolder;
use crate::trace::{Once, QueueName};

impl Channel {
    /// Starts a consumer (`basic.consume`; AMQP 0-9-1, 1.8.3.3; <https://www.rabbitmq.com/docs/consumers>).
    /// Takes the name of a queue, or a [`BasicConsume`]. Resolves to the [`Consumer`] when the broker has
    /// started it.
    ///
    /// # Errors
    /// Those of a [call](Self#calls), and
    /// [`Misuse::DuplicateConsumerTag`](amqp_core::errors::Misuse::DuplicateConsumerTag).
    ///
    /// # Cancel safety
    /// As for [`Consuming`]: a consumer that starts after the drop is cancelled.
    pub fn basic_consume(&self, consume: impl Into<BasicConsume>) -> Consuming {
        let consume = consume.into();
        let (no_ack, requeue_on_drop) = (consume.no_ack, consume.requeue_on_drop);
        let queue = QueueName::new(&consume.queue);
        let calling = self.call(StartConsumer(consume));
        Consuming { calling, no_ack, requeue_on_drop, queue }
    }
}

/// A consumer of a queue: a stream of deliveries, in the order in which the broker sent them.
///
/// When it is dropped, it is cancelled in the background, and deliveries that were not taken from it are
/// requeued. Without acknowledgement they are lost, and those of a stream are acked.
///
/// ```
/// # use amqp_async::core::BasicConsume;
/// # async fn example(channel: &amqp_async::Channel) -> Result<(), Box<dyn std::error::Error>> {
/// let mut consumer = channel.basic_consume(BasicConsume::new("orders").prefetch(64)).await?;
/// while let Some(delivery) = consumer.next().await {
///     let delivery = delivery?;
///     println!("{} bytes", delivery.body().len());
///     delivery.ack()?;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a consumer that is dropped is cancelled"]
#[derive(Debug)]
pub struct Consumer {
    origin: Arc<Origin>,
    key: ConsumerKey,
    /// Deliveries that were taken from the core, but not from this handle.
    pulled: VecDeque<amqp_core::Delivery>,
    /// The number of their bytes when they were taken.
    pulled_bytes: usize,
    /// The number of transports that were lost before they were taken.
    pulled_after: u32,
    /// The number of transports that the connection has lost.
    losses: Arc<AtomicU32>,
    ended: bool,
}

impl Consumer {
    pub(crate) fn new(origin: Origin, key: ConsumerKey) -> Self {
        Self {
            losses: Arc::clone(origin.channel.shared().losses()),
            origin: Arc::new(origin),
            key,
            pulled: VecDeque::new(),
            pulled_bytes: 0,
            pulled_after: 0,
            ended: false,
        }
    }

    /// Returns the consumer tag.
    pub fn tag(&self) -> &str {
        self.origin.tag()
    }

    /// Waits for the next delivery. Resolves to `None` when the application has cancelled the consumer and
    /// all deliveries are read.
    ///
    /// When the connection is recovered, the consumer starts again, and continues with what the broker delivers then.
    /// Deliveries of before that were not taken from it, and need an ack, are dropped: the broker delivers them again.
    ///
    /// # Errors
    /// An error ends the consumer: the channel or connection has closed, the broker has cancelled the consumer,
    /// or has refused to start it again when the connection was recovered.
    ///
    /// # Cancel safety
    /// Cancel-safe: a delivery is taken in the poll that resolves, or not at all.
    #[allow(clippy::should_implement_trait, reason = "the stream's name for it")]
    pub fn next(&mut self) -> Next<'_> {
        Next { consumer: Some(self) }
    }

    /// Returns a buffered delivery without waiting.
    ///
    /// ```
    /// # use amqp_async::{Consumer, TryRecvError};
    /// # fn example(consumer: &mut Consumer) -> Result<(), Box<dyn std::error::Error>> {
    /// match consumer.try_recv() {
    ///     Ok(delivery) => delivery.ack()?,
    ///     Err(TryRecvError::Empty) => println!("nothing for now"),
    ///     Err(TryRecvError::Ended) => println!("cancelled, and everything is read"),
    ///     Err(failed) => return Err(failed.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TryRecvError`]: nothing is buffered now, or the consumer has ended.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Delivery, TryRecvError> {
        match self.take_delivery(None) {
            Poll::Ready(Some(Ok(delivery))) => Ok(delivery),
            Poll::Ready(Some(Err(error))) => Err(TryRecvError::Failed(error)),
            Poll::Ready(None) => Err(TryRecvError::Ended),
            Poll::Pending => Err(TryRecvError::Empty),
        }
    }

    /// Returns the channel on which it consumes.
    pub fn channel(&self) -> Channel {
        Channel::new(Arc::clone(&self.origin.channel))
    }

    /// Returns a handle that cancels the consumer from another task or thread, such as a signal handler.
    ///
    /// ```
    /// # async fn example(mut consumer: amqp_async::Consumer, stop: impl Future<Output = ()> + Send + 'static)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// # fn spawn(_: impl Future<Output = ()> + Send + 'static) {}
    /// let canceller = consumer.canceller();
    /// spawn(async move {
    ///     stop.await;
    ///     let _ = canceller.cancel().await;
    /// });
    /// // The loop ends when everything that the broker had sent is read.
    /// while let Some(delivery) = consumer.next().await {
    ///     delivery?.ack()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn canceller(&self) -> Canceller {
        Canceller { channel: Arc::clone(&self.origin.channel), key: self.key }
    }

    /// Returns whether the last delivery, or the error that ended the consumer, was taken.
    pub fn is_ended(&self) -> bool {
        self.ended && self.pulled.is_empty()
    }

    /// Cancels the consumer (`basic.cancel`; AMQP 0-9-1, 1.8.3.5). Resolves when the broker has confirmed it.
    /// [`next`](Self::next) still returns the deliveries that the broker had sent, then `None`.
    ///
    /// # Errors
    /// Those of a [call](Channel#calls).
    ///
    /// # Cancel safety
    /// If the future is dropped before the first poll, nothing is sent. If it is dropped later, the consumer
    /// is cancelled.
    pub fn cancel(&mut self) -> Cancelling {
        Calling::new(Arc::clone(&self.origin.channel), CancelConsumer(Some(self.key)))
    }

    /// Cancels the consumer, and requeues the deliveries that were not taken from it. Resolves to the number
    /// of requeued messages.
    ///
    /// Without acknowledgement nothing can be requeued. Then it resolves to 0, and [`next`](Self::next) still
    /// returns the deliveries that had arrived. A stream does not take messages back: its deliveries are
    /// acked.
    ///
    /// # Errors
    /// Those of [`Calling`], and the reason why the consumer has ended, unless the application has cancelled
    /// it.
    ///
    /// # Cancel safety
    /// If the future is dropped before the first poll, nothing is sent. If it is dropped later, the consumer
    /// is cancelled, and [`next`](Self::next) still returns the deliveries that were not requeued.
    pub async fn cancel_and_requeue(&mut self) -> Result<usize, Error> {
        self.cancel().await?;
        let mut requeued = 0;
        // Until the end of the stream: another handle's cancel may still be in flight.
        while !self.origin.no_ack
            && let Some(delivery) = self.next().await
        {
            requeued += usize::from(delivery?.nack(true).is_ok());
        }
        Ok(requeued)
    }

    #[inline]
    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, Error>>> {
        ready!(budget::poll_spend(Cost::Delivery, cx));
        self.take_delivery(Some(cx))
    }

    /// Takes a delivery, or registers the task if there is none.
    #[inline(always)]
    fn take_delivery(
        &mut self,
        cx: Option<&mut Context<'_>>,
    ) -> Poll<Option<Result<Delivery, Error>>> {
        if self.losses.load(Ordering::Relaxed) != self.pulled_after {
            self.drop_lost();
        }
        if self.pulled.len() <= 1 {
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
            if self.pulled.len() == 1 && self.pulled_bytes > PULLED_REPORTED_BYTES {
                return self.take_last();
            }
        }
        // `Delivery` is large. Constructed in place, it is copied once.
        match self.pulled.pop_front() {
            Some(it) => Poll::Ready(Some(Ok(Delivery::new(Arc::clone(&self.origin), it)))),
            None => Poll::Ready(None),
        }
    }

    /// Drops the deliveries that the broker delivers again, because the transport over which they came was lost.
    #[cold]
    #[inline(never)]
    fn drop_lost(&mut self) {
        self.pulled_after = self.losses.load(Ordering::Relaxed);
        if !self.origin.no_ack {
            self.pulled.clear();
        }
    }

    /// Takes the last delivery of a large pull, and pulls again, because reading may have paused on account
    /// of the pull.
    #[inline(never)]
    fn take_last(&mut self) -> Poll<Option<Result<Delivery, Error>>> {
        let Self { origin, pulled, pulled_bytes, pulled_after, losses, key, .. } = self;
        let last = pulled.pop_front();
        let channel = &origin.channel;
        *pulled_bytes = channel.shared().with(|state| {
            *pulled_after = losses.load(Ordering::Relaxed);
            state.session.channel(channel.id()).pull_deliveries(*key, pulled)
        });
        Poll::Ready(last.map(|it| Ok(Delivery::new(Arc::clone(origin), it))))
    }

    /// Takes deliveries from the core. Ready with `Some` if no more will arrive.
    #[inline(never)]
    fn pull(&mut self, cx: Option<&mut Context<'_>>) -> Poll<Option<Result<(), Error>>> {
        let Self { origin, pulled, pulled_bytes, pulled_after, losses, .. } = self;
        let (id, key) = (origin.channel.id(), self.key);
        origin.channel.shared().with(|state| {
            *pulled_after = losses.load(Ordering::Relaxed);
            let mut channel = state.session.channel(id);
            *pulled_bytes = channel.pull_deliveries(key, pulled);
            if !pulled.is_empty() {
                return Poll::Ready(None);
            }
            if let Some(end) = channel.consumer_end(key) {
                return Poll::Ready(Some(end));
            }
            if let Some(cx) = cx {
                state.consumers.register(key.index(), cx.waker(), &mut state.released);
            }
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

impl FusedStream for Consumer {
    fn is_terminated(&self) -> bool {
        self.is_ended()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let (Origin { channel, .. }, key) = (&*self.origin, self.key);
        let now = channel.shared().now();
        let pulled = std::mem::take(&mut self.pulled);
        channel.shared().with(|state| {
            let waker = state.consumers.take(key.index());
            state.released.drop_waker(waker);
            let taken = pulled.iter().map(|delivery| delivery.tag);
            state.session.channel(channel.id()).release_consumer(now, key, taken);
        });
    }
}

/// Why [`Consumer::try_recv`] has no delivery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryRecvError {
    /// No delivery is buffered at the moment. More may arrive.
    #[error("no delivery is buffered")]
    Empty,
    /// The application cancelled the consumer, or its end was reported before. No more deliveries arrive.
    #[error("the consumer has ended")]
    Ended,
    /// The consumer has ended: the broker cancelled it, or the channel or the connection closed. Reported
    /// once.
    #[error(transparent)]
    Failed(Error),
}

/// Cancels a consumer from another task or thread; see [`Consumer::canceller`].
///
/// Clones cancel the same consumer. Like every handle, it keeps the channel open.
#[derive(Clone, Debug)]
pub struct Canceller {
    channel: Arc<ChannelHolder>,
    key: ConsumerKey,
}

impl Canceller {
    /// Cancels the consumer, as [`Consumer::cancel`] does. Resolves when the broker has confirmed it. If the
    /// consumer has ended before, nothing is sent.
    ///
    /// # Errors
    /// Those of a [call](Channel#calls).
    ///
    /// # Cancel safety
    /// If the future is dropped before the first poll, nothing is sent. So an implementation of `Drop`, which
    /// cannot await, drops the [`Consumer`] instead: that cancels it. If the future is dropped later, the
    /// consumer is cancelled.
    pub fn cancel(&self) -> Cancelling {
        Calling::new(Arc::clone(&self.channel), CancelConsumer(Some(self.key)))
    }
}

/// A consumer that is being started. Resolves to the [`Consumer`]: see [`Channel::basic_consume`].
///
/// # Errors
/// Those of [`Calling`], and [`Misuse::DuplicateConsumerTag`](amqp_core::errors::Misuse::DuplicateConsumerTag).
///
/// # Cancel safety
/// If the future is dropped before the first poll, nothing is sent. If it is dropped later, the consumer is
/// cancelled as soon as it has started, and its deliveries are requeued. Without acknowledgement they are
/// lost, and those of a stream are acked.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Consuming {
    calling: Calling<StartConsumer>,
    no_ack: bool,
    requeue_on_drop: bool,
    queue: QueueName,
}

impl Future for Consuming {
    type Output = Result<Consumer, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let started = Pin::new(&mut self.calling).poll(cx);
        started.map_ok(|ok| {
            let channel = Arc::clone(self.calling.holder());
            let Self { no_ack, requeue_on_drop, .. } = *self;
            let origin = Origin {
                channel,
                consumer: Some((ok.consumer, ok.consumer_tag)),
                message_count: None,
                no_ack,
                requeue_on_drop,
                queue: self.queue.clone(),
                drop_logged: Once::default(),
            };
            Consumer::new(origin, ok.consumer)
        })
    }
}

impl FusedFuture for Consuming {
    fn is_terminated(&self) -> bool {
        self.calling.is_terminated()
    }
}

/// Resolves to the next delivery of a consumer: see [`Consumer::next`].
///
/// # Errors
/// An error ends the consumer: [`Error::Channel`], [`Error::Connection`], [`Error::ConsumerCancelled`].
///
/// # Cancel safety
/// Cancel-safe: a delivery is taken in the poll that resolves, or not at all.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Next<'a> {
    /// `None` when it has resolved.
    consumer: Option<&'a mut Consumer>,
}

impl Future for Next<'_> {
    type Output = Option<Result<Delivery, Error>>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(consumer) = &mut self.consumer else { return Poll::Pending };
        // `Delivery` is large. Passing it on as it is avoids a copy.
        let next = consumer.poll_delivery(cx);
        if next.is_ready() {
            self.consumer = None;
        }
        next
    }
}

impl FusedFuture for Next<'_> {
    fn is_terminated(&self) -> bool {
        self.consumer.is_none()
    }
}
