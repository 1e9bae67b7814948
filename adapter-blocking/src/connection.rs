use std::sync::Arc;
use std::time::Duration;

use amqp_async::ConnectionEvent;
use amqp_async::core::types::{Stats, Tuning};
use amqp_async::core::{BasicConsume, CloseCause, Error, FieldTable};

use crate::channel::Channel;
use crate::consumer::Consumer;
use crate::publisher::Publisher;
use crate::wait::{wait, wait_timeout};

/// A connection to a broker, from `connection.open-ok` until it is closed, or lost and not recovered
/// (<https://www.rabbitmq.com/docs/connections>).
///
/// When the connection is lost and [recovered](crate::Connector::recovery), all handles stay valid. Calls and publishes
/// wait until it is open again.
///
/// The handle is thread-safe, and its clones are handles to the same connection. When the last handle to it
/// and to its channels is dropped, the connection is closed in the background after everything that is
/// buffered is sent. A process that ends before that loses the messages that were not written, so call
/// [`close`](Self::close).
#[derive(Clone, Debug)]
pub struct Connection(pub(crate) amqp_async::Connection);

impl Connection {
    pub(crate) const fn new(connection: amqp_async::Connection) -> Self {
        Self(connection)
    }

    /// Returns a future that resolves when the connection is closed, and does not keep it open.
    pub(crate) fn watch(&self) -> amqp_async::futures::Closed {
        self.0.closed()
    }

    /// Opens a channel (`channel.open`; AMQP 0-9-1, 1.5.2.1), and waits until the broker has opened it.
    ///
    /// # Errors
    /// [`Error::Connection`] if the connection is closed or closes meanwhile.
    /// [`Misuse::NoFreeChannels`](amqp_async::core::errors::Misuse::NoFreeChannels) if all channel numbers are in
    /// use. [`Error::Deadline`] if no reply arrives within the call timeout.
    pub fn open_channel(&self) -> Result<Channel, Error> {
        wait(self.0.open_channel()).map(Channel::new)
    }

    /// Opens a channel and puts it into confirm mode, in one round trip (`channel.open` and `confirm.select`).
    ///
    /// The channel is closed when the last handle to it is dropped: the publisher, its clones, and those of
    /// [`Publisher::channel`].
    ///
    /// ```
    /// # use amqp_blocking::{Connection, Publish};
    /// # fn example(connection: &Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let publisher = connection.publisher()?;
    /// publisher.publish(Publish::new("", "orders", b"one").persistent().mandatory())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`open_channel`](Self::open_channel) and of [`Channel::confirm_select`].
    pub fn publisher(&self) -> Result<Publisher, Error> {
        wait(self.0.publisher()).map(Publisher::new)
    }

    /// Opens a channel and starts a consumer on it, in one round trip (`channel.open`, `basic.qos` and
    /// `basic.consume`).
    ///
    /// The channel is closed when the last handle to it is dropped: the consumer, its deliveries, and those of
    /// [`Consumer::channel`].
    ///
    /// ```
    /// # use amqp_blocking::{BasicConsume, Connection};
    /// # fn example(connection: &Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// for delivery in connection.consume(BasicConsume::new("orders").prefetch(64))? {
    ///     delivery?.ack()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`open_channel`](Self::open_channel) and of [`Channel::basic_consume`].
    pub fn consume(&self, consume: impl Into<BasicConsume>) -> Result<Consumer, Error> {
        wait(self.0.consume(consume)).map(Consumer::new)
    }

    /// Opens a channel, passes it to `body`, and closes it when `body` is done. Returns the result of `body`.
    ///
    /// `body` gets the [`Channel`] by value, so it may move it. The channel is closed also if `body` keeps a
    /// clone.
    ///
    /// If `body` returns `Ok`, failures of the channel that are known by then are returned as errors: the
    /// reason if the broker has closed it, otherwise the oldest returned message of an unconfirmed publish.
    ///
    /// ```
    /// # use amqp_blocking::{Connection, Error, Publish};
    /// # fn example(connection: &Connection) -> Result<(), Error> {
    /// connection.with_channel(|channel| {
    ///     channel.basic_publish(Publish::new("events", "order.created", b"{}").mandatory())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of `body`; [`Error::Channel`], [`Error::Connection`], [`Error::Returned`].
    pub fn with_channel<T, E: From<Error>>(
        &self,
        body: impl FnOnce(Channel) -> Result<T, E>,
    ) -> Result<T, E> {
        wait(self.0.with_channel(async |channel| body(Channel::new(channel))))
    }

