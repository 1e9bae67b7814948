//! The channel's handle: plain calls, acknowledgements by tag, calls without a reply, the close.
//!
//! Methods that resolve with another handle stand beside that handle: `consumer.rs`, `get.rs`, `publisher.rs`,
//! `tx.rs`. So do those of unconfirmed publishing (`unconfirmed.rs`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use amqp_core::{
    AckError, BasicQos, BasicRecover, ChannelCause, ChannelFlow, ChannelId, DeliveryTag, Error,
    ExchangeBind, ExchangeDeclare, ExchangeDelete, ExchangeUnbind, NoWait, QueueBind, QueueDeclare,
    QueueDelete, QueuePurge, QueueUnbind,
};
use futures_core::FusedFuture;

use crate::buffer_space::PendingSend;
use crate::call::{Calling, CloseChannel, Start, sealed};
use crate::holders::ChannelHolder;
use crate::plain_calls::plain_calls;
use crate::shared::Shared;

/// A channel of a connection.
///
/// Clones are handles to the same channel, for use from any task or thread; calls are answered in the
/// order in which they are sent. A channel that the broker has closed stays closed, and every later
/// call on it returns why. When the last handle to it is dropped, with its publishers, consumers and
/// deliveries, the channel is closed in the background.
///
/// # Calls
/// A call takes its request, or the name where a name is enough: `channel.queue_declare("orders")`,
/// `channel.queue_delete("orders")`. It is sent at the first poll of its future, which resolves with the broker's reply. See [`Calling`] for
/// its errors and its cancel safety.
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
            /// Dropped before the first poll, nothing was sent. Dropped later, the request was sent, and its
            /// reply is consumed.
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

    /// Acknowledges a delivery by its tag, or with `multiple` all of the channel up to it; the handle
    /// of the delivery is not needed (AMQP 0-9-1, 1.8.3.13).
    ///
    /// # Errors
    /// [`AckError`]: nothing was sent.
    pub fn basic_ack(&self, tag: DeliveryTag, multiple: bool) -> Result<(), AckError> {
        self.with(|channel| channel.ack(tag, multiple))
    }

    /// Refuses a delivery by its tag, or with `multiple` all of the channel up to it: requeued, or else
    /// dead-lettered or dropped (<https://www.rabbitmq.com/docs/nack>). A delivery of a stream is
    /// acknowledged instead.
    ///
    /// # Errors
    /// [`AckError`]: nothing was sent. With `multiple`, [`AckError::Stream`] if the channel has consumed
    /// a stream; otherwise [`AckError::MaybeStream`] if the delivery may come from a stream.
    pub fn basic_nack(
        &self,
        tag: DeliveryTag,
        multiple: bool,
        requeue: bool,
    ) -> Result<(), AckError> {
        self.with(|channel| channel.nack(tag, multiple, requeue))
    }

    /// Refuses a delivery by its tag: requeued, or else dead-lettered or dropped (AMQP 0-9-1,
    /// 1.8.3.14). A delivery of a stream is acknowledged instead.
    ///
    /// # Errors
    /// [`AckError`]: nothing was sent.
    pub fn basic_reject(&self, tag: DeliveryTag, requeue: bool) -> Result<(), AckError> {
        self.with(|channel| channel.reject(tag, requeue))
    }

    /// Sends a declaration, a binding or a deletion without asking for a reply (`no-wait`): resolves when it
    /// is queued to be written. A broker that refuses it closes the channel, and later calls return why.
    ///
    /// # Errors
    /// Those of [`SendingNoWait`].
    ///
    /// # Cancel safety
    /// The request is queued whole in the poll that resolves, or not at all.
    pub fn no_wait<R: NoWait>(&self, request: R) -> SendingNoWait<'_, R> {
        SendingNoWait { send: PendingSend::new(&self.inner, request) }
    }

    /// Closes the channel, behind everything that is queued on it. Closing a closed channel is fine.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    ///
    /// # Cancel safety
    /// Dropped before the first poll, nothing happens. Dropped later, the close goes on in the background.
    pub fn close(&self) -> Calling<CloseChannel> {
        Calling::new(Arc::clone(&self.inner), CloseChannel)
    }

    /// Waits until the channel is closed, and resolves with the reason: the application closed it, the broker did,
    /// or the connection ended. The future does not keep the channel open.
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
    /// Dropping the future changes nothing.
    pub fn closed(&self) -> ChannelClosed {
        let shared = Arc::clone(&self.inner.connection().shared);
        ChannelClosed { shared, id: self.inner.id(), ticket: None, done: false }
    }

    /// Whether the channel is open, and neither it nor its connection is closing.
    pub fn is_open(&self) -> bool {
        self.with(|channel| channel.is_open())
    }

    /// The channel's number on its connection, as the broker's log and management page show it. Another channel may
    /// have the number once this one is closed.
    pub fn number(&self) -> u16 {
        self.inner.number()
    }

    /// Why the channel is closed or closing, if it is.
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

/// Resolves when the channel is closed, with the reason.
///
/// # Cancel safety
/// Dropping it changes nothing.
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

/// A call that is sent without asking for an answer, and waits for buffer space.
///
/// # Errors
/// What is known: the channel or the connection is closed, or an argument cannot be sent. That the
/// broker does what it is asked is not known.
///
/// # Cancel safety
/// The call is queued whole in the poll that resolves, or not at all.
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
