//! What follows from the outcome of a handler: participants vote, what it returned is sent, and the message is acknowledged.
//! Either what is sent is confirmed before the acknowledgement, or both are in one transaction.

use amqp_async::{Properties, ReceivedMessage, Tx};

use super::sender::Unsent;
use super::settle::{self, Answered, Job};
use super::source::Source;
use super::transaction::{self, Transacted, transact};
use super::worker::Attempted;
use crate::context::Context;
use crate::failure::{Failure, FailureCause, Verdict};
use crate::ids;
use crate::limits::CONFIRMS_TIMEOUT;
use crate::message::Message;
use crate::outcome::Outcome;
use crate::participants::Joint;
use crate::remember::{Kept, Mark};
use crate::reply;
use crate::sync::lock;
use crate::trace;

/// Carries out the outcome of a handler.
pub(crate) async fn conclude<S: Clone + Send + Sync + 'static>(
    job: Job<'_, S>,
    message: &ReceivedMessage,
    context: &Context<S>,
    outcome: Outcome,
) -> Attempted {
    let (result, instead) = outcome.into_parts();
    let mut participants = context.take_participants();
    let concluded = match result {
        Ok(mut messages) => {
            messages.append(&mut context.take_outgoing());
            // The time that its handler has is that of its participants too.
            let runner = &job.source.engine.runner;
            match runner.until(context.deadline(), participants.vote()).await {
                Some(Ok(())) => {
                    carry_out(job, message, context, &mut participants, messages, &instead).await
                }
                Some(Err(failure)) => Err(failure),
                None => {
                    let text = "a participant did not vote within the timeout of the handler";
                    Err(Failure::new(Verdict::Retry, FailureCause::TimedOut, text))
                }
            }
        }
        Err(failure) => {
            participants.abort(&job.lane.queue).await;
            return Attempted::Failed(failure, context.attempt());
        }
    };
    let Err(failure) = concluded else { return Attempted::Settled };
    participants.abort(&job.lane.queue).await;
    let is_final = !matches!(failure.verdict, Verdict::GiveBack | Verdict::Stop);
    if is_final && !instead.is_empty() && send_instead(job, message, &failure, instead).await {
        return Attempted::Settled;
    }
    Attempted::Failed(failure, context.attempt())
}

/// Undoes what participants have done whose handler acknowledges its message itself.
pub(crate) async fn undo<S>(job: Job<'_, S>, context: &Context<S>) {
    context.take_participants().abort(&job.lane.queue).await;
}

/// What is known of a message that was delivered before.
pub(crate) enum Recalled {
    Unknown,
    /// It was handled before, and is acknowledged.
    Settled,
    /// What it caused before cannot be committed.
    Failed(Failure),
}

/// Settles a message whose handler has succeeded before, and whose acknowledgement was lost.
pub(crate) async fn recall<S: Clone + Send + Sync + 'static>(
    job: Job<'_, S>,
    message: &ReceivedMessage,
) -> Recalled {
    let Job { source, lane, .. } = job;
    let runner = &source.engine.runner;
    if lock(&lane.remembered).is_empty() {
        return Recalled::Unknown;
    }
    let mark = Mark::new(id(message).unwrap_or_default(), message.body());
    let kept = lock(&lane.remembered).take(runner.now(), &mark);
    match (kept, job.tx) {
        (None, _) => Recalled::Unknown,
        (Some(Kept::Refused(error, instead)), _) => {
            let failure = Failure::new(Verdict::Permanent, FailureCause::Unsent, error);
            let is_sent =
                !instead.is_empty() && send_instead(job, message, &failure, instead.clone()).await;
            if is_sent {
                return Recalled::Settled;
            }
            // It may not be parked now, and come once more. Without an id it might be another message then.
            if id(message).is_some() {
                let kept = Kept::Refused(failure.to_string(), instead);
                lock(&lane.remembered).keep(runner.now(), mark, kept);
            }
            Recalled::Failed(failure)
        }
        (Some(Kept::Sent(sent)), Some(tx)) => {
            let again = sent.clone();
            match transacted(job, tx, message, &mut Joint::default(), sent, &[]).await {
                Ok(()) => Recalled::Settled,
                Err(failure) => {
                    if failure.verdict == Verdict::GiveBack {
                        lock(&lane.remembered).keep(runner.now(), mark, Kept::Sent(again));
                    }
                    Recalled::Failed(failure)
                }
            }
        }
        (Some(Kept::Sent(sent)), None) => {
            let deadline = runner.now().checked_add(CONFIRMS_TIMEOUT);
            // They were confirmed before. What cannot be sent now was a duplicate.
            runner.until(deadline, source.engine.sender.send_all(&sent)).await;
            if settle::acknowledge(job, &source.engine.counters.handled).await {
                lock(&lane.remembered).keep(runner.now(), mark, Kept::Sent(sent));
            }
            Recalled::Settled
        }
    }
}

