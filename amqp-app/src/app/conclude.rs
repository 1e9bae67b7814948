//! What follows from the outcome of a handler: participants vote, what it returned is sent, and the message is acknowledged.
//! Either what is sent is confirmed before the acknowledgement, or both are in one transaction.

use amqp_async::{Properties, ReceivedMessage, Tx};

use super::claim::Claim;
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
use crate::reply::{self, NoReplyTo};
use crate::sync::lock;
use crate::trace;

/// A message whose handler has succeeded.
pub(crate) struct Handled<'a, S> {
    pub(crate) job: Job<'a, S>,
    pub(crate) message: &'a ReceivedMessage,
}

/// The messages that handlers send, completed with the ids of their requests.
#[derive(Default)]
pub(crate) struct Caused {
    messages: Vec<amqp_async::Message>,
    /// Whether they are replies to a requester.
    replies: Vec<bool>,
    /// The numbers of the messages that have caused them. Without a batch, they are all of the first one.
    owners: Option<Vec<Option<usize>>>,
}

impl Caused {
    /// Those of a message.
    fn by_one<S>(context: &Context<S>, messages: Vec<Message>) -> Result<Self, Failure> {
        let mut caused = Self::default();
        let request = if messages.is_empty() { None } else { context.properties().ok() };
        caused.add(Some(0), request, messages)?;
        Ok(caused)
    }

    /// Those of a batch.
    pub(crate) fn by_several() -> Self {
        Self { owners: Some(Vec::new()), ..Self::default() }
    }

    /// Those that were sent before.
    fn before(messages: Vec<amqp_async::Message>) -> Self {
        Self { messages, ..Self::default() }
    }

    /// Adds what a message has caused. Messages of a batch as a whole have no request.
    ///
    /// # Errors
    /// One of them cannot be sent. None is added.
    pub(crate) fn add(
        &mut self,
        owner: Option<usize>,
        request: Option<&Properties>,
        messages: Vec<Message>,
    ) -> Result<(), Failure> {
        let none = Properties::new();
        let request = request.unwrap_or(&none);
        let (begin, failed) = (self.messages.len(), |error: NoReplyTo| {
            Failure::new(Verdict::Permanent, FailureCause::Unsent, error.to_string())
        });
        for (index, message) in messages.into_iter().enumerate() {
            self.replies.push(message.is_reply());
            self.owners.iter_mut().for_each(|it| it.push(owner));
            match reply::complete(request, index, message, ids::unique) {
                Ok(completed) => self.messages.push(completed),
                Err(error) => {
                    self.messages.truncate(begin);
                    self.replies.truncate(begin);
                    self.owners.iter_mut().for_each(|it| it.truncate(begin));
                    return Err(failed(error));
                }
            }
        }
        Ok(())
    }

    /// What a store keeps of them. Completed once more, they are the same.
    fn stored(&self) -> Vec<Message> {
        let stored = |(message, is_reply): (&amqp_async::Message, &bool)| {
            let message = Message::from(message.clone());
            if *is_reply { message.reply() } else { message }
        };
        self.messages.iter().zip(&self.replies).map(stored).collect()
    }

    /// The number of the message that has caused this one, `None` if a batch as a whole has.
    fn owner(&self, index: usize) -> Option<usize> {
        self.owners.as_ref().map_or(Some(0), |it| it.get(index).copied().flatten())
    }

    /// Whether a batch as a whole has caused something.
    fn is_of_all(&self) -> bool {
        self.owners.iter().flatten().any(Option::is_none)
    }

    /// The job of the message that has caused this one, for a batch as a whole that of its first message.
    fn job<'a, S>(&self, index: usize, handled: &[Handled<'a, S>]) -> Option<Job<'a, S>> {
        handled.get(self.owner(index).unwrap_or_default()).map(|it| it.job)
    }

    /// What was caused, each with its job.
    fn by_job<'a, S>(self, handled: &[Handled<'a, S>]) -> Vec<(Job<'a, S>, amqp_async::Message)> {
        let jobs: Vec<_> = (0..self.messages.len()).map(|it| self.job(it, handled)).collect();
        jobs.into_iter().zip(self.messages).filter_map(|(job, it)| Some((job?, it))).collect()
    }

    /// What this message has caused.
    fn of(&self, owner: usize) -> Vec<amqp_async::Message> {
        let of_owner = |(index, message): (usize, &amqp_async::Message)| {
            (self.owner(index) == Some(owner)).then(|| message.clone())
        };
        self.messages.iter().enumerate().filter_map(of_owner).collect()
    }
}

