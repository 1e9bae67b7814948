//! The outbox relay: publishes what an application has stored beside its own data, and marks it as sent after the confirm.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use crate::app::engine::{NOW, STOPPING};
use crate::app::shutdown::Shutdown;
use crate::error::Error;
use crate::failure::BoxError;
use crate::limits::{OUTBOX_POLL, RELAYED_MAX, RESTART_DELAY, RESTART_DELAY_MAX};
use crate::message::Message;
use crate::platform::{Asynchronous, Platform};
use crate::pool::Pool;
use crate::runner::Runner;
use crate::sync::{Level, catching, lock, race};
use crate::trace;

/// A store of messages that are to be sent, such as a table of a database. The application writes a message in the same
/// transaction as its own data, and a [`Relay`] publishes it.
///
/// Its functions may be plain ones in an `async fn`. On an asynchronous runtime they should not block for long.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::{Arc, Mutex};
///
/// use amqp_app::{BoxError, Message, Outbox};
///
/// /// The table of messages that are not sent.
/// #[derive(Clone, Default)]
/// struct Rows(Arc<Mutex<BTreeMap<u64, Message>>>);
///
/// impl Outbox for Rows {
///     type Id = u64;
///
///     async fn take(&mut self, most: usize) -> Result<Vec<(u64, Message)>, BoxError> {
///         let rows = self.0.lock().map_err(|error| error.to_string())?;
///         Ok(rows.iter().take(most).map(|(id, message)| (*id, message.clone())).collect())
///     }
///
///     async fn sent(&mut self, ids: &[u64]) -> Result<(), BoxError> {
///         let mut rows = self.0.lock().map_err(|error| error.to_string())?;
///         rows.retain(|id, _| !ids.contains(id));
///         Ok(())
///     }
/// }
/// ```
pub trait Outbox: Send + 'static {
    /// What a message is marked by. As text, it is the `message_id` of a message that has none, so that duplicates have the same
    /// id.
    type Id: fmt::Display + Send + Sync + 'static;

    /// Returns the oldest messages that are not marked as sent, this many at most, in the order in which they are sent.
    ///
    /// # Errors
    /// The relay logs an error or a panic, and asks again after a delay.
    fn take(
        &mut self,
        most: usize,
    ) -> impl Future<Output = Result<Vec<(Self::Id, Message)>, BoxError>> + Send;

    /// Marks messages as sent. Marking one twice must do no harm.
    ///
    /// # Errors
    /// The relay logs an error or a panic, and repeats the call after a delay.
    fn sent(&mut self, ids: &[Self::Id]) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Returns the errors of messages that [`take`](Self::take) has skipped, or that were sent and cannot be removed. Each error is
    /// returned once. The relay logs and counts them ([`RelayReport::left_out`]). By default there are none.
    fn left_out(&mut self) -> Vec<BoxError> {
        Vec::new()
    }
}

/// Publishes the messages of an [`Outbox`], and marks them as sent when they are confirmed.
///
/// Messages are published in their order, up to [100](RELAYED_MAX) at a time. If one is not confirmed, the relay waits, 200 ms
/// at first and 30 s at most, and publishes it and those behind it again. So delivery is at least once: duplicates have the same
/// id, and the last one of each is in order. A message that can never be confirmed, because its exchange is missing or it
/// reaches no queue, holds up those behind it until that is repaired; [optional](Message::optional) ones need no queue.
///
/// One relay serves an outbox. Two of them would send every message twice.
///
/// See [`Outbox`] for a store, and the guide's page [`outbox`](crate::guide::outbox).
pub struct Relay<O, P: Platform> {
    outbox: O,
    pool: Pool<P>,
    every: Duration,
}

/// What a [`Relay`] has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayReport {
    /// Messages that were confirmed and marked as sent.
    pub sent: u64,
    /// How many times the relay waited before it tried again: because a message was not confirmed, or the outbox failed.
    pub failed: u64,
    /// Messages that the outbox has left out, such as files that cannot be read, or moved after they were sent.
    pub left_out: u64,
    /// The last of these errors.
    pub last_error: Option<String>,
}

impl<O: Outbox, P: Platform> Relay<O, P> {
    /// Creates a relay that publishes on the connections of a pool. It looks for messages each second.
    pub fn new(outbox: O, pool: &Pool<P>) -> Self {
        Self { outbox, pool: pool.clone(), every: OUTBOX_POLL }
    }