/// Sends what a handler returned, and acknowledges its message.
///
/// # Errors
/// The message is still here, and the participants have not finished.
async fn carry_out<S: Clone + Send + Sync + 'static>(
    job: Job<'_, S>,
    message: &ReceivedMessage,
    context: &Context<S>,
    participants: &mut Joint,
    messages: Vec<Message>,
    instead: &[Message],
) -> Result<(), Failure> {
    let replies: Vec<bool> = messages.iter().map(Message::is_reply).collect();
    let none = Properties::new();
    let request = if messages.is_empty() { &none } else { context.properties().unwrap_or(&none) };
    let completed = complete(request, messages)?;
    if let Some(tx) = job.tx {
        return transacted(job, tx, message, participants, completed, instead).await;
    }
    send(job, message, &completed, &replies).await?;
    participants.finish(&job.lane.queue).await;
    if settle::acknowledge(job, &job.source.engine.counters.handled).await {
        remember(job, message, completed);
    }
    Ok(())
}

/// Sends messages in place of what could not be committed, and acknowledges the message. Returns whether that is done.
async fn send_instead<S: Clone + Send + Sync + 'static>(
    job: Job<'_, S>,
    message: &ReceivedMessage,
    failure: &Failure,
    instead: Vec<Message>,
) -> bool {
    let counters = &job.source.engine.counters;
    let replies: Vec<bool> = instead.iter().map(Message::is_reply).collect();
    let request = message.properties().unwrap_or_default();
    let Ok(completed) = complete(&request, instead) else { return false };
    // With confirms in any mode: a transaction has just failed.
    if send(job, message, &completed, &replies).await.is_err() {
        return false;
    }
    trace::instead(&job.lane.queue, failure);
    counters.failed.add(&job.lane.measures, 1);
    settle::answer(job, &counters.discarded, amqp_async::Delivery::ack).await != Answered::NotHere
}

/// Commits what a message causes, and sees to what follows.
async fn transacted<S: Clone + Send + Sync + 'static>(
    job: Job<'_, S>,
    tx: &Tx,
    message: &ReceivedMessage,
    participants: &mut Joint,
    completed: Vec<amqp_async::Message>,
    instead: &[Message],
) -> Result<(), Failure> {
    let Job { lane, source, .. } = job;
    let counters = &source.engine.counters;
    match transact(job, tx, &completed).await {
        Transacted::Failed(failure) => return Err(failure),
        Transacted::GivenBack => participants.abort(&lane.queue).await,
        Transacted::Committed => {
            participants.finish(&lane.queue).await;
            lane.stored();
            settle::count(job, &counters.handled, true);
            transaction::park_returned(job, tx, message).await;
        }
        Transacted::Lost if !participants.is_empty() => {
            participants.abort(&lane.queue).await;
            settle::count(job, &counters.handled, false);
        }
        Transacted::Lost | Transacted::Unknown => {
            participants.finish(&lane.queue).await;
            settle::count(job, &counters.handled, false);
            remember(job, message, completed);
        }
        Transacted::Refused(error) => {
            participants.abort(&lane.queue).await;
            counters.failed.add(&lane.measures, 1);
            settle::count(job, &counters.handled, false);
            source.engine.sender.forget();
            // Otherwise it would come again and again.
            let text = format!("the broker refused the transaction: {error}");
            let mark = Mark::new(id(message).unwrap_or_default(), message.body());
            let kept = Kept::Refused(text, instead.to_vec());
            lock(&lane.remembered).keep(source.engine.runner.now(), mark, kept);
        }
        Transacted::Partial(error) => {
            trace::partial(&lane.queue, &error);
            counters.failed.add(&lane.measures, 1);
            settle::count(job, &counters.discarded, true);
            let text = format!("the broker committed a part of a transaction: {error}");
            let request = message.properties().unwrap_or_default();
            let rest = match complete(&request, instead.to_vec()) {
                Ok(instead) if !instead.is_empty() => {
                    participants.abort(&lane.queue).await;
                    let sent = source.engine.sender.send_all(&instead);
                    let sent = settle::confirms(job, message, sent).await;
                    let sent = sent.unwrap_or_default().into_iter();
                    let unsent = sent.map(|it| it.is_err()).chain(std::iter::repeat(true));
                    instead
                        .into_iter()
                        .zip(unsent)
                        .filter_map(|(it, un)| un.then_some(it))
                        .collect()
                }
                _ => {
                    participants.finish(&lane.queue).await;
                    completed
                }
            };
            for message in rest {
                transaction::park(job, &message, &text).await;
            }
        }
    }
    Ok(())
}