/// Carries out the outcome of a handler.
pub(crate) async fn conclude<S: Clone + Send + Sync + 'static>(
    job: Job<'_, S>,
    message: &ReceivedMessage,
    context: &Context<S>,
    claim: Option<Claim>,
    outcome: Outcome,
) -> Attempted {
    let (result, instead) = outcome.of_one().into_parts();
    let mut participants = context.take_participants().with(claim);
    let concluded = match result {
        Ok(mut messages) => {
            messages.append(&mut context.take_outgoing());
            match vote(job, context, &mut participants).await {
                Ok(()) => match Caused::by_one(context, messages) {
                    Ok(caused) => {
                        let stored = || caused.stored();
                        if let Err(failure) = participants.record(stored, context.deadline()).await
                        {
                            participants.abort(&job.lane.queue).await;
                            return Attempted::Failed(failure, context.attempt());
                        }
                        let handled = [Handled { job, message }];
                        carry_out(&handled, &mut participants, caused, &instead).await
                    }
                    Err(failure) => Err(failure),
                },
                Err(failure) => Err(failure),
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

/// Asks the participants. The time that the handler has is theirs too.
pub(crate) async fn vote<S>(
    job: Job<'_, S>,
    context: &Context<S>,
    participants: &mut Joint,
) -> Result<(), Failure> {
    let voted = job.source.engine.runner.until(context.deadline(), participants.vote()).await;
    voted.unwrap_or_else(|| {
        let text = "a participant did not vote within the timeout of the handler";
        Err(Failure::new(Verdict::Retry, FailureCause::TimedOut, text))
    })
}

/// Undoes what participants have done whose handler acknowledges its message itself.
pub(crate) async fn undo<S>(job: Job<'_, S>, context: &Context<S>, claim: Option<Claim>) {
    context.take_participants().with(claim).abort(&job.lane.queue).await;
}

/// Stores the outcome of a handler that has succeeded although its message was given back meanwhile: the next delivery gets the
/// same replies. Other resources abort, and what they have not committed has to be done again.
pub(crate) async fn store_late<S>(context: &Context<S>, claim: &mut Claim, outcome: Outcome) {
    let Ok(mut messages) = outcome.of_one().into_result() else { return };
    messages.append(&mut context.take_outgoing());
    if !context.has_participants()
        && let Ok(caused) = Caused::by_one(context, messages)
    {
        claim.keep(caused.stored());
        claim.finish().await;
    }
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
        (Some(Kept::Alone), _) => Recalled::Unknown,
        (Some(Kept::Sent(sent)), Some(tx)) => {
            let (again, caused) = (sent.clone(), Caused::before(sent));
            let handled = [Handled { job, message }];
            match transacted(&handled, tx, &mut Joint::default(), caused, &[]).await {
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

/// Sends what handlers have caused, and acknowledges their messages.
///
/// # Errors
/// The messages are still here, and the participants have not finished.
pub(crate) async fn carry_out<S: Clone + Send + Sync + 'static>(
    handled: &[Handled<'_, S>],
    participants: &mut Joint,
    caused: Caused,
    instead: &[Message],
) -> Result<(), Failure> {
    let Some(Handled { job, .. }) = handled.first() else { return Ok(()) };
    if let Some(tx) = job.tx {
        return transacted(handled, tx, participants, caused, instead).await;
    }
    send(handled, &caused).await?;
    participants.finish(&job.lane.queue).await;
    for (number, Handled { job, message }) in handled.iter().enumerate() {
        if settle::acknowledge(*job, &job.source.engine.counters.handled).await {
            remember(*job, message, caused.of(number));
        }
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
    let mut caused = Caused::default();
    if caused.add(Some(0), message.properties().ok().as_ref(), instead).is_err() {
        return false;
    }
    // With confirms in any mode: a transaction has just failed.
    if send(&[Handled { job, message }], &caused).await.is_err() {
        return false;
    }
    trace::instead(&job.lane.queue, failure);
    counters.failed.add(&job.lane.measures, 1);
    settle::answer(job, &counters.discarded, amqp_async::Delivery::ack).await != Answered::NotHere
}

/// Commits what messages cause, and sees to what follows.
async fn transacted<S: Clone + Send + Sync + 'static>(
    handled: &[Handled<'_, S>],
    tx: &Tx,
    participants: &mut Joint,
    caused: Caused,
    instead: &[Message],
) -> Result<(), Failure> {
    let Some(&Handled { job: first, message }) = handled.first() else { return Ok(()) };
    let Job { lane, source, .. } = first;
    let counters = &source.engine.counters;
    let count = |counter, is_answered| {
        handled.iter().for_each(|it| settle::count(it.job, counter, is_answered));
    };
    let failed = || handled.iter().for_each(|it| counters.failed.add(&it.job.lane.measures, 1));
    match transact(handled, tx, &caused.messages).await {
        Transacted::Failed(failure) => return Err(failure),
        Transacted::GivenBack => participants.abort(&lane.queue).await,
        Transacted::Committed => {
            participants.finish(&lane.queue).await;
            handled.iter().for_each(|it| it.job.lane.stored());
            count(&counters.handled, true);
            transaction::park_returned(handled, tx).await;
        }
        Transacted::Lost if !participants.is_empty() => {
            participants.abort(&lane.queue).await;
            count(&counters.handled, false);
        }
        Transacted::Lost | Transacted::Unknown => {
            participants.finish(&lane.queue).await;
            count(&counters.handled, false);
            // What a batch as a whole has caused would come with none of its messages.
            if !caused.is_of_all() {
                for (number, Handled { job, message }) in handled.iter().enumerate() {
                    remember(*job, message, caused.of(number));
                }
            }
        }
        Transacted::Refused(error) => {
            participants.abort(&lane.queue).await;
            failed();
            count(&counters.handled, false);
            source.engine.sender.forget();
            // Otherwise they would come again and again.
            for Handled { job, message } in handled {
                let text = || format!("the broker refused the transaction: {error}");
                let kept = match handled.len() {
                    1 => Kept::Refused(text(), instead.to_vec()),
                    _ => Kept::Alone,
                };
                let mark = Mark::new(id(message).unwrap_or_default(), message.body());
                lock(&job.lane.remembered).keep(source.engine.runner.now(), mark, kept);
            }
        }
        Transacted::Partial(error) => {
            trace::partial(&lane.queue, &error);
            failed();
            count(&counters.discarded, true);
            let text = format!("the broker committed a part of a transaction: {error}");
            let mut in_place = Caused::default();
            let request = message.properties().ok();
            let rest: Vec<_> = match in_place.add(Some(0), request.as_ref(), instead.to_vec()) {
                Ok(()) if !instead.is_empty() => {
                    participants.abort(&lane.queue).await;
                    let sent = source.engine.sender.send_all(&in_place.messages);
                    let is_counted = || settle::is_counted(lane, message);
                    let sent = settle::confirms(first, is_counted, sent).await;
                    let sent = sent.unwrap_or_default().into_iter();
                    let unsent = sent.map(|it| it.is_err()).chain(std::iter::repeat(true));
                    let messages = in_place.messages.into_iter().zip(unsent);
                    messages.filter_map(|(it, unsent)| unsent.then_some((first, it))).collect()
                }
                _ => {
                    participants.finish(&lane.queue).await;
                    caused.by_job(handled)
                }
            };
            for (job, message) in rest {
                transaction::park(job, &message, &text).await;
            }
        }
    }
    Ok(())
}

/// Sends messages, and waits until they are confirmed.
async fn send<S>(handled: &[Handled<'_, S>], caused: &Caused) -> Result<(), Failure> {
    let Some(Handled { job, .. }) = handled.first() else { return Ok(()) };
    if caused.messages.is_empty() {
        return Ok(());
    }
    let engine = &job.source.engine;
    let sending = engine.sender.send_all(&caused.messages);
    let is_counted = || handled.iter().any(|it| settle::is_counted(it.job.lane, it.message));
    let Some(results) = settle::confirms(*job, is_counted, sending).await else {
        job.lane.unstored();
        let text = format!("not confirmed within {} s", CONFIRMS_TIMEOUT.as_secs());
        return Err(Failure::new(Verdict::GiveBack, FailureCause::Unsent, text));
    };
    let mut first = None;
    for (index, result) in results.into_iter().enumerate() {
        let Err(error) = result else { continue };
        if matches!(error, Unsent::Unroutable { .. }) {
            let of = caused.job(index, handled).unwrap_or(*job);
            engine.counters.unroutable.add(&of.lane.measures, 1);
            if caused.replies[index] {
                // Requesters come and go.
                continue;
            }
        }
        first.get_or_insert_with(|| unsent(&error));
    }
    first.map_or(Ok(()), Err)
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

/// Whether something is known of a message that was delivered before.
pub(crate) fn is_known<S>(job: Job<'_, S>, message: &ReceivedMessage) -> bool {
    let remembered = lock(&job.lane.remembered);
    let mark = || Mark::new(id(message).unwrap_or_default(), message.body());
    !remembered.is_empty() && remembered.knows(&mark())
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
