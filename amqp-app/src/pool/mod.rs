//! Pools: a fixed number of connections, which every task of the application shares.
//!
//! AMQP connections carry many channels, so a pool lends the same connection to many borrowers at once. There is nothing
//! to give back. [`slots`] decides which connection is lent next, and which are to be opened. This file opens and closes
//! them. Each connection is opened by a task of its own, which ends early if the pool is closed.

mod callbacks;
mod listening;
mod member;
mod named;
mod slots;
#[cfg(feature = "threads")]
mod threads;
#[cfg(feature = "transaction-pool")]
mod transaction;

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use amqp_async::ConnectError;
use event_listener::Event;

pub use listening::Listening;
pub use member::Member;
pub use named::Pools;
#[cfg(feature = "transaction-pool")]
pub use transaction::{Transaction, TransactionError};

use crate::connections::{Connections, Lease};
use crate::error::Error;
use crate::limits::{POOL_DRAIN, POOL_SOCKETS};
use crate::platform::{Asynchronous, Platform};
use crate::runner::{BoxFuture, Runner, first_of, join_all};
use crate::sync::Level;
use member::Lent;
use slots::Slots;

/// A fixed number of connections that all tasks and threads of an application share.
///
/// [`connection`](Self::connection) lends them in turn. A connection that is being recovered is lent only while no other
/// is open. One that has ended is replaced in the background.
///
/// Clones are handles to the same pool. The connections close when the last handle and the last [`Member`] are dropped;
/// [`close`](Self::close) closes them gracefully.
///
/// ```
/// use amqp_app::{Message, Pool};
/// use amqp_tokio::{Connector, QueueDeclare};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = amqp_testkit::ModelBroker::start()?;
/// # let uri = broker.uri();
/// let pool = Pool::new(Connector::new(&uri)?, 5).connect().await?;
/// let connection = pool.connection().await?;
/// connection.open_channel().await?.queue_declare(QueueDeclare::new("orders")).await?;
/// connection.publish(&Message::new("7").to_queue("orders")).await?;
///
/// let order = pool.connection().await?.get("orders").await?.expect("an order");
/// assert_eq!(order.body(), b"7");
/// order.ack()?;
/// pool.close().await;
/// # Ok(())
/// # }
/// ```
pub struct Pool<P: Platform>(Arc<Shared<P>>);

/// How many connections of a pool are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// The number of connections that the pool has.
    pub size: usize,
    /// Connections that are open.
    pub open: usize,
    /// Connections that were lost, and are being recovered.
    pub recovering: usize,
    /// Connections that are being opened.
    pub opening: usize,
    /// Connections that are being closed. New ones take their places later.
    pub closing: usize,
}

struct Shared<P: Platform> {
    platform: P,
    runner: Runner,
    size: usize,
    state: Mutex<State<P>>,
    /// Notified of everything for which a borrower, an attempt or a close waits.
    changed: Event,
    #[cfg(feature = "transaction-pool")]
    transactions: transaction::Transactions<P>,
}

struct State<P: Platform> {
    slots: Slots<Arc<Lent<P>>>,
    /// Why the last attempt failed.
    failure: Option<ConnectError>,
    /// The number of times that the pool was closed.
    closes: u64,
}

impl<P: Asynchronous> Pool<P> {
    /// Opens the connections of the pool, all at the same time. Resolves to the pool when they are open.
    ///
    /// # Errors
    /// [`Error::Connect`] if one of them could not be opened: then no connection stays open. [`Error::PoolClosed`] if the pool
    /// is closed meanwhile. [`Error::Invalid`] if the pool has no connections.
    ///
    /// # Cancel safety
    /// If the future is dropped, the connections are closed in the background.
    pub async fn connect(self) -> Result<Self, Error> {
        self.open().await?;
        Ok(self)
    }

    /// Lends the next connection in turn. Resolves immediately if one is open or being recovered. Otherwise it opens
    /// connections, and resolves when the first one is open. So a pool that was closed opens its connections again.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the pool has no connections. [`Error::Connect`] if no connection could be opened. An attempt begins
    /// 1 s after the last one that failed, at the earliest. [`Error::PoolClosed`] if the pool is closed meanwhile.
    ///
    /// # Cancel safety
    /// Cancel-safe: connections that are being opened go to the pool.
    pub async fn connection(&self) -> Result<Member<P>, Error> {
        self.lend().await
    }

