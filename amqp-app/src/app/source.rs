//! A source that is being consumed: its consumer, which is started again when it ends, and its workers.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amqp_async::futures::ChannelClosed;
use amqp_async::{BasicConsume, Consumer, Error as ClientError};

use super::engine::{Engine, NOW, STOPPING};
use super::health::{SourceHealth, Watch};
use super::intake::Intake;
use super::{setup, worker};
use crate::consume::Consume;
use crate::context::{Held, Slot};
use crate::error::Error;
use crate::late::Late;
use crate::limits::{RESTART_DELAY, RESTART_DELAY_MAX};
use crate::measure::Measures;
use crate::middleware::Route;
use crate::remember::Remembered;
use crate::sync::{Either, lock, race};
use crate::trace;

struct InWork {
    slot: Arc<Slot>,
    /// When the timeout of the handler's attempt expires.
    deadline: Option<Instant>,
}

pub(crate) struct Source<S> {
    pub(crate) consume: Consume,
    pub(crate) queue: Arc<str>,
    pub(crate) route: Route<S>,
    pub(crate) state: S,
    pub(crate) engine: Arc<Engine>,
    pub(crate) intake: Intake,
    pub(crate) measures: Measures,
    /// The outcomes whose acknowledgement was lost.
    pub(crate) remembered: Mutex<Remembered>,
    /// See [`SourceHealth::unstored`].
    pub(crate) unstored: AtomicU32,
    /// For each worker, its handlers that block, and run on after their timeout.
    pub(crate) late: Vec<Late>,
    /// What each worker has in work.
    in_work: Mutex<Vec<Option<InWork>>>,
    is_consuming: AtomicBool,
    /// Resolves when the channel of the consumer has closed.
    closed: Mutex<Option<ChannelClosed>>,
    /// Why the consumer does not run.
    last_error: Mutex<Option<String>>,
}

/// A task of a running application, which ends when this is dropped.
struct Task(Arc<Engine>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.task_ended();
    }
}

