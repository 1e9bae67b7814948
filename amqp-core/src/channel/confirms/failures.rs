//! The outcomes of publishes that were not confirmed.
//!
//! Those that the broker nacked or returned are in a side table, until their caller takes or drops the outcome.
//! Those that the broker had not answered when their transport was lost are in [`Lost`].

use std::collections::BTreeMap;

use crate::channel::confirms::lost::{Epoch, Lost};
use crate::channel::confirms::outcome::Confirmation;

#[derive(Debug)]
pub(super) struct Failures {
    side: BTreeMap<u64, Confirmation>,
    lost: Lost,
    lost_end: u64,
    /// The highest number of all failures, plus 1.
    end: u64,
}

impl Failures {
    pub(super) const fn new() -> Self {
        Self { side: BTreeMap::new(), lost: Lost::new(), lost_end: 0, end: 0 }
    }

    /// No publish from this number on has failed.
    #[inline]
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Records that a publish was nacked or returned.
    pub(super) fn insert(&mut self, seq: u64, confirmation: Confirmation) {
        self.side.insert(seq, confirmation);
        self.end = self.end.max(seq + 1);
    }

    /// Records the publishes that were lost with a transport.
    pub(super) fn lose(&mut self, epoch: Epoch) {
        self.lost_end = self.lost_end.max(epoch.last().map_or(0, |last| last + 1));
        self.end = self.end.max(self.lost_end);
        self.lost.push(epoch);
    }

    /// Returns the outcome of a publish, if it has failed. A nack or a return is returned once.
    #[cold]
    pub(super) fn take(&mut self, seq: u64) -> Option<Confirmation> {
        self.remove(seq).or_else(|| self.lost.outcome(seq))
    }

    /// Drops the outcome of a publish that was nacked or returned.
    pub(super) fn forget(&mut self, seq: u64) {
        if seq < self.end {
            self.remove(seq);
        }
    }

    fn remove(&mut self, seq: u64) -> Option<Confirmation> {
        let removed = self.side.remove(&seq)?;
        let side_end = self.side.last_key_value().map_or(0, |(last, _)| last + 1);
        self.end = self.lost_end.max(side_end);
        Some(removed)
    }
}