    /// Sets how long it waits before it looks for messages again, when there were none.
    #[must_use]
    pub fn every(self, time: Duration) -> Self {
        Self { every: time, ..self }
    }

    async fn run_to_the_end(self, end: End, mut shutdown: Shutdown) -> Result<RelayReport, Error> {
        if let Some(error) = shutdown.error.take() {
            return Err(Error::Signals(error));
        }
        let Self { outbox, pool, every } = self;
        let (stop, within) = (shutdown.stop.clone(), shutdown.within_or(None));
        let runner = pool.runner().clone();
        let report = Mutex::default();
        let relaying = Relaying {
            pool,
            every,
            end,
            runner: runner.clone(),
            stop: stop.clone(),
            report: &report,
        };
        let mut relaying = Box::pin(relaying.run(outbox));
        let mut ending = Box::pin(async {
            match shutdown.when.take() {
                Some(mut when) => {
                    race(&mut stop.reached(STOPPING), &mut when).await;
                }
                None => stop.reached(STOPPING).await,
            }
            stop.raise(STOPPING);
            trace::stopping();
            // Within this time, what was published is marked as sent.
            let mut time = Box::pin(runner.sleep(within));
            race(&mut stop.reached(NOW), &mut time).await;
        });
        race(&mut relaying, &mut ending).await;
        drop(relaying);
        Ok(std::mem::take(&mut *lock(&report)))
    }
}

impl<O: Outbox, P: Asynchronous> Relay<O, P> {
    /// Publishes what is in the outbox, and what comes, until the shutdown. Then it waits for the confirms of what it has
    /// published, and marks that as sent, as long as the shutdown allows. Resolves to what it has done.
    ///
    /// # Errors
    /// [`Error::Signals`] if the system refuses to report signals.
    ///
    /// # Cancel safety
    /// If the future is dropped, messages may be published and not marked: the next relay publishes them again.
    pub async fn run(self, shutdown: Shutdown) -> Result<RelayReport, Error> {
        self.run_to_the_end(End::Shutdown, shutdown).await
    }

    /// Publishes what is in the outbox, until the outbox is empty, or until the shutdown. Resolves to what it has done: if
    /// `last_error` is set, the outbox may not be empty, or has left messages out.
    ///
    /// # Errors
    /// [`Error::Signals`] if the system refuses to report signals.
    ///
    /// # Cancel safety
    /// As that of [`run`](Self::run).
    pub async fn run_until_empty(self, shutdown: Shutdown) -> Result<RelayReport, Error> {
        self.run_to_the_end(End::Empty, shutdown).await
    }
}

#[cfg(feature = "threads")]
impl<O: Outbox> Relay<O, amqp_blocking::Connector> {
    /// Publishes what is in the outbox, and what comes, until the shutdown. Then it waits for the confirms of what it has
    /// published, and marks that as sent, as long as the shutdown allows. Returns what it has done.
    ///
    /// # Errors
    /// [`Error::Signals`] if the system refuses to report signals.
    pub fn run(self, shutdown: Shutdown) -> Result<RelayReport, Error> {
        amqp_blocking::runtime::Threads.block_on(self.run_to_the_end(End::Shutdown, shutdown))
    }

    /// Publishes what is in the outbox, until the outbox is empty, or until the shutdown. Returns what it has done: if
    /// `last_error` is set, the outbox may not be empty, or has left messages out.
    ///
    /// # Errors
    /// [`Error::Signals`] if the system refuses to report signals.
    pub fn run_until_empty(self, shutdown: Shutdown) -> Result<RelayReport, Error> {
        amqp_blocking::runtime::Threads.block_on(self.run_to_the_end(End::Empty, shutdown))
    }
}

/// When a relay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Shutdown,
    /// Also when there is nothing to publish.
    Empty,
}

struct Relaying<'a, P: Platform> {
    pool: Pool<P>,
    every: Duration,
    end: End,
    runner: Runner,
    stop: Level,
    report: &'a Mutex<RelayReport>,
}

