use std::time::{Duration, Instant};

use amqp_async::core::{
    AckError, BasicConsume, BasicGet, BasicQos, ChannelCause, DeliveryTag, Error, ExchangeBind,
    ExchangeDeclare, ExchangeDelete, MessageCount, NoWait, Publish, QueueBind, QueueDeclare,
    QueueDeclareOk, QueueDelete, QueuePurge, ReturnedMessage,
};

use crate::consumer::Consumer;
use crate::delivery::Delivery;
use crate::publisher::Publisher;
use crate::tx::Tx;
use crate::wait::{wait, wait_until};

/// A channel of a connection.
///
/// Clones are handles to the same channel, for use from any thread; calls are answered in the order in
/// which they are sent. A channel that the broker has closed stays closed, and every later call on it
/// says why. When the last handle to it is dropped, with its publishers, consumers and deliveries, the
/// channel is closed in the background.
///
/// # Calls
/// A call blocks the calling thread until the broker has answered. It fails with [`Error`]: the channel or
/// the connection is closed or closes meanwhile, an argument cannot be sent, or no reply comes within the
/// call time-out (30 s unless configured).
#[derive(Clone, Debug)]
pub struct Channel(amqp_async::Channel);

impl Channel {
    pub(crate) const fn new(channel: amqp_async::Channel) -> Self {
        Self(channel)
    }

    /// Declares an exchange, or checks that it exists (AMQP 0-9-1, 1.6.2.1).
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn exchange_declare(&self, declare: ExchangeDeclare) -> Result<(), Error> {
        wait(self.0.exchange_declare(declare))
    }

    /// Deletes an exchange (AMQP 0-9-1, 1.6.2.3).
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn exchange_delete(&self, delete: ExchangeDelete) -> Result<(), Error> {
        wait(self.0.exchange_delete(delete))
    }

    /// Binds an exchange to an exchange (<https://www.rabbitmq.com/docs/e2e>).
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn exchange_bind(&self, bind: ExchangeBind) -> Result<(), Error> {
        wait(self.0.exchange_bind(bind))
    }

    /// Takes a binding between exchanges away (<https://www.rabbitmq.com/docs/e2e>).
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn exchange_unbind(&self, binding: ExchangeBind) -> Result<(), Error> {
        wait(self.0.exchange_unbind(binding))
    }

    /// Declares a queue, or checks that it exists (AMQP 0-9-1, 1.7.2.1).
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn queue_declare(&self, declare: QueueDeclare) -> Result<QueueDeclareOk, Error> {
        wait(self.0.queue_declare(declare))
    }

    /// Binds a queue to an exchange (AMQP 0-9-1, 1.7.2.3).
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn queue_bind(&self, bind: QueueBind) -> Result<(), Error> {
        wait(self.0.queue_bind(bind))
    }

    /// Takes a binding away (AMQP 0-9-1, 1.7.2.5).
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn queue_unbind(&self, binding: QueueBind) -> Result<(), Error> {
        wait(self.0.queue_unbind(binding))
    }

