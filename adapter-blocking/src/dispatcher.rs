//! `Dispatcher`: callbacks on the thread that calls it.
//!
//! A dispatcher has consumers with their callbacks, and closures that other threads submit. It runs one of
//! them at a time, on the thread that is in [`start_consuming`](Dispatcher::start_consuming) or
//! [`process_events`](Dispatcher::process_events). The bytes of the connection are moved by another thread,
//! so a callback may block, even on its own connection.

use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::limits::DISPATCHED_MAX;
use amqp_async::ConnectionEvent;
use amqp_async::core::{BasicConsume, CloseCause, Error};

use crate::channel::Channel;
use crate::connection::{Connection, Events};
use crate::consumer::Consumer;
use crate::delivery::Delivery;
use crate::inbox::{Inbox, SubmitError};
use crate::wait::{poll_once, wait_until};

/// The error of a callback.
pub type BoxError = Box<dyn StdError + Send + Sync>;

type OnDelivery<'a> = Box<dyn FnMut(&mut Control, Delivery) -> Result<(), BoxError> + 'a>;
type OnEvent<'a> = Box<dyn FnMut(ConnectionEvent) + 'a>;
type OnCancel<'a> = Box<dyn FnMut(ConsumerId) + 'a>;
type Job = Box<dyn FnOnce(&mut Dispatcher<'_>) + Send>;

/// Consumers with callbacks, which run on the thread that calls the dispatcher. It stays on the thread that
/// created it.
///
/// A callback may block on its own connection: replies are read although deliveries wait, as long as less
/// than 64 MiB of these is unread. So keep the prefetch times the size of a message below that. A dispatcher
/// is a handle: it keeps the connection open.
///
/// ```no_run
/// use amqp_blocking::{BasicConsume, Dispatcher};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let connection = amqp_blocking::connect("amqp://localhost")?;
/// let channel = connection.open_channel()?;
/// let mut seen = 0;
/// let mut dispatcher = Dispatcher::new(&connection);
/// dispatcher.basic_consume(&channel, BasicConsume::new("orders"), |control, delivery| {
///     seen += 1;
///     delivery.ack()?;
///     if seen == 10 {
///         control.stop_consuming();
///     }
///     Ok(())
/// })?;
/// dispatcher.start_consuming()?;
/// # Ok(())
/// # }
/// ```
pub struct Dispatcher<'a> {
    connection: Connection,
    consumers: Vec<Entry<'a>>,
    /// The index of the consumer that is next.
    next: usize,
    /// Whether a closure ran last.
    after_job: bool,
    on_event: Option<(Events, OnEvent<'a>)>,
    on_cancel: Option<OnCancel<'a>>,
    closed: amqp_async::futures::Closed,
    /// The cause with which `closed` resolved.
    cause: Option<CloseCause>,
    inbox: Arc<Inbox<Job>>,
    ids: u64,
}

struct Entry<'a> {
    id: ConsumerId,
    consumer: Consumer,
    callback: OnDelivery<'a>,
}

/// The key of a consumer within its dispatcher. A consumer tag is unique on its channel only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(u64);

/// What a callback can request from its dispatcher. It is carried out when the callback returns.
#[derive(Debug)]
pub struct Control {
    consumer: ConsumerId,
    stop: bool,
    cancelled: Vec<ConsumerId>,
}

/// Why dispatching stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// A consumer ended with an error, because its channel or connection closed.
    #[error(transparent)]
    Amqp(#[from] Error),
    /// A callback failed. Its consumer still exists, unless it was being cancelled.
    #[error("a callback failed: {0}")]
    Callback(BoxError),
}

/// One thing to run.
enum Work {
    Job(Job),
    Event(ConnectionEvent),
    Delivery(usize, Delivery),
    Ended(usize, Option<Error>),
    Closed(CloseCause),
}

impl Control {
    const fn new(consumer: ConsumerId) -> Self {
        Self { consumer, stop: false, cancelled: Vec::new() }
    }

    /// Returns the consumer of the delivery.
    pub const fn consumer(&self) -> ConsumerId {
        self.consumer
    }

    /// Cancels all consumers of the dispatcher, as [`Dispatcher::stop_consuming`] does.
    pub const fn stop_consuming(&mut self) {
        self.stop = true;
    }

    /// Cancels a consumer, as [`Dispatcher::cancel`] does.
    pub fn cancel(&mut self, consumer: ConsumerId) {
        self.cancelled.push(consumer);
    }
}

impl<'a> Dispatcher<'a> {
    /// Creates a dispatcher for consumers of a connection.
    pub fn new(connection: &Connection) -> Self {
        Self {
            connection: connection.clone(),
            consumers: Vec::new(),
            next: 0,
            after_job: false,
            on_event: None,
            on_cancel: None,
            closed: connection.watch(),
            cause: None,
            inbox: Arc::default(),
            ids: 0,
        }
    }

