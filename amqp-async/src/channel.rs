//! The channel's handle.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use amqp_core::{
    AckError, BasicConsume, BasicGet, BasicQos, BasicRecover, ChannelCause, ChannelFlow, ChannelId,
    ConfirmSelect, DeliveryTag, Error, ExchangeBind, ExchangeDeclare, ExchangeDelete,
    ExchangeUnbind, Misuse, NoWait, Publish, PublishRefused, QueueBind, QueueDeclare, QueueDelete,
    QueuePurge, QueueUnbind, ReturnedMessage, TxSelect,
};
use futures_core::FusedFuture;

use crate::calling::{Calling, CloseChannel, Start, StartConsumer, sealed};
use crate::connection::ConnectionInner;
use crate::consumer::Consumer;
use crate::delivery::{Delivery, Origin};
use crate::publisher::{Publisher, RoomFor};
use crate::shared::Shared;
use crate::tx::SelectingTx;

/// A channel of a connection.
///
/// Clones are handles to the same channel, for use from any task or thread; calls are answered in the
/// order in which they are sent. A channel that the broker has closed stays closed, and every later
/// call on it says why. When the last handle to it is dropped, with its publishers, consumers and
/// deliveries, the channel is closed in the background.
#[derive(Clone, Debug)]
pub struct Channel {
    inner: Arc<ChannelInner>,
}

#[derive(Debug)]
#[allow(unreachable_pub, reason = "it stands in a sealed trait")]
pub struct ChannelInner {
    connection: Arc<ConnectionInner>,
    id: ChannelId,
}

impl ChannelInner {
    pub(crate) fn new(connection: Arc<ConnectionInner>, id: ChannelId) -> Arc<Self> {
        Arc::new(Self { connection, id })
    }

    #[inline]
    pub(crate) fn shared(&self) -> &Shared {
        &self.connection.shared
    }

    #[inline]
    pub(crate) const fn id(&self) -> ChannelId {
        self.id
    }
}

impl Drop for ChannelInner {
    fn drop(&mut self) {
        let now = self.shared().now();
        self.shared().with(|state| state.session.channel(self.id).release(now));
    }
}

impl Channel {
    pub(crate) const fn new(inner: Arc<ChannelInner>) -> Self {
        Self { inner }
    }

    /// Declares an exchange, or checks that it exists (AMQP 0-9-1, 1.6.2.1).
    pub fn exchange_declare(&self, declare: ExchangeDeclare) -> Calling<ExchangeDeclare> {
        self.call(declare)
    }

    /// Deletes an exchange (AMQP 0-9-1, 1.6.2.3).
    pub fn exchange_delete(&self, delete: ExchangeDelete) -> Calling<ExchangeDelete> {
        self.call(delete)
    }

    /// Binds an exchange to an exchange (<https://www.rabbitmq.com/docs/e2e>).
    pub fn exchange_bind(&self, bind: ExchangeBind) -> Calling<ExchangeBind> {
        self.call(bind)
    }

    /// Takes a binding between exchanges away (<https://www.rabbitmq.com/docs/e2e>).
    pub fn exchange_unbind(&self, binding: ExchangeBind) -> Calling<ExchangeUnbind> {
        self.call(ExchangeUnbind::new(binding))
    }

    /// Declares a queue, or checks that it exists (AMQP 0-9-1, 1.7.2.1).
    pub fn queue_declare(&self, declare: QueueDeclare) -> Calling<QueueDeclare> {
        self.call(declare)
    }

    /// Binds a queue to an exchange (AMQP 0-9-1, 1.7.2.3).
    pub fn queue_bind(&self, bind: QueueBind) -> Calling<QueueBind> {
        self.call(bind)
    }

    /// Takes a binding away (AMQP 0-9-1, 1.7.2.5).
    pub fn queue_unbind(&self, binding: QueueBind) -> Calling<QueueUnbind> {
        self.call(QueueUnbind::new(binding))
    }

