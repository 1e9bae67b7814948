//! `Tx`: transaction mode.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use amqp_core::Error;
use amqp_core::requests::{TxCommit, TxRollback, TxSelect};
use futures_core::FusedFuture;

use crate::call::Calling;
use crate::channel::Channel;
use crate::holders::ChannelHolder;
use crate::plain_calls::plain_calls;

impl Channel {
    /// Puts the channel into transaction mode (`tx.select`; AMQP 0-9-1, 1.9.2.1). Resolves to the [`Tx`]. A
    /// second call resolves to another handle to the same channel.
    ///
    /// # Errors
    /// Those of a [call](Self#calls).
    ///
    /// # Cancel safety
    /// If the future is dropped before the first poll, nothing is sent. If it is dropped later, the channel
    /// is in transaction mode.
    pub fn tx_select(&self) -> SelectingTx {
        SelectingTx { calling: self.call(TxSelect::default()) }
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
pub struct Tx {
    channel: Arc<ChannelHolder>,
}

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
            ///
            /// # Cancel safety
            /// If the future is dropped before the first poll, nothing is sent. If it is dropped later, the
            /// request was sent, and its reply is consumed.
            pub fn $name(&self) -> Calling<$request> {
                Calling::new(Arc::clone(&self.channel), $value)
            }
        )*
    };
}

impl Tx {
    plain_calls!(Tx => calls);

    /// Returns the channel, to publish and consume in the transaction.
    pub fn channel(&self) -> Channel {
        Channel::new(Arc::clone(&self.channel))
    }
}

/// A channel that is being put into transaction mode. Resolves to the [`Tx`]. For errors and cancel safety
/// see [`Calling`].
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct SelectingTx {
    calling: Calling<TxSelect>,
}

impl Future for SelectingTx {
    type Output = Result<Tx, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let selected = Pin::new(&mut self.calling).poll(cx);
        selected.map_ok(|()| Tx { channel: Arc::clone(self.calling.holder()) })
    }
}

impl FusedFuture for SelectingTx {
    fn is_terminated(&self) -> bool {
        self.calling.is_terminated()
    }
}
