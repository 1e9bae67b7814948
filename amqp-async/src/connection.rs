//! The `Connection` handle.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use amqp_core::types::{Secret, Stats, Tuning};
use amqp_core::{Call, ChannelCause, ChannelId, CloseCause, Error, FieldTable};
use futures_core::FusedFuture;

use crate::call::{Calling, Drain, UpdateSecret};
use crate::channel::Channel;
use crate::events::Events;
use crate::holders::{ChannelHolder, ConnectionHolder};
use crate::shared::Shared;

/// A connection to a broker, from `connection.open-ok` until it is closed, or lost and not recovered
/// (<https://www.rabbitmq.com/docs/connections>).
///
/// When the connection is lost and [recovered](crate::Connector::recovery), all handles stay valid. Calls and publishes
/// wait until it is open again.
///
/// The handle is thread-safe, and its clones are handles to the same connection. When the last handle to it
/// and to its channels is dropped, the connection is closed in the background after everything that is
/// buffered is sent.
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

    /// Opens a channel (`channel.open`; AMQP 0-9-1, 1.5.2.1). Resolves to the [`Channel`] when the broker has
    /// opened it.
    ///
    /// # Errors
    /// Those of [`OpeningChannel`].
    ///
    /// # Cancel safety
    /// If the future is dropped before the first poll, nothing is sent. If it is dropped later, the channel
    /// is closed as soon as the broker has opened it.
    pub fn open_channel(&self) -> OpeningChannel {
        OpeningChannel { connection: Arc::clone(&self.inner), sent: None, done: false }
    }

    /// Opens a channel, passes it to `body`, and closes it when `body` is done. Resolves to the result of
    /// `body`.
    ///
    /// `body` gets the [`Channel`] by value, so it may move it. The channel is closed also if `body` keeps a
    /// clone.
    ///
    /// If `body` returns `Ok`, failures of the channel that are known by then are returned as errors: the
    /// reason if the broker has closed it, otherwise the oldest returned message of an unconfirmed publish.
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
    /// If the future is dropped, `body` is dropped at its current `await`, and the channel is closed in the
    /// background.
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

    /// Sends the broker a new secret for the login, such as a token before the old one expires
    /// (`connection.update-secret`; <https://www.rabbitmq.com/docs/oauth2>). Resolves when the broker has
    /// accepted it.
    ///
    /// # Errors
    /// Those of a [call](Channel#calls).
    ///
    /// # Cancel safety
    /// If the future is dropped before the first poll, nothing is sent. If it is dropped later, the secret is
    /// updated.
    pub fn update_secret(
        &self,
        secret: impl Into<String>,
        reason: impl Into<String>,
    ) -> Calling<UpdateSecret> {
        let update = UpdateSecret(Secret::new(secret), reason.into());
        Calling::new(Arc::clone(&self.inner), update)
    }

    /// Drains the connection for a graceful shutdown: cancels all consumers, and waits until nothing is
    /// outstanding. That is no call, no unconfirmed publish, no delivery that is unread or unacknowledged,
    /// and no byte to write.
    ///
    /// Deliveries that had arrived before still reach their consumers, and everything can be used meanwhile.
    /// A [`close`](Self::close) after the drain loses nothing.
    ///
    /// Three things are not waited for:
    ///
    /// * what a task does after its ack: ack last;
    /// * deliveries that were dropped without an ack: the broker delivers them again after the close;
    /// * deliveries that the handle of a consumer without acknowledgement has taken in, at most 1 MiB. These
    ///   can be read from it after the close too.
    ///
    /// # Errors
    /// [`Error::DrainTimeout`] after `timeout`. The connection stays open. [`Error::Interrupted`] if the connection is
    /// lost and recovered.
    ///
    /// # Cancel safety
    /// If the future is dropped before the first poll, nothing happens. If it is dropped later, the consumers
    /// are cancelled.
    pub fn drain(&self, timeout: Duration) -> Calling<Drain> {
        Calling::new(Arc::clone(&self.inner), Drain(timeout))
    }

    /// Ends the connection immediately, with [`CloseCause::Aborted`]. Nothing more is sent, not even a close,
    /// and everything that waits for the connection returns an error.
    pub fn abort(&self) {
        self.inner.shared.with(|state| state.session.abort(CloseCause::Aborted));
    }

    /// Returns the stream of events from now on: see [`ConnectionEvent`](crate::ConnectionEvent).
    pub fn events(&self) -> Events {
        Events::new(&self.inner.shared)
    }

    /// Returns the broker's reason while it blocks publishes (`connection.blocked`;
    /// <https://www.rabbitmq.com/docs/connection-blocked>). `None` while it does not.
    pub fn blocked(&self) -> Option<Arc<str>> {
        self.inner.shared.with(|state| state.session.connection().blocked().cloned())
    }

    /// Returns the counters of the connection and its current state, for metrics.
    pub fn stats(&self) -> Stats {
        self.inner.shared.with(|state| state.session.connection().stats())
    }

    /// Closes the connection (`connection.close`) after everything that is buffered is sent. A connection that is
    /// lost and waits for its next attempt to recover ends at once.
    ///
    /// Resolves to the cause: [`CloseCause::ByClient`] if the broker replied, [`CloseCause::ByClientForced`]
    /// if it did not within the close timeout (10 s by default). For a closed connection, resolves
    /// immediately to the cause that closed it.
    ///
    /// # Cancel safety
    /// If the future is dropped before the first poll, nothing happens. If it is dropped later, the close
    /// continues in the background.
    pub fn close(&self) -> Closing {
        Closing { closed: self.closed(), sent: false }
    }

    /// Waits until the connection is closed, by either side. Resolves to the cause. The future does not keep
    /// the connection open.
    ///
    /// # Cancel safety
    /// Cancel-safe: dropping the future has no effect.
    pub fn closed(&self) -> Closed {
        self.waits_for(false)
    }

    /// Waits until the connection is closed, and its driver is dropped with the socket. A connection that is closed while it is
    /// being recovered may still dial for a moment.
    #[doc(hidden)]
    pub fn driver_dropped(&self) -> Closed {
        self.waits_for(true)
    }

    fn waits_for(&self, driver: bool) -> Closed {
        Closed { shared: Arc::clone(&self.inner.shared), ticket: None, driver, done: false }
    }

    /// Returns whether the connection is open. `false` while it is being recovered, and once a close has begun.
    pub fn is_open(&self) -> bool {
        self.inner.shared.with(|state| self.inner.is_open(&state.session))
    }

    /// Returns how many times the connection was lost and began to be recovered. It has changed when
    /// [`ConnectionEvent::Lost`](crate::ConnectionEvent::Lost) is emitted. A program that keeps it with a request knows
    /// whether the reply can still come.
    pub fn losses(&self) -> u32 {
        self.inner.shared.losses().load(Ordering::Relaxed)
    }

    /// Returns the cause if the connection is closed.
    pub fn close_cause(&self) -> Option<CloseCause> {
        self.inner.shared.with(|state| state.session.cause().cloned())
    }

    /// Returns the negotiated limits. While the connection is being recovered, they are those that the configuration
    /// allows.
    pub fn tuning(&self) -> Tuning {
        self.inner.shared.with(|state| state.session.connection().tuning())
    }

    /// Returns the broker's properties, such as `product` and `version`. While the connection is being recovered, there may
    /// be none.
    pub fn server_properties(&self) -> FieldTable {
        self.inner.shared.with(|state| state.session.connection().server_properties().clone())
    }
}

