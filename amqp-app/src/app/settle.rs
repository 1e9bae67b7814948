//! What becomes of a message whose handler has failed: carries out the step that the policy has decided.
//!
//! A copy is confirmed by its queue before the message is acknowledged. If it cannot be confirmed, the message is given back,
//! so it is never lost. What failed is rejected, and what is given back is nacked: RabbitMQ 4.3 counts the first towards a
//! queue's delivery limit, and not the second.

use std::fmt::Display;
use std::pin::pin;
use std::sync::Arc;

use amqp_async::{AckError, Delivery, Fault, ReceivedMessage, Tx};

use super::lane::Lane;
use super::report::Counter;
use super::sender::{Unsent, unix_seconds};
use super::source::Source;
use super::transaction;
use crate::context::{Held, Slot};
use crate::copy::{self, Detail, Failed};
use crate::decide::Step;
use crate::error::Error;
use crate::failure::{BoxError, Failure};
use crate::ids;
use crate::limits::{CONFIRMS_TIMEOUT, GIVE_BACK_PAUSE};
use crate::message::Message;
use crate::retry::{LastResort, Retry};
use crate::trace;

/// A message in work.
pub(crate) struct Job<'a, S> {
    pub(crate) source: &'a Source<S>,
    /// Its queue.
    pub(crate) lane: &'a Lane,
    /// The number of that.
    pub(crate) queue: usize,
    pub(crate) slot: &'a Arc<Slot>,
    /// The number of its worker.
    pub(crate) worker: usize,
    /// The transaction mode of its channel.
    pub(crate) tx: Option<&'a Tx>,
}

/// A message whose attempt has failed.
pub(crate) struct Work<'a, S> {
    pub(crate) job: Job<'a, S>,
    pub(crate) message: &'a ReceivedMessage,
    pub(crate) attempt: u32,
}

impl<S> Clone for Job<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Job<'_, S> {}

impl<S> Clone for Work<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Work<'_, S> {}

/// How much the copies of the different stages say, in the order in which it is tried until one fits into a frame.
const DELAYED: [Detail; 3] = [Detail::Full, Detail::WithoutText, Detail::CountOnly];
pub(crate) const PARKED: [Detail; 3] = [Detail::Full, Detail::WithoutText, Detail::None];

pub(crate) async fn settle<S: Clone + Send + Sync + 'static>(
    work: Work<'_, S>,
    failure: Failure,
    step: Step,
) {
    let Job { source, lane, slot, .. } = work.job;
    let counters = &source.engine.counters;
    if let Some(fault) = slot.look(Delivery::fault).flatten()
        && !matches!(fault, Fault::Malformed(_))
    {
        return without_body(work, fault).await;
    }
    let text = failure.to_string();
    let policy = &source.consume.retry;
    match step {
        // In place: the caller repeats.
        Step::Again(_) => {}
        Step::Delay(delay) => {
            let queue = Retry::delay_queue(&lane.queue, delay);
            match store_copy(work, &text, &queue, &DELAYED).await {
                Ok(true) => {
                    acknowledge(work.job, &counters.retried).await;
                }
                Ok(false) => park(work, &text, policy.parking_queue(&lane.queue)).await,
                Err(error) => give_back(work, error).await,
            }
        }
        Step::Last(LastResort::Park(_)) => {
            park(work, &text, policy.parking_queue(&lane.queue)).await;
        }
        Step::Last(LastResort::DeadLetter) => reject(work).await,
        Step::Last(LastResort::Requeue(pause)) => {
            source.pause(pause).await;
            answer(work.job, &counters.given_back, |delivery| delivery.reject(true)).await;
        }
        Step::Last(LastResort::Report { exchange, routing_key }) => {
            match report(work, &text, &exchange, &routing_key).await {
                Ok(()) => drop(answer(work.job, &counters.discarded, Delivery::ack).await),
                Err(error) => give_back(work, error).await,
            }
        }
        Step::Last(LastResort::Hold) => source.hold(work.job).await,
        Step::GiveBack(pause) => {
            source.pause(pause).await;
            answer(work.job, &counters.given_back, |delivery| delivery.nack(true)).await;
        }
        Step::Discard | Step::Last(LastResort::Discard) => {
            answer(work.job, &counters.discarded, Delivery::ack).await;
        }
        Step::Stop | Step::Last(LastResort::Stop) => {
            answer(work.job, &counters.given_back, |delivery| delivery.nack(true)).await;
            let (queue, error) = (lane.queue.to_string(), failure.into_error());
            source.engine.fail(Error::Stopped { queue, error });
        }
    }
}