    /// Removes the ready messages of a queue (AMQP 0-9-1, 1.7.2.7); resolves with their number.
    pub fn queue_purge(&self, purge: QueuePurge) -> Calling<QueuePurge> {
        self.call(purge)
    }

    /// Deletes a queue (AMQP 0-9-1, 1.7.2.9); resolves with the number of messages it held.
    pub fn queue_delete(&self, delete: QueueDelete) -> Calling<QueueDelete> {
        self.call(delete)
    }

    /// Sets how many deliveries may be unacknowledged (AMQP 0-9-1, 1.8.3.1;
    /// <https://www.rabbitmq.com/docs/consumer-prefetch>): for each consumer that starts on the channel from
    /// here on, or with [`global`](BasicQos::global) for the channel as a whole. A consumer's own
    /// [`prefetch`](BasicConsume::prefetch) wins; without either it is 256.
    pub fn basic_qos(&self, qos: BasicQos) -> Calling<BasicQos> {
        self.call(qos)
    }

    /// Starts a consumer (AMQP 0-9-1, 1.8.3.3).
    pub fn basic_consume(&self, consume: BasicConsume) -> Consuming {
        let (no_ack, requeue_on_drop) = (consume.is_no_ack(), consume.is_requeue_on_drop());
        let calling = self.call(StartConsumer(consume));
        Consuming { calling, no_ack, requeue_on_drop }
    }

    /// Asks for one message (AMQP 0-9-1, 1.8.3.10): the name of a queue, or a [`BasicGet`]. A consumer
    /// is the better way to get more than now and then one.
    pub fn basic_get(&self, get: impl Into<BasicGet>) -> Getting {
        let get = get.into();
        let (no_ack, requeue_on_drop) = (get.is_no_ack(), get.is_requeue_on_drop());
        Getting { calling: self.call(get), no_ack, requeue_on_drop }
    }

    /// Asks for all unacknowledged deliveries of the channel again (AMQP 0-9-1, 1.8.3.16). Those at
    /// hand, and those that a consumer's handle has taken in already, can no longer be settled
    /// ([`AckError::Recovered`]): they come again, marked as redelivered.
    pub fn basic_recover(&self) -> Calling<BasicRecover> {
        self.call(BasicRecover::default())
    }

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

    /// Asks the broker for deliveries (AMQP 0-9-1, 1.5.2.3); see [`ChannelFlow`] for what it may not be
    /// asked.
    pub fn flow(&self, active: bool) -> Calling<ChannelFlow> {
        self.call(ChannelFlow::new(active))
    }

