use std::time::{Duration, Instant};

use amqp_client::PublishError;
use amqp_client::core::{Publish, PublishSeq};

use crate::wait::{wait, wait_until};

/// A channel in confirm mode.
///
/// Clones are handles to the same channel, for use from any thread. Publishes go out in the order in which
/// they are queued; each is settled on its own.
#[derive(Clone, Debug)]
pub struct Publisher(amqp_client::Publisher);

impl Publisher {
    pub(crate) const fn new(publisher: amqp_client::Publisher) -> Self {
        Self(publisher)
    }

    /// Publishes, and waits until the broker has taken responsibility for the message.
    ///
    /// A message that is not [`mandatory`](Publish::mandatory) is confirmed even if it reached no
    /// queue (<https://www.rabbitmq.com/docs/confirms#when-publishes-are-confirmed>). One message after
    /// the other takes a journey to the broker and back for each: [`send`](Self::send) is for many.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn publish(&self, publish: Publish<'_>) -> Result<(), PublishError> {
        wait(self.0.publish(publish))
    }

    /// Publishes, and waits for room alone: the returned [`Confirm`] waits for the broker's answer.
    ///
    /// # Errors
    /// [`PublishError`] where the message cannot be sent.
    pub fn send(&self, publish: Publish<'_>) -> Result<Confirm, PublishError> {
        wait(self.0.send(publish)).map(Confirm)
    }
}

/// The broker's answer to a publish.
///
/// Dropped, the message is on its way all the same, and what becomes of it is not told.
#[must_use = "a publish whose confirm is dropped may be lost unnoticed"]
#[derive(Debug)]
pub struct Confirm(amqp_client::Confirm);

impl Confirm {
    /// Waits for it.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn wait(self) -> Result<(), PublishError> {
        wait(self.0)
    }

    /// Waits for it, for so long at most; `None` if it has not come. It may be asked again until it has.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<(), PublishError>> {
        wait_until(&mut self.0, Instant::now().checked_add(timeout))
    }

    /// The number of the publish on its channel, from 1.
    pub const fn seq(&self) -> PublishSeq {
        self.0.seq()
    }
}
