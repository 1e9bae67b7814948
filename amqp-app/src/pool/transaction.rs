//! `Transaction`: messages that are published together, or not at all, on a channel in transaction mode. Channels are kept and
//! lent by `deadpool`.
//!
//! A connection that is recovered has forgotten what was published in an open transaction, and its channel goes on. The client
//! refuses to commit the rest.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker};

use amqp_async::errors::InvalidArgument;
use amqp_async::{BrokerError, ChannelCause, ReturnedMessage, Tx};
use deadpool::managed::{self, Metrics, Object, PoolError, RecycleError, RecycleResult};

use super::{Pool, Shared};
use crate::app::{Uncommitted, commit};
use crate::error::Error;
use crate::limits::TRANSACTIONS_MAX;
use crate::message::Message;
use crate::platform::{Asynchronous, Platform};

/// The channels of a pool in transaction mode.
pub(super) struct Transactions<P: Platform> {
    most: AtomicUsize,
    channels: OnceLock<managed::Pool<Channels<P>>>,
}

impl<P: Platform> Default for Transactions<P> {
    fn default() -> Self {
        Self { most: AtomicUsize::new(TRANSACTIONS_MAX), channels: OnceLock::new() }
    }
}

impl<P: Asynchronous> Pool<P> {
    /// Begins a transaction on a connection of the pool: messages that are published together, or not at all. It contains no
    /// acknowledgements. Its channel is that of an earlier transaction, if one has ended. While as many transactions are open
    /// as the pool [may have](Self::max_transactions), it waits for the end of one, without a timeout.
    ///
    /// ```
    /// use amqp_app::{Message, Pool};
    /// use amqp_tokio::{Connector, QueueDeclare};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = amqp_testkit::ModelBroker::start()?;
    /// # let uri = broker.uri();
    /// let pool = Pool::new(Connector::new(&uri)?, 2).connect().await?;
    /// pool.connection().await?.open_channel().await?.queue_declare(QueueDeclare::new("orders")).await?;
    ///
    /// let transaction = pool.transaction().await?;
    /// for order in ["7", "8"] {
    ///     transaction.publish(&Message::new(order).to_queue("orders")).await?;
    /// }
    /// transaction.commit().await?;
    /// # pool.close().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`connection`](Self::connection), and [`Error::Client`] if a channel could not be opened.
    ///
    /// # Cancel safety
    /// Cancel-safe: a channel that is being opened is closed.
    pub async fn transaction(&self) -> Result<Transaction<P>, Error> {
        self.begin().await
    }
}

#[cfg(feature = "threads")]
impl Pool<amqp_blocking::Connector> {
    /// Begins a transaction on a connection of the pool: messages that are published together, or not at all. It contains no
    /// acknowledgements. Its channel is that of an earlier transaction, if one has ended. While as many transactions are open
    /// as the pool [may have](Self::max_transactions), it blocks until one ends, without a timeout.
    ///
    /// # Errors
    /// Those of [`connection`](Self::connection), and [`Error::Client`] if a channel could not be opened.
    pub fn transaction(&self) -> Result<Transaction<amqp_blocking::Connector>, Error> {
        amqp_blocking::runtime::Threads.block_on(self.begin())
    }
}

impl<P: Platform> Pool<P> {
    /// Sets the maximum number of open transactions: 16 by default, and at least one. Each has a channel. The number is that of all
    /// clones of the pool. A lower number ends no open transaction.
    #[must_use]
    pub fn max_transactions(self, most: usize) -> Self {
        let most = most.max(1);
        self.0.transactions.most.store(most, Ordering::Relaxed);
        if let Some(channels) = self.0.transactions.channels.get() {
            channels.resize(most);
        }
        self
    }

    async fn begin(&self) -> Result<Transaction<P>, Error> {
        let transactions = &self.0.transactions;
        let channels = transactions.channels.get_or_init(|| {
            let manager = Channels(Arc::downgrade(&self.0));
            let most = transactions.most.load(Ordering::Relaxed);
            match managed::Pool::builder(manager).max_size(most).build() {
                Ok(channels) => channels,
                // Only a pool with timeouts needs a runtime.
                Err(error) => unreachable!("{error}"),
            }
        });
        match channels.get().await {
            Ok(lane) => Ok(Transaction { lane }),
            Err(PoolError::Backend(error)) => Err(error),
            Err(_) => Err(Error::PoolClosed),
        }
    }
}

