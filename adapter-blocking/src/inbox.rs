//! The inbox of a dispatcher: closures that other threads submit.
//!
//! The number of jobs in it is limited. The dispatcher registers a waker when the inbox is empty, and the
//! next job wakes it. A closed inbox accepts no jobs.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::limits::SUBMITTED_MAX;
use amqp_async::core::CloseCause;

/// Why a closure will not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The connection is closed.
    #[error("the connection is closed: {0}")]
    Closed(CloseCause),
    /// The dispatcher was dropped.
    #[error("the dispatcher was dropped")]
    DispatcherGone,
    /// The dispatcher's inbox is full.
    #[error("the dispatcher's inbox is full: {SUBMITTED_MAX} closures wait")]
    Full,
}

pub(crate) struct Inbox<J>(Mutex<State<J>>);

struct State<J> {
    jobs: VecDeque<J>,
    waker: Option<Waker>,
    /// Whether the dispatcher was dropped, so that no thread will run jobs.
    closed: bool,
}

impl<J> Inbox<J> {
    /// Appends a job, and wakes the thread that waits for one.
    pub(crate) fn push(&self, job: J) -> Result<(), SubmitError> {
        let waker = {
            let mut state = self.lock();
            if state.closed {
                return Err(SubmitError::DispatcherGone);
            }
            if state.jobs.len() >= SUBMITTED_MAX {
                return Err(SubmitError::Full);
            }
            state.jobs.push_back(job);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Takes the oldest job. If there is none, the next one wakes `waker`.
    pub(crate) fn take(&self, waker: &Waker) -> Option<J> {
        let mut state = self.lock();
        let job = state.jobs.pop_front();
        if job.is_none() {
            state.waker = Some(waker.clone());
        }
        job
    }

    /// Closes the inbox, and drops the jobs in it.
    pub(crate) fn close(&self) {
        // They are dropped without the lock, because a job may own something that takes it.
        let jobs = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.jobs)
        };
        drop(jobs);
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Default for Inbox<J> {
    fn default() -> Self {
        Self(Mutex::new(State { jobs: VecDeque::new(), waker: None, closed: false }))
    }
}

impl<J> fmt::Debug for Inbox<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}
