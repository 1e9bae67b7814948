use amqp_async::core::Error;

use crate::channel::Channel;
use crate::wait::wait;

impl Channel {
    /// Puts the channel into transaction mode (`tx.select`; AMQP 0-9-1, 1.9.2.1), and waits for the reply. A
    /// second call returns another handle to the same channel.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn tx_select(&self) -> Result<Tx, Error> {
        wait(self.shared().tx_select()).map(Tx)
    }
}

/// A channel in transaction mode (AMQP 0-9-1, 1.9; <https://www.rabbitmq.com/docs/semantics#tx>).
///
/// Publishes and acknowledgements on the channel take effect when they are committed. A transaction is always
/// open: a commit or a rollback ends it, and begins the next.
///
/// A transaction on more than one queue is not atomic. If the connection is lost during a commit, the
/// transaction may or may not have taken effect. Of messages to a quorum queue, a part may have been published.
#[derive(Clone, Debug)]
pub struct Tx(amqp_async::Tx);

macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        $name:ident() -> $reply:ty = $request:ty, $value:expr;
    )*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// Those of a [call](Channel#calls).
            pub fn $name(&self) -> Result<$reply, Error> {
                wait(self.0.$name())
            }
        )*
    };
}

impl Tx {
    amqp_async::plain_calls!(Tx => calls);

    /// Returns the channel, to publish and consume in the transaction.
    pub fn channel(&self) -> Channel {
        Channel::new(self.0.channel())
    }
}
