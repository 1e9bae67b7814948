//! A worker: takes messages of a source, has the handler called, and sees to what becomes of each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use amqp_async::{Properties, ReceivedMessage};

use super::engine::{NOW, STOPPING};
use super::group::Arrived;
use super::lane::Lane;
use super::sender::Unsent;
use super::settle::{self, Job, Work};
use super::source::Source;
use crate::context::{Context, Facts, Held, Slot};
use crate::copy;
use crate::decide::{Step, decide};
use crate::failure::{Failure, FailureCause, Verdict};
use crate::ids;
use crate::limits::CONFIRMS_TIMEOUT;
use crate::message::Message;
use crate::outcome::Outcome;
use crate::remember::Mark;
use crate::reply;
use crate::retry::LastResort;
use crate::sync::{Either, catching, lock, race};
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
        let Arrived { delivery, queue } = arrived;
        let slot = Arc::new(Slot::holding(delivery));
        let job = Job { source, lane: &source.lanes[queue], slot: &slot, worker };
        let in_flight = job.lane.measures.taken();
        source.begin(worker, queue, &slot);
        let handling = pin!(handle(job));
        let mut handling = pin!(catching(handling));
        match race(&mut handling, &mut now).await {
            Either::First(Ok(())) => {}
            // A part of the application that is not the handler, such as the policy's condition.
            Either::First(Err(panic)) => settle::panicked(job, &panic).await,
            // The time for a shutdown has expired: the handler is dropped, and its message is given back.
            Either::Second(()) => source.abandon_one(queue, &slot),
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
    let Job { source, lane, slot, worker } = job;
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
    if redelivered && fault.is_none() && is_remembered(job, &message).await {
        return;
    }
    let mut first = fault.or_else(|| too_often(source, &message, redelivered));
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

enum Attempted {
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
    let comes_back = matches!(policy.last, LastResort::Requeue(_) | LastResort::Stop);
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
    let Job { source, lane, slot, worker } = job;
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
        if !slot.was_given_back() {
            // The handler has acknowledged it.
            let counter = if outcome.is_success() { &counters.handled } else { &counters.failed };
            counter.add(&lane.measures, 1);
        }
        return Attempted::Settled;
    }
    let sent = match outcome.into_result() {
        Ok(mut messages) => {
            messages.append(&mut context.take_outgoing());
            send(job, message, &context, messages).await
        }
        Err(failure) => Err(failure),
    };
    match sent {
        Ok(sent) => {
            let comes_again = settle::acknowledge(job, &counters.handled);
            if comes_again && let Some(mark) = mark(source, message) {
                lock(&lane.remembered).keep(runner.now(), mark, sent);
            }
            Attempted::Settled
        }
        Err(failure) => Attempted::Failed(failure, context.attempt()),
    }
}

/// What a message is recognised by when it comes again. `None` without a message id.
fn mark<S>(source: &Source<S>, message: &ReceivedMessage) -> Option<Mark> {
    let properties = message.properties_ref().ok().filter(|_| source.consume.remembers)?;
    let id = properties.message_id?.as_str().ok()?;
    Some(Mark::new(id, message.body()))
}

/// Settles a message whose handler has succeeded before, and whose acknowledgement was lost. Returns whether it is one.
async fn is_remembered<S>(job: Job<'_, S>, message: &ReceivedMessage) -> bool {
    let Job { source, lane, .. } = job;
    let engine = &source.engine;
    if lock(&lane.remembered).is_empty() {
        return false;
    }
    let Some(mark) = mark(source, message) else { return false };
    let Some(sent) = lock(&lane.remembered).take(engine.runner.now(), &mark) else {
        return false;
    };
    let deadline = engine.runner.now().checked_add(CONFIRMS_TIMEOUT);
    // They were confirmed before. What cannot be sent now was a duplicate.
    engine.runner.until(deadline, engine.sender.send_all(&sent)).await;
    if settle::acknowledge(job, &engine.counters.handled) {
        lock(&lane.remembered).keep(engine.runner.now(), mark, sent);
    }
    true
}

/// Sends what a handler returned, and waits until it is confirmed. Resolves to what was sent.
async fn send<S>(
    job: Job<'_, S>,
    received: &ReceivedMessage,
    context: &Context<S>,
    messages: Vec<Message>,
) -> Result<Vec<amqp_async::Message>, Failure> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let unsent = |verdict, error: String| Failure::new(verdict, FailureCause::Unsent, error);
    let none = Properties::new();
    let request = context.properties().unwrap_or(&none);
    let mut completed = Vec::with_capacity(messages.len());
    let replies: Vec<bool> = messages.iter().map(Message::is_reply).collect();
    for (index, message) in messages.into_iter().enumerate() {
        let message = reply::complete(request, index, message, ids::unique);
        completed.push(message.map_err(|error| unsent(Verdict::Permanent, error.to_string()))?);
    }
    let engine = &job.source.engine;
    let sending = engine.sender.send_all(&completed);
    let Some(results) = settle::confirms(job, received, sending).await else {
        job.lane.unstored.fetch_add(1, Ordering::Relaxed);
        let text = format!("not confirmed within {} s", CONFIRMS_TIMEOUT.as_secs());
        return Err(unsent(Verdict::GiveBack, text));
    };
    let mut first = None;
    for (result, is_reply) in results.into_iter().zip(replies) {
        let Err(error) = result else { continue };
        let verdict = match error {
            Unsent::Unroutable { .. } => {
                engine.counters.unroutable.add(&job.lane.measures, 1);
                if is_reply {
                    // Requesters come and go.
                    continue;
                }
                Verdict::Permanent
            }
            Unsent::Ended(_) => Verdict::GiveBack,
            Unsent::Nacked => Verdict::Retry,
            Unsent::Invalid(_) | Unsent::Refused { .. } => Verdict::Permanent,
        };
        first.get_or_insert_with(|| unsent(verdict, format!("a message of the handler {error}")));
    }
    first.map_or(Ok(completed), Err)
}
