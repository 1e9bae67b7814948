//! What a message causes in a transaction: publishes, the acknowledgement of the message, and the commit
//! (<https://www.rabbitmq.com/docs/semantics#tx>).
//!
//! Each worker of a transactional source has a channel in transaction mode of its own, so a commit never has a part of what
//! another message causes. Nothing is published before the handler has succeeded, so there is seldom something to roll back.
//!
//! If the commit is not confirmed, the message is not in the slot any more. The broker delivers it again, unless it has
//! carried out the commit.

use amqp_async::{BrokerError, ChannelCause, Delivery, Error, ReceivedMessage, Tx};

use super::conclude::{Handled, unsent};
use super::sender::{Unsent, unix_seconds};
use super::settle::{Job, PARKED, original};
use crate::context::Held;
use crate::copy::{self, Failed};
use crate::failure::{Failure, FailureCause, Verdict};
use crate::limits::CONFIRMS_TIMEOUT;
use crate::measure::Sending;
use crate::runner::Runner;
use crate::trace;

/// The text of the channel error with which RabbitMQ ends a commit of which a part was refused, such as a reply to a full
/// queue.
const PARTIAL: &str = "partial tx completion";

/// What became of a transaction.
#[derive(Debug)]
pub(crate) enum Transacted {
    /// The broker has confirmed the commit.
    Committed,
    /// Nothing was committed. The message is still in its slot.
    Failed(Failure),
    /// A shutdown has given the message back meanwhile. Nothing was committed.
    GivenBack,
    /// The connection was lost before the commit: the message comes again.
    Lost,
    /// The connection was lost during the commit, or its reply did not come. If nothing was committed, the message comes again.
    Unknown,
    /// The broker has refused the commit, and closed the channel: the message comes again.
    Refused(BrokerError),
    /// The message is acknowledged, and the broker has refused a part of the others.
    Partial(BrokerError),
}

/// Publishes messages and acknowledges those that have caused them, in one transaction.
pub(crate) async fn transact<S>(
    handled: &[Handled<'_, S>],
    tx: &Tx,
    messages: &[amqp_async::Message],
) -> Transacted {
    let Some(Handled { job, .. }) = handled.first() else { return Transacted::Committed };
    let engine = &job.source.engine;
    // Its channel has closed while it was handled, such as by the consumer timeout: nothing was refused.
    if job.slot.look(Delivery::is_stale) == Some(true) {
        for Handled { job, .. } in handled {
            drop(job.slot.take(Held::Answered));
        }
        return Transacted::Lost;
    }
    // A missing exchange would close the channel, and the message would come again and again.
    for message in messages {
        if let Err(error) = engine.sender.find(&message.exchange).await {
            return Transacted::Failed(unsent(&error));
        }
    }
    let mut sending = Sending::begin(&engine.runner, messages);
    if let Err(failure) = publish(&engine.runner, tx, messages).await {
        return roll_back(tx).await.unwrap_or(Transacted::Failed(failure));
    }
    for Handled { job, .. } in handled {
        let Some(delivery) = job.slot.take(Held::Answered) else {
            return roll_back(tx).await.unwrap_or(Transacted::GivenBack);
        };
        if delivery.ack().is_err() {
            return roll_back(tx).await.unwrap_or(Transacted::Lost);
        }
    }
    let committed = commit(tx).await;
    if committed.is_ok() {
        messages.iter().for_each(|_| sending.done(&Ok(())));
    }
    committed.into()
}

/// Why a commit was not confirmed.
#[cfg_attr(
    not(feature = "transaction-pool"),
    expect(
        dead_code,
        reason = "only transactions of a pool return the errors of a lost connection"
    )
)]
pub(crate) enum Uncommitted {
    /// The connection was lost before the commit.
    Lost(Error),
    /// The connection was lost during the commit, or its reply did not come.
    Unknown(Error),
    /// The broker has refused it, and closed the channel.
    Refused(BrokerError),
    /// The broker has committed a part, and refused the others.
    Partial(BrokerError),
}

/// Commits what was done on a channel in transaction mode.
pub(crate) async fn commit(tx: &Tx) -> Result<(), Uncommitted> {
    match tx.commit().await {
        Ok(()) => Ok(()),
        Err(Error::Channel(ChannelCause::ByBroker(error))) => {
            Err(match error.text.contains(PARTIAL) {
                true => Uncommitted::Partial(error),
                false => Uncommitted::Refused(error),
            })
        }
        Err(error @ Error::Interrupted { maybe_executed: false, .. }) => {
            Err(Uncommitted::Lost(error))
        }
        Err(error) => {
            close_if_silent(tx, &error).await;
            Err(Uncommitted::Unknown(error))
        }
    }
}

