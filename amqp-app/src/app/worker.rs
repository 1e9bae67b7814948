//! A worker: takes messages of a source, one at a time or in batches, has the handler called, and sees to what becomes of each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;

use amqp_async::{Delivery, ReceivedMessage, Tx};

use super::batch;
use super::claim::{Claim, Claimed};
use super::conclude::{self, Recalled, conclude, recall};
use super::engine::{NOW, STOPPING};
use super::group::Arrived;
use super::lane::Lane;
use super::settle::{self, Job, Work};
use super::source::Source;
use crate::context::{Context, Facts, Held, Slot};
use crate::copy;
use crate::decide::{Step, decide};
use crate::failure::{Failure, FailureCause, Verdict};
use crate::limits::{CONFIRMS_TIMEOUT, GIVE_BACK_PAUSE};
use crate::outcome::Outcome;
use crate::retry::LastResort;
use crate::sync::{Either, Reached, catching, race};
use crate::trace;

pub(crate) async fn work<S: Clone + Send + Sync + 'static>(source: &Source<S>, worker: usize) {
    let mut now = source.engine.stop.reached(NOW);
    let key = |arrived: &Arrived| {
        let key = source.consume.key.as_ref()?;
        // The panic hook reports it.
        catch_unwind(AssertUnwindSafe(|| key(arrived.delivery.message()))).unwrap_or_default()
    };
    let mut first_of_next = None;
    // A handler may have stopped the application: its message is the last one.
    while !source.engine.is_stopping() {
        let next = match first_of_next.take() {
            Some(next) => next,
            None => {
                let mut next = pin!(source.intake.next(worker, key));
                let Either::First(Some(next)) = race(&mut next, &mut now).await else { return };
                next
            }
        };
        if let Some(batching) = source.consume.batching {
            let gathered = batch::gather(source, worker, next, batching, key).await;
            first_of_next = gathered.next;
            let Some((arrived, keys)) = gathered.batch else { return };
            let tx = arrived.first().and_then(|it| it.tx.clone());
            let slot = |it: Arrived| (it.queue, Arc::new(Slot::holding(it.delivery)));
            let slots: Vec<_> = arrived.into_iter().map(slot).collect();
            let jobs = slots.iter().map(|it| job(source, worker, it.0, &it.1, tx.as_ref()));
            let jobs: Vec<_> = jobs.collect();
            let in_flight: Vec<_> = jobs.iter().map(|job| job.lane.measures.taken()).collect();
            // In a box of its own, so that it does not make the tasks of all workers larger.
            finish(&jobs, Box::pin(batch::handle(&jobs)), in_flight, &mut now).await;
            keys.into_iter().for_each(|key| source.intake.finish(Some(key)));
        } else {
            let (Arrived { delivery, queue, tx, .. }, key) = next;
            let slot = Arc::new(Slot::holding(delivery));
            let job = job(source, worker, queue, &slot, tx.as_ref());
            finish(&[job], handle(job), job.lane.measures.taken(), &mut now).await;
            source.intake.finish(key);
        }
    }
}

fn job<'a, S>(
    source: &'a Source<S>,
    worker: usize,
    queue: usize,
    slot: &'a Arc<Slot>,
    tx: Option<&'a Tx>,
) -> Job<'a, S> {
    Job { source, lane: &source.lanes[queue], queue, slot, worker, tx }
}

/// Sees to messages until they are acknowledged, or given back, and the worker may take others.
async fn finish<S: Clone + Send + Sync + 'static>(
    jobs: &[Job<'_, S>],
    handling: impl Future<Output = ()>,
    in_flight: impl Sized,
    now: &mut Reached<'_>,
) {
    let Some(&Job { source, worker, .. }) = jobs.first() else { return };
    source.begin(jobs);
    let handling = pin!(async {
        source.begin_transaction(jobs).await;
        handling.await;
    });
    let mut handling = pin!(catching(handling));
    match race(&mut handling, now).await {
        Either::First(Ok(())) => {}
        // A part of the application that is not the handler, such as the policy's condition.
        Either::First(Err(panic)) => settle::panicked(jobs, &panic).await,
        // The time for a shutdown has expired: the handler is dropped, and its messages are given back.
        Either::Second(()) => {
            jobs.iter().for_each(|job| source.abandon_one(job.queue, job.slot, job.tx));
            if jobs.iter().any(|job| job.slot.is_answered()) {
                // Participants wait for the result of the commit. At the latest, the connection closes.
                source.engine.commit_is_late();
                let runner = &source.engine.runner;
                let deadline = runner.now().checked_add(CONFIRMS_TIMEOUT);
                runner.until(deadline, handling).await;
            }
        }
    }
    source.end(worker);
    drop(in_flight);
    // Otherwise handlers that block for longer than their timeout would take more and more threads, and the next message
    // with the key would be handled beside this one.
    let mut none = pin!(source.late[worker].none());
    race(&mut none, &mut source.engine.stop.reached(STOPPING)).await;
}