    /// Waits until every callback of [`Member::publish_with`] has been called for what was published before.
    ///
    /// # Cancel safety
    /// Cancel-safe: dropping the future has no effect.
    pub async fn flush(&self) {
        self.flush_all().await;
    }

    /// Closes all connections gracefully: listeners and consumers are cancelled, publishes are confirmed. Resolves when the
    /// connections and their sockets are closed, at most 11 s and the configured close timeout later. A connection that is being
    /// opened is abandoned, and its socket may close a moment later. Then [`connection`](Self::connection) opens them again.
    ///
    /// # Cancel safety
    /// If the future is dropped before the first poll, nothing happens. If it is dropped later, the close continues in the
    /// background.
    pub async fn close(&self) {
        self.close_all().await;
    }
}

impl<P: Platform> Pool<P> {
    /// Creates a pool of this many connections of a connector. Nothing is opened yet: [`connect`](Self::connect) opens them
    /// all, and the first call of [`connection`](Self::connection) does so too.
    pub fn new(platform: P, size: usize) -> Self {
        Self(Arc::new(Shared {
            runner: Runner::new(platform.executor()),
            platform,
            size,
            state: Mutex::new(State { slots: Slots::new(size), failure: None, closes: 0 }),
            changed: Event::new(),
            #[cfg(feature = "transaction-pool")]
            transactions: transaction::Transactions::default(),
        }))
    }

    /// Returns how many connections are in which state.
    pub fn status(&self) -> PoolStatus {
        let count = self.0.lock().slots.count(|lent| lent.condition());
        let slots::Count { ready: open, recovering, opening, leaving: closing, .. } = count;
        PoolStatus { size: self.0.size, open, recovering, opening, closing }
    }

    async fn open(&self) -> Result<(), Error> {
        let shared = &self.0;
        shared.check()?;
        let watched = Watched(Level::default());
        let (pool, level) = (self.clone(), watched.0.clone());
        shared.runner.spawn(async move {
            level.reached(OPENED).await;
            if level.get() == DROPPED {
                pool.close_all().await;
            }
        });
        let opened = self.open_all().await;
        watched.0.raise(OPENED);
        if let Err(Error::Connect(_)) = &opened {
            self.close_all().await;
        }
        opened
    }

    /// Opens connections until all slots have one.
    async fn open_all(&self) -> Result<(), Error> {
        let shared = &self.0;
        let (failures, closes) = {
            let mut state = shared.lock();
            state.slots.skip_pauses();
            (state.slots.failures(), state.closes)
        };
        loop {
            shared.find(true);
            shared.wait_while(|slots| slots.is_opening() || slots.is_leaving()).await;
            let state = shared.lock();
            if state.closes != closes {
                return Err(Error::PoolClosed);
            }
            if state.slots.failures() != failures {
                // Without an error, the runtime has ended the attempt.
                return Err(state.failure.clone().map_or(Error::PoolClosed, Error::from));
            }
            if state.slots.count(|lent| lent.condition()).vacant == 0 {
                return Ok(());
            }
        }
    }

    pub(crate) async fn lend(&self) -> Result<Member<P>, Error> {
        let shared = &self.0;
        shared.check()?;
        let (failures, closes) = {
            let state = shared.lock();
            (state.slots.failures(), state.closes)
        };
        loop {
            let changed = shared.changed.listen();
            let failure = {
                let state = shared.lock();
                if state.closes != closes {
                    return Err(Error::PoolClosed);
                }
                let failed = state.slots.failures() != failures && !state.slots.is_opening();
                if failed { state.failure.clone() } else { None }
            };
            let (lent, again_at) = shared.find(failure.is_none());
            match (lent, failure) {
                (Some(lent), _) => return Ok(Member::new(lent)),
                (None, Some(failure)) => return Err(failure.into()),
                (None, None) => drop(shared.runner.until(again_at, changed).await),
            }
        }
    }

    async fn flush_all(&self) {
        let open = self.0.lock().slots.open();
        join_all(open.iter().map(|lent| lent.flush())).await;
    }

    async fn close_all(&self) {
        let shared = &self.0;
        let taken = {
            let mut state = shared.lock();
            state.closes += 1;
            state.slots.take_all()
        };
        shared.changed.notify(usize::MAX);
        for (index, lent) in taken {
            let closing = Closing { shared: Arc::clone(shared), index };
            shared.runner.spawn(closing.run(lent));
        }
        shared.wait_while(Slots::is_leaving).await;
    }
}