    /// Starts a consumer whose deliveries are passed to `callback`. Returns its key in this dispatcher.
    ///
    /// If the callback returns an error, [`start_consuming`](Self::start_consuming) returns it. The consumer
    /// continues.
    ///
    /// # Errors
    /// Those of [`Channel::basic_consume`].
    pub fn basic_consume(
        &mut self,
        channel: &Channel,
        consume: impl Into<BasicConsume>,
        callback: impl FnMut(&mut Control, Delivery) -> Result<(), BoxError> + 'a,
    ) -> Result<ConsumerId, Error> {
        let consumer = channel.basic_consume(consume)?;
        self.ids += 1;
        let id = ConsumerId(self.ids);
        self.consumers.push(Entry { id, consumer, callback: Box::new(callback) });
        Ok(id)
    }

    /// Sets the callback for consumers that the broker cancels from now on, because their queue is deleted or
    /// its node is down. Without it, they end without a report.
    pub fn on_cancel(&mut self, callback: impl FnMut(ConsumerId) + 'a) {
        self.on_cancel = Some(Box::new(callback));
    }

    /// Sets the callback for events of the connection from now on, such as [`ConnectionEvent::Blocked`].
    pub fn on_event(&mut self, callback: impl FnMut(ConnectionEvent) + 'a) {
        self.on_event = Some((self.connection.events(), Box::new(callback)));
    }

    /// Returns a handle that submits closures from any thread, to run on the thread of this dispatcher.
    pub fn submitter(&self) -> Submitter {
        Submitter { inbox: Arc::clone(&self.inbox), connection: self.connection.clone() }
    }

    /// Runs callbacks until there is no consumer: all were [stopped](Self::stop_consuming), or cancelled by
    /// the application or the broker.
    ///
    /// # Errors
    /// [`DispatchError::Amqp`] if a consumer ends with its channel or connection, or if the connection is
    /// closed and nothing is left to run. [`DispatchError::Callback`] if a callback fails. The next call
    /// continues with the remaining work.
    pub fn start_consuming(&mut self) -> Result<(), DispatchError> {
        while !self.consumers.is_empty() {
            self.process_events(None)?;
        }
        Ok(())
    }

