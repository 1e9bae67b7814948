//! The `Channel` handle: plain calls, acknowledgements by tag, calls without a reply, and close.
//!
//! Methods that resolve to another handle are in the file of that handle: `consumer.rs`, `get.rs`,
//! `publisher.rs`, `tx.rs`. Unconfirmed publishing is in `unconfirmed.rs`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use amqp_core::requests::{BasicRecover, ChannelFlow, ExchangeUnbind, NoWait, QueueUnbind};
use amqp_core::{
    AckError, BasicQos, ChannelCause, ChannelId, DeliveryTag, Error, ExchangeBind, ExchangeDeclare,
    ExchangeDelete, QueueBind, QueueDeclare, QueueDelete, QueuePurge,
};
use futures_core::FusedFuture;

use crate::buffer_space::PendingSend;
use crate::call::{Calling, CloseChannel, Start, sealed};
use crate::holders::ChannelHolder;
use crate::plain_calls::plain_calls;
use crate::shared::Shared;

/// A channel of a connection (<https://www.rabbitmq.com/docs/channels>).
///
/// The handle is thread-safe, and its clones are handles to the same channel. Calls are answered in the order
/// in which they are sent. A channel that the broker has closed stays closed, and every later call on it
/// returns the reason. When the last handle to it is dropped, including its publishers, consumers and
/// deliveries, the channel is closed in the background.
///
/// # Calls
/// A call takes its request, or only a name where that is enough: `channel.queue_declare("orders")`,
/// `channel.queue_delete("orders")`. It is sent at the first poll of its future, which resolves to the
/// broker's reply. See [`Calling`] for its errors and its cancel safety.
///
/// ```
/// # use amqp_async::core::{Error, QueueBind, QueueDeclare};
/// # async fn example(connection: &amqp_async::Connection) -> Result<(), Error> {
/// let channel = connection.open_channel().await?;
/// channel.queue_declare(QueueDeclare::quorum("orders")).await?;
/// channel.queue_bind(QueueBind::new("orders", "events", "order.*")).await?;
/// channel.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Channel {
    inner: Arc<ChannelHolder>,
}

macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        $name:ident($($argument:ident: $type:ty)?) -> $reply:ty = $request:ty, $value:expr;
    )*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// Those of a [call](Self#calls).
            ///
            /// # Cancel safety
            /// If the future is dropped before the first poll, nothing is sent. If it is dropped later, the
            /// request was sent, and its reply is consumed.
            pub fn $name(&self, $($argument: impl Into<$type>)?) -> Calling<$request> {
                $(let $argument: $type = $argument.into();)?
                self.call($value)
            }
        )*
    };
}

impl Channel {
    pub(crate) const fn new(inner: Arc<ChannelHolder>) -> Self {
        Self { inner }
    }

    pub(crate) const fn holder(&self) -> &Arc<ChannelHolder> {
        &self.inner
    }

    plain_calls!(Channel => calls);

    /// Acknowledges a delivery by its tag, or with `multiple` all unacknowledged ones of the channel up to it
    /// (`basic.ack`; AMQP 0-9-1, 1.8.3.13). The delivery's handle is not needed.
    ///
    /// # Errors
    /// [`AckError`]: nothing was sent.
    pub fn basic_ack(&self, tag: DeliveryTag, multiple: bool) -> Result<(), AckError> {
        self.with(|channel| channel.ack(tag, multiple))
    }

    /// Refuses a delivery by its tag, or with `multiple` all unacknowledged ones of the channel up to it
    /// (`basic.nack`; <https://www.rabbitmq.com/docs/nack>). With `requeue` they are requeued; without, they
    /// are dead-lettered or dropped. A delivery of a stream is acked instead.
    ///
    /// # Errors
    /// [`AckError`]: nothing was sent. With `multiple`, [`AckError::Stream`] if the channel has consumed from
    /// a stream; otherwise [`AckError::MaybeStream`] if the delivery may come from a stream.
    pub fn basic_nack(
        &self,
        tag: DeliveryTag,
        multiple: bool,
        requeue: bool,
    ) -> Result<(), AckError> {
        self.with(|channel| channel.nack(tag, multiple, requeue))
    }

    /// Refuses a delivery by its tag (`basic.reject`; AMQP 0-9-1, 1.8.3.14). With `requeue` it is requeued;
    /// without, it is dead-lettered or dropped. A delivery of a stream is acked instead.
    ///
    /// # Errors
    /// [`AckError`]: nothing was sent.
    pub fn basic_reject(&self, tag: DeliveryTag, requeue: bool) -> Result<(), AckError> {
        self.with(|channel| channel.reject(tag, requeue))
    }

