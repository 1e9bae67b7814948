//! Batches: a worker has the handler called for several messages at once.
//!
//! A batch is handled as a whole, or not at all: its messages are acknowledged together, in a transactional source in one
//! transaction. If that fails, for any reason, it is halved, and each half is a batch. A single message is handled as in a
//! source without batches, so everything that a policy decides, it decides about single messages.
//!
//! A message is left out of a batch if it cannot be decoded, is malformed, or has come before and something is known of that
//! delivery.

use std::pin::pin;
use std::sync::Arc;

use super::conclude::{self, Caused, Handled, carry_out};
use super::engine::STOPPING;
use super::group::Arrived;
use super::intake::Next;
use super::report::Counter;
use super::settle::{self, Job};
use super::source::Source;
use super::worker::{self, Seen};
use crate::consume::Batching;
use crate::context::Context;
use crate::error::Error;
use crate::failure::{Failure, Verdict};
use crate::outcome::Outcome;
use crate::participants::Joint;
use crate::sync::{Either, race};
use crate::trace;

/// What a worker has gathered.
pub(crate) struct Gathered {
    /// The messages of a batch, and their keys. `None` if the shutdown has begun meanwhile.
    pub(crate) batch: Option<(Vec<Arrived>, Vec<String>)>,
    /// What came behind it on another channel.
    pub(crate) next: Option<Next<Arrived>>,
}

/// Waits for the messages of a batch behind the first one, until it is full or its time has passed.
pub(crate) async fn gather<S: Clone + Send + Sync + 'static>(
    source: &Source<S>,
    worker: usize,
    (first, key): Next<Arrived>,
    batching: Batching,
    key_of: impl Fn(&Arrived) -> Option<String>,
) -> Gathered {
    let runner = &source.engine.runner;
    let mut time = pin!(runner.sleep(batching.within));
    let mut stopping = source.engine.stop.reached(STOPPING);
    let (mut arrived, mut keys) = (vec![first], Vec::from_iter(key));
    while arrived.len() < usize::from(batching.size) {
        let mut next = pin!(source.intake.next(worker, &key_of));
        let mut end = pin!(race(&mut time, &mut stopping));
        match race(&mut next, &mut end).await {
            Either::First(Some(next)) => {
                // A transaction is that of a channel.
                if next.0.tx.is_some() && next.0.channel != arrived[0].channel {
                    return Gathered { batch: Some((arrived, keys)), next: Some(next) };
                }
                arrived.push(next.0);
                keys.extend(next.1);
            }
            Either::Second(Either::First(())) => break,
            Either::First(None) | Either::Second(Either::Second(())) => {
                // None of them has begun.
                for Arrived { delivery, queue, .. } in arrived {
                    if delivery.nack(true).is_ok() {
                        let measures = &source.lanes[queue].measures;
                        source.engine.counters.given_back.add(measures, 1);
                    }
                }
                return Gathered { batch: None, next: None };
            }
        }
    }
    Gathered { batch: Some((arrived, keys)), next: None }
}

/// A message of a batch.
struct Member<'a, S> {
    job: Job<'a, S>,
    seen: Seen,
}

/// Handles the messages of a batch, which came from one channel, until they are acknowledged, or given back.
pub(crate) async fn handle<S: Clone + Send + Sync + 'static>(jobs: &[Job<'_, S>]) {
    let mut members = Vec::with_capacity(jobs.len());
    for job in jobs {
        match worker::look(*job) {
            Some(seen) if seen.is_alone(*job) => alone(*job, seen).await,
            Some(seen) => members.push(Member { job: *job, seen }),
            None => {}
        }
    }
    let mut parts = vec![members];
    while let Some(mut part) = parts.pop() {
        // A shutdown may have given them back, or their connection is lost.
        part.retain(|it| worker::is_here(it.job));
        if part.len() < 2 {
            for Member { job, seen } in part {
                alone(job, seen).await;
            }
            continue;
        }
        let Err(failure) = together(&part).await else { continue };
        let Job { source, lane, worker, .. } = part[0].job;
        trace::halved(&lane.queue, part.len(), &failure);
        source.late[worker].none().await;
        parts.push(part.split_off(part.len().div_ceil(2)));
        parts.push(part);
    }
}

async fn alone<S: Clone + Send + Sync + 'static>(job: Job<'_, S>, seen: Seen) {
    worker::handle_alone(job, seen).await;
    job.slot.settled();
}

/// Handles messages together.
///
/// # Errors
/// Why that failed. All of them are still here, and nothing was sent.
async fn together<S: Clone + Send + Sync + 'static>(part: &[Member<'_, S>]) -> Result<(), Failure> {
    let first = &part[0];
    let contexts: Vec<_> = part.iter().map(Member::context).collect();
    let facts = worker::facts(first.job, 0);
    let (message, state) = (first.seen.message.clone(), first.job.source.state.clone());
    let context = Context::batch_of(facts, message, &contexts, state);
    let outcome = worker::call(first.job, &context).await;
    let mut participants = context.take_participants();
    if part.iter().any(|it| !it.job.slot.is_here()) {
        contexts.iter().for_each(|it| participants.append(it.take_participants()));
        participants.abort(&first.job.lane.queue).await;
        by_the_handler(part, &contexts, &outcome).await;
        return Ok(());
    }
    match conclude_all(part, &context, &contexts, &mut participants, outcome).await {
        Ok(failed) => {
            for (index, failure) in failed {
                let Member { job, seen } = &part[index];
                let first = Some((failure, contexts[index].attempt()));
                worker::follow(*job, &seen.message, seen.redelivered, first).await;
                job.slot.settled();
            }
            Ok(())
        }
        Err(failure) => {
            contexts.iter().for_each(|it| participants.append(it.take_participants()));
            participants.abort(&first.job.lane.queue).await;
            match failure.verdict {
                Verdict::GiveBack | Verdict::Stop => {
                    give_back(part, failure).await;
                    Ok(())
                }
                _ => Err(failure),
            }
        }
    }
}

