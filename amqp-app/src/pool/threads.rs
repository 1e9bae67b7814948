//! Pools on threads: the same methods, which block the calling thread.

use std::time::Duration;

use amqp_async::PublishError;
use amqp_blocking::runtime::Threads;
use amqp_blocking::{Connector, Delivery};

use super::{Listening, Member, Pool, Pools};
use crate::app::report::Report;
use crate::consume::Consume;
use crate::error::Error;
use crate::handler::ThreadHandler;
use crate::message::Message;
use crate::middleware;

impl Pool<Connector> {
    /// Opens the connections of the pool, all at the same time, and returns it when they are open.
    ///
    /// # Errors
    /// [`Error::Connect`] if one of them could not be opened: then no connection stays open. [`Error::Invalid`] if the pool
    /// has no connections.
    pub fn connect(self) -> Result<Self, Error> {
        Threads.block_on(self.open())?;
        Ok(self)
    }

    /// Lends the next connection in turn: immediately if one is open or being recovered. Otherwise it opens connections,
    /// and returns when the first one is open. So a pool that was closed opens its connections again.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the pool has no connections. [`Error::Connect`] if no connection could be opened. An attempt begins 1 s after the last one that failed, at the
    /// earliest. [`Error::PoolClosed`] if the pool is closed meanwhile.
    pub fn connection(&self) -> Result<Member<Connector>, Error> {
        Threads.block_on(self.lend())
    }

    /// Waits until every callback of [`Member::publish_with`] has been called for what was published before.
    pub fn flush(&self) {
        Threads.block_on(self.flush_all());
    }

    /// Closes all connections gracefully: listeners and consumers are cancelled, publishes are confirmed. Returns when the
    /// connections and their sockets are closed, at most 11 s and the configured close timeout later. A connection that is being
    /// opened is waited for, up to the configured connect timeout. [`connection`](Self::connection) opens them again.
    pub fn close(&self) {
        Threads.block_on(self.close_all());
    }
}

impl Pools<Connector> {
    /// Returns the pool of this kind. The first call opens it; calls beside it wait for that.
    ///
    /// # Errors
    /// [`Error::UnknownPool`] if there is no such kind. Those of [`Pool::connect`] if the pool cannot be opened: then the
    /// next call tries again.
    pub fn get(&self, kind: &str) -> Result<Pool<Connector>, Error> {
        Threads.block_on(self.find(kind))
    }

    /// Closes all pools that were opened, as [`Pool::close`] does.
    pub fn close(&self) {
        Threads.block_on(self.close_all());
    }
}

impl Member<Connector> {
    /// Publishes a message, and waits for the confirm. Returns when the broker has taken responsibility for the message.
    /// Messages are mandatory by default, so that one that reaches no queue is an error.
    ///
    /// An exchange that does not exist is an error of every publish that is unconfirmed at that time, because the broker
    /// closes the channel. The next publish opens another one.
    ///
    /// # Errors
    /// [`PublishError`]. A message to an exchange that does not exist fails with [`PublishError::Unknown`], with the 404
    /// of the broker.
    pub fn publish(&self, message: &Message) -> Result<(), PublishError> {
        Threads.block_on(self.lent().publish(message))
    }

    /// Publishes a message, and has a function called with its outcome, on a thread of the pool. Returns when the message
    /// is in the output buffer: messages are sent in the order of the calls, and their functions are called in that order
    /// too. Each is called once, also if the message cannot be sent. A panic in it is caught.
    ///
    /// [`flush`](Self::flush) waits until they have been called. A program that ends before that may lose messages.
    pub fn publish_with(
        &self,
        message: &Message,
        callback: impl FnOnce(Result<(), PublishError>) + Send + 'static,
    ) {
        Threads.block_on(self.lent().publish_with(message, callback));
    }

    /// Waits until the functions of all earlier calls of [`publish_with`](Self::publish_with) on this connection have been
    /// called.
    pub fn flush(&self) {
        Threads.block_on(self.lent().flush());
    }

    /// Takes a message out of a queue (`basic.get`; AMQP 0-9-1, 1.8.3.10), on a channel of its own. Returns the delivery,
    /// which is to be acked, and `None` if the queue is empty.
    ///
    /// # Errors
    /// Those of a [call](amqp_blocking::Channel#calls), such as 404 for a queue that does not exist.
    pub fn get(&self, queue: &str) -> Result<Option<Delivery>, amqp_async::Error> {
        Ok(Threads.block_on(self.lent().get(queue))?.map(Delivery::from))
    }

    /// Waits for one message of a queue, on a channel of its own. Returns the delivery, which is to be acked, and `None` if
    /// there is none within this time.
    ///
    /// # Errors
    /// Those of a [call](amqp_blocking::Channel#calls), such as 404 for a queue that does not exist.
    pub fn consume_one(
        &self,
        queue: &str,
        within: Duration,
    ) -> Result<Option<Delivery>, amqp_async::Error> {
        Ok(Threads.block_on(self.lent().consume_one(queue, within))?.map(Delivery::from))
    }

    /// Handles the messages of a queue on other threads, on this connection: its name, or a [`Consume`] with rules. Returns
    /// when the consumer is started.
    ///
    /// The rules are those of an [`App`](crate::App) with one source, and so are handlers: one that takes the [`Delivery`]
    /// acknowledges it. The prefetch is that of the concurrency, 1 by default: the next message comes after the
    /// acknowledgement. A handler may use the connection, and may block.
    ///
    /// # Errors
    /// Those with which an [`App`](crate::App) fails to start.
    pub fn consume_with<A: 'static>(
        &self,
        consume: impl Into<Consume>,
        handler: impl ThreadHandler<A, ()>,
    ) -> Result<Listening<Connector>, Error> {
        let route = middleware::thread_route(handler);
        Threads.block_on(Listening::start(self.lent(), consume.into(), route))
    }
}

impl Listening<Connector> {
    /// Cancels the listener, and waits for the messages in work, 10 s at most. Messages that were not begun go back into
    /// the queue. Returns what the listener has done.
    ///
    /// # Errors
    /// Why the listener had ended before, as [`App::run`](crate::App::run) returns it.
    pub fn cancel(self) -> Result<Report, Error> {
        self.canceller().stop();
        Threads.block_on(self.end())
    }

    /// Waits until the listener has ended: because a [`canceller`](Self::canceller) has cancelled it, because its pool was closed,
    /// or with an error.
    ///
    /// # Errors
    /// Those of [`App::run`](crate::App::run).
    pub fn ended(self) -> Result<Report, Error> {
        Threads.block_on(self.end())
    }
}