    /// Removes the ready messages of a queue (AMQP 0-9-1, 1.7.2.7); returns their number.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn queue_purge(&self, purge: QueuePurge) -> Result<MessageCount, Error> {
        wait(self.0.queue_purge(purge))
    }

    /// Deletes a queue (AMQP 0-9-1, 1.7.2.9); returns the number of messages it held.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn queue_delete(&self, delete: QueueDelete) -> Result<MessageCount, Error> {
        wait(self.0.queue_delete(delete))
    }

    /// Sets how many deliveries may be unacknowledged (AMQP 0-9-1, 1.8.3.1;
    /// <https://www.rabbitmq.com/docs/consumer-prefetch>): for each consumer that starts on the channel from
    /// here on, or with [`global`](BasicQos::global) for the channel as a whole. A consumer's own
    /// [`prefetch`](BasicConsume::prefetch) wins; without either it is 256.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn basic_qos(&self, qos: BasicQos) -> Result<(), Error> {
        wait(self.0.basic_qos(qos))
    }

    /// Starts a consumer (AMQP 0-9-1, 1.8.3.3).
    ///
    /// # Errors
    /// Those of a [call](Self#calls), and [`Misuse::DuplicateConsumerTag`](amqp_async::core::Misuse).
    pub fn basic_consume(&self, consume: BasicConsume) -> Result<Consumer, Error> {
        wait(self.0.basic_consume(consume)).map(Consumer::new)
    }

    /// Asks for one message (AMQP 0-9-1, 1.8.3.10): the name of a queue, or a [`BasicGet`]. A consumer
    /// is the better way to get more than now and then one. `None` if the queue is empty.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn basic_get(&self, get: impl Into<BasicGet>) -> Result<Option<Delivery>, Error> {
        wait(self.0.basic_get(get)).map(|got| got.map(Delivery::new))
    }

    /// Asks for all unacknowledged deliveries of the channel again (AMQP 0-9-1, 1.8.3.16). Those at
    /// hand, and those that a consumer's handle has taken in already, can no longer be settled
    /// ([`AckError::Recovered`]): they come again, marked as redelivered.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn basic_recover(&self) -> Result<(), Error> {
        wait(self.0.basic_recover())
    }

    /// Acknowledges a delivery by its tag, or with `multiple` all of the channel up to it; the handle
    /// of the delivery is not needed (AMQP 0-9-1, 1.8.3.13).
    ///
    /// # Errors
    /// [`AckError`]: nothing was sent.
    pub fn basic_ack(&self, tag: DeliveryTag, multiple: bool) -> Result<(), AckError> {
        self.0.basic_ack(tag, multiple)
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
        self.0.basic_nack(tag, multiple, requeue)
    }

    /// Refuses a delivery by its tag: requeued, or else dead-lettered or dropped (AMQP 0-9-1,
    /// 1.8.3.14). A delivery of a stream is acknowledged instead.
    ///
    /// # Errors
    /// [`AckError`]: nothing was sent.
    pub fn basic_reject(&self, tag: DeliveryTag, requeue: bool) -> Result<(), AckError> {
        self.0.basic_reject(tag, requeue)
    }

    /// Asks the broker for deliveries (AMQP 0-9-1, 1.5.2.3); see [`ChannelFlow`](crate::ChannelFlow) for what it may not be
    /// asked.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn flow(&self, active: bool) -> Result<bool, Error> {
        wait(self.0.flow(active))
    }

    /// Sends a declaration, a binding or a deletion without asking for an answer (`no-wait`): returns
    /// when it is queued to be written. If the broker refuses it, it closes the channel, and later
    /// calls say why.
    ///
    /// # Errors
    /// What is known: the channel or the connection is closed, or an argument cannot be sent.
    pub fn no_wait<R: NoWait + Unpin>(&self, request: R) -> Result<(), Error> {
        wait(self.0.no_wait(request))
    }

    /// Puts the channel into confirm mode
    /// (<https://www.rabbitmq.com/docs/confirms#publisher-confirms>). Asked again, it gives another
    /// handle to the same.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn confirm_select(&self) -> Result<Publisher, Error> {
        wait(self.0.confirm_select()).map(Publisher::new)
    }

    /// Puts the channel into transaction mode (AMQP 0-9-1, 1.9.2.1). Asked again, it gives another
    /// handle to the same.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn tx_select(&self) -> Result<Tx, Error> {
        wait(self.0.tx_select()).map(Tx::new)
    }

    /// Publishes without waiting for the broker's answer (AMQP 0-9-1, 1.8.3.7): returns when the message
    /// is queued to be written, which waits for room, for as long as it takes.
    ///
    /// # Errors
    /// What is known: the channel or the connection is closed, an argument cannot be sent, or
    /// [`Misuse::ConfirmModeUsePublisher`](amqp_async::core::Misuse). That the broker takes the message
    /// is not known.
    pub fn basic_publish(&self, publish: Publish<'_>) -> Result<(), Error> {
        wait(self.0.basic_publish(publish))
    }

    /// As [`basic_publish`](Self::basic_publish), but waits for room for so long at most: `false` if there
    /// was none, and nothing was sent.
    ///
    /// # Errors
    /// Those of [`basic_publish`](Self::basic_publish).
    pub fn basic_publish_timeout(
        &self,
        publish: Publish<'_>,
        timeout: Duration,
    ) -> Result<bool, Error> {
        let deadline = Instant::now().checked_add(timeout);
        wait_until(self.0.basic_publish(publish), deadline)
            .map_or(Ok(false), |it| it.map(|()| true))
    }

    /// Waits for the next message that comes back from [`basic_publish`](Self::basic_publish). The
    /// newest 256 that nobody has taken are kept, and 1 MiB of them.
    ///
    /// In confirm mode the publish itself reports its return. A return that belongs to no publish awaiting
    /// its confirm comes from here.
    ///
    /// # Errors
    /// Why the channel is closed, once what had come back before is taken.
    pub fn returned(&self) -> Result<ReturnedMessage, Error> {
        wait(self.0.returned())
    }

    /// As [`returned`](Self::returned), but waits for so long at most; `None` if nothing came back.
    ///
    /// # Errors
    /// Those of [`returned`](Self::returned).
    pub fn returned_timeout(&self, timeout: Duration) -> Result<Option<ReturnedMessage>, Error> {
        wait_until(self.0.returned(), Instant::now().checked_add(timeout)).transpose()
    }

    /// The oldest message that came back from [`basic_publish`](Self::basic_publish), if one is there.
    pub fn take_returned(&self) -> Option<ReturnedMessage> {
        self.0.take_returned()
    }

    /// Raises the oldest message that came back from [`basic_publish`](Self::basic_publish), once.
    /// Messages come back in the order of publishing, before the answer to any call that follows.
    ///
    /// # Errors
    /// [`Error::Returned`].
    pub fn check_returned(&self) -> Result<(), Error> {
        self.0.check_returned()
    }

    /// Closes the channel, behind everything that is queued on it. Closing a closed channel is fine.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn close(&self) -> Result<(), Error> {
        wait(self.0.close())
    }

    /// Why the channel is closed or closing, if it is.
    pub fn close_cause(&self) -> Option<ChannelCause> {
        self.0.close_cause()
    }
}