impl<P: Platform> Relaying<'_, P> {
    /// Runs until the shutdown begins, and what was published is marked.
    async fn run<O: Outbox>(self, mut outbox: O) {
        let (mut delay, mut most) = (RESTART_DELAY, RELAYED_MAX);
        while self.stop.get() < STOPPING {
            let taken = catching(Box::pin(async { outbox.take(most).await })).await;
            self.take_left_out(&mut outbox).await;
            let (ids, messages) = match taken.and_then(|taken| taken) {
                Ok(taken) if taken.is_empty() && self.end == End::Empty => break,
                Ok(taken) if taken.is_empty() => {
                    delay = RESTART_DELAY;
                    self.wait(self.every).await;
                    continue;
                }
                Ok(taken) => taken.into_iter().map(identified).unzip::<_, _, Vec<_>, Vec<_>>(),
                Err(error) => {
                    self.fail("outbox: messages not taken", &error, &mut delay).await;
                    continue;
                }
            };
            let (count, error) = self.publish(&messages).await;
            if count > 0 {
                delay = RESTART_DELAY;
                self.mark(&mut outbox, &ids[..count]).await;
            }
            if let Some(error) = error {
                // One that closes the channel takes the confirms of those before it with it, unless they are sent alone.
                most = 1;
                self.fail("outbox: message not confirmed", &error, &mut delay).await;
            } else {
                most = (most * 2).min(RELAYED_MAX);
            }
        }
    }

    /// Publishes messages in their order. Returns how many of them, from the first one, are confirmed, and why the next one is
    /// not.
    async fn publish(&self, messages: &[Message]) -> (usize, Option<BoxError>) {
        let member = match self.pool.lend().await {
            Ok(member) => member,
            Err(error) => return (0, Some(error.into())),
        };
        let (mut confirms, mut failed) = (Vec::new(), None);
        for message in messages {
            match member.lent().send(message).await {
                Ok(confirm) => confirms.push(confirm),
                Err(error) => {
                    failed = Some(error.into());
                    break;
                }
            }
        }
        for (count, confirm) in confirms.iter_mut().enumerate() {
            if let Err(error) = confirm.await {
                return (count, Some(error.into()));
            }
        }
        (confirms.len(), failed)
    }

    /// Marks messages as sent, until that succeeds.
    async fn mark<O: Outbox>(&self, outbox: &mut O, ids: &[O::Id]) {
        let mut delay = RESTART_DELAY;
        loop {
            let marked = catching(Box::pin(async { outbox.sent(ids).await })).await;
            // Here too, because no `take` follows at a shutdown.
            self.take_left_out(outbox).await;
            match marked.and_then(|marked| marked) {
                Ok(()) => break,
                Err(error) => {
                    self.failed("outbox: messages not marked as sent", &error);
                    self.runner.sleep(delay).await;
                    delay = (delay * 2).min(RESTART_DELAY_MAX);
                }
            }
        }
        lock(self.report).sent += ids.len() as u64;
    }

    async fn fail(&self, what: &str, error: &BoxError, delay: &mut Duration) {
        self.failed(what, error);
        self.wait(*delay).await;
        *delay = (*delay * 2).min(RESTART_DELAY_MAX);
    }

    fn failed(&self, what: &str, error: &BoxError) {
        trace::not_relayed(what, error);
        let mut report = lock(self.report);
        report.failed += 1;
        report.last_error = Some(format!("{what}: {error}"));
    }

    /// Logs and counts what the outbox has left out.
    async fn take_left_out<O: Outbox>(&self, outbox: &mut O) {
        let left_out = catching(Box::pin(async { outbox.left_out() })).await;
        left_out.unwrap_or_else(|panic| vec![panic]).iter().for_each(|it| self.left_out(it));
    }

    fn left_out(&self, error: &BoxError) {
        trace::left_out(error);
        let mut report = lock(self.report);
        report.left_out += 1;
        report.last_error = Some(format!("outbox: message left out: {error}"));
    }

    /// Waits, until the shutdown begins at most.
    async fn wait(&self, time: Duration) {
        let mut time = Box::pin(self.runner.sleep(time));
        race(&mut self.stop.reached(STOPPING), &mut time).await;
    }
}

/// Sets the id of the outbox entry on a message without an id.
fn identified<I: fmt::Display>((id, message): (I, Message)) -> (I, Message) {
    let message = match message.properties().message_id {
        Some(_) => message,
        None => message.message_id(id.to_string()),
    };
    (id, message)
}

impl<O, P: Platform> fmt::Debug for Relay<O, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("pool", &self.pool).finish_non_exhaustive()
    }
}
