//! `Claim`: the mark of a message in the store of a source that deduplicates, while its handler runs.
//!
//! When a claim is dropped (handler timeout, application stopped), a separate task removes its mark.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use amqp_async::ReceivedMessage;

use super::engine::Engine;
use super::settle::Job;
use super::source::Task;
use crate::failure::{BoxError, Failure, FailureCause, Verdict};
use crate::late::Late;
use crate::limits::SEEN_TIMEOUT;
use crate::message::Message;
use crate::seen::{Begun, SeenId, Store};
use crate::trace;

/// What follows for a message.
pub(crate) enum Claimed {
    /// The handler is called. `None`: nothing is deduplicated.
    Handle(Option<Claim>),
    /// These are sent again.
    Done(Vec<Message>),
    /// It is being handled elsewhere.
    Running,
    Failed(Failure),
}

pub(crate) struct Claim {
    store: Arc<dyn Store>,
    id: SeenId,
    engine: Arc<Engine>,
    /// The calls of the handler that run on after their timeout. The mark must not be removed before they end.
    late: Late,
    is_open: bool,
    /// What is stored when other resources have committed.
    replies: Vec<Message>,
}

impl Claim {
    /// Asks the store for a message.
    pub(crate) async fn begin<S>(
        Job { source, lane, worker, .. }: Job<'_, S>,
        message: &ReceivedMessage,
        deadline: Option<Instant>,
    ) -> Claimed {
        let Some(deduplication) = &source.consume.deduplication else {
            return Claimed::Handle(None);
        };
        let Some(id) = deduplication.id(&lane.queue, message) else {
            return Claimed::Handle(None);
        };
        let store = Arc::clone(&deduplication.store);
        match source.engine.runner.until(deadline, store.begin(&id)).await {
            Some(Ok(Begun::New)) => {
                let (engine, late) = (Arc::clone(&source.engine), source.late[worker].clone());
                let replies = Vec::new();
                Claimed::Handle(Some(Self { store, id, engine, late, is_open: true, replies }))
            }
            Some(Ok(Begun::Done(replies))) => {
                trace::duplicate(&lane.queue);
                Claimed::Done(replies)
            }
            Some(Ok(Begun::Running)) => Claimed::Running,
            Some(Err(error)) => Claimed::Failed(failure(&error)),
            None => Claimed::Failed(too_late()),
        }
    }

    /// Stores what is sent for the message.
    pub(crate) async fn done(
        &mut self,
        replies: &[Message],
        deadline: Option<Instant>,
    ) -> Result<(), Failure> {
        let done = self.store.done(&self.id, replies);
        match self.engine.runner.until(deadline, done).await {
            Some(Ok(())) => {
                self.is_open = false;
                Ok(())
            }
            Some(Err(error)) => Err(failure(&error)),
            None => Err(too_late()),
        }
    }

    /// Keeps what is sent until [`finish`](Self::finish).
    pub(crate) fn keep(&mut self, replies: Vec<Message>) {
        self.replies = replies;
    }

    /// Stores what was kept, if nothing is stored yet.
    pub(crate) async fn finish(&mut self) {
        if !self.is_open {
            return;
        }
        let replies = std::mem::take(&mut self.replies);
        // The timeout of the handler may have expired while others committed.
        let deadline = self.engine.runner.now().checked_add(SEEN_TIMEOUT);
        if let Err(failure) = self.done(&replies, deadline).await {
            trace::unmarked(&self.id, &failure);
            self.failed().await;
        }
    }

    /// Removes the mark, if nothing is stored yet.
    pub(crate) async fn failed(&mut self) {
        // A handler that blocks and is late has not ended: the drop waits for it.
        if self.is_open && self.late.count() == 0 {
            remove_mark(&self.store, &self.id, &self.engine).await;
            self.is_open = false;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        let (store, id, late) = (Arc::clone(&self.store), self.id.clone(), self.late.clone());
        let engine = Arc::clone(&self.engine);
        engine.add_tasks(1);
        let task = Task(Arc::clone(&engine));
        let removing = async move {
            late.none().await;
            remove_mark(&store, &id, &task.0).await;
            drop(task);
        };
        // A runtime that has ended takes no task: the mark stays until it expires.
        drop(catch_unwind(AssertUnwindSafe(|| engine.runner.spawn(removing))));
    }
}

async fn remove_mark(store: &Arc<dyn Store>, id: &SeenId, engine: &Engine) {
    let deadline = engine.runner.now().checked_add(SEEN_TIMEOUT);
    match engine.runner.until(deadline, store.failed(id)).await {
        Some(Ok(())) => {}
        Some(Err(error)) => trace::unmarked(id, &error),
        None => trace::unmarked(id, &"no answer"),
    }
}

fn failure(error: &BoxError) -> Failure {
    Failure::new(Verdict::Retry, FailureCause::Error, format!("the store of duplicates: {error}"))
}

fn too_late() -> Failure {
    let text = "the store of duplicates did not answer before the deadline";
    Failure::new(Verdict::Retry, FailureCause::TimedOut, text)
}
