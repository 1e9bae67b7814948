use std::time::Duration;

use amqp_async::TrySendError;
use amqp_async::core::{Error, Publish, PublishError, PublishSeq, Unconfirmed};

use crate::channel::Channel;
use crate::wait::{wait, wait_timeout};

impl Channel {
    /// Puts the channel into confirm mode
    /// (<https://www.rabbitmq.com/docs/confirms#publisher-confirms>). Called again, it returns another
    /// handle to the same channel.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn confirm_select(&self) -> Result<Publisher, Error> {
        wait(self.shared().confirm_select()).map(Publisher::new)
    }
}

/// A channel in confirm mode.
///
/// Clones are handles to the same channel, for use from any thread. Publishes go out in the order in which
/// they are queued; each is confirmed on its own.
#[derive(Clone, Debug)]
pub struct Publisher(amqp_async::Publisher);

impl Publisher {
    pub(crate) const fn new(publisher: amqp_async::Publisher) -> Self {
        Self(publisher)
    }

    /// Publishes, and waits until the broker has taken responsibility for the message.
    ///
    /// A message that is not [`mandatory`](Publish::mandatory) is confirmed even if it reached no
    /// queue (<https://www.rabbitmq.com/docs/confirms#when-publishes-are-confirmed>). One message after
    /// the other takes a journey to the broker and back for each: [`send`](Self::send) is for many.
    /// There is no timeout: [`send_timeout`](Self::send_timeout) and [`Confirm::wait_timeout`] have one.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn publish<'a>(&self, publish: impl Into<Publish<'a>>) -> Result<(), PublishError> {
        let publish: Publish<'a> = publish.into();
        wait(self.0.publish(publish))
    }

    /// Publishes, and waits for buffer space alone, for as long as it takes: the returned [`Confirm`] waits for
    /// the broker's answer.
    ///
    /// # Errors
    /// [`PublishError`] where the message cannot be sent.
    pub fn send<'a>(&self, publish: impl Into<Publish<'a>>) -> Result<Confirm, PublishError> {
        let publish: Publish<'a> = publish.into();
        wait(self.0.send(publish)).map(Confirm::new)
    }

    /// As [`send`](Self::send), but waits for buffer space for `timeout` at most: `None` if there was none,
    /// and nothing was sent.
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

    /// Publishes without waiting for buffer space, or returns why there is none. The returned [`Confirm`] waits for the
    /// broker's answer.
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

    /// Waits until the broker has answered every publish that was sent through the channel before this call, by this
    /// publisher, its clones and handles to the same channel.
    ///
    /// It returns `Ok` if all of them were confirmed. Otherwise [`Unconfirmed`] counts those that were not, whether or
    /// not their [`Confirm`] was dropped. Each failure is counted by one call: the next call counts later ones. It also
    /// counts failures of publishes that were sent after the call, if they are known by then.
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

    /// As [`all_confirmed`](Self::all_confirmed), but waits for `timeout` at most: `None` if some are unanswered then.
    ///
    /// # Errors
    /// Those of [`all_confirmed`](Self::all_confirmed).
    pub fn all_confirmed_timeout(&self, timeout: Duration) -> Result<Option<()>, Unconfirmed> {
        wait_timeout(self.0.all_confirmed(), timeout).transpose()
    }

    /// The channel that it publishes on.
    pub fn channel(&self) -> Channel {
        Channel::new(self.0.channel())
    }

    /// Whether its channel is open, and neither it nor its connection is closing.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }
}

/// The broker's answer to a publish.
///
/// When it is dropped, the message is on its way all the same, and its outcome is not reported.
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

    /// Waits for it, for as long as it takes: while the broker is blocked it does not come.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn wait(self) -> Result<(), PublishError> {
        self.outcome.unwrap_or_else(|| wait(self.confirm))
    }

    /// As [`wait`](Self::wait), but waits for `timeout` at most: `None` if the answer has not come by then. Called
    /// again, it returns the same.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<()>, PublishError> {
        if self.outcome.is_none() {
            self.outcome = wait_timeout(&mut self.confirm, timeout);
        }
        self.outcome.clone().transpose()
    }

    /// The number of the publish on its channel, from 1.
    pub const fn seq(&self) -> PublishSeq {
        self.confirm.seq()
    }
}