/// A channel in transaction mode.
struct Lane {
    tx: Tx,
    /// How often the pool had been closed.
    closes: u64,
    /// Whether something is published, and neither committed nor rolled back.
    is_dirty: AtomicBool,
}

impl Lane {
    /// Makes the channel as new, or fails.
    async fn clean(&self) -> Result<(), amqp_async::Error> {
        if self.is_dirty.load(Ordering::Acquire) {
            if let Err(error) = self.tx.rollback().await {
                drop(self.tx.channel().close().await);
                return Err(error);
            }
            self.is_dirty.store(false, Ordering::Release);
        }
        while self.tx.channel().take_returned().is_some() {}
        Ok(())
    }
}

/// Opens channels, and looks at those that come back.
struct Channels<P: Platform>(Weak<Shared<P>>);

impl<P: Platform> managed::Manager for Channels<P> {
    type Type = Lane;
    type Error = Error;

    async fn create(&self) -> Result<Lane, Error> {
        let shared = self.0.upgrade().ok_or(Error::PoolClosed)?;
        let pool = Pool(shared);
        let closes = pool.0.lock().closes;
        let member = pool.lend().await?;
        let tx = member.lent().connection().open_channel().await?.tx_select().await?;
        Ok(Lane { tx, closes, is_dirty: AtomicBool::new(false) })
    }

    async fn recycle(&self, lane: &mut Lane, _: &Metrics) -> RecycleResult<Error> {
        let closes = self.0.upgrade().map(|shared| shared.lock().closes);
        if closes != Some(lane.closes) || lane.tx.channel().close_cause().is_some() {
            return Err(RecycleError::message("the channel has ended"));
        }
        lane.clean().await.map_err(|error| RecycleError::Backend(error.into()))
    }
}

/// Messages that are published together: see [`Pool::transaction`].
///
/// When it is dropped without a [`commit`](Self::commit), it is rolled back: nothing of it is published. Tasks and threads may
/// share it to publish.
///
/// If its connection is lost, or the pool is closed, it ends, and nothing of it is published. If that happens during the
/// commit, the outcome is unknown.
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Transaction<P: Platform> {
    lane: Object<Channels<P>>,
}

/// Why a message could not be published in a [`Transaction`], or the transaction was not committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// This message cannot be sent. The transaction goes on without it.
    #[error("the message cannot be sent: {0}")]
    Invalid(InvalidArgument),
    /// The connection was lost, or the pool was closed, before the commit. Nothing is published.
    #[error("the transaction ended before the commit: {0}")]
    Lost(amqp_async::Error),
    /// The broker has refused a part of the messages, because a queue is full. The others may be published, and it is not known
    /// which (<https://www.rabbitmq.com/docs/semantics#tx>).
    #[error("the broker committed a part of the transaction: {0}")]
    Partial(BrokerError),
    /// The broker has refused the transaction, such as for an exchange that does not exist. Nothing is published.
    #[error("the broker refused the transaction: {0}")]
    Refused(BrokerError),
    /// These messages reached no queue. The others are published.
    #[error("{} messages of the transaction reached no queue", .0.len())]
    Returned(Vec<ReturnedMessage>),
    /// The connection was lost during the commit, or the broker did not answer. Everything is published, or nothing; of
    /// messages to a quorum queue, perhaps a part.
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(amqp_async::Error),
}

impl<P: Asynchronous> Transaction<P> {
    /// Publishes a message in this transaction. Resolves when it is in the output buffer. While the broker is low on resources,
    /// and does not read, it may wait for a long time.
    ///
    /// # Errors
    /// [`TransactionError::Invalid`], [`TransactionError::Refused`] or [`TransactionError::Lost`].
    ///
    /// # Cancel safety
    /// If the future is dropped before it resolves, the message is not sent.
    pub async fn publish(&self, message: &Message) -> Result<(), TransactionError> {
        self.put(message).await
    }

