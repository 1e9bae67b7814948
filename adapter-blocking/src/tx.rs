use amqp_async::core::Error;

use crate::channel::Channel;
use crate::wait::wait;

/// A channel in transaction mode (AMQP 0-9-1, 1.9; <https://www.rabbitmq.com/docs/semantics#tx>).
///
/// What is published and settled on the channel takes effect when it is committed. A transaction is
/// always open: a commit or a rollback ends it, and begins the next.
///
/// A transaction on more than one queue is not atomic, and if the connection is lost while a commit is
/// on its way, it may have taken effect.
#[derive(Clone, Debug)]
pub struct Tx(amqp_async::Tx);

impl Tx {
    pub(crate) const fn new(tx: amqp_async::Tx) -> Self {
        Self(tx)
    }

    /// Commits: publishes and settlements since the last commit take effect. Messages that reached no
    /// queue come back before it returns: see [`Channel::take_returned`].
    ///
    /// # Errors
    /// Those of a [call](Channel#calls).
    pub fn commit(&self) -> Result<(), Error> {
        wait(self.0.commit())
    }

    /// Rolls back: publishes and settlements since the last commit have no effect. Deliveries are not
    /// requeued by that; they stay unacknowledged.
    ///
    /// # Errors
    /// Those of a [call](Channel#calls).
    pub fn rollback(&self) -> Result<(), Error> {
        wait(self.0.rollback())
    }

    /// The channel, to publish on and consume from.
    pub fn channel(&self) -> Channel {
        Channel::new(self.0.channel())
    }
}
