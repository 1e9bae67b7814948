//! The connection's handle.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use amqp_core::{
    Call, ChannelCause, ChannelId, CloseCause, Error, FieldTable, Secret, Stats, Tuning,
};
use futures_core::FusedFuture;

use crate::call::{Calling, Drain, UpdateSecret};
use crate::channel::Channel;
use crate::events::Events;
use crate::holders::{ChannelHolder, ConnectionHolder};
use crate::shared::Shared;
use crate::trace::{self, Lifecycle};

/// A connection to a broker, from `connection.open-ok` until it is closed or lost.
///
/// Clones are handles to the same connection, for use from any task or thread. When the last handle
/// to it and to its channels is dropped, the connection is closed in the background, behind
/// everything that was queued.
#[derive(Clone, Debug)]
pub struct Connection {
    inner: Arc<ConnectionHolder>,
}

impl Connection {
    pub(crate) const fn new(inner: Arc<ConnectionHolder>) -> Self {
        Self { inner }
    }

    pub(crate) const fn holder(&self) -> &Arc<ConnectionHolder> {
        &self.inner
    }

    /// Opens a channel (`channel.open`). Resolves with it once the broker has opened it.
    ///
    /// # Errors
    /// Those of [`OpeningChannel`].
    ///
    /// # Cancel safety
    /// Dropped before the first poll, nothing was sent. Dropped later, the channel is closed as soon as the
    /// broker has opened it.
    pub fn open_channel(&self) -> OpeningChannel {
        OpeningChannel { connection: Arc::clone(&self.inner), sent: None, done: false }
    }

    /// Opens a channel for `body`, and closes it when that is done.
    ///
    /// What is known of the channel by then is returned as an error: why the broker closed it, or else the
    /// oldest message that came back unconfirmed. An error of `body` itself comes first.
    ///
    /// ```
    /// # use amqp_async::core::{Error, Publish};
    /// # async fn example(connection: &amqp_async::Connection) -> Result<(), Error> {
    /// connection
    ///     .with_channel(async |channel| {
    ///         channel.basic_publish(Publish::new("events", "order.created", b"{}").mandatory()).await
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of `body`; [`Error::Channel`], [`Error::Connection`], [`Error::Returned`].
    ///
    /// # Cancel safety
    /// Dropped, `body` is dropped where it stands, and the channel is closed in the background.
    pub async fn with_channel<T, E, F>(&self, body: F) -> Result<T, E>
    where
        F: AsyncFnOnce(Channel) -> Result<T, E>,
        E: From<Error>,
    {
        let channel = self.open_channel().await?;
        let result = body(channel.clone()).await;
        let closed = channel.close().await;
        let value = result?;
        closed?;
        match channel.close_cause() {
            None
            | Some(ChannelCause::ByClient | ChannelCause::Connection(CloseCause::ByClient)) => {}
            Some(cause) => return Err(Error::from(cause).into()),
        }
        channel.check_returned()?;
        Ok(value)
    }

    /// Gives the broker a new secret for the login, such as a token that is about to expire
    /// (`connection.update-secret`; <https://www.rabbitmq.com/docs/oauth2>).
    ///
    /// # Errors
    /// Those of a [call](Channel#calls).
    ///
    /// # Cancel safety
    /// Dropped before the first poll, nothing was sent. Dropped later, the secret is updated.
    pub fn update_secret(
        &self,
        secret: impl Into<String>,
        reason: impl Into<String>,
    ) -> Calling<UpdateSecret> {
        let update = UpdateSecret(Secret::new(secret), reason.into());
        Calling::new(Arc::clone(&self.inner), update)
    }

    /// Cancels every consumer, and waits until nothing is under way: no call, no unconfirmed publish,
    /// no delivery that is to be read or acknowledged, no byte to be written. Deliveries that had come
    /// before still reach their consumers; everything may still be used meanwhile. A
    /// [`close`](Self::close) after that loses nothing. Not waited for is what the handle of a consumer
    /// without acknowledgement has taken in, 1 MiB at most, which can be read from it after the close too.
    ///
    /// # Errors
    /// [`Error::DrainTimeout`] after `timeout`; the connection stays open.
    ///
    /// # Cancel safety
    /// Dropped before the first poll, nothing happens. Dropped later, the consumers are cancelled.
    pub fn drain(&self, timeout: Duration) -> Calling<Drain> {
        Calling::new(Arc::clone(&self.inner), Drain(timeout))
    }

    /// Ends the connection at once, with [`CloseCause::Aborted`]: nothing more is sent, not even a close, and
    /// everything that waits for it ends.
    pub fn abort(&self) {
        self.inner.shared.with(|state| state.session.abort(CloseCause::Aborted));
    }

    /// What happens to the connection from here on; see [`ConnectionEvent`](crate::ConnectionEvent).
    pub fn events(&self) -> Events {
        Events::new(&self.inner.shared)
    }

    /// Why the broker reads no publishes, while it does not
    /// (<https://www.rabbitmq.com/docs/connection-blocked>).
    pub fn blocked(&self) -> Option<Arc<str>> {
        self.inner.shared.with(|state| state.session.connection().blocked().cloned())
    }

    /// What the connection has done, and what it holds.
    pub fn stats(&self) -> Stats {
        self.inner.shared.with(|state| state.session.connection().stats())
    }