impl<S: Clone + Send + Sync + 'static> Source<S> {
    pub(crate) fn new(consume: Consume, route: Route<S>, state: S, engine: Arc<Engine>) -> Self {
        let queue = consume.name().into();
        let measures = Measures::of(&queue);
        Self {
            queue,
            remembered: Mutex::default(),
            unstored: AtomicU32::new(0),
            late: (0..consume.concurrency).map(|_| Late::default()).collect(),
            in_work: Mutex::new((0..consume.concurrency).map(|_| None).collect()),
            consume,
            route,
            state,
            engine,
            intake: Intake::new(measures.waiting()),
            measures,
            is_consuming: AtomicBool::new(false),
            closed: Mutex::default(),
            last_error: Mutex::default(),
        }
    }

    /// Starts the consumer for the first time, and the tasks that keep it and work for it.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<(), Error> {
        let consumer = self.consumer().await?;
        self.open(consumer);
        let (engine, workers) = (&self.engine, usize::from(self.consume.concurrency));
        engine.add_tasks(workers + 1);
        for number in 0..workers {
            let source = Arc::clone(self);
            let task = Task(Arc::clone(engine));
            engine.runner.spawn(async move {
                worker::work(&source, number).await;
                drop(task);
            });
        }
        let (source, task) = (Arc::clone(self), Task(Arc::clone(engine)));
        engine.runner.spawn(async move {
            source.keep().await;
            drop(task);
        });
        Ok(())
    }

    fn is_consuming(&self) -> bool {
        self.is_consuming.load(Ordering::Acquire)
    }

    pub(crate) fn begin(&self, worker: usize, slot: &Arc<Slot>) {
        lock(&self.in_work)[worker] = Some(InWork { slot: Arc::clone(slot), deadline: None });
    }

    /// Sets when the handler's attempt is overdue; `None` when it has returned.
    pub(crate) fn expect_by(&self, worker: usize, deadline: Option<Instant>) {
        if self.consume.timeout.is_some()
            && let Some(in_work) = &mut lock(&self.in_work)[worker]
        {
            in_work.deadline = deadline;
        }
    }

    pub(crate) fn end(&self, worker: usize) {
        lock(&self.in_work)[worker] = None;
    }

    /// Gives back what is in work, because the time for it has expired.
    pub(crate) fn abandon(&self) {
        let in_work: Vec<_> = lock(&self.in_work).iter_mut().filter_map(Option::take).collect();
        in_work.iter().for_each(|it| self.abandon_one(&it.slot));
    }

    /// Gives back a message that is still in work. What its handler returns later is ignored.
    pub(crate) fn abandon_one(&self, slot: &Slot) {
        if let Some(delivery) = slot.take(Held::GivenBack) {
            self.engine.counters.abandoned.add(&self.measures, 1);
            if delivery.nack(true).is_ok() {
                self.engine.counters.given_back.add(&self.measures, 1);
            }
        }
    }

    /// Waits, at most until a shutdown begins.
    pub(crate) async fn pause(&self, time: Duration) {
        let mut sleep = std::pin::pin!(self.engine.runner.sleep(time));
        race(&mut sleep, &mut self.engine.stop.reached(STOPPING)).await;
    }

    /// Keeps a consumer until the shutdown. One that the broker has cancelled, or whose channel it has closed, is started
    /// again after a delay.
    async fn keep(&self) {
        let runner = &self.engine.runner;
        let mut delay = RESTART_DELAY;
        while !self.engine.is_stopping() {
            let begun = runner.now();
            let mut ended = std::pin::pin!(self.ended());
            let end = race(&mut ended, &mut self.engine.stop.reached(STOPPING)).await;
            self.is_consuming.store(false, Ordering::Release);
            match end {
                // The connection is not recovered. The application ends with it.
                Either::First(Some(error)) if error.is_connection() => break,
                Either::First(Some(error)) => self.note(&error),
                // The application itself has cancelled it, or drains the connection.
                Either::First(None) => {
                    self.engine.stop.raise(STOPPING);
                    break;
                }
                Either::Second(()) => break,
            }
            if runner.now().saturating_duration_since(begun) > delay {
                delay = RESTART_DELAY;
            }
            while !self.is_consuming() && !self.engine.is_stopping() {
                self.pause(delay).await;
                delay = (delay * 2).min(RESTART_DELAY_MAX);
                match self.consumer().await {
                    Ok(consumer) => self.open(consumer),
                    Err(error) => self.note(&error),
                }
            }
        }
        self.close().await;
    }

    /// Waits until the consumer has ended. Resolves to the error, `None` if it was cancelled.
    ///
    /// The end of its channel is seen even while all workers are busy, and none takes from the consumer.
    async fn ended(&self) -> Option<ClientError> {
        let closed = lock(&self.closed).take();
        let Some(mut closed) = closed else { return self.intake.ended().await };
        let mut ended = std::pin::pin!(self.intake.ended());
        match race(&mut ended, &mut closed).await {
            Either::First(error) => error,
            Either::Second(cause) => {
                drop(self.intake.take());
                Some(cause.into())
            }
        }
    }

    /// Notes why the consumer has ended, or could not be started again.
    fn note(&self, error: &dyn Display) {
        trace::consumer_ended(&self.queue, error);
        *lock(&self.last_error) = Some(error.to_string());
    }

    fn open(&self, consumer: Consumer) {
        *lock(&self.last_error) = None;
        trace::consumer_started(&self.queue);
        *lock(&self.closed) = Some(consumer.channel().closed());
        self.intake.open(consumer);
        self.is_consuming.store(true, Ordering::Release);
    }

    async fn consumer(&self) -> Result<Consumer, Error> {
        let connection = &self.engine.consuming;
        let channel = connection.open_channel().await?;
        setup::declare_queue(&channel, &self.consume).await?;
        let mut consume = BasicConsume::new(self.consume.name())
            .prefetch(self.consume.prefetched())
            .exclusive_if(self.consume.exclusive)
            .requeue_on_drop();
        consume.arguments = self.consume.arguments.clone();
        let consumer = channel.basic_consume(consume).await;
        consumer.map_err(|error: ClientError| {
            let what = format!("a consumer of queue {:?}", self.consume.name());
            Error::Setup { what, error }
        })
    }

    /// Cancels the consumer, and gives back what no worker has begun.
    async fn close(&self) {
        let consumer = self.intake.take();
        self.intake.close();
        let Some(mut consumer) = consumer else { return };
        let mut cancelling = std::pin::pin!(consumer.cancel_and_requeue());
        let cancelled = race(&mut cancelling, &mut self.engine.stop.reached(NOW)).await;
        if let Either::First(Ok(requeued)) = cancelled {
            self.engine.counters.given_back.add(&self.measures, requeued as u64);
        }
    }
}

impl<S: Send + Sync> Watch for Source<S> {
    fn health(&self) -> SourceHealth {
        let (in_work, now) = (lock(&self.in_work), self.engine.runner.now());
        let at_work = || in_work.iter().flatten();
        let is_overdue = |it: &InWork| it.deadline.is_some_and(|deadline| deadline < now);
        let overdue = in_work
            .iter()
            .zip(&self.late)
            .filter(|(in_work, late)| late.count() > 0 || in_work.as_ref().is_some_and(is_overdue));
        SourceHealth {
            queue: self.queue.to_string(),
            consuming: self.is_consuming.load(Ordering::Acquire),
            in_work: at_work().count(),
            overdue: overdue.count(),
            unstored: self.unstored.load(Ordering::Relaxed),
            last_error: lock(&self.last_error).clone(),
        }
    }
}
