//! `Engine`: what the sources of a running application share.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use amqp_async::Connection;

use super::report::Counters;
use super::sender::Sender;
use crate::error::Error;
use crate::runner::Runner;
use crate::sync::{Level, lock};

/// The levels of a shutdown.
pub(crate) const STOPPING: u8 = 1;
/// The time for messages in work has expired.
pub(crate) const NOW: u8 = 2;

pub(crate) struct Engine {
    pub(crate) runner: Runner,
    /// The connection that consumes and acknowledges.
    pub(crate) consuming: Connection,
    pub(crate) sender: Sender,
    pub(crate) counters: Counters,
    pub(crate) stop: Level,
    error: Mutex<Option<Error>>,
    /// Workers and supervisors that have not ended.
    tasks: AtomicUsize,
    idle: Level,
    /// Whether a commit was under way when the time for a shutdown expired.
    commits_late: AtomicBool,
}

impl Engine {
    pub(crate) fn new(runner: Runner, consuming: Connection, sender: Sender, stop: Level) -> Self {
        Self {
            runner,
            consuming,
            sender,
            counters: Counters::default(),
            stop,
            error: Mutex::default(),
            tasks: AtomicUsize::new(0),
            idle: Level::default(),
            commits_late: AtomicBool::new(false),
        }
    }

    /// Ends the application with an error. The first one counts.
    pub(crate) fn fail(&self, error: Error) {
        lock(&self.error).get_or_insert(error);
        self.stop.raise(STOPPING);
    }

    pub(crate) fn take_error(&self) -> Option<Error> {
        lock(&self.error).take()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.get() >= STOPPING
    }

    pub(crate) fn add_tasks(&self, count: usize) {
        self.tasks.fetch_add(count, Ordering::AcqRel);
    }

    pub(crate) fn task_ended(&self) {
        if self.tasks.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.raise(1);
        }
    }

    /// A commit is under way although the time for a shutdown has expired.
    pub(crate) fn commit_is_late(&self) {
        self.commits_late.store(true, Ordering::Release);
    }

    pub(crate) fn commits_late(&self) -> bool {
        self.commits_late.load(Ordering::Acquire)
    }

    /// Waits until all tasks have ended.
    pub(crate) async fn idle(&self) {
        self.idle.reached(1).await;
    }
}