/// Handles a message until it is acknowledged, or given back.
async fn handle<S: Clone + Send + Sync + 'static>(job: Job<'_, S>) {
    if let Some(seen) = look(job) {
        handle_alone(job, seen).await;
    }
}

/// Looks at a message that has come. `None` if it is not here any more, or the broker delivers it again.
pub(crate) fn look<S>(job: Job<'_, S>) -> Option<Seen> {
    if !is_here(job) {
        return None;
    }
    job.slot.look(|delivery| Seen {
        message: delivery.message().clone(),
        redelivered: delivery.redelivered(),
        fault: delivery
            .fault()
            .map(|fault| Failure::new(Verdict::Permanent, FailureCause::Malformed, fault)),
    })
}

/// Whether a message is here, and the broker does not deliver it again.
pub(crate) fn is_here<S>(job: Job<'_, S>) -> bool {
    let Job { source, lane, slot, .. } = job;
    let is_stale = slot.look(Delivery::is_stale);
    if is_stale == Some(true) {
        trace::stale(&lane.queue);
        source.engine.counters.stale.add(&lane.measures, 1);
        drop(slot.take(Held::Taken));
    }
    is_stale == Some(false)
}

/// Handles a message that is not a part of a batch.
pub(crate) async fn handle_alone<S: Clone + Send + Sync + 'static>(job: Job<'_, S>, seen: Seen) {
    let Seen { message, redelivered, fault } = seen;
    let recalled = match redelivered && fault.is_none() {
        true => recall(job, &message).await,
        false => Recalled::Unknown,
    };
    let refused = match recalled {
        Recalled::Settled => return,
        Recalled::Failed(failure) => Some(failure),
        Recalled::Unknown => None,
    };
    let too_often = || too_often(job.source, &message, redelivered);
    let first = fault.or(refused).or_else(too_often);
    let first =
        first.map(|failure| (failure, attempts_before(job.lane, &message).saturating_add(1)));
    follow(job, &message, redelivered, first).await;
}

/// Does what the policy says about a failure of a message, if it has failed, and calls the handler as often as it says.
pub(crate) async fn follow<S: Clone + Send + Sync + 'static>(
    job: Job<'_, S>,
    message: &ReceivedMessage,
    redelivered: bool,
    mut first: Option<(Failure, u32)>,
) {
    let Job { source, lane, worker, slot, .. } = job;
    let (counters, measures) = (&source.engine.counters, &lane.measures);
    let mut in_place = 0;
    loop {
        let (failure, attempt) = match first.take() {
            Some(failed) => failed,
            None => match attempt(job, message, redelivered, in_place).await {
                Attempted::Settled => return,
                Attempted::Elsewhere => {
                    source.pause(GIVE_BACK_PAUSE).await;
                    // Its queue may count how often it is given back, and drop it in the end. Nor must the attempts in
                    // place begin anew.
                    let is_held = slot.look(Delivery::is_stale) == Some(false);
                    let is_kept = in_place > 0 || settle::is_counted(lane, message);
                    if is_held && is_kept && !source.engine.is_stopping() {
                        continue;
                    }
                    let nack = |delivery: Delivery| delivery.nack(true);
                    settle::answer(job, &counters.given_back, nack).await;
                    return;
                }
                Attempted::Failed(failure, attempt) => (failure, attempt),
            },
        };
        counters.failed.add(measures, 1);
        match failure.cause() {
            FailureCause::Panic => counters.panicked.add(measures, 1),
            FailureCause::TimedOut => counters.timed_out.add(measures, 1),
            _ => {}
        }
        let step = decide(&source.consume.retry, attempt, &failure);
        trace::failed(&lane.queue, attempt, &failure, &step);
        match step {
            Step::Again(pause) => {
                counters.retried.add(measures, 1);
                in_place += 1;
                source.pause(pause).await;
                source.late[worker].none().await;
                if !is_here(job) {
                    return;
                }
            }
            step => {
                let work = Work { job, message, attempt };
                return settle::settle(work, failure, step).await;
            }
        }
    }
}

/// What is seen of a message when it comes.
pub(crate) struct Seen {
    pub(crate) message: ReceivedMessage,
    pub(crate) redelivered: bool,
    fault: Option<Failure>,
}

impl Seen {
    /// Whether it cannot be handled in a batch: it is malformed, something is known of an earlier delivery, or it may be what
    /// has killed the process again and again.
    pub(crate) fn is_alone<S>(&self, job: Job<'_, S>) -> bool {
        let is_suspect = || {
            let deliveries = self.message.headers().map_or(0, |it| copy::deliveries_before(&it));
            deliveries >= job.source.consume.retry.max_deliveries / 2
        };
        let comes_again = || conclude::is_known(job, &self.message) || is_suspect();
        self.fault.is_some() || (self.redelivered && comes_again())
    }
}