impl<P: Platform> Shared<P> {
    fn check(&self) -> Result<(), Error> {
        match self.size {
            0 => Err(Error::Invalid("a pool has at least one connection".into())),
            _ => Ok(()),
        }
    }

    /// Returns the connection to lend, or when to look again; opens what is to be opened.
    fn find(self: &Arc<Self>, may_open: bool) -> (Option<Arc<Lent<P>>>, Option<Instant>) {
        let mut state = self.lock();
        let pick = state.slots.pick(self.runner.now(), may_open, |lent| lent.condition());
        let closes = state.closes;
        drop(state);
        for index in pick.open {
            let attempt = Attempt { shared: Arc::clone(self), index, answered: false };
            self.runner.spawn(attempt.run(closes));
        }
        (pick.connection, pick.again_at)
    }

    async fn wait_while(&self, condition: impl Fn(&Slots<Arc<Lent<P>>>) -> bool) {
        loop {
            let changed = self.changed.listen();
            if !condition(&self.lock().slots) {
                return;
            }
            changed.await;
        }
    }

    /// Closes a connection, and waits for the end of its socket.
    async fn end(&self, lent: &Lent<P>) {
        lent.connection().close().await;
        let deadline = self.runner.now().checked_add(POOL_SOCKETS);
        self.runner.until(deadline, lent.connection().driver_dropped()).await;
    }

    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The levels of an opening: all connections are open, or it has failed; or its future was dropped before that.
const OPENED: u8 = 1;
const DROPPED: u8 = 2;

/// Tells the task that watches an opening when its future is dropped.
struct Watched(Level);

impl Drop for Watched {
    fn drop(&mut self) {
        if self.0.get() < OPENED {
            self.0.raise(DROPPED);
        }
    }
}

/// A connection that is being closed. When this is dropped, its slot is vacant.
struct Closing<P: Platform> {
    shared: Arc<Shared<P>>,
    index: usize,
}

impl<P: Platform> Closing<P> {
    async fn run(self, lent: Arc<Lent<P>>) {
        // What fails here ends with the close.
        let _ = lent.connection().drain(POOL_DRAIN).await;
        self.shared.end(&lent).await;
    }
}

impl<P: Platform> Drop for Closing<P> {
    fn drop(&mut self) {
        self.shared.lock().slots.ended(self.index, self.shared.runner.now());
        self.shared.changed.notify(usize::MAX);
    }
}

/// A connection that is being opened for a slot. If this is dropped without one, the slot is vacant.
struct Attempt<P: Platform> {
    shared: Arc<Shared<P>>,
    index: usize,
    answered: bool,
}

impl<P: Platform> Attempt<P> {
    async fn run(mut self, closes: u64) {
        let platform = self.shared.platform.clone();
        let mut connecting = pin!(platform.connect());
        let opened = loop {
            let changed = self.shared.changed.listen();
            if self.shared.lock().closes != closes {
                break None;
            }
            if let Some(opened) = first_of(connecting.as_mut(), changed).await {
                break Some(opened);
            }
        };
        if let Some(Ok(connection)) = opened {
            let lent = Arc::new(Lent::new(connection, self.shared.runner.clone()));
            let unwanted = self.shared.lock().slots.opened(self.index, lent);
            match unwanted {
                None => self.answered = true,
                Some(lent) => self.shared.end(&lent).await,
            }
        } else if let Some(Err(error)) = opened {
            self.shared.lock().failure = Some(error);
        }
    }
}

impl<P: Platform> Drop for Attempt<P> {
    fn drop(&mut self) {
        if !self.answered {
            let now = self.shared.runner.now();
            self.shared.lock().slots.ended(self.index, now);
        }
        self.shared.changed.notify(usize::MAX);
    }
}

impl<P: Platform> Pool<P> {
    /// The executor on which the pool runs.
    pub(crate) fn runner(&self) -> &Runner {
        &self.0.runner
    }
}

impl<P: Platform> Connections for Pool<P> {
    fn lease(&self) -> BoxFuture<'_, Result<Lease, Error>> {
        Box::pin(async {
            let member = self.lend().await?;
            Ok(Lease { connection: member.lent().connection().clone(), owned: false })
        })
    }
}

impl<P: Platform> Clone for Pool<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P: Platform> fmt::Debug for Pool<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.status()).finish()
    }
}
