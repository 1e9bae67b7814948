//! Consumers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::limits::PULLED_REPORTED_BYTES;
use amqp_core::{BasicConsume, ConsumerKey, Error};
use futures_core::{FusedFuture, FusedStream, Stream};

use crate::budget::{self, Cost};
use crate::call::{Calling, CancelConsumer, Cancelling, StartConsumer};
use crate::channel::Channel;
use crate::delivery::{Delivery, Origin};
use crate::holders::ChannelHolder;

impl Channel {
    /// Starts a consumer (AMQP 0-9-1, 1.8.3.3). Resolves with the [`Consumer`] once the broker has started it.
    ///
    /// # Errors
    /// Those of a [call](Self#calls), and [`Misuse::DuplicateConsumerTag`](amqp_core::Misuse::DuplicateConsumerTag).
    ///
    /// # Cancel safety
    /// That of [`Consuming`]: a consumer that starts after the drop is cancelled.
    pub fn basic_consume(&self, consume: impl Into<BasicConsume>) -> Consuming {
        let consume = consume.into();
        let (no_ack, requeue_on_drop) = (consume.no_ack, consume.requeue_on_drop);
        let calling = self.call(StartConsumer(consume));
        Consuming { calling, no_ack, requeue_on_drop }
    }
}

/// A consumer of a queue: a stream of deliveries, in the order in which the broker sent them.
///
/// Dropped, it is cancelled in the background, and deliveries that were not taken from it are
/// requeued; without acknowledgement they are lost, and of a stream they are acknowledged.
#[must_use = "a consumer that is dropped is cancelled"]
#[derive(Debug)]
pub struct Consumer {
    origin: Arc<Origin>,
    key: ConsumerKey,
    /// Taken from the core, and not from here.
    pulled: VecDeque<amqp_core::Delivery>,
    /// Their bytes, when they were taken.
    pulled_bytes: usize,
    ended: bool,
}

impl Consumer {
    pub(crate) fn new(origin: Origin, key: ConsumerKey) -> Self {
        Self {
            origin: Arc::new(origin),
            key,
            pulled: VecDeque::new(),
            pulled_bytes: 0,
            ended: false,
        }
    }

    /// The consumer's tag on its channel.
    pub fn tag(&self) -> &str {
        self.origin.tag()
    }

    /// Waits for the next delivery. Resolves with `None` once the consumer was cancelled from here.
    ///
    /// # Errors
    /// An error ends the consumer: the channel or connection closed, or the broker cancelled it.
    ///
    /// # Cancel safety
    /// A delivery is taken in the poll that resolves, or not at all.
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

    /// The channel that it consumes on.
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

    /// Whether the last delivery, or the error that ended the consumer, has been taken.
    pub fn is_ended(&self) -> bool {
        self.ended && self.pulled.is_empty()
    }

    /// Cancels the consumer (`basic.cancel`). Deliveries that the broker had sent still come from
    /// [`next`](Self::next), then `None`.
    ///
    /// # Errors
    /// Those of a [call](Channel#calls).
    ///
    /// # Cancel safety
    /// Dropped before the first poll, nothing was sent. Dropped later, the consumer is cancelled.
    pub fn cancel(&mut self) -> Cancelling {
        Calling::new(Arc::clone(&self.origin.channel), CancelConsumer(Some(self.key)))
    }

    /// Cancels the consumer, and requeues what was delivered and not taken. Resolves with the number of those
    /// messages.
    ///
    /// Without acknowledgement nothing can be requeued: it resolves with 0, and what had come still comes from
    /// [`next`](Self::next). A stream takes nothing back: its messages are acknowledged.
    ///
    /// # Errors
    /// Those of [`Calling`], and why the consumer has ended, if not by a cancel from here.
    ///
    /// # Cancel safety
    /// Dropped before the first poll, nothing was sent. Dropped later, the consumer is cancelled, and what
    /// was not requeued still comes from [`next`](Self::next).
    pub async fn cancel_and_requeue(&mut self) -> Result<usize, Error> {
        self.cancel().await?;
        let mut requeued = 0;
        // To its end: a cancel from elsewhere may be on its way still.
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

    /// Registers the task where there is nothing for the moment.
    #[inline]
    fn take_delivery(
        &mut self,
        cx: Option<&mut Context<'_>>,
    ) -> Poll<Option<Result<Delivery, Error>>> {
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
        // It is large: put together here, it is copied once.
        match self.pulled.pop_front() {
            Some(it) => Poll::Ready(Some(Ok(Delivery::new(Arc::clone(&self.origin), it)))),
            None => Poll::Ready(None),
        }
    }

    /// Takes the last delivery of a large pull, and pulls again: reading may have paused because of it.
    #[inline(never)]
    fn take_last(&mut self) -> Poll<Option<Result<Delivery, Error>>> {
        let Self { origin, pulled, pulled_bytes, key, .. } = self;
        let last = pulled.pop_front();
        let channel = &origin.channel;
        *pulled_bytes = channel
            .shared()
            .with(|state| state.session.channel(channel.id()).pull_deliveries(*key, pulled));
        Poll::Ready(last.map(|it| Ok(Delivery::new(Arc::clone(origin), it))))
    }

    /// Takes deliveries from the core; ready with `Some` when there will be no more.
    fn pull(&mut self, cx: Option<&mut Context<'_>>) -> Poll<Option<Result<(), Error>>> {
        let Self { origin, pulled, pulled_bytes, .. } = self;
        let (id, key) = (origin.channel.id(), self.key);
        origin.channel.shared().with(|state| {
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
    /// No delivery is buffered now. More may come.
    #[error("no delivery is buffered")]
    Empty,
    /// The application cancelled the consumer, or its end was reported before. No more deliveries come.
    #[error("the consumer has ended")]
    Ended,
    /// The consumer has ended: the broker cancelled it, or the channel or the connection closed. It is reported once.
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
    /// Cancels the consumer, as [`Consumer::cancel`] does. If it has ended before, nothing is sent.
    pub fn cancel(&self) -> Cancelling {
        Calling::new(Arc::clone(&self.channel), CancelConsumer(Some(self.key)))
    }
}

/// A consumer that is being started.
///
/// # Errors
/// Those of [`Calling`], and [`Misuse::DuplicateConsumerTag`](amqp_core::Misuse::DuplicateConsumerTag).
///
/// # Cancel safety
/// Dropped before the first poll, nothing was sent. Dropped later, the consumer is cancelled as soon
/// as it has started, and what was delivered to it is requeued; without acknowledgement it is lost, and
/// of a stream it is acknowledged.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Consuming {
    calling: Calling<StartConsumer>,
    no_ack: bool,
    requeue_on_drop: bool,
}

impl Future for Consuming {
    type Output = Result<Consumer, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let started = Pin::new(&mut self.calling).poll(cx);
        started.map_ok(|ok| {
            let channel = Arc::clone(self.calling.holder());
            let Self { no_ack, requeue_on_drop, .. } = *self;
            let consumer = Some((ok.consumer, ok.consumer_tag));
            let message_count = None;
            let origin = Origin { channel, consumer, message_count, no_ack, requeue_on_drop };
            Consumer::new(origin, ok.consumer)
        })
    }
}

impl FusedFuture for Consuming {
    fn is_terminated(&self) -> bool {
        self.calling.is_terminated()
    }
}

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
    /// Nothing once it has resolved.
    consumer: Option<&'a mut Consumer>,
}

impl Future for Next<'_> {
    type Output = Option<Result<Delivery, Error>>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(consumer) = &mut self.consumer else { return Poll::Pending };
        // It is large: taken apart and put together again it would be copied.
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