/// Carries out what a handler has returned for a batch. Resolves to the numbers of the messages that it has not handled, and the
/// reasons.
///
/// # Errors
/// All messages are still here, and nothing was sent. No participant has finished or aborted.
async fn conclude_all<S: Clone + Send + Sync + 'static>(
    part: &[Member<'_, S>],
    context: &Context<S>,
    contexts: &[Context<S>],
    participants: &mut Joint,
    mut outcome: Outcome,
) -> Result<Vec<(usize, Failure)>, Failure> {
    let first = part[0].job;
    let each = outcome.take_each();
    let mut of_all = outcome.into_result()?;
    let mut caused = Caused::by_several();
    let (handled, failed) = divide(part, contexts, each, &mut caused)?;
    if handled.is_empty() {
        contexts.iter().for_each(|it| participants.append(it.take_participants()));
        participants.abort(&first.lane.queue).await;
        return Ok(failed);
    }
    of_all.append(&mut context.take_outgoing());
    caused.add(None, None, of_all)?;
    // Those of messages that have failed take no part.
    for (index, _) in &failed {
        contexts[*index].take_participants().abort(&first.lane.queue).await;
    }
    contexts.iter().for_each(|it| participants.append(it.take_participants()));
    conclude::vote(first, context, participants).await?;
    carry_out(&handled, participants, caused, &[]).await?;
    handled.iter().for_each(|it| it.job.slot.settled());
    Ok(failed)
}

impl<S: Clone> Member<'_, S> {
    fn context(&self) -> Context<S> {
        let (Job { source, slot, .. }, seen) = (self.job, &self.seen);
        let (facts, slot) = (worker::facts(self.job, 0), Arc::clone(slot));
        Context::new(facts, seen.message.clone(), seen.redelivered, slot, source.state.clone())
    }
}

/// The messages that were handled, and the numbers of those that were not, with the reasons.
type Divided<'a, S> = (Vec<Handled<'a, S>>, Vec<(usize, Failure)>);

/// Tells the messages apart that were handled, and collects what they have caused.
///
/// # Errors
/// The outcomes are not as many as the messages that the handler has got.
fn divide<'a, S>(
    part: &'a [Member<'_, S>],
    contexts: &[Context<S>],
    each: Option<Vec<Outcome>>,
    caused: &mut Caused,
) -> Result<Divided<'a, S>, Failure> {
    let accepted = contexts.iter().filter(|it| !it.is_refused()).count();
    if let Some(each) = &each
        && each.len() != accepted
    {
        let text = format!("the handler returned {} outcomes for {accepted} messages", each.len());
        return Err(Failure::permanent(text));
    }
    let mut outcomes = each.map(Vec::into_iter);
    let (mut handled, mut failed) = (Vec::with_capacity(accepted), Vec::new());
    for (index, (member, context)) in part.iter().zip(contexts).enumerate() {
        if let Some(refusal) = context.take_refusal() {
            failed.push((index, refusal));
            continue;
        }
        let outcome = outcomes.as_mut().and_then(Iterator::next);
        match outcome.map_or_else(|| Ok(Vec::new()), |it| it.of_one().into_result()) {
            Ok(mut messages) => {
                messages.append(&mut context.take_outgoing());
                match caused.add(Some(handled.len()), context.properties().ok(), messages) {
                    Ok(()) => {
                        handled.push(Handled { job: member.job, message: &member.seen.message });
                    }
                    Err(failure) => failed.push((index, failure)),
                }
            }
            Err(failure) => failed.push((index, failure)),
        }
    }
    Ok((handled, failed))
}

/// The handler has taken the deliveries of its messages, and acknowledges them itself.
async fn by_the_handler<S: Clone + Send + Sync + 'static>(
    part: &[Member<'_, S>],
    contexts: &[Context<S>],
    outcome: &Outcome,
) {
    let counters = &part[0].job.source.engine.counters;
    let counter: &Counter = if outcome.is_success() { &counters.handled } else { &counters.failed };
    let committed = settle::committed(part[0].job).await;
    for (Member { job, seen }, context) in part.iter().zip(contexts) {
        match (job.slot.is_here(), context.take_refusal()) {
            (false, _) if !job.slot.was_given_back() => settle::count(*job, counter, committed),
            (false, _) => {}
            (true, refusal) => {
                let left = || Failure::give_back("the handler has left this delivery of a batch");
                let failure = refusal.unwrap_or_else(left);
                let first = Some((failure, context.attempt()));
                worker::follow(*job, &seen.message, seen.redelivered, first).await;
            }
        }
    }
}

/// Gives back all messages, because the handler asks for that, and ends the application if it asks for that too.
async fn give_back<S: Clone + Send + Sync + 'static>(part: &[Member<'_, S>], failure: Failure) {
    let Job { source, lane, .. } = part[0].job;
    for Member { job, .. } in part {
        source.engine.counters.failed.add(&job.lane.measures, 1);
    }
    trace::batch_given_back(&lane.queue, part.len(), &failure);
    if failure.verdict == Verdict::Stop {
        let (queue, error) = (lane.queue.to_string(), failure.into_error());
        source.engine.fail(Error::Stopped { queue, error });
    }
    let jobs: Vec<_> = part.iter().map(|it| it.job).collect();
    settle::give_back_all(&jobs).await;
}
