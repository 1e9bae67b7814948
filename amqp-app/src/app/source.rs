//! A source that is being consumed: its consumer, which is started again when it ends, and its workers.

use std::fmt::Display;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amqp_async::futures::ChannelClosed;
use amqp_async::{BasicConsume, Channel, Delivery, Error as ClientError, Tx};

use super::engine::{Engine, NOW, STOPPING};
use super::group::{Arrived, Group};
use super::health::{SourceHealth, Watch};
use super::intake::Intake;
use super::lane::Lane;
use super::settle::{self, Job};
use super::{setup, worker};
use crate::consume::Consume;
use crate::context::{Held, Slot};
use crate::error::Error;
use crate::late::Late;
use crate::limits::{GIVE_BACK_PAUSE, RESTART_DELAY, RESTART_DELAY_MAX};
use crate::measure::Waiting;
use crate::middleware::Route;
use crate::sync::{Either, lock, race};
use crate::trace;

/// What a worker does.
#[derive(Default)]
struct Place {
    /// The messages in work, and the numbers of their queues.
    messages: Vec<(usize, Arc<Slot>)>,
    /// The transaction mode of its channel.
    tx: Option<Tx>,
    /// The number of its queue, or of that of the last message.
    queue: usize,
    /// When the timeout of the handler's attempt expires.
    deadline: Option<Instant>,
}

/// The consumers of a channel, and their workers. A transactional source has one of these for each worker.
pub(crate) struct Source<S> {
    /// The number of its channel.
    number: usize,
    pub(crate) consume: Consume,
    /// Its queues.
    pub(crate) lanes: Arc<[Lane]>,
    /// Their names, for the log.
    names: String,
    pub(crate) route: Route<S>,
    pub(crate) state: S,
    pub(crate) engine: Arc<Engine>,
    pub(crate) intake: Intake<Group>,
    /// For each worker, its handlers that block, and run on after their timeout.
    pub(crate) late: Vec<Late>,
    /// What each worker has in work.
    places: Mutex<Vec<Place>>,
    /// What stays unacknowledged until its channel is replaced, and the numbers of its queues.
    held: Mutex<Vec<(usize, Delivery)>>,
    /// The number of groups so far.
    groups: AtomicU64,
    /// How many times the connection had been lost when the transaction of the channel was begun.
    losses: AtomicU32,
    is_consuming: AtomicBool,
    /// Resolves when the channel of the consumer has closed.
    closed: Mutex<Option<ChannelClosed>>,
    /// Why the consumer does not run.
    last_error: Mutex<Option<String>>,
}

/// A task of a running application, which ends when this is dropped.
pub(crate) struct Task(pub(crate) Arc<Engine>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.task_ended();
    }
}