impl From<Result<(), Uncommitted>> for Transacted {
    fn from(committed: Result<(), Uncommitted>) -> Self {
        match committed {
            Ok(()) => Self::Committed,
            Err(Uncommitted::Lost(_)) => Self::Lost,
            Err(Uncommitted::Unknown(_)) => Self::Unknown,
            Err(Uncommitted::Refused(error)) => Self::Refused(error),
            Err(Uncommitted::Partial(error)) => Self::Partial(error),
        }
    }
}

/// Publishes messages on the channel of the transaction.
async fn publish(
    runner: &Runner,
    tx: &Tx,
    messages: &[amqp_async::Message],
) -> Result<(), Failure> {
    let channel = tx.channel();
    let publishing = async {
        for message in messages {
            channel.basic_publish(message).await?;
        }
        Ok(())
    };
    let deadline = runner.now().checked_add(CONFIRMS_TIMEOUT);
    let failure = |verdict, text| Failure::new(verdict, FailureCause::Unsent, text);
    match runner.until(deadline, publishing).await {
        Some(Ok(())) => Ok(()),
        Some(Err(Error::InvalidArgument(invalid))) => {
            let text = format!("a message of the handler cannot be sent: {invalid}");
            Err(failure(Verdict::Permanent, text))
        }
        // The channel or the connection is lost, and the message comes again.
        Some(Err(error)) => Err(failure(Verdict::GiveBack, error.to_string())),
        None => {
            let text = format!("not sent within {} s", CONFIRMS_TIMEOUT.as_secs());
            Err(failure(Verdict::GiveBack, text))
        }
    }
}

/// Rolls back. If the broker has closed the channel, it has refused what was published, and that is the outcome.
async fn roll_back(tx: &Tx) -> Option<Transacted> {
    match tx.rollback().await {
        Err(Error::Channel(ChannelCause::ByBroker(error))) => Some(Transacted::Refused(error)),
        Err(error) => {
            close_if_silent(tx, &error).await;
            None
        }
        Ok(()) => None,
    }
}

/// A channel whose transaction has an unknown state is closed: the broker drops what is not committed, and delivers again
/// what is not acknowledged.
async fn close_if_silent(tx: &Tx, error: &Error) {
    if matches!(error, Error::Deadline { .. }) {
        drop(tx.channel().close().await);
    }
}

/// Parks messages of a transaction that reached no queue, although their request is acknowledged.
pub(crate) async fn park_returned<S>(handled: &[Handled<'_, S>], tx: &Tx) {
    let Some(&Handled { job, .. }) = handled.first() else { return };
    let channel = tx.channel();
    while let Some(returned) = channel.take_returned() {
        job.source.engine.counters.unroutable.add(&job.lane.measures, 1);
        let answers = |request: &ReceivedMessage| {
            let reply_to = request.properties().ok().and_then(|it| it.reply_to);
            reply_to.is_some_and(|it| it.as_bytes() == returned.message.routing_key().as_bytes())
        };
        let is_reply = || {
            returned.message.exchange().as_bytes().is_empty()
                && handled.iter().any(|it| answers(it.message))
        };
        // Requesters come and go.
        if !is_reply() {
            park(job, &original(&returned.message), &returned.to_string()).await;
        }
    }
}

/// Parks a message that a transaction has lost. Its request is acknowledged.
pub(crate) async fn park<S>(job: Job<'_, S>, message: &amqp_async::Message, error: &str) {
    let engine = &job.source.engine;
    let failed = Failed { queue: &job.lane.queue, attempts: 1, error, now: unix_seconds() };
    let Some(parking) = job.source.consume.retry.parking_queue(&job.lane.queue) else {
        return trace::lost(&job.lane.queue, &error);
    };
    for detail in PARKED {
        let copy = copy::copy(message, failed, detail, &parking);
        let deadline = engine.runner.now().checked_add(CONFIRMS_TIMEOUT);
        match engine.runner.until(deadline, engine.sender.send(&copy)).await {
            Some(Ok(())) => return engine.counters.parked.add(&job.lane.measures, 1),
            Some(Err(Unsent::Invalid(_))) => {}
            Some(Err(unsent)) => return trace::lost(&job.lane.queue, &unsent),
            None => break,
        }
    }
    trace::lost(&job.lane.queue, &error);
}
