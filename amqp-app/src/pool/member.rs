//! A connection that a pool has lent, and what its borrowers share.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use amqp_async::{BasicConsume, BasicGet, Confirm, Connection, Error, PublishError, Publisher};

use super::callbacks::Callbacks;
use super::slots::Condition;
use crate::message::Message;
use crate::platform::{Asynchronous, Platform};
use crate::runner::Runner;

/// A connection of a [`Pool`](super::Pool). It is shared with the other borrowers of the pool, and is not given back.
///
/// It dereferences to the connection of the adapter, with all of its methods. Those of its own use one publisher, which
/// all borrowers of the connection share: one channel in confirm mode. Clones are handles to the same connection.
pub struct Member<P: Platform>(Arc<Lent<P>>);

impl<P: Asynchronous> Member<P> {
    /// Publishes a message, and waits for the confirm. Resolves to `Ok` when the broker has taken responsibility for the
    /// message. Messages are mandatory by default, so that one that reaches no queue is an error.
    ///
    /// An exchange that does not exist is an error of every publish that is unconfirmed at that time, because the broker
    /// closes the channel. The next publish opens another one.
    ///
    /// # Errors
    /// [`PublishError`]. A message to an exchange that does not exist fails with [`PublishError::Unknown`], with the 404
    /// of the broker.
    ///
    /// # Cancel safety
    /// If the future is dropped before the message is buffered, nothing is sent. If it is dropped later, the message is
    /// sent, and its outcome is not reported.
    pub async fn publish(&self, message: &Message) -> Result<(), PublishError> {
        self.0.publish(message).await
    }

    /// Publishes a message, and has a function called with its outcome. Resolves when the message is in the output buffer:
    /// messages are sent in the order in which the calls resolve, and their functions are called in that order too. Each
    /// is called once, also if the message cannot be sent. It must not block. A panic in it is caught.
    ///
    /// [`flush`](Self::flush) waits until they have been called. A program that ends before that may lose messages.
    ///
    /// # Cancel safety
    /// If the future is dropped, the message is not sent, and the function is not called.
    pub async fn publish_with(
        &self,
        message: &Message,
        callback: impl FnOnce(Result<(), PublishError>) + Send + 'static,
    ) {
        self.0.publish_with(message, callback).await;
    }

    /// Waits until the functions of all earlier calls of [`publish_with`](Self::publish_with) on this connection have been
    /// called.
    ///
    /// # Cancel safety
    /// Cancel-safe: dropping the future has no effect.
    pub async fn flush(&self) {
        self.0.flush().await;
    }

    /// Takes a message out of a queue (`basic.get`; AMQP 0-9-1, 1.8.3.10), on a channel of its own. Resolves to the
    /// delivery, which is to be acked, and to `None` if the queue is empty.
    ///
    /// # Errors
    /// Those of a [call](amqp_async::Channel#calls), such as 404 for a queue that does not exist.
    ///
    /// # Cancel safety
    /// If the future is dropped, the message is requeued.
    pub async fn get(&self, queue: &str) -> Result<Option<amqp_async::Delivery>, Error> {
        self.0.get(queue).await
    }

    /// Waits for one message of a queue, on a channel of its own. Resolves to the delivery, which is to be acked, and to
    /// `None` if there is none within this time.
    ///
    /// # Errors
    /// Those of a [call](amqp_async::Channel#calls), such as 404 for a queue that does not exist.
    ///
    /// # Cancel safety
    /// If the future is dropped, the consumer is cancelled, and what it had is requeued.
    pub async fn consume_one(
        &self,
        queue: &str,
        within: Duration,
    ) -> Result<Option<amqp_async::Delivery>, Error> {
        self.0.consume_one(queue, within).await
    }
}

impl<P: Platform> Member<P> {
    pub(super) const fn new(lent: Arc<Lent<P>>) -> Self {
        Self(lent)
    }

    pub(crate) fn lent(&self) -> &Arc<Lent<P>> {
        &self.0
    }
}

impl<P: Platform> Deref for Member<P> {
    type Target = P::Connection;

    fn deref(&self) -> &P::Connection {
        &self.0.handle
    }
}

impl<P: Platform> Clone for Member<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P: Platform> fmt::Debug for Member<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Member").field(&self.0.connection).finish()
    }
}

/// A connection of a pool with its publisher.
pub(crate) struct Lent<P: Platform> {
    connection: Connection,
    /// The same, as the adapter has it.
    handle: P::Connection,
    runner: Runner,
    publisher: async_lock::Mutex<Option<Publisher>>,
    callbacks: Callbacks,
}

impl<P: Platform> Lent<P> {
    pub(super) fn new(connection: Connection, runner: Runner) -> Self {
        let handle = P::Connection::from(connection.clone());
        let publisher = async_lock::Mutex::new(None);
        Self { connection, handle, runner, publisher, callbacks: Callbacks::default() }
    }

    pub(crate) const fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) const fn runner(&self) -> &Runner {
        &self.runner
    }

    pub(super) fn condition(&self) -> Condition {
        if self.connection.is_open() {
            Condition::Ready
        } else if self.connection.close_cause().is_none() {
            Condition::Recovering
        } else {
            Condition::Ended
        }
    }

    pub(super) async fn publish(&self, message: &Message) -> Result<(), PublishError> {
        self.send(message).await?.await
    }

    pub(super) async fn publish_with(
        &self,
        message: &Message,
        callback: impl FnOnce(Result<(), PublishError>) + Send + 'static,
    ) {
        let sent = self.send(message).await;
        self.callbacks.push(sent, callback, &self.runner);
    }

    pub(super) async fn flush(&self) {
        self.callbacks.flush().await;
    }

    pub(super) async fn get(&self, queue: &str) -> Result<Option<amqp_async::Delivery>, Error> {
        let channel = self.connection.open_channel().await?;
        channel.basic_get(BasicGet::new(queue)).await
    }

    pub(super) async fn consume_one(
        &self,
        queue: &str,
        within: Duration,
    ) -> Result<Option<amqp_async::Delivery>, Error> {
        let deadline = self.runner.now().checked_add(within);
        let consuming = self.connection.consume(BasicConsume::new(queue).prefetch(1));
        let Some(consumer) = self.runner.until(deadline, consuming).await else { return Ok(None) };
        let mut consumer = consumer?;
        if let Some(next) = self.runner.until(deadline, consumer.next()).await {
            return next.transpose();
        }
        // It may have come meanwhile.
        consumer.cancel().await?;
        consumer.next().await.transpose()
    }

    /// Sends a message. Another borrower may have closed the channel by a publish to an exchange that does not exist: then
    /// nothing was sent, and it is sent on another channel.
    pub(crate) async fn send(&self, message: &Message) -> Result<Confirm, PublishError> {
        let publisher = self.publisher().await?;
        match publisher.send(message).await {
            Err(PublishError::NotSent(_)) if publisher.channel().close_cause().is_some() => {
                self.publisher().await?.send(message).await
            }
            sent => sent,
        }
    }

    async fn publisher(&self) -> Result<Publisher, PublishError> {
        let mut publisher = self.publisher.lock().await;
        match &*publisher {
            Some(publisher) if publisher.channel().close_cause().is_none() => Ok(publisher.clone()),
            _ => {
                let opened = self.connection.publisher().await.map_err(PublishError::refused)?;
                Ok(publisher.insert(opened).clone())
            }
        }
    }
}
