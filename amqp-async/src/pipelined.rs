//! Channels that are opened and used in one round trip: the first call is sent right behind `channel.open`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use amqp_core::{BasicConsume, Call, Error};
use futures_core::FusedFuture;

use crate::channel::Channel;
use crate::connection::Connection;
use crate::consumer::{Consumer, Consuming};
use crate::holders::{ChannelHolder, ConnectionHolder};
use crate::publisher::{Publisher, SelectingConfirms};
use crate::trace::Steps;

impl Connection {
    /// Opens a channel and puts it into confirm mode, in one round trip (`channel.open` and
    /// `confirm.select`). Resolves to the [`Publisher`].
    ///
    /// The channel is closed when the last handle to it is dropped: the publisher, its clones, and those of
    /// [`Publisher::channel`].
    ///
    /// For errors and cancel safety see [`OpeningPublisher`].
    ///
    /// ```
    /// # use amqp_async::core::Publish;
    /// # async fn example(connection: &amqp_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let publisher = connection.publisher().await?;
    /// publisher.publish(Publish::new("", "orders", b"one").persistent().mandatory()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn publisher(&self) -> OpeningPublisher {
        OpeningPublisher { pipelined: Pipelined::new(self, ()) }
    }

    /// Opens a channel and starts a consumer on it, in one round trip (`channel.open`, `basic.qos` and
    /// `basic.consume`). Resolves to the [`Consumer`].
    ///
    /// The channel is closed when the last handle to it is dropped: the consumer, its deliveries, and those
    /// of [`Consumer::channel`].
    ///
    /// For errors and cancel safety see [`OpeningConsumer`].
    ///
    /// ```
    /// # use amqp_async::core::BasicConsume;
    /// # async fn example(connection: &amqp_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut consumer = connection.consume(BasicConsume::new("orders").prefetch(64)).await?;
    /// while let Some(delivery) = consumer.next().await {
    ///     delivery?.ack()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn consume(&self, consume: impl Into<BasicConsume>) -> OpeningConsumer {
        OpeningConsumer { pipelined: Pipelined::new(self, consume.into()) }
    }
}

/// A publisher whose channel is being opened. Resolves to the [`Publisher`].
///
/// # Errors
/// Those of [`Connection::open_channel`] and of [`Channel::confirm_select`].
///
/// # Cancel safety
/// If the future is dropped before the first poll, nothing is sent. If it is dropped later, the channel is
/// closed.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct OpeningPublisher {
    pipelined: Pipelined<(), SelectingConfirms>,
}

impl Future for OpeningPublisher {
    type Output = Result<Publisher, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.pipelined.poll_with(cx, |channel, ()| channel.confirm_select())
    }
}

impl FusedFuture for OpeningPublisher {
    fn is_terminated(&self) -> bool {
        self.pipelined.is_done()
    }
}

/// A consumer whose channel is being opened. Resolves to the [`Consumer`].
///
/// # Errors
/// Those of [`Connection::open_channel`] and of [`Channel::basic_consume`].
///
/// # Cancel safety
/// If the future is dropped before the first poll, nothing is sent. If it is dropped later, the channel is
/// closed, and deliveries to the consumer are requeued. Without acknowledgement they are lost.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct OpeningConsumer {
    pipelined: Pipelined<BasicConsume, Consuming>,
}

impl Future for OpeningConsumer {
    type Output = Result<Consumer, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.pipelined.poll_with(cx, |channel, consume| channel.basic_consume(consume))
    }
}

impl FusedFuture for OpeningConsumer {
    fn is_terminated(&self) -> bool {
        self.pipelined.is_done()
    }
}

/// A call that is sent behind the `channel.open` of its channel, in the same poll.
#[derive(Debug)]
enum Pipelined<R, F> {
    Initial { connection: Arc<ConnectionHolder>, request: R },
    Sent { opening: OpeningHolder, call: F },
    Done,
}

impl<R, F> Pipelined<R, F> {
    fn new(connection: &Connection, request: R) -> Self {
        Self::Initial { connection: Arc::clone(connection.holder()), request }
    }

    const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Polls both calls. `begin` creates the call of the request, which is sent at its first poll.
    fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        begin: impl FnOnce(&Channel, R) -> F,
    ) -> Poll<Result<T, Error>>
    where
        F: Future<Output = Result<T, Error>> + Unpin,
    {
        if let Self::Initial { .. } = self
            && let Self::Initial { connection, request } = std::mem::replace(self, Self::Done)
        {
            let opening = OpeningHolder::new(connection)?;
            let call = begin(&Channel::new(Arc::clone(&opening.channel)), request);
            *self = Self::Sent { opening, call };
        }
        let Self::Sent { opening, call } = self else { return Poll::Pending };
        // The reply to `channel.open` arrives first, or both calls fail for the same reason.
        let result = ready!(Pin::new(call).poll(cx));
        if result.is_ok() {
            opening.opened();
        }
        *self = Self::Done;
        Poll::Ready(result)
    }
}

/// The holder of a channel that is being opened.
#[derive(Debug)]
struct OpeningHolder {
    channel: Arc<ChannelHolder>,
    open: Call<()>,
}

impl OpeningHolder {
    fn new(connection: Arc<ConnectionHolder>) -> Result<Self, Error> {
        let now = connection.shared.now();
        let (id, open) =
            connection.shared.with(|state| connection.open_channel(&mut state.session, now))?;
        Ok(Self { channel: ChannelHolder::new(connection, id), open })
    }

    fn opened(&self) {
        if Steps::ENABLED {
            self.channel.shared().with(|state| state.log_channel_opened(self.channel.id()));
        }
    }
}

impl Drop for OpeningHolder {
    /// Takes the reply to `channel.open` if it has arrived. Otherwise the channel is closed when it arrives.
    fn drop(&mut self) {
        let now = self.channel.shared().now();
        self.channel.shared().with(|state| {
            if state.session.take_reply(&self.open).is_none() {
                state.session.forget(now, self.open.key());
            }
        });
    }
}
