use std::sync::Arc;
use std::time::Duration;

use amqp_async::ConnectionEvent;
use amqp_async::core::{BasicConsume, CloseCause, Error, FieldTable, Stats, Tuning};

use crate::channel::Channel;
use crate::consumer::Consumer;
use crate::publisher::Publisher;
use crate::wait::{wait, wait_timeout};

/// A connection to a broker, from `connection.open-ok` until it is closed or lost.
///
/// Clones are handles to the same connection, for use from any thread. When the last handle to it and to
/// its channels is dropped, the connection is closed in the background, behind everything that was
/// queued; a process that ends before that loses what was not written, so [`close`](Self::close) it.
#[derive(Clone, Debug)]
pub struct Connection(amqp_async::Connection);

impl Connection {
    pub(crate) const fn new(connection: amqp_async::Connection) -> Self {
        Self(connection)
    }

    /// A future that does not keep the connection.
    pub(crate) fn watch(&self) -> amqp_async::Closed {
        self.0.closed()
    }

    /// Opens a channel (`channel.open`).
    ///
    /// # Errors
    /// [`Error::Connection`] if the connection is closed or closes meanwhile,
    /// [`Misuse::NoFreeChannels`](amqp_async::core::Misuse::NoFreeChannels), [`Error::Deadline`].
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

    /// Opens a channel for `body`, and closes it when that is done.
    ///
    /// What is known of the channel by then is raised: why the broker closed it, or else the oldest
    /// message that came back unconfirmed. An error of `body` itself comes first.
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

    /// Gives the broker a new secret for the login, such as a token that is about to expire
    /// (`connection.update-secret`; <https://www.rabbitmq.com/docs/oauth2>).
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

    /// Cancels every consumer, and waits until nothing is under way: no call, no unconfirmed publish,
    /// no delivery that is to be read or acknowledged, no byte to be written. Deliveries that had come
    /// before still reach their consumers; everything may still be used meanwhile. A
    /// [`close`](Self::close) after that loses nothing. Not waited for is what the handle of a consumer
    /// without acknowledgement has taken in, 1 MiB at most, which can be read from it after the close too.
    ///
    /// # Errors
    /// [`Error::DrainTimeout`] after `timeout`; the connection stays open.
    pub fn drain(&self, timeout: Duration) -> Result<(), Error> {
        wait(self.0.drain(timeout))
    }

    /// Ends the connection at once, with [`CloseCause::Aborted`]: nothing more is sent, not even a close, and
    /// everything that waits for it ends.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// What happens to the connection from here on; see [`ConnectionEvent`].
    pub fn events(&self) -> Events {
        Events(self.0.events())
    }

    /// Why the broker reads no publishes, while it does not
    /// (<https://www.rabbitmq.com/docs/connection-blocked>).
    pub fn blocked(&self) -> Option<Arc<str>> {
        self.0.blocked()
    }

    /// What the connection has done, and what it holds.
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// Closes the connection: what is queued goes out, then `connection.close`.
    ///
    /// Returns the cause: [`CloseCause::ByClient`] if the broker confirmed,
    /// [`CloseCause::ByClientForced`] if it did not within the close timeout (10 s unless
    /// configured). Closing a closed connection returns at once, with the cause that closed it.
    pub fn close(&self) -> CloseCause {
        wait(self.0.close())
    }

    /// Waits until the connection is closed, from either side.
    pub fn closed(&self) -> CloseCause {
        wait(self.0.closed())
    }

    /// Waits until the connection is closed, from either side, for `timeout` at most; `None` if it
    /// is not.
    pub fn closed_timeout(&self, timeout: Duration) -> Option<CloseCause> {
        wait_timeout(self.0.closed(), timeout)
    }

    /// Whether the connection is open and no close has begun.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Why the connection is closed, if it is.
    pub fn close_cause(&self) -> Option<CloseCause> {
        self.0.close_cause()
    }

    /// The limits that were negotiated.
    pub fn tuning(&self) -> Tuning {
        self.0.tuning()
    }

    /// What the broker says of itself, such as `product` and `version`.
    pub fn server_properties(&self) -> FieldTable {
        self.0.server_properties()
    }
}

impl Channel {
    /// The connection of the channel.
    pub fn connection(&self) -> Connection {
        Connection(self.shared().connection())
    }
}

/// The events of a connection, from the moment of asking: an iterator that waits for the next, and ends
/// after [`ConnectionEvent::Closed`].
///
/// The newest 256 that were not taken are kept. It does not keep the connection open.
#[derive(Debug)]
pub struct Events(pub(crate) amqp_async::Events);

impl Events {
    /// The next event, if one is there.
    pub fn try_recv(&mut self) -> Option<ConnectionEvent> {
        self.0.try_next()
    }

    /// The next event, if one comes within `timeout`.
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