impl<S: Clone + Send + Sync + 'static> Source<S> {
    /// One for each channel.
    pub(crate) fn all(
        consume: &Consume,
        route: &Route<S>,
        state: &S,
        engine: &Arc<Engine>,
    ) -> Vec<Self> {
        let lanes = Lane::all(consume);
        let names: Arc<str> = consume.names().collect::<Vec<_>>().join(", ").into();
        if consume.transactional {
            trace::transactional(&names);
        }
        let source = |number| Self {
            number: usize::from(number),
            lanes: Arc::clone(&lanes),
            names: names.to_string(),
            late: (0..consume.workers()).map(|_| Late::default()).collect(),
            places: Mutex::new((0..consume.workers()).map(|_| Place::default()).collect()),
            held: Mutex::default(),
            consume: consume.clone(),
            route: route.clone(),
            state: state.clone(),
            engine: Arc::clone(engine),
            intake: Intake::new(Waiting::of(&names)),
            groups: AtomicU64::new(0),
            losses: AtomicU32::new(0),
            is_consuming: AtomicBool::new(false),
            closed: Mutex::default(),
            last_error: Mutex::default(),
        };
        (0..consume.channels()).map(source).collect()
    }

    /// Starts the consumer for the first time, and the tasks that keep it and work for it.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<(), Error> {
        self.start_consumers().await?;
        let (engine, workers) = (&self.engine, usize::from(self.consume.workers()));
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

    /// Begins messages that came from the same channel.
    pub(crate) fn begin(&self, jobs: &[Job<'_, S>]) {
        let Some(first) = jobs.first() else { return };
        let place = &mut lock(&self.places)[first.worker];
        (place.queue, place.tx, place.deadline) = (first.queue, first.tx.cloned(), None);
        place.messages.extend(jobs.iter().map(|job| (job.queue, Arc::clone(job.slot))));
    }

    /// Ends what is left of a transaction that was open when the connection was lost, such as what a handler has answered after it
    /// had returned. Otherwise the client refuses the next commit, and its messages, which came after the loss, stay
    /// unacknowledged.
    pub(crate) async fn begin_transaction(&self, jobs: &[Job<'_, S>]) {
        let Some(tx) = jobs.first().and_then(|job| job.tx) else { return };
        let losses = self.engine.sender.connection().losses();
        // An error: the channel has closed, and what came on it comes again.
        if self.losses.load(Ordering::Relaxed) != losses && tx.rollback().await.is_ok() {
            self.losses.store(losses, Ordering::Relaxed);
        }
    }

    /// Sets when the handler's attempt is overdue; `None` when it has returned.
    pub(crate) fn expect_by(&self, worker: usize, deadline: Option<Instant>) {
        if self.consume.timeout.is_some() {
            lock(&self.places)[worker].deadline = deadline;
        }
    }

    pub(crate) fn end(&self, worker: usize) {
        let place = &mut lock(&self.places)[worker];
        place.messages.clear();
        (place.tx, place.deadline) = (None, None);
    }

    /// Gives back what is in work, because the time for it has expired.
    pub(crate) fn abandon(&self) {
        let take = |it: &mut Place| (std::mem::take(&mut it.messages), it.tx.take());
        let in_work: Vec<_> = lock(&self.places).iter_mut().map(take).collect();
        for (messages, tx) in in_work {
            messages.iter().for_each(|(queue, slot)| self.abandon_one(*queue, slot, tx.as_ref()));
        }
    }

    /// Gives back a message that is still in work. What its handler returns later is ignored.
    pub(crate) fn abandon_one(&self, queue: usize, slot: &Slot, tx: Option<&Tx>) {
        if let Some(delivery) = slot.take(Held::GivenBack) {
            let (counters, measures) = (&self.engine.counters, &self.lanes[queue].measures);
            counters.abandoned.add(measures, 1);
            if delivery.nack(true).is_ok() {
                counters.given_back.add(measures, 1);
            }
            // A handler that does not end keeps its channel, and nothing commits what it gives back.
            if let Some(tx) = tx.cloned() {
                self.engine.runner.spawn(async move { drop(tx.channel().close().await) });
            }
        }
    }

    /// Keeps a message unacknowledged until its channel is replaced, if that leaves places of the prefetch for the workers.
    /// Otherwise it goes back into its queue after a pause.
    pub(crate) async fn hold(&self, job: Job<'_, S>) {
        let queue = job.queue;
        {
            let mut held = lock(&self.held);
            let in_work = usize::from(self.consume.workers()) * self.consume.batch_size();
            let places = usize::from(self.prefetch_of(queue)).saturating_sub(in_work);
            if held.iter().filter(|(of, _)| *of == queue).count() < places {
                held.extend(job.slot.take(Held::Taken).map(|delivery| (queue, delivery)));
                return;
            }
        }
        self.pause(GIVE_BACK_PAUSE).await;
        let given_back = &self.engine.counters.given_back;
        settle::answer(job, given_back, |delivery| delivery.reject(true)).await;
    }

    /// Gives back what is held.
    fn release(&self) {
        for (queue, delivery) in std::mem::take(&mut *lock(&self.held)) {
            // On a channel in transaction mode, its close gives it back.
            if delivery.nack(true).is_ok() {
                self.engine.counters.given_back.add(&self.lanes[queue].measures, 1);
            }
        }
    }

    /// The prefetch of the consumer of this queue.
    fn prefetch_of(&self, queue: usize) -> u16 {
        self.consume.prefetch_of(self.number * self.lanes.len() + queue)
    }

    /// Waits, at most until a shutdown begins.
    pub(crate) async fn pause(&self, time: Duration) {
        let mut sleep = pin!(self.engine.runner.sleep(time));
        race(&mut sleep, &mut self.engine.stop.reached(STOPPING)).await;
    }

    /// Keeps the consumers until the shutdown. Those that the broker has cancelled, or whose channel it has closed, are started
    /// again after a delay.
    async fn keep(&self) {
        let runner = &self.engine.runner;
        let mut delay = RESTART_DELAY;
        while !self.engine.is_stopping() {
            let begun = runner.now();
            let end = {
                let mut ended = pin!(self.ended());
                let rotation = self.consume.rotation().and_then(|it| begun.checked_add(it));
                let mut rotating = pin!(runner.sleep_until(rotation));
                let mut end = pin!(race(&mut ended, &mut rotating));
                race(&mut end, &mut self.engine.stop.reached(STOPPING)).await
            };
            match end {
                Either::First(Either::First(end)) => {
                    self.is_consuming.store(false, Ordering::Release);
                    match end {
                        // The connection is not recovered. The application ends with it.
                        Some(error) if error.is_connection() => break,
                        Some(error) => self.note(&error),
                        // The application itself has cancelled it, or drains the connection.
                        None => {
                            self.engine.stop.raise(STOPPING);
                            break;
                        }
                    }
                }
                Either::First(Either::Second(())) => {
                    self.leave().await;
                    if let Err(error) = self.start_consumers().await {
                        self.is_consuming.store(false, Ordering::Release);
                        self.note(&error);
                    }
                }
                Either::Second(()) => break,
            }
            if runner.now().saturating_duration_since(begun) > delay {
                delay = RESTART_DELAY;
            }
            while !self.is_consuming() && !self.engine.is_stopping() {
                self.pause(delay).await;
                delay = (delay * 2).min(RESTART_DELAY_MAX);
                if let Err(error) = self.start_consumers().await {
                    self.note(&error);
                }
            }
        }
        self.is_consuming.store(false, Ordering::Release);
        self.close().await;
    }

    async fn start_consumers(&self) -> Result<(), Error> {
        let (group, channel) = self.consumers().await?;
        self.open(group, &channel);
        Ok(())
    }

    /// Waits until the consumer has ended. Resolves to the error, `None` if it was cancelled.
    ///
    /// The end of its channel is seen even while all workers are busy, and none takes from the consumer.
    async fn ended(&self) -> Option<ClientError> {
        let closed = lock(&self.closed).take();
        let Some(mut closed) = closed else { return self.intake.ended().await };
        let mut ended = pin!(self.intake.ended());
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
        trace::consumer_ended(&self.names, error);
        *lock(&self.last_error) = Some(error.to_string());
    }

    fn open(&self, group: Group, channel: &Channel) {
        *lock(&self.last_error) = None;
        trace::consumer_started(&self.names);
        *lock(&self.closed) = Some(channel.closed());
        // What a worker has held since the last channel was left.
        self.release();
        self.intake.open(group);
        self.is_consuming.store(true, Ordering::Release);
    }

    /// Starts the consumers, on a channel of their own.
    async fn consumers(&self) -> Result<(Group, Channel), Error> {
        // In a transaction it publishes on the channel on which it consumes.
        let connection = match self.consume.transactional {
            true => self.engine.sender.connection(),
            false => &self.engine.consuming,
        };
        self.losses.store(connection.losses(), Ordering::Relaxed);
        let channel = connection.open_channel().await?;
        setup::declare_queues(&channel, &self.consume).await?;
        let tx = if self.consume.transactional { Some(channel.tx_select().await?) } else { None };
        let mut consumers = Vec::with_capacity(self.lanes.len());
        for (number, lane) in self.lanes.iter().enumerate() {
            let mut consume = BasicConsume::new(&*lane.queue)
                .prefetch(self.prefetch_of(number))
                .exclusive_if(self.consume.exclusive)
                .requeue_on_drop();
            consume.arguments = self.consume.arguments.clone();
            let consumer = channel.basic_consume(consume).await;
            consumers.push(consumer.map_err(|error: ClientError| {
                let what = format!("a consumer of queue {:?}", lane.queue);
                Error::Setup { what, error }
            })?);
        }
        let number = self.groups.fetch_add(1, Ordering::Relaxed);
        Ok((Group::of(consumers, tx, number), channel))
    }

    /// Takes no more messages, and gives back what no worker has begun.
    async fn close(&self) {
        let group = self.intake.take();
        self.intake.close();
        self.cancel(group).await;
    }

    /// Leaves a channel, on which messages may still be in work. What waits for its key goes back before the next consumers
    /// start: otherwise they would get what is behind it first.
    async fn leave(&self) {
        let group = self.intake.take();
        for Arrived { delivery, queue, .. } in self.intake.take_waiting() {
            if delivery.nack(true).is_ok() {
                self.engine.counters.given_back.add(&self.lanes[queue].measures, 1);
            }
        }
        self.cancel(group).await;
    }

    /// Cancels the consumers, and gives back what no worker has begun, and what is held.
    async fn cancel(&self, group: Option<Group>) {
        let given_back = |queue: usize, count: usize| {
            let measures = &self.lanes[queue].measures;
            self.engine.counters.given_back.add(measures, count as u64);
        };
        if let Some(mut group) = group {
            let mut cancelling = pin!(group.cancel_and_requeue(given_back));
            // An error: the connection was lost, and the broker requeues everything.
            let _: Either<Result<(), ClientError>, ()> =
                race(&mut cancelling, &mut self.engine.stop.reached(NOW)).await;
        }
        self.release();
    }
}

impl<S: Send + Sync> Watch for Source<S> {
    fn health(&self) -> Vec<SourceHealth> {
        let (places, now) = (lock(&self.places), self.engine.runner.now());
        let is_overdue = |it: &Place| it.deadline.is_some_and(|deadline| deadline < now);
        let of_lane = |(number, lane): (usize, &Lane)| {
            let workers = || places.iter().zip(&self.late).filter(|(it, _)| it.queue == number);
            let in_work = places.iter().flat_map(|it| &it.messages);
            let overdue = |(it, late): &(&Place, &Late)| late.count() > 0 || is_overdue(it);
            SourceHealth {
                queue: lane.queue.to_string(),
                consuming: self.is_consuming.load(Ordering::Acquire),
                in_work: in_work.clone().filter(|(of, _)| *of == number).count(),
                overdue: workers().filter(overdue).count(),
                unstored: lane.times_unstored(),
                last_error: lock(&self.last_error).clone(),
            }
        };
        self.lanes.iter().enumerate().map(of_lane).collect()
    }
}