/// Acknowledges a message, and counts it. Returns whether the broker may deliver it again, because its connection was lost.
pub(crate) async fn acknowledge<S>(job: Job<'_, S>, counter: &Counter) -> bool {
    let comes_again = answer(job, counter, Delivery::ack).await == Answered::Lost;
    if !comes_again {
        job.lane.stored();
    }
    comes_again
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Known,
    /// The broker may deliver the message again.
    Lost,
    /// It was answered before.
    NotHere,
}

/// Answers a message, and counts it. In a transaction, commits that.
pub(crate) async fn answer<S>(
    job: Job<'_, S>,
    counter: &Counter,
    answer: impl FnOnce(Delivery) -> Result<(), AckError>,
) -> Answered {
    let Some(delivery) = job.slot.take(Held::Answered) else { return Answered::NotHere };
    let answered = answer(delivery).is_ok() && committed(job).await;
    count(job, counter, answered);
    if answered { Answered::Known } else { Answered::Lost }
}

/// Commits what was answered, in a transaction.
pub(crate) async fn committed<S>(job: Job<'_, S>) -> bool {
    match job.tx {
        Some(tx) => transaction::commit(tx).await.is_ok(),
        None => true,
    }
}

pub(crate) fn count<S>(Job { source, lane, .. }: Job<'_, S>, counter: &Counter, answered: bool) {
    // If not, the connection or the channel was lost: the broker delivers the message again.
    if !answered {
        trace::stale(&lane.queue);
    }
    let counter = if answered { counter } else { &source.engine.counters.stale };
    counter.add(&lane.measures, 1);
}

async fn reject<S>(work: Work<'_, S>) {
    let rejected = &work.job.source.engine.counters.rejected;
    answer(work.job, rejected, |delivery| delivery.reject(false)).await;
}

/// Gives back messages, because a function of the application has panicked that is not their handler.
pub(crate) async fn panicked<S: Clone + Send + Sync + 'static>(
    jobs: &[Job<'_, S>],
    panic: &BoxError,
) {
    for Job { source, lane, slot, .. } in jobs {
        if slot.is_here() {
            let counters = &source.engine.counters;
            counters.failed.add(&lane.measures, 1);
            counters.panicked.add(&lane.measures, 1);
            trace::panicked(&lane.queue, panic);
        }
    }
    give_back_all(jobs).await;
}

/// Gives back those messages that are here, after a pause for all of them.
pub(crate) async fn give_back_all<S: Clone + Send + Sync + 'static>(jobs: &[Job<'_, S>]) {
    if let Some(job) = jobs.iter().find(|job| job.slot.is_here()) {
        job.source.pause(GIVE_BACK_PAUSE).await;
    }
    for job in jobs {
        let given_back = &job.source.engine.counters.given_back;
        answer(*job, given_back, |delivery| delivery.nack(true)).await;
    }
}

/// A copy could not be stored. After a pause, because what could not be sent or confirmed cannot be sent the next moment.
async fn give_back<S: Clone + Send + Sync + 'static>(
    work: Work<'_, S>,
    error: impl Display + Send,
) {
    trace::unstored(&work.job.lane.queue, &error);
    work.job.lane.unstored();
    work.job.source.pause(GIVE_BACK_PAUSE).await;
    answer(work.job, &work.job.source.engine.counters.given_back, |delivery| delivery.nack(true))
        .await;
}

async fn park<S: Clone + Send + Sync + 'static>(
    work: Work<'_, S>,
    error: &str,
    queue: Option<String>,
) {
    let sent = match queue {
        Some(queue) => store_copy(work, error, &queue, &PARKED).await,
        None => Ok(false),
    };
    match sent {
        Ok(true) => {
            acknowledge(work.job, &work.job.source.engine.counters.parked).await;
        }
        // Its own headers fill a frame: no copy can be made of it.
        Ok(false) => reject(work).await,
        Err(error) => give_back(work, error).await,
    }
}

/// The client has dropped the body, because it was too large, so no copy can be made.
async fn without_body<S: Clone + Send + Sync + 'static>(work: Work<'_, S>, fault: Fault) {
    match fault {
        // Too much arrived at once: it may fit the next time.
        Fault::Crowded { .. } => {
            work.job.source.pause(GIVE_BACK_PAUSE).await;
            answer(work.job, &work.job.source.engine.counters.given_back, |delivery| {
                delivery.nack(true)
            })
            .await;
        }
        _ => reject(work).await,
    }
}