    /// Runs the callbacks and closures that are ready, at most 1,000. If none is ready, waits for one, at
    /// most for `limit`; `None` is no limit. Returns the number of callbacks and closures that ran.
    ///
    /// Without a consumer, it waits for closures and events.
    ///
    /// # Errors
    /// Those of [`start_consuming`](Self::start_consuming).
    pub fn process_events(&mut self, limit: Option<Duration>) -> Result<usize, DispatchError> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut dispatched = 0;
        let mut next = wait_until(poll_fn(|cx| self.poll_work(cx)), deadline);
        while let Some(work) = next {
            dispatched += usize::from(self.run(work)?);
            if dispatched == DISPATCHED_MAX {
                break;
            }
            next = match poll_once(poll_fn(|cx| self.poll_work(cx))) {
                // A closed connection is an error only if the call would wait for something that cannot come.
                Poll::Ready(Work::Closed(_)) | Poll::Pending => None,
                Poll::Ready(work) => Some(work),
            };
        }
        Ok(dispatched)
    }

    /// Cancels all consumers. Deliveries that were not dispatched are requeued. Those without acknowledgement
    /// are dispatched first.
    ///
    /// # Errors
    /// Those of the callbacks and of [`Consumer::cancel`].
    pub fn stop_consuming(&mut self) -> Result<(), DispatchError> {
        let mut result = Ok(());
        while !self.consumers.is_empty() {
            let ended = self.end(0);
            result = result.and(ended);
        }
        result
    }

    /// Cancels a consumer, if it still exists, as [`stop_consuming`](Self::stop_consuming) does.
    ///
    /// # Errors
    /// Those of its callback and of [`Consumer::cancel`].
    pub fn cancel(&mut self, consumer: ConsumerId) -> Result<(), DispatchError> {
        match self.consumers.iter().position(|entry| entry.id == consumer) {
            Some(at) => self.end(at),
            None => Ok(()),
        }
    }

    /// Removes the consumer, whether or not the broker confirms the cancel.
    fn end(&mut self, at: usize) -> Result<(), DispatchError> {
        let Entry { id, mut consumer, mut callback } = self.consumers.remove(at);
        consumer.cancel_and_requeue()?;
        let (mut control, mut result) = (Control::new(id), Ok(()));
        // The remaining deliveries can neither be requeued nor delivered again.
        for delivery in consumer {
            let called = callback(&mut control, delivery?).map_err(DispatchError::Callback);
            result = result.and(called);
        }
        let obeyed = self.obey(control);
        result.and(obeyed)
    }

    /// Carries out what a callback has requested. Returns the first error.
    fn obey(&mut self, control: Control) -> Result<(), DispatchError> {
        let mut result = Ok(());
        for consumer in control.cancelled {
            let cancelled = self.cancel(consumer);
            result = result.and(cancelled);
        }
        let stopped = if control.stop { self.stop_consuming() } else { Ok(()) };
        result.and(stopped)
    }

    /// Returns what to run next. Consumers take turns, one delivery at a time, and so do closures.
    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Work> {
        let after_job = std::mem::take(&mut self.after_job);
        if !after_job && let Some(job) = self.inbox.take(cx.waker()) {
            self.after_job = true;
            return Poll::Ready(Work::Job(job));
        }
        if let Some((events, _)) = &mut self.on_event
            && let Poll::Ready(Some(event)) = std::pin::pin!(events.0.next()).poll(cx)
        {
            return Poll::Ready(Work::Event(event));
        }
        for step in 0..self.consumers.len() {
            let at = (self.next + step) % self.consumers.len();
            let Some(Entry { consumer, .. }) = self.consumers.get_mut(at) else { continue };
            match consumer.poll_next(cx) {
                Poll::Pending => {}
                Poll::Ready(Some(Ok(delivery))) => {
                    self.next = at + 1;
                    return Poll::Ready(Work::Delivery(at, delivery));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Work::Ended(at, Some(error))),
                Poll::Ready(None) => return Poll::Ready(Work::Ended(at, None)),
            }
        }
        if after_job && let Some(job) = self.inbox.take(cx.waker()) {
            self.after_job = true;
            return Poll::Ready(Work::Job(job));
        }
        // If there are consumers, their ends have more details.
        if self.consumers.is_empty()
            && let Poll::Ready(cause) = self.poll_closed(cx)
        {
            return Poll::Ready(Work::Closed(cause));
        }
        Poll::Pending
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<CloseCause> {
        if let Poll::Ready(cause) = Pin::new(&mut self.closed).poll(cx) {
            self.cause = Some(cause);
        }
        self.cause.clone().map_or(Poll::Pending, Poll::Ready)
    }

    /// Runs it. Returns whether it ran code of the application.
    fn run(&mut self, work: Work) -> Result<bool, DispatchError> {
        match work {
            Work::Job(job) => job(self),
            Work::Event(event) => {
                if let Some((_, callback)) = &mut self.on_event {
                    callback(event);
                }
            }
            Work::Delivery(at, delivery) => {
                let Some(entry) = self.consumers.get_mut(at) else { return Ok(false) };
                let mut control = Control::new(entry.id);
                let result = (entry.callback)(&mut control, delivery);
                let obeyed = self.obey(control);
                result.map_err(DispatchError::Callback).and(obeyed)?;
            }
            Work::Ended(at, error) => {
                let Entry { id, .. } = self.consumers.remove(at);
                match (error, &mut self.on_cancel) {
                    (None, _) => return Ok(false),
                    (Some(Error::ConsumerCancelled { .. }), Some(callback)) => callback(id),
                    (Some(Error::ConsumerCancelled { .. }), None) => return Ok(false),
                    (Some(error), _) => return Err(error.into()),
                }
            }
            Work::Closed(cause) => return Err(Error::Connection(cause).into()),
        }
        Ok(true)
    }
}

impl Drop for Dispatcher<'_> {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

impl fmt::Debug for Dispatcher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher")
            .field("consumers", &self.consumers.len())
            .finish_non_exhaustive()
    }
}

/// Submits closures to a [`Dispatcher`], from any thread. It keeps the connection open.
#[derive(Clone, Debug)]
pub struct Submitter {
    inbox: Arc<Inbox<Job>>,
    connection: Connection,
}

impl Submitter {
    /// Submits a closure, which runs on the thread of the dispatcher after those submitted before, between
    /// two callbacks. Wakes a thread that waits in [`Dispatcher::start_consuming`] or
    /// [`Dispatcher::process_events`].
    ///
    /// It never blocks. The inbox holds at most [`SUBMITTED_MAX`](crate::limits::SUBMITTED_MAX) closures.
    ///
    /// # Errors
    /// [`SubmitError`]: the closure was dropped and will not run. After [`SubmitError::Full`], submit it
    /// again when the dispatcher has run others. An accepted closure does not run either if the dispatcher is
    /// dropped before.
    pub fn submit(
        &self,
        job: impl FnOnce(&mut Dispatcher<'_>) + Send + 'static,
    ) -> Result<(), SubmitError> {
        if let Some(cause) = self.connection.close_cause() {
            return Err(SubmitError::Closed(cause));
        }
        self.inbox.push(Box::new(job))
    }
}
