//! A worker: takes messages of a source, has the handler called, and sees to what becomes of each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;

use amqp_async::ReceivedMessage;

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
use crate::limits::CONFIRMS_TIMEOUT;
use crate::outcome::Outcome;
use crate::retry::LastResort;
use crate::sync::{Either, catching, race};
use crate::trace;

pub(crate) async fn work<S: Clone + Send + Sync + 'static>(source: &Source<S>, worker: usize) {
    let mut now = source.engine.stop.reached(NOW);
    let key = |arrived: &Arrived| {
        let key = source.consume.key.as_ref()?;
        // The panic hook reports it.
        catch_unwind(AssertUnwindSafe(|| key(arrived.delivery.message()))).unwrap_or_default()
    };
    // A handler may have stopped the application: its message is the last one.
    while !source.engine.is_stopping() {
        let mut next = pin!(source.intake.next(worker, key));
        let Either::First(Some((arrived, key))) = race(&mut next, &mut now).await else { return };
        let Arrived { delivery, queue, tx } = arrived;
        let slot = Arc::new(Slot::holding(delivery));
        let job = Job { source, lane: &source.lanes[queue], slot: &slot, worker, tx: tx.as_ref() };
        let in_flight = job.lane.measures.taken();
        source.begin(worker, queue, &slot, tx.as_ref());
        let handling = pin!(handle(job));
        let mut handling = pin!(catching(handling));
        match race(&mut handling, &mut now).await {
            Either::First(Ok(())) => {}
            // A part of the application that is not the handler, such as the policy's condition.
            Either::First(Err(panic)) => settle::panicked(job, &panic).await,
            // The time for a shutdown has expired: the handler is dropped, and its message is given back.
            Either::Second(()) => {
                source.abandon_one(queue, &slot, tx.as_ref());
                if slot.is_answered() {
                    // Participants wait for the result of the commit. At the latest, the connection closes.
                    source.engine.commit_is_late();
                    let runner = &source.engine.runner;
                    let deadline = runner.now().checked_add(CONFIRMS_TIMEOUT);
                    runner.until(deadline, handling).await;
                }
            }
        }
        source.end(worker);
        in_flight.end();
        // Otherwise handlers that block for longer than their timeout would take more and more threads, and the next message
        // with the key would be handled beside this one.
        let mut none = pin!(source.late[worker].none());
        race(&mut none, &mut source.engine.stop.reached(STOPPING)).await;
        source.intake.finish(key);
    }
}

/// Handles a message until it is acknowledged, or given back.
async fn handle<S: Clone + Send + Sync + 'static>(job: Job<'_, S>) {
    let Job { source, lane, slot, worker, .. } = job;
    let (counters, measures) = (&source.engine.counters, &lane.measures);
    let Some(seen) = slot.look(|delivery| Seen {
        message: delivery.message().clone(),
        redelivered: delivery.redelivered(),
        fault: delivery
            .fault()
            .map(|fault| Failure::new(Verdict::Permanent, FailureCause::Malformed, fault)),
        is_stale: delivery.is_stale(),
    }) else {
        return;
    };
    if seen.is_stale {
        trace::stale(&lane.queue);
        counters.stale.add(measures, 1);
        drop(slot.take(Held::Taken));
        return;
    }
    let Seen { message, redelivered, fault, .. } = seen;
    let recalled = match redelivered && fault.is_none() {
        true => recall(job, &message).await,
        false => Recalled::Unknown,
    };
    let refused = match recalled {
        Recalled::Settled => return,
        Recalled::Failed(failure) => Some(failure),
        Recalled::Unknown => None,
    };
    let too_often = || too_often(source, &message, redelivered);
    let mut first = fault.or(refused).or_else(too_often);
    let mut in_place = 0;
    loop {
        let (failure, attempt) = match first.take() {
            Some(failure) => (failure, attempts_before(lane, &message).saturating_add(1)),
            None => match attempt(job, &message, redelivered, in_place).await {
                Attempted::Settled => return,
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
            }
            step => {
                let work = Work { job, message: &message, attempt };
                return settle::settle(work, failure, step).await;
            }
        }
    }
}

struct Seen {
    message: ReceivedMessage,
    redelivered: bool,
    fault: Option<Failure>,
    is_stale: bool,
}

pub(crate) enum Attempted {
    /// There is nothing more to do.
    Settled,
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
    let Job { source, lane, slot, worker, .. } = job;
    let runner = &source.engine.runner;
    let facts = Facts {
        queue: Arc::clone(&lane.queue),
        in_place,
        counts_redelivered: source.consume.retry.counts_redelivered,
        deadline: source.consume.timeout.and_then(|timeout| runner.now().checked_add(timeout)),
        runner: runner.clone(),
        late: source.late[worker].clone(),
    };
    let deadline = facts.deadline;
    let (state, held) = (source.state.clone(), Arc::clone(slot));
    let context = Context::new(facts, message.clone(), redelivered, held, state);

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
    let counters = &source.engine.counters;
    if !slot.is_here() {
        conclude::undo(job, &context).await;
        if !slot.was_given_back() {
            // The handler has acknowledged it.
            let counter = if outcome.is_success() { &counters.handled } else { &counters.failed };
            settle::count(job, counter, settle::committed(job).await);
        }
        return Attempted::Settled;
    }
    conclude(job, message, &context, outcome).await
}