/// Whether the queue counts how often the message is given back. A quorum queue of RabbitMQ before 4.3 does, and drops a
/// message at its delivery limit (<https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
pub(crate) fn is_counted(lane: &Lane, message: &ReceivedMessage) -> bool {
    lane.is_quorum || message.headers().is_ok_and(|headers| copy::deliveries_before(&headers) > 0)
}

/// Waits for the confirms of what follows from a message. Resolves to `None` when the time for them has expired: the message
/// is given back. One that its queue counts is kept instead, and the health counts that.
pub(crate) async fn confirms<S, F: Future>(
    Job { source, lane, .. }: Job<'_, S>,
    is_counted: impl Fn() -> bool,
    sending: F,
) -> Option<F::Output> {
    let runner = &source.engine.runner;
    let mut sending = pin!(sending);
    loop {
        let deadline = runner.now().checked_add(CONFIRMS_TIMEOUT);
        let sent = runner.until(deadline, sending.as_mut()).await;
        if sent.is_some() || !is_counted() {
            return sent;
        }
        trace::kept(&lane.queue, &Unstored::TimedOut);
        lane.unstored();
    }
}

/// Returns whether a copy was sent: `false` if its headers do not fit into a frame, however little it says.
async fn store_copy<S: Clone + Send + Sync + 'static>(
    work: Work<'_, S>,
    error: &str,
    queue: &str,
    details: &[Detail],
) -> Result<bool, Unstored> {
    let original = original(work.message);
    let failed =
        Failed { queue: &work.job.lane.queue, attempts: work.attempt, error, now: unix_seconds() };
    for detail in details {
        let copy = copy::copy(&original, failed, *detail, queue);
        match confirmed(work, &copy).await {
            Ok(()) => return Ok(true),
            Err(Unstored::Unsent(Unsent::Invalid(_))) => {}
            Err(unstored) => return Err(unstored),
        }
    }
    Ok(false)
}

async fn report<S: Clone + Send + Sync + 'static>(
    work: Work<'_, S>,
    error: &str,
    exchange: &str,
    routing_key: &str,
) -> Result<(), Unstored> {
    let request = work.message.properties().unwrap_or_default();
    let report = Message::new(error.replace('\0', "")).content_type("text/plain");
    let report = report.to(exchange, routing_key).header("retry-queue", &*work.job.lane.queue);
    let Ok(report) = crate::reply::complete(&request, "error", report, ids::unique) else {
        return Ok(());
    };
    confirmed(work, &report).await
}

/// Why the copy of a message, or the report about it, could not be stored.
#[derive(Debug, thiserror::Error)]
enum Unstored {
    #[error("{0}")]
    Unsent(Unsent),
    #[error("not confirmed within {} s", CONFIRMS_TIMEOUT.as_secs())]
    TimedOut,
}

/// Sends a copy or a report. While it cannot be stored, tries again, if the queue of the message counts how often it is given
/// back.
async fn confirmed<S: Clone + Send + Sync + 'static>(
    work: Work<'_, S>,
    message: &amqp_async::Message,
) -> Result<(), Unstored> {
    let Job { source, lane, slot, .. } = work.job;
    let engine = &source.engine;
    let is_counted = || is_counted(lane, work.message);
    loop {
        let unstored = match confirms(work.job, is_counted, engine.sender.send(message)).await {
            Some(Ok(())) => {
                lane.stored();
                return Ok(());
            }
            // It stays so.
            Some(Err(invalid @ Unsent::Invalid(_))) => return Err(Unstored::Unsent(invalid)),
            Some(Err(unsent)) => Unstored::Unsent(unsent),
            None => Unstored::TimedOut,
        };
        let is_held = slot.look(Delivery::is_stale) == Some(false);
        if !is_counted() || !is_held || engine.is_stopping() {
            return Err(unstored);
        }
        trace::kept(&lane.queue, &unstored);
        lane.unstored();
        source.pause(GIVE_BACK_PAUSE).await;
    }
}

/// The message of a copy. If its properties are malformed, they are lost, and the body is kept.
pub(crate) fn original(message: &ReceivedMessage) -> amqp_async::Message {
    amqp_async::Message::try_from(message).unwrap_or_else(|_| {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let (exchange, key) = (message.exchange(), message.routing_key());
        amqp_async::Message::new(message.clone().into_body())
            .to(text(exchange.as_bytes()), text(key.as_bytes()))
    })
}