impl Channel {
    /// Returns the connection of the channel.
    pub fn connection(&self) -> Connection {
        Connection::new(Arc::clone(self.holder().connection()))
    }
}

/// A channel that is being opened. Resolves to the [`Channel`]: see [`Connection::open_channel`].
///
/// # Errors
/// [`Error::Connection`] if the connection is closed or closes meanwhile.
/// [`Misuse::NoFreeChannels`](amqp_core::errors::Misuse::NoFreeChannels) if all channel numbers are in use.
/// [`Error::Deadline`] if no reply arrives within the call timeout.
///
/// # Cancel safety
/// If the future is dropped before the first poll, nothing is sent. If it is dropped later, the channel is
/// closed as soon as the broker has opened it.
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
                match connection.open_channel(&mut state.session, now) {
                    Ok(opening) => *sent = Some(opening),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            let Some((id, call)) = sent else { return Poll::Pending };
            match state.session.take_reply(call) {
                Some(Ok(())) => {
                    state.log_channel_opened(*id);
                    Poll::Ready(Ok(*id))
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
        Poll::Ready(result.map(|id| Channel::new(ChannelHolder::new(Arc::clone(connection), id))))
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

/// Resolves to the cause when the connection is closed: see [`Connection::closed`].
///
/// # Cancel safety
/// Cancel-safe: dropping the future has no effect.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Closed {
    shared: Arc<Shared>,
    ticket: Option<u64>,
    /// Whether it waits for the end of the driver too.
    driver: bool,
    done: bool,
}

impl Future for Closed {
    type Output = CloseCause;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseCause> {
        let Self { shared, ticket, driver, done } = &mut *self;
        if *done {
            return Poll::Pending;
        }
        let result = shared.with(|state| match state.session.cause() {
            Some(cause) if !*driver || state.is_driver_dropped => Poll::Ready(cause.clone()),
            _ => {
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

/// A connection that is being closed. Resolves to the cause: see [`Connection::close`].
///
/// # Cancel safety
/// If the future is dropped before the first poll, nothing happens. If it is dropped later, the close
/// continues in the background.
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
