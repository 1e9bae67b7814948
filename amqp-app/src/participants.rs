//! Participants: resources that take part in the commit of a message, such as the transaction of a database.
//!
//! They vote before anything is sent. The broker commits last, because it cannot vote: when its answer is positive, all others
//! have agreed already.

use std::pin::pin;
use std::time::Instant;

use crate::app::claim::Claim;
use crate::context::Context;
use crate::extract::{FromContext, Scope};
use crate::failure::{Failure, FailureCause, Verdict};
use crate::message::Message;
use crate::runner::BoxFuture;
use crate::sync::catching;
use crate::trace;

/// A resource that takes part in the commit of a message, such as the transaction of a database. A handler lets it take part
/// by [`Participants::join`].
///
/// When the handler has succeeded, all participants [`vote`](Self::vote), in the order in which they joined. If all agree,
/// the messages are sent, and confirmed or committed. Then all participants [`finish`](Self::finish), and with confirms the
/// message is acknowledged after that. Otherwise all of them [`abort`](Self::abort), and the retry policy decides.
///
/// If the connection is lost, and it is unknown whether the broker has committed, they finish: a duplicate is better than a
/// loss. The message may come again, and its outcome is remembered ([`Consume::forget`](crate::Consume::forget)).
///
/// A participant is dropped without `finish` or `abort` if the process ends, or if a handler that blocks lets it join after
/// its timeout: its `Drop` should abort. A handler that takes its [`Delivery`](amqp_async::Delivery) decides by itself, and its
/// participants abort.
///
/// Votes have the timeout of the handler. `finish` and `abort` have none, and the worker waits for them.
///
/// ```
/// use amqp_app::prelude::*;
/// # struct Database;
/// # struct Rows;
/// # impl Database { async fn begin(&self) -> Result<Rows, std::io::Error> { Ok(Rows) } }
/// # impl Rows {
/// #     async fn insert(&mut self, _: &str) -> Result<(), std::io::Error> { Ok(()) }
/// #     async fn prepare(&mut self) -> Result<(), std::io::Error> { Ok(()) }
/// #     async fn commit(&mut self) {}
/// #     async fn roll_back(&mut self) {}
/// # }
///
/// impl Participant for Rows {
///     async fn vote(&mut self) -> Result<(), Failure> {
///         Ok(self.prepare().await?)
///     }
///
///     async fn finish(&mut self) {
///         self.commit().await;
///     }
///
///     async fn abort(&mut self) {
///         self.roll_back().await;
///     }
/// }
///
/// # #[derive(Clone)] struct Shared(std::sync::Arc<Database>);
/// async fn store(
///     Text(line): Text,
///     State(database): State<Shared>,
///     participants: Participants,
/// ) -> Result<(), Failure> {
///     let mut rows = database.0.begin().await?;
///     rows.insert(&line).await?;
///     participants.join(rows);
///     Ok(())
/// }
/// ```
pub trait Participant: Send + 'static {
    /// Decides whether it can commit, and prepares that. After `Ok`, [`finish`](Self::finish) must not fail.
    ///
    /// # Errors
    /// It cannot: the attempt of the handler has failed.
    fn vote(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Commits. All have agreed, and the messages are sent.
    fn finish(&mut self) -> impl Future<Output = ()> + Send;

    /// Undoes everything. May be called without a vote. It is called at most once, and is the last call.
    fn abort(&mut self) -> impl Future<Output = ()> + Send;
}

/// Lets resources take part in the commit of the message that is being handled: see [`Participant`].
#[derive(Clone, Debug)]
pub struct Participants(Context<()>);

impl Participants {
    /// Lets a resource take part in the commit of this message.
    pub fn join(&self, participant: impl Participant) {
        self.0.join(Box::new(participant));
    }
}

impl<S> FromContext<S> for Participants {
    const SCOPE: Scope = Scope::Application;

    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        Ok(Self(context.without_state()))
    }
}

/// A [`Participant`] without its type.
pub(crate) trait Joined: Send {
    fn vote(&mut self) -> BoxFuture<'_, Result<(), Failure>>;
    fn finish(&mut self) -> BoxFuture<'_, ()>;
    fn abort(&mut self) -> BoxFuture<'_, ()>;
}

impl<P: Participant> Joined for P {
    fn vote(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async { Participant::vote(self).await })
    }

    fn finish(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async { Participant::finish(self).await })
    }

    fn abort(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async { Participant::abort(self).await })
    }
}

/// Those of one message, or of a batch, and the claim to the message of a source that deduplicates.
#[derive(Default)]
pub(crate) struct Joint {
    participants: Vec<Box<dyn Joined>>,
    claim: Option<Claim>,
}

impl Joint {
    pub(crate) fn add(&mut self, participant: Box<dyn Joined>) {
        self.participants.push(participant);
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.participants.append(&mut other.participants);
    }

    pub(crate) fn with(self, claim: Option<Claim>) -> Self {
        Self { claim, ..self }
    }

    /// Whether there are no participants.
    pub(crate) fn is_empty(&self) -> bool {
        self.participants.is_empty()
    }

    /// Stores what is sent, before it is sent. With participants it is stored when they have committed: an outcome must not be
    /// known before its effects are.
    pub(crate) async fn record(
        &mut self,
        replies: impl FnOnce() -> Vec<Message>,
        deadline: Option<Instant>,
    ) -> Result<(), Failure> {
        match &mut self.claim {
            None => Ok(()),
            Some(claim) if self.participants.is_empty() => claim.done(&replies(), deadline).await,
            Some(claim) => {
                claim.keep(replies());
                Ok(())
            }
        }
    }

    /// Asks all, one after the other. The first that does not agree ends it.
    pub(crate) async fn vote(&mut self) -> Result<(), Failure> {
        for participant in &mut self.participants {
            let voting = pin!(participant.vote());
            let panicked = |panic| Failure::new(Verdict::Retry, FailureCause::Panic, panic);
            catching(voting).await.map_err(panicked)??;
        }
        Ok(())
    }

    /// Has all commit.
    pub(crate) async fn finish(&mut self, queue: &str) {
        for participant in &mut self.participants {
            let finishing = pin!(participant.finish());
            if let Err(panic) = catching(finishing).await {
                trace::participant(queue, &panic);
            }
        }
        if let Some(claim) = &mut self.claim {
            claim.finish().await;
        }
    }

    /// Has all undo what they have done.
    pub(crate) async fn abort(&mut self, queue: &str) {
        for participant in &mut self.participants {
            let aborting = pin!(participant.abort());
            if let Err(panic) = catching(aborting).await {
                trace::participant(queue, &panic);
            }
        }
        if let Some(claim) = &mut self.claim {
            claim.failed().await;
        }
    }
}
