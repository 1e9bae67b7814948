use std::time::Duration;

use amqp_async::TrySendError;
use amqp_async::core::{Error, Publish, PublishError, PublishSeq, Unconfirmed};

use crate::channel::Channel;
use crate::wait::{wait, wait_timeout};

impl Channel {
    /// Puts the channel into confirm mode (`confirm.select`;
    /// <https://www.rabbitmq.com/docs/confirms#publisher-confirms>), and waits for the reply. A second call
    /// returns another handle to the same channel.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn confirm_select(&self) -> Result<Publisher, Error> {
        wait(self.shared().confirm_select()).map(Publisher::new)
    }
}

/// A channel in confirm mode, which publishes with publisher confirms.
///
/// The handle is thread-safe, and its clones are handles to the same channel. Messages are sent in the order
/// in which they are put into the output buffer. Each is confirmed separately.
///
/// ```
/// # use amqp_blocking::{Channel, Publish};
/// # fn example(channel: &Channel) -> Result<(), Box<dyn std::error::Error>> {
/// let publisher = channel.confirm_select()?;
/// // One message: wait for its confirm.
/// publisher.publish(Publish::new("", "orders", b"one").persistent().mandatory())?;
/// // Many messages: send them, then wait for all confirms.
/// for body in ["two", "three"] {
///     drop(publisher.send(Publish::new("", "orders", body).persistent())?);
/// }
/// publisher.all_confirmed()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Publisher(pub(crate) amqp_async::Publisher);

impl Publisher {
    pub(crate) const fn new(publisher: amqp_async::Publisher) -> Self {
        Self(publisher)
    }

    /// Publishes a message, and waits until the broker has confirmed it. Returns `Ok` when the broker has
    /// taken responsibility for the message.
    ///
    /// A message that is not [`mandatory`](Publish::mandatory) is confirmed even if it reached no queue
    /// (<https://www.rabbitmq.com/docs/confirms#when-publishes-are-confirmed>). Each call costs a round trip:
    /// for many messages use [`send`](Self::send). There is no timeout: [`send_timeout`](Self::send_timeout)
    /// and [`Confirm::wait_timeout`] have one.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn publish<'a>(&self, publish: impl Into<Publish<'a>>) -> Result<(), PublishError> {
        let publish: Publish<'a> = publish.into();
        wait(self.0.publish(publish))
    }

    /// Publishes a message, and waits for buffer space only, without a timeout. Returns a [`Confirm`], which
    /// waits for the outcome, when the message is in the output buffer.
    ///
    /// # Errors
    /// [`PublishError`] if the message cannot be sent.
    pub fn send<'a>(&self, publish: impl Into<Publish<'a>>) -> Result<Confirm, PublishError> {
        let publish: Publish<'a> = publish.into();
        wait(self.0.send(publish)).map(Confirm::new)
    }

    /// As [`send`](Self::send), but waits for buffer space for at most `timeout`. Returns `None` if there was
    /// none. Then nothing was sent.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub fn send_timeout<'a>(
        &self,
        publish: impl Into<Publish<'a>>,
        timeout: Duration,
    ) -> Result<Option<Confirm>, PublishError> {
        let publish: Publish<'a> = publish.into();
        wait_timeout(self.0.send(publish), timeout).transpose().map(|sent| sent.map(Confirm::new))
    }

    /// Publishes a message without waiting, or returns an error if there is no buffer space. The returned
    /// [`Confirm`] waits for the outcome.
    ///
    /// ```
    /// # use amqp_blocking::{Publish, PublishError, Publisher, TrySendError};
    /// # fn example(publisher: &Publisher, reading: &[u8]) -> Result<(), PublishError> {
    /// match publisher.try_send(Publish::new("", "readings", reading)) {
    ///     Ok(confirm) => confirm.wait()?,
    ///     Err(TrySendError::Failed(error)) => return Err(error),
    ///     Err(no_space) => eprintln!("reading dropped: {no_space}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TrySendError`]: nothing was sent.
    pub fn try_send<'a>(&self, publish: impl Into<Publish<'a>>) -> Result<Confirm, TrySendError> {
        self.0.try_send(publish).map(Confirm::new)
    }

    /// Waits until the broker has confirmed or refused every publish that was sent on the channel before this
    /// call, by this publisher, its clones and other handles to the channel.
    ///
    /// Returns `Ok` if all of them were confirmed. Otherwise [`Unconfirmed`] counts those that were not,
    /// including those whose [`Confirm`] was dropped. Each failure is reported by one call only. A call also
    /// counts failures of publishes that were sent after it, if they are known when it returns.
    ///
    /// ```
    /// # use amqp_blocking::{Publish, Publisher};
    /// # fn example(publisher: &Publisher, lines: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    /// for line in lines {
    ///     drop(publisher.send(Publish::new("", "lines", *line).persistent())?);
    /// }
    /// publisher.all_confirmed()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unconfirmed`], also if the channel or the connection closes meanwhile and publishes are unanswered.
    pub fn all_confirmed(&self) -> Result<(), Unconfirmed> {
        wait(self.0.all_confirmed())
    }

    /// As [`all_confirmed`](Self::all_confirmed), but waits for at most `timeout`. Returns `None` if some are
    /// unanswered by then.
    ///
    /// # Errors
    /// Those of [`all_confirmed`](Self::all_confirmed).
    pub fn all_confirmed_timeout(&self, timeout: Duration) -> Result<Option<()>, Unconfirmed> {
        wait_timeout(self.0.all_confirmed(), timeout).transpose()
    }

    /// Returns the channel on which it publishes.
    pub fn channel(&self) -> Channel {
        Channel::new(self.0.channel())
    }

    /// Returns whether its channel is open, and neither it nor its connection is closing. `false` while the
    /// connection is being recovered.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }
}

/// The confirm of a publish, which is still to come.
///
/// If it is dropped, the message is still sent, and its outcome is not reported.
#[must_use = "a publish whose confirm is dropped may be lost unnoticed"]
#[derive(Debug)]
pub struct Confirm {
    confirm: amqp_async::Confirm,
    outcome: Option<Result<(), PublishError>>,
}

impl Confirm {
    const fn new(confirm: amqp_async::Confirm) -> Self {
        Self { confirm, outcome: None }
    }

    /// Waits for the outcome, without a timeout. While the broker blocks publishes, there is none.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn wait(self) -> Result<(), PublishError> {
        self.outcome.unwrap_or_else(|| wait(self.confirm))
    }

    /// As [`wait`](Self::wait), but waits for at most `timeout`. Returns `None` if there is no outcome by
    /// then. Once there is an outcome, every call returns it.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<()>, PublishError> {
        if self.outcome.is_none() {
            self.outcome = wait_timeout(&mut self.confirm, timeout);
        }
        self.outcome.clone().transpose()
    }

    /// Returns the number of the publish on its channel, starting at 1.
    pub const fn seq(&self) -> PublishSeq {
        self.confirm.seq()
    }
}