/// Sends messages, and waits until they are confirmed.
async fn send<S>(
    job: Job<'_, S>,
    received: &ReceivedMessage,
    messages: &[amqp_async::Message],
    replies: &[bool],
) -> Result<(), Failure> {
    if messages.is_empty() {
        return Ok(());
    }
    let engine = &job.source.engine;
    let sending = engine.sender.send_all(messages);
    let Some(results) = settle::confirms(job, received, sending).await else {
        job.lane.unstored();
        let text = format!("not confirmed within {} s", CONFIRMS_TIMEOUT.as_secs());
        return Err(Failure::new(Verdict::GiveBack, FailureCause::Unsent, text));
    };
    let mut first = None;
    for (result, is_reply) in results.into_iter().zip(replies) {
        let Err(error) = result else { continue };
        if matches!(error, Unsent::Unroutable { .. }) {
            engine.counters.unroutable.add(&job.lane.measures, 1);
            if *is_reply {
                // Requesters come and go.
                continue;
            }
        }
        first.get_or_insert_with(|| unsent(&error));
    }
    first.map_or(Ok(()), Err)
}

/// Completes what a handler returned with the ids of its request.
fn complete(
    request: &Properties,
    messages: Vec<Message>,
) -> Result<Vec<amqp_async::Message>, Failure> {
    let complete = |(index, message)| {
        reply::complete(request, index, message, ids::unique).map_err(|error| {
            Failure::new(Verdict::Permanent, FailureCause::Unsent, error.to_string())
        })
    };
    messages.into_iter().enumerate().map(complete).collect()
}

/// The failure of a message whose handler returned one that cannot be sent.
pub(crate) fn unsent(error: &Unsent) -> Failure {
    let verdict = match error {
        Unsent::Ended(_) => Verdict::GiveBack,
        Unsent::Nacked => Verdict::Retry,
        Unsent::Unroutable { .. } | Unsent::Invalid(_) | Unsent::Refused { .. } => {
            Verdict::Permanent
        }
    };
    Failure::new(verdict, FailureCause::Unsent, format!("a message of the handler {error}"))
}

/// Remembers what was sent for a message that may come again.
fn remember<S>(job: Job<'_, S>, message: &ReceivedMessage, sent: Vec<amqp_async::Message>) {
    if let Some(mark) = mark(job.source, message) {
        lock(&job.lane.remembered).keep(job.source.engine.runner.now(), mark, Kept::Sent(sent));
    }
}

/// What a message is recognised by when it comes again. `None` without a message id.
fn mark<S>(source: &Source<S>, message: &ReceivedMessage) -> Option<Mark> {
    let id = id(message).filter(|_| source.consume.remembers)?;
    Some(Mark::new(id, message.body()))
}

fn id(message: &ReceivedMessage) -> Option<&str> {
    let id = message.properties_ref().ok()?.message_id?.as_str().ok()?;
    Some(id).filter(|id| !id.is_empty())
}