    /// Closes the connection: what is queued goes out, then `connection.close`.
    ///
    /// Resolves with the cause: [`CloseCause::ByClient`] if the broker confirmed,
    /// [`CloseCause::ByClientForced`] if it did not within the close timeout (10 s unless
    /// configured). Closing a closed connection resolves at once, with the cause that closed it.
    ///
    /// # Cancel safety
    /// Dropped before the first poll, nothing happens. Dropped later, the close goes on in the background.
    pub fn close(&self) -> Closing {
        Closing { closed: self.closed(), sent: false }
    }

    /// Waits until the connection is closed, from either side. The future does not keep the connection open.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub fn closed(&self) -> Closed {
        Closed { shared: Arc::clone(&self.inner.shared), ticket: None, done: false }
    }

    /// Whether the connection is open and no close has begun.
    pub fn is_open(&self) -> bool {
        self.inner.shared.with(|state| state.session.connection().is_open())
    }

    /// Why the connection is closed, if it is.
    pub fn close_cause(&self) -> Option<CloseCause> {
        self.inner.shared.with(|state| state.session.cause().cloned())
    }

    /// The limits that were negotiated.
    pub fn tuning(&self) -> Tuning {
        self.inner.shared.with(|state| state.session.connection().tuning())
    }

    /// What the broker says of itself, such as `product` and `version`.
    pub fn server_properties(&self) -> FieldTable {
        self.inner.shared.with(|state| state.session.connection().server_properties().clone())
    }
}

impl Channel {
    /// The connection of the channel.
    pub fn connection(&self) -> Connection {
        Connection::new(Arc::clone(self.holder().connection()))
    }
}

/// A channel that is being opened.
///
/// # Errors
/// [`Error::Connection`] if the connection is closed or closes meanwhile,
/// [`Misuse::NoFreeChannels`](amqp_core::Misuse::NoFreeChannels), [`Error::Deadline`].
///
/// # Cancel safety
/// Dropped before the first poll, nothing was sent. Dropped later, the channel is closed as soon as
/// the broker has opened it.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct OpeningChannel {
    connection: Arc<ConnectionHolder>,
    sent: Option<(ChannelId, Call<()>)>,
    done: bool,
}

impl Future for OpeningChannel {
    type Output = Result<Channel, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { connection, sent, done } = &mut *self;
        if *done {
            return Poll::Pending;
        }
        let shared = &connection.shared;
        let now = shared.now();
        let result = shared.with(|state| {
            if sent.is_none() {
                match state.session.open_channel(now) {
                    Ok(opening) => *sent = Some(opening),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            let Some((id, call)) = sent else { return Poll::Pending };
            match state.session.take_reply(call) {
                Some(Ok(())) => {
                    let number = state.session.channel(*id).number().unwrap_or_default();
                    Poll::Ready(Ok((*id, number)))
                }
                Some(Err(error)) => {
                    state.session.channel(*id).release(now);
                    Poll::Ready(Err(error))
                }
                None => {
                    state.calls.register(call.key().index(), cx.waker(), &mut state.released);
                    Poll::Pending
                }
            }
        });
        let Poll::Ready(result) = result else { return Poll::Pending };
        (*sent, *done) = (None, true);
        Poll::Ready(result.map(|(id, number)| {
            trace::log(|| Lifecycle::ChannelOpened(id));
            Channel::new(ChannelHolder::new(Arc::clone(connection), id, number))
        }))
    }
}

impl FusedFuture for OpeningChannel {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl Drop for OpeningChannel {
    fn drop(&mut self) {
        if let Some((_, call)) = &self.sent {
            let shared = &self.connection.shared;
            let now = shared.now();
            shared.with(|state| {
                let waker = state.calls.take(call.key().index());
                state.released.drop_waker(waker);
                state.session.forget(now, call.key());
            });
        }
    }
}

/// Resolves when the connection is closed, with the cause.
///
/// # Cancel safety
/// Dropping it changes nothing.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Closed {
    shared: Arc<Shared>,
    ticket: Option<u64>,
    done: bool,
}

impl Future for Closed {
    type Output = CloseCause;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseCause> {
        let Self { shared, ticket, done } = &mut *self;
        if *done {
            return Poll::Pending;
        }
        let result = shared.with(|state| match state.session.cause() {
            Some(cause) => Poll::Ready(cause.clone()),
            None => {
                state.lifecycle.wait(ticket, cx.waker(), &mut state.released);
                Poll::Pending
            }
        });
        *done = result.is_ready();
        result
    }
}

impl FusedFuture for Closed {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        let ticket = &mut self.ticket;
        if ticket.is_some() {
            self.shared.with(|state| state.lifecycle.leave(ticket, &mut state.released));
        }
    }
}

/// A connection that is being closed: resolves with the cause.
///
/// # Cancel safety
/// Dropped before the first poll, nothing happens. Dropped later, the close goes on in the
/// background.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Closing {
    closed: Closed,
    sent: bool,
}

impl Future for Closing {
    type Output = CloseCause;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseCause> {
        if !self.sent {
            self.sent = true;
            let shared = &self.closed.shared;
            let now = shared.now();
            shared.with(|state| state.session.close(now));
        }
        Pin::new(&mut self.closed).poll(cx)
    }
}

impl FusedFuture for Closing {
    fn is_terminated(&self) -> bool {
        self.closed.is_terminated()
    }
}