    /// Sends a declaration, a binding or a deletion without requesting a reply (`no-wait`). Resolves when the
    /// request is in the output buffer. If the broker refuses it, it closes the channel, and later calls
    /// return the reason.
    ///
    /// # Errors
    /// Those of [`SendingNoWait`].
    ///
    /// # Cancel safety
    /// The request is buffered completely in the poll that resolves, or not at all.
    pub fn no_wait<R: NoWait>(&self, request: R) -> SendingNoWait<'_, R> {
        SendingNoWait { send: PendingSend::new(&self.inner, request) }
    }

    /// Closes the channel after everything that is buffered on it is sent (`channel.close`). Resolves when
    /// the broker has confirmed it. Closing a closed channel is not an error.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    ///
    /// # Cancel safety
    /// If the future is dropped before the first poll, nothing happens. If it is dropped later, the close
    /// continues in the background.
    pub fn close(&self) -> Calling<CloseChannel> {
        Calling::new(Arc::clone(&self.inner), CloseChannel)
    }

    /// Waits until the channel is closed. Resolves to the reason: a close by the application, a close by the
    /// broker, or the end of the connection. The future does not keep the channel open.
    ///
    /// ```
    /// # use amqp_async::core::ChannelCause;
    /// # async fn example(channel: &amqp_async::Channel) {
    /// if let ChannelCause::ByBroker(error) = channel.closed().await {
    ///     eprintln!("the broker closed the channel: {error}");
    /// }
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Cancel-safe: dropping the future has no effect.
    pub fn closed(&self) -> ChannelClosed {
        let shared = Arc::clone(&self.inner.connection().shared);
        ChannelClosed { shared, id: self.inner.id(), ticket: None, done: false }
    }

    /// Returns whether the channel is open, and neither it nor its connection is closing. `false` while the
    /// connection is being recovered.
    pub fn is_open(&self) -> bool {
        self.with(|channel| channel.is_open())
    }

    /// Returns the channel's number on its connection, as the broker's log and management page show it.
    /// `None` while the connection is being recovered: then the channel may get another number. Another channel may get
    /// the number once this one is closed.
    pub fn number(&self) -> Option<u16> {
        self.with(|channel| channel.number())
    }

    /// Returns the reason if the channel is closed or closing.
    pub fn close_cause(&self) -> Option<ChannelCause> {
        self.with(|channel| channel.cause())
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut amqp_core::Channel<'_>) -> T) -> T {
        self.inner.shared().with(|state| f(&mut state.session.channel(self.inner.id())))
    }

    pub(crate) fn call<S>(&self, start: S) -> Calling<S>
    where
        S: Start + sealed::Start<Holder = Arc<ChannelHolder>>,
    {
        Calling::new(Arc::clone(&self.inner), start)
    }
}

/// Resolves to the reason when the channel is closed: see [`Channel::closed`].
///
/// # Cancel safety
/// Cancel-safe: dropping the future has no effect.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct ChannelClosed {
    shared: Arc<Shared>,
    id: ChannelId,
    ticket: Option<u64>,
    done: bool,
}

impl Future for ChannelClosed {
    type Output = ChannelCause;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ChannelCause> {
        let Self { shared, id, ticket, done } = &mut *self;
        if *done {
            return Poll::Pending;
        }
        let result = shared.with(|state| match state.session.channel(*id).closed_cause() {
            Some(cause) => Poll::Ready(cause),
            None => {
                state.channel(*id);
                let closed = &mut state.channels[id.index()].closed;
                closed.wait(ticket, cx.waker(), &mut state.released);
                Poll::Pending
            }
        });
        *done = result.is_ready();
        result
    }
}

impl FusedFuture for ChannelClosed {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl Drop for ChannelClosed {
    fn drop(&mut self) {
        let Self { shared, id, ticket, .. } = self;
        if ticket.is_some() {
            shared.with(|state| {
                state.channels[id.index()].closed.leave(ticket, &mut state.released);
            });
        }
    }
}

/// A request that is sent without requesting a reply, and waits for buffer space. Resolves when it is in the
/// output buffer: see [`Channel::no_wait`].
///
/// # Errors
/// [`Error`] if the channel or the connection is closed, or an argument cannot be sent. `Ok` does not mean
/// that the broker has carried out the request.
///
/// # Cancel safety
/// The request is buffered completely in the poll that resolves, or not at all.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct SendingNoWait<'a, R> {
    send: PendingSend<'a, R>,
}

impl<R: NoWait + Unpin> Future for SendingNoWait<'_, R> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.send.poll_send(cx, |channel, request| channel.call_no_wait(request))
    }
}

impl<R: NoWait + Unpin> FusedFuture for SendingNoWait<'_, R> {
    fn is_terminated(&self) -> bool {
        self.send.is_done()
    }
}