    /// Commits: the messages are published. Resolves when the broker has confirmed that.
    ///
    /// # Errors
    /// [`TransactionError`], except [`TransactionError::Invalid`].
    ///
    /// # Cancel safety
    /// If the future is dropped before the first poll, nothing is published. If it is dropped later, the outcome is not
    /// reported.
    pub async fn commit(self) -> Result<(), TransactionError> {
        self.end().await
    }

    /// Rolls back: nothing is published. Resolves when the channel may be used again. To drop the transaction has the same
    /// effect.
    ///
    /// # Cancel safety
    /// Cancel-safe: the transaction is rolled back also if the future is dropped.
    pub async fn rollback(self) {
        self.undo().await;
    }
}

#[cfg(feature = "threads")]
impl Transaction<amqp_blocking::Connector> {
    /// Publishes a message in this transaction. Returns when it is in the output buffer. While the broker is low on resources,
    /// and does not read, it may block for a long time.
    ///
    /// # Errors
    /// [`TransactionError::Invalid`], [`TransactionError::Refused`] or [`TransactionError::Lost`].
    pub fn publish(&self, message: &Message) -> Result<(), TransactionError> {
        amqp_blocking::runtime::Threads.block_on(self.put(message))
    }

    /// Commits: the messages are published. Returns when the broker has confirmed that.
    ///
    /// # Errors
    /// [`TransactionError`], except [`TransactionError::Invalid`].
    pub fn commit(self) -> Result<(), TransactionError> {
        amqp_blocking::runtime::Threads.block_on(self.end())
    }

    /// Rolls back: nothing is published. Returns when the channel may be used again. To drop the transaction has the same
    /// effect.
    pub fn rollback(self) {
        amqp_blocking::runtime::Threads.block_on(self.undo());
    }
}

impl<P: Platform> Transaction<P> {
    async fn put(&self, message: &Message) -> Result<(), TransactionError> {
        let lane = &self.lane;
        lane.is_dirty.store(true, Ordering::Release);
        let channel = lane.tx.channel();
        match channel.basic_publish(message).await {
            Ok(()) => Ok(()),
            Err(amqp_async::Error::InvalidArgument(invalid)) => {
                Err(TransactionError::Invalid(invalid))
            }
            Err(error) => Err(not_begun(error)),
        }
    }

    async fn end(self) -> Result<(), TransactionError> {
        let lane = &self.lane;
        let channel = lane.tx.channel();
        if let Some(cause) = channel.close_cause() {
            return Err(not_begun(cause.into()));
        }
        match commit(&lane.tx).await {
            Ok(()) => {
                lane.is_dirty.store(false, Ordering::Release);
                let mut returned = Vec::new();
                while let Some(message) = channel.take_returned() {
                    returned.push(message);
                }
                if returned.is_empty() { Ok(()) } else { Err(TransactionError::Returned(returned)) }
            }
            Err(Uncommitted::Lost(error)) => Err(TransactionError::Lost(error)),
            Err(Uncommitted::Unknown(error)) => Err(TransactionError::Unknown(error)),
            Err(Uncommitted::Refused(error)) => Err(TransactionError::Refused(error)),
            Err(Uncommitted::Partial(error)) => Err(TransactionError::Partial(error)),
        }
    }

    async fn undo(self) {
        // A channel that cannot roll back is closed.
        drop(self.lane.clean().await);
    }
}

/// The error of a channel that has ended before the commit.
fn not_begun(error: amqp_async::Error) -> TransactionError {
    match error {
        amqp_async::Error::Channel(ChannelCause::ByBroker(error)) => {
            TransactionError::Refused(error)
        }
        error => TransactionError::Lost(error),
    }
}

impl<P: Platform> Drop for Transaction<P> {
    fn drop(&mut self) {
        if self.lane.is_dirty.load(Ordering::Acquire) {
            // The first poll sends it, so that the broker keeps nothing until the channel is lent again.
            let rolling_back = pin!(self.lane.tx.rollback());
            let _: Poll<_> = rolling_back.poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl<P: Platform> fmt::Debug for Transaction<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}