    /// Sends the broker a new secret for the login, such as a token before the old one expires
    /// (`connection.update-secret`; <https://www.rabbitmq.com/docs/oauth2>), and waits until the broker has
    /// accepted it.
    ///
    /// # Errors
    /// Those of a [call](Channel#calls).
    pub fn update_secret(
        &self,
        secret: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<(), Error> {
        wait(self.0.update_secret(secret, reason))
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
    pub fn drain(&self, timeout: Duration) -> Result<(), Error> {
        wait(self.0.drain(timeout))
    }

    /// Ends the connection immediately, with [`CloseCause::Aborted`]. Nothing more is sent, not even a close,
    /// and everything that waits for the connection returns an error.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Returns the events of the connection from now on: see [`ConnectionEvent`].
    pub fn events(&self) -> Events {
        Events(self.0.events())
    }

    /// Returns the broker's reason while it blocks publishes (`connection.blocked`;
    /// <https://www.rabbitmq.com/docs/connection-blocked>). `None` while it does not.
    pub fn blocked(&self) -> Option<Arc<str>> {
        self.0.blocked()
    }

    /// Returns the counters of the connection and its current state, for metrics.
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// Closes the connection (`connection.close`) after everything that is buffered is sent, and waits for
    /// that. A connection that is lost and waits for its next attempt to recover ends at once.
    ///
    /// Returns the cause: [`CloseCause::ByClient`] if the broker replied, [`CloseCause::ByClientForced`] if
    /// it did not within the close timeout (10 s by default). For a closed connection, returns immediately
    /// the cause that closed it.
    pub fn close(&self) -> CloseCause {
        wait(self.0.close())
    }

    /// Waits until the connection is closed, by either side. Returns the cause.
    pub fn closed(&self) -> CloseCause {
        wait(self.0.closed())
    }

    /// As [`closed`](Self::closed), but waits for at most `timeout`. Returns `None` if the connection is not
    /// closed by then.
    pub fn closed_timeout(&self, timeout: Duration) -> Option<CloseCause> {
        wait_timeout(self.0.closed(), timeout)
    }

    /// Returns whether the connection is open. `false` while it is being recovered, and once a close has begun.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Returns how many times the connection was lost and began to be recovered. It has changed when
    /// [`ConnectionEvent::Lost`](crate::ConnectionEvent::Lost) is emitted. A program that keeps it with a request knows
    /// whether the reply can still come.
    pub fn losses(&self) -> u32 {
        self.0.losses()
    }

    /// Returns the cause if the connection is closed.
    pub fn close_cause(&self) -> Option<CloseCause> {
        self.0.close_cause()
    }

    /// Returns the negotiated limits. While the connection is being recovered, they are those that the configuration
    /// allows.
    pub fn tuning(&self) -> Tuning {
        self.0.tuning()
    }

    /// Returns the broker's properties, such as `product` and `version`. While the connection is being recovered, there may
    /// be none.
    pub fn server_properties(&self) -> FieldTable {
        self.0.server_properties()
    }
}

impl Channel {
    /// Returns the connection of the channel.
    pub fn connection(&self) -> Connection {
        Connection(self.shared().connection())
    }
}

/// The events of a connection from the time of the call to [`Connection::events`]. As an iterator, it waits
/// for the next event, and ends after [`ConnectionEvent::Closed`].
///
/// It keeps the newest 256 events that were not taken. It does not keep the connection open.
#[derive(Debug)]
pub struct Events(pub(crate) amqp_async::Events);

impl Events {
    /// Returns the next event without waiting, `None` if there is none.
    pub fn try_recv(&mut self) -> Option<ConnectionEvent> {
        self.0.try_next()
    }

    /// Waits for the next event for at most `timeout`. Returns `None` if there was none.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<ConnectionEvent> {
        wait_timeout(self.0.next(), timeout).flatten()
    }
}

impl Iterator for Events {
    type Item = ConnectionEvent;

    fn next(&mut self) -> Option<ConnectionEvent> {
        wait(self.0.next())
    }
}
