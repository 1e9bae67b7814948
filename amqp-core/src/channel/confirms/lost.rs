//! The publishes that the broker had not answered when their transport was lost.
//!
//! Each loss makes an epoch: the runs of numbers without an answer, and the cause. Publishes are written in the
//! order of their numbers, so one number separates those that may have arrived from those that were not sent.
//!
//! An epoch never changes, so a publish has the same outcome however often it is asked for. It answers for the
//! numbers in its runs only: those between them were confirmed. The memory is limited. Above the limit, the
//! oldest epochs are merged into one range, whose publishes have an unknown outcome, including those between
//! the runs. A publish that was lost never looks confirmed.

use std::collections::VecDeque;

use crate::channel::confirms::outcome::Confirmation;
use crate::costs::count;
use crate::error::Error;
use crate::limits::{LOST_EPOCHS_MAX, LOST_RUNS_MAX};

#[derive(Debug)]
pub(super) struct Lost {
    /// The oldest is first.
    epochs: VecDeque<Epoch>,
    /// The number of runs of all epochs.
    runs: usize,
    merged: Option<Merged>,
}

/// The publishes that were lost with one transport.
#[derive(Debug)]
pub(super) struct Epoch {
    /// Sorted. There is at least one other number between two runs.
    runs: Vec<Run>,
    /// From this number on, publishes were not sent.
    not_sent_from: u64,
    cause: Error,
}

/// A range of numbers, with its ends.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    last: u64,
}

#[derive(Debug)]
struct Merged {
    range: Run,
    /// The cause of the newest of its epochs.
    cause: Error,
}

impl Lost {
    pub(super) const fn new() -> Self {
        Self { epochs: VecDeque::new(), runs: 0, merged: None }
    }

    pub(super) fn push(&mut self, epoch: Epoch) {
        if epoch.runs.is_empty() {
            return;
        }
        self.runs += epoch.runs.len();
        self.epochs.push_back(epoch);
        while self.epochs.len() > 1
            && (self.epochs.len() > LOST_EPOCHS_MAX || self.runs > LOST_RUNS_MAX)
        {
            count(1);
            self.merge_oldest();
        }
    }

    /// Returns the outcome of a publish, if it was lost.
    pub(super) fn outcome(&self, seq: u64) -> Option<Confirmation> {
        if let Some(epoch) = self.epochs.iter().find(|epoch| epoch.has(seq)) {
            return Some(epoch.outcome(seq));
        }
        let merged = self.merged.as_ref().filter(|merged| merged.range.has(seq))?;
        Some(Confirmation::Unknown(merged.cause.clone()))
    }

    fn merge_oldest(&mut self) {
        let Some(epoch) = self.epochs.pop_front() else { return };
        self.runs -= epoch.runs.len();
        let (Some(first), Some(last)) = (epoch.runs.first(), epoch.runs.last()) else { return };
        let mut range = Run { first: first.first, last: last.last };
        if let Some(before) = &self.merged {
            range.first = range.first.min(before.range.first);
            range.last = range.last.max(before.range.last);
        }
        self.merged = Some(Merged { range, cause: epoch.cause });
    }
}

impl Epoch {
    /// Creates an epoch without publishes. Those from `not_sent_from` on were not sent.
    pub(super) const fn new(cause: Error, not_sent_from: u64) -> Self {
        Self { runs: Vec::new(), not_sent_from, cause }
    }

    /// Adds a publish. Its number must be higher than those before.
    pub(super) fn push(&mut self, seq: u64) {
        match self.runs.last_mut() {
            Some(run) if run.last + 1 == seq => run.last = seq,
            _ => self.runs.push(Run { first: seq, last: seq }),
        }
    }

    /// The number of the last publish.
    pub(super) fn last(&self) -> Option<u64> {
        self.runs.last().map(|run| run.last)
    }

    /// The first and the last number of each run.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs.iter().map(|run| (run.first, run.last))
    }

    fn has(&self, seq: u64) -> bool {
        let run = self.runs.partition_point(|run| run.last < seq);
        self.runs.get(run).is_some_and(|run| run.has(seq))
    }

    fn outcome(&self, seq: u64) -> Confirmation {
        let cause = self.cause.clone();
        if seq < self.not_sent_from {
            Confirmation::Unknown(cause)
        } else {
            Confirmation::NotSent(cause)
        }
    }
}

impl Run {
    const fn has(self, seq: u64) -> bool {
        self.first <= seq && seq <= self.last
    }
}
