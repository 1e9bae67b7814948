use amqp_async::core::Error;

use crate::channel::Channel;
use crate::wait::wait;

impl Channel {
    /// Puts the channel into transaction mode (AMQP 0-9-1, 1.9.2.1). Called again, it returns another
    /// handle to the same channel.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    pub fn tx_select(&self) -> Result<Tx, Error> {
        wait(self.shared().tx_select()).map(Tx)
    }
}

/// A channel in transaction mode (AMQP 0-9-1, 1.9; <https://www.rabbitmq.com/docs/semantics#tx>).
///
/// What is published and acknowledged on the channel takes effect when it is committed. A transaction is
/// always open: a commit or a rollback ends it, and begins the next.
///
/// A transaction on more than one queue is not atomic, and if the connection is lost while a commit is
/// on its way, it may have taken effect.
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

    /// The channel, to publish on and consume from.
    pub fn channel(&self) -> Channel {
        Channel::new(self.0.channel())
    }
}