pub(crate) enum Attempted {
    /// There is nothing more to do.
    Settled,
    /// It is being handled elsewhere.
    Elsewhere,
    /// The number of the attempt.
    Failed(Failure, u32),
}

fn attempts_before(lane: &Lane, message: &ReceivedMessage) -> u32 {
    message.headers().map_or(0, |headers| copy::attempts_before(&headers, &lane.queue))
}

/// The failure of a message that was delivered too often without an outcome: it may have killed the process each time.
fn too_often<S>(
    source: &Source<S>,
    message: &ReceivedMessage,
    redelivered: bool,
) -> Option<Failure> {
    let policy = &source.consume.retry;
    let comes_back =
        matches!(policy.last, LastResort::Requeue(_) | LastResort::Stop | LastResort::Hold);
    if !redelivered || comes_back {
        return None;
    }
    let deliveries = copy::deliveries_before(&message.headers().ok()?);
    (deliveries >= policy.max_deliveries).then(|| {
        Failure::permanent(format!("delivered {deliveries} times before without an outcome"))
    })
}

/// Calls the handler once. If it succeeds, sends what it returned, and acknowledges the message.
async fn attempt<S: Clone + Send + Sync + 'static>(
    job: Job<'_, S>,
    message: &ReceivedMessage,
    redelivered: bool,
    in_place: u32,
) -> Attempted {
    let Job { source, slot, worker, .. } = job;
    let (state, held) = (source.state.clone(), Arc::clone(slot));
    let context = Context::new(facts(job, in_place), message.clone(), redelivered, held, state);
    source.expect_by(worker, context.deadline());
    let claimed = Claim::begin(job, message, context.deadline()).await;
    source.expect_by(worker, None);
    let mut claim = match claimed {
        Claimed::Handle(claim) if slot.is_here() => claim,
        // A shutdown has given it back meanwhile.
        Claimed::Handle(claim) => {
            conclude::undo(job, &context, claim).await;
            return Attempted::Settled;
        }
        Claimed::Done(replies) => {
            return conclude(job, message, &context, None, Outcome::send(replies)).await;
        }
        Claimed::Failed(failure) => return Attempted::Failed(failure, context.attempt()),
        Claimed::Running => return Attempted::Elsewhere,
    };
    let outcome = call(job, &context).await;
    let counters = &source.engine.counters;
    if !slot.is_here() {
        let (was_given_back, is_success) = (slot.was_given_back(), outcome.is_success());
        if was_given_back && let Some(claim) = &mut claim {
            conclude::store_late(&context, claim, outcome).await;
        }
        conclude::undo(job, &context, claim).await;
        if !was_given_back {
            // The handler has acknowledged it.
            let counter = if is_success { &counters.handled } else { &counters.failed };
            settle::count(job, counter, settle::committed(job).await);
        }
        return Attempted::Settled;
    }
    conclude(job, message, &context, claim, outcome).await
}

/// What a handler is told, beside the message.
pub(crate) fn facts<S>(job: Job<'_, S>, in_place: u32) -> Facts {
    let Job { source, lane, worker, .. } = job;
    let runner = &source.engine.runner;
    Facts {
        queue: Arc::clone(&lane.queue),
        in_place,
        counts_redelivered: source.consume.retry.counts_redelivered,
        deduplicates: source.consume.deduplication.is_some(),
        deadline: source.consume.timeout.and_then(|timeout| runner.now().checked_add(timeout)),
        runner: runner.clone(),
        late: source.late[worker].clone(),
    }
}

/// Calls the handler of a message, or of a batch. A panic and the end of its time are failures.
pub(crate) async fn call<S: Clone + Send + Sync + 'static>(
    job: Job<'_, S>,
    context: &Context<S>,
) -> Outcome {
    let Job { source, lane, worker, .. } = job;
    let runner = &source.engine.runner;
    let deadline = context.deadline();
    source.expect_by(worker, deadline);
    let called = context.clone();
    let call = lane.measures.call(runner);
    let calling = pin!(async { source.route.endpoint().call(called).await });
    let outcome = match runner.until(deadline, catching(calling)).await {
        Some(Ok(outcome)) => outcome,
        Some(Err(panic)) => {
            Outcome::failure(Failure::new(Verdict::Retry, FailureCause::Panic, panic))
        }
        None => {
            let timeout = source.consume.timeout.unwrap_or_default();
            let text = format!("the handler took longer than {} s", timeout.as_secs_f32());
            Outcome::failure(Failure::new(Verdict::Retry, FailureCause::TimedOut, text))
        }
    };
    call.end(&outcome);
    source.expect_by(worker, None);
    outcome
}