    /// Sends a declaration, a binding or a deletion without asking for an answer (`no-wait`): resolves
    /// when it is queued to be written. If the broker refuses it, it closes the channel, and later
    /// calls say why.
    pub fn no_wait<R: NoWait>(&self, request: R) -> NotAwaited<'_, R> {
        NotAwaited { room: RoomFor::new(&self.inner, request) }
    }

    /// Puts the channel into confirm mode
    /// (<https://www.rabbitmq.com/docs/confirms#publisher-confirms>). Asked again, it gives another
    /// handle to the same.
    pub fn confirm_select(&self) -> SelectingConfirms {
        SelectingConfirms { calling: self.call(ConfirmSelect::default()) }
    }

    /// Puts the channel into transaction mode (AMQP 0-9-1, 1.9.2.1). Asked again, it gives another
    /// handle to the same.
    pub fn tx_select(&self) -> SelectingTx {
        SelectingTx::new(self.call(TxSelect::default()))
    }

    /// Publishes without waiting for the broker's answer (AMQP 0-9-1, 1.8.3.7): resolves when the
    /// message is queued to be written.
    ///
    /// `Ok` does not mean that the message was sent. It is lost if the program ends before the driver has
    /// written it: [`close`](crate::Connection::close) the connection first, or
    /// [`drain`](crate::Connection::drain) it (see [graceful shutdown](crate::guide::backpressure#graceful-shutdown)).
    pub fn basic_publish<'a>(&'a self, publish: Publish<'a>) -> BasicPublish<'a> {
        BasicPublish { room: RoomFor::new(&self.inner, publish) }
    }

    /// Waits for the next message that comes back from [`basic_publish`](Self::basic_publish). The
    /// newest 256 that nobody has taken are kept, and 1 MiB of them.
    ///
    /// In confirm mode the publish itself reports its return. A return that belongs to no publish awaiting
    /// its confirm comes from here.
    pub fn returned(&self) -> Returned {
        Returned { channel: Arc::clone(&self.inner), ticket: None, done: false }
    }

    /// The oldest message that came back from [`basic_publish`](Self::basic_publish), if one is there.
    pub fn take_returned(&self) -> Option<ReturnedMessage> {
        self.with(|channel| channel.take_returned())
    }

    /// Raises the oldest message that came back from [`basic_publish`](Self::basic_publish), once.
    /// Messages come back in the order of publishing, before the answer to any call that follows.
    ///
    /// # Errors
    /// [`Error::Returned`].
    pub fn check_returned(&self) -> Result<(), Error> {
        self.take_returned().map_or(Ok(()), |message| Err(Error::Returned(Box::new(message))))
    }

    /// Closes the channel, behind everything that is queued on it. Closing a closed channel is fine.
    pub fn close(&self) -> Calling<CloseChannel> {
        Calling::new(Arc::clone(&self.inner), CloseChannel)
    }

    /// Why the channel is closed or closing, if it is.
    pub fn close_cause(&self) -> Option<ChannelCause> {
        self.with(|channel| channel.cause())
    }

    fn with<T>(&self, f: impl FnOnce(&mut amqp_core::Channel<'_>) -> T) -> T {
        self.inner.shared().with(|state| f(&mut state.session.channel(self.inner.id)))
    }

    fn call<S>(&self, start: S) -> Calling<S>
    where
        S: Start + sealed::Start<Holder = Arc<ChannelInner>>,
    {
        Calling::new(Arc::clone(&self.inner), start)
    }
}

/// A consumer that is being started.
///
/// # Errors
/// Those of [`Calling`], and
/// [`Misuse::DuplicateConsumerTag`].
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
        let Poll::Ready(result) = Pin::new(&mut self.calling).poll(cx) else {
            return Poll::Pending;
        };
        let channel = Arc::clone(self.calling.holder());
        let Self { no_ack, requeue_on_drop, .. } = *self;
        Poll::Ready(result.map(|ok| {
            let consumer = Some((ok.consumer, ok.consumer_tag));
            let message_count = None;
            let origin = Origin { channel, consumer, message_count, no_ack, requeue_on_drop };
            Consumer::new(origin, ok.consumer)
        }))
    }
}

impl FusedFuture for Consuming {
    fn is_terminated(&self) -> bool {
        self.calling.is_terminated()
    }
}

/// A message that is asked for; resolves with `None` if the queue is empty.
///
/// # Errors
/// Those of [`Calling`].
///
/// # Cancel safety
/// Dropped before the first poll, nothing was sent. Dropped later, the message is requeued when it
/// comes; without acknowledgement it is lost.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Getting {
    calling: Calling<BasicGet>,
    no_ack: bool,
    requeue_on_drop: bool,
}

impl Future for Getting {
    type Output = Result<Option<Delivery>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(result) = Pin::new(&mut self.calling).poll(cx) else {
            return Poll::Pending;
        };
        let channel = Arc::clone(self.calling.holder());
        let Self { no_ack, requeue_on_drop, .. } = *self;
        let (consumer, message_count) = (None, None);
        let origin = Origin { channel, consumer, message_count, no_ack, requeue_on_drop };
        Poll::Ready(result.map(|got| got.map(|got| Delivery::got(origin, got))))
    }
}

