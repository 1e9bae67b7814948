//! Transactions.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use amqp_core::{Error, TxCommit, TxRollback, TxSelect};
use futures_core::FusedFuture;

use crate::calling::Calling;
use crate::channel::{Channel, ChannelInner};

/// A channel in transaction mode (AMQP 0-9-1, 1.9; <https://www.rabbitmq.com/docs/semantics#tx>).
///
/// What is published and settled on the channel takes effect when it is committed. A transaction is
/// always open: a commit or a rollback ends it, and begins the next.
///
/// A transaction on more than one queue is not atomic, and if the connection is lost while a commit is
/// on its way, it may have taken effect.
#[derive(Clone, Debug)]
pub struct Tx {
    channel: Arc<ChannelInner>,
}

impl Tx {
    pub(crate) const fn new(channel: Arc<ChannelInner>) -> Self {
        Self { channel }
    }

    /// Commits: publishes and settlements since the last commit take effect. Messages that reached no
    /// queue come back before it resolves: see [`Channel::take_returned`].
    pub fn commit(&self) -> Calling<TxCommit> {
        Calling::new(Arc::clone(&self.channel), TxCommit::default())
    }

    /// Rolls back: publishes and settlements since the last commit have no effect. Deliveries are not
    /// requeued by that; they stay unacknowledged.
    pub fn rollback(&self) -> Calling<TxRollback> {
        Calling::new(Arc::clone(&self.channel), TxRollback::default())
    }

    /// The channel, to publish on and consume from.
    pub fn channel(&self) -> Channel {
        Channel::new(Arc::clone(&self.channel))
    }
}

/// A channel that is being put into transaction mode. For errors and cancel safety see [`Calling`].
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct SelectingTx {
    calling: Calling<TxSelect>,
}

impl SelectingTx {
    pub(crate) const fn new(calling: Calling<TxSelect>) -> Self {
        Self { calling }
    }
}

impl Future for SelectingTx {
    type Output = Result<Tx, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(result) = Pin::new(&mut self.calling).poll(cx) else {
            return Poll::Pending;
        };
        let channel = Arc::clone(self.calling.holder());
        Poll::Ready(result.map(|()| Tx::new(channel)))
    }
}

impl FusedFuture for SelectingTx {
    fn is_terminated(&self) -> bool {
        self.calling.is_terminated()
    }
}