impl FusedFuture for Getting {
    fn is_terminated(&self) -> bool {
        self.calling.is_terminated()
    }
}

/// A channel that is being put into confirm mode. For errors and cancel safety see [`Calling`].
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct SelectingConfirms {
    calling: Calling<ConfirmSelect>,
}

impl Future for SelectingConfirms {
    type Output = Result<Publisher, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(result) = Pin::new(&mut self.calling).poll(cx) else {
            return Poll::Pending;
        };
        let channel = Arc::clone(self.calling.holder());
        Poll::Ready(result.map(|()| Publisher::new(channel)))
    }
}

impl FusedFuture for SelectingConfirms {
    fn is_terminated(&self) -> bool {
        self.calling.is_terminated()
    }
}

/// An unconfirmed publish that waits for room.
///
/// # Errors
/// What is known: the channel or the connection is closed, an argument cannot be sent, or
/// [`Misuse::ConfirmModeUsePublisher`]. That the broker takes the message is not known.
///
/// # Cancel safety
/// The message is queued whole in the poll that resolves, or not at all.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct BasicPublish<'a> {
    room: RoomFor<'a, Publish<'a>>,
}

impl Future for BasicPublish<'_> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.room.poll_send(cx, |channel, publish| {
            if channel.confirms() && channel.cause().is_none() {
                return Err(PublishRefused::Error(Misuse::ConfirmModeUsePublisher.into()));
            }
            channel.publish(publish).map(|_| ())
        })
    }
}

impl FusedFuture for BasicPublish<'_> {
    fn is_terminated(&self) -> bool {
        self.room.is_done()
    }
}

/// A call that is sent without asking for an answer, and waits for room.
///
/// # Errors
/// What is known: the channel or the connection is closed, or an argument cannot be sent. That the
/// broker does what it is asked is not known.
///
/// # Cancel safety
/// The call is queued whole in the poll that resolves, or not at all.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct NotAwaited<'a, R> {
    room: RoomFor<'a, R>,
}

impl<R: NoWait + Unpin> Future for NotAwaited<'_, R> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.room.poll_send(cx, |channel, request| channel.call_no_wait(request))
    }
}

impl<R: NoWait + Unpin> FusedFuture for NotAwaited<'_, R> {
    fn is_terminated(&self) -> bool {
        self.room.is_done()
    }
}

/// Waits for a message that comes back unconfirmed.
///
/// # Errors
/// Why the channel is closed, once what had come back before is taken.
///
/// # Cancel safety
/// A message is taken in the poll that resolves, or not at all.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Returned {
    channel: Arc<ChannelInner>,
    ticket: Option<u64>,
    done: bool,
}

impl Future for Returned {
    type Output = Result<ReturnedMessage, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { channel, ticket, done } = &mut *self;
        if *done {
            return Poll::Pending;
        }
        let id = channel.id;
        let result = channel.shared().with(|state| {
            let may_pass = state.channel(id).returned.may_pass(*ticket);
            let mut core = state.session.channel(id);
            let result = match (if may_pass { core.take_returned() } else { None }, core.cause()) {
                (Some(message), _) => Ok(message),
                (None, Some(cause)) => Err(Error::from(cause)),
                (None, None) => {
                    let returned = &mut state.channels[id.index()].returned;
                    returned.wait(ticket, cx.waker(), &mut state.released);
                    return Poll::Pending;
                }
            };
            state.channels[id.index()].returned.leave(ticket, &mut state.released);
            Poll::Ready(result)
        });
        *done = result.is_ready();
        result
    }
}

impl FusedFuture for Returned {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl Drop for Returned {
    fn drop(&mut self) {
        let Self { channel, ticket, .. } = self;
        if ticket.is_some() {
            channel.shared().with(|state| {
                state.channels[channel.id.index()].returned.leave(ticket, &mut state.released);
            });
        }
    }
}
