//! The deliveries of a channel that are neither acked nor nacked. In this file, *acked* includes nacked and
//! rejected.
//!
//! An ack for which RabbitMQ would close the channel is refused: a second ack of a delivery, or one of a
//! delivery that an earlier `multiple` covered. Tags arrive in rising order, and are mostly acked in about
//! the same order. As long as they are acked in order, they are stored as a range of numbers. Otherwise they
//! are stored in a queue. Acked tags at the front of the queue are removed immediately. Others are marked,
//! and removed together when more than half are marked.
//!
//! In transaction mode, a rollback undoes the acks since the last commit. So these tags are kept until the
//! commit. The holder of an acked delivery is gone. After a rollback, the delivery can be acked again by its
//! tag, but it counts as dropped because no holder is known.

use std::collections::VecDeque;
use std::ops::Range;

use crate::costs::count;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Open, but its holder has dropped the delivery.
    Dropped,
    Acked,
}

#[derive(Debug, Default)]
pub(crate) struct Unacked {
    tags: VecDeque<(u64, State)>,
    /// The tags after those in the queue, all of them open.
    run: Range<u64>,
    open: usize,
    /// The number of deliveries that were dropped without an ack.
    dropped: usize,
    /// The tags that were acked since the last commit.
    uncommitted: Vec<u64>,
}

impl Unacked {
    /// Records a delivery. Tags rise.
    #[inline]
    pub(crate) fn push(&mut self, tag: u64) {
        self.open += 1;
        if self.run.end == tag {
            self.run.end += 1;
        } else {
            self.spread();
            self.run = tag..tag + 1;
        }
    }

    /// The number of deliveries whose holder may still ack them.
    #[inline]
    pub(crate) const fn held(&self) -> usize {
        self.open
    }

    /// The lowest tag that is not acked.
    #[inline(always)]
    pub(crate) fn lowest(&self) -> Option<u64> {
        match self.tags.front() {
            Some((tag, _)) => Some(*tag),
            None => (!self.run.is_empty()).then_some(self.run.start),
        }
    }

    /// Whether a delivery is not acked yet.
    pub(crate) fn is_open(&self, tag: u64) -> bool {
        self.run.contains(&tag) || self.find(tag).is_some()
    }

    /// Marks one delivery as acked. Returns whether it was open.
    #[inline(always)]
    pub(crate) fn ack(&mut self, tag: u64, transactional: bool) -> bool {
        // Most deliveries are acked in order.
        if self.lowest() == Some(tag) && !transactional {
            self.ack_lowest();
            return true;
        }
        self.spread();
        let Some(at) = self.find(tag) else { return false };
        self.ack_at(at, transactional);
        self.sweep();
        true
    }

    #[inline]
    fn ack_lowest(&mut self) {
        match self.tags.pop_front() {
            None => {
                self.run.start += 1;
                self.open -= 1;
            }
            Some((_, state)) => {
                *(if state == State::Dropped { &mut self.dropped } else { &mut self.open }) -= 1;
                self.sweep();
            }
        }
    }

    /// Marks a delivery and all before it as acked. Returns whether it was open.
    pub(crate) fn ack_up_to(&mut self, tag: u64, transactional: bool) -> bool {
        self.spread();
        let Some(last) = self.find(tag) else { return false };
        for at in 0..=last {
            count(1);
            self.ack_at(at, transactional);
        }
        self.sweep();
        true
    }

    /// Records that the holder has dropped the delivery. Returns whether there was a holder.
    pub(crate) fn mark_dropped(&mut self, tag: u64) -> bool {
        self.spread();
        let Some(entry) = self.find(tag).and_then(|at| self.tags.get_mut(at)) else { return false };
        let open = entry.1 == State::Open;
        if open {
            entry.1 = State::Dropped;
            self.open -= 1;
            self.dropped += 1;
        }
        open
    }

    /// Removes everything that is not acked, because the broker has requeued it. Acks that wait for a commit
    /// remain.
    pub(crate) fn recover(&mut self) {
        self.tags.clear();
        self.run = 0..0;
        (self.open, self.dropped) = (0, 0);
    }

    /// Whether an ack waits for a commit.
    pub(crate) const fn has_uncommitted(&self) -> bool {
        !self.uncommitted.is_empty()
    }

    pub(crate) fn commit(&mut self) {
        self.uncommitted.clear();
    }

    pub(crate) fn roll_back(&mut self) {
        if self.uncommitted.is_empty() {
            return;
        }
        count(self.tags.len() + self.uncommitted.len());
        self.spread();
        self.dropped += self.uncommitted.len();
        self.tags.retain(|(_, state)| *state != State::Acked);
        self.tags.extend(self.uncommitted.drain(..).map(|tag| (tag, State::Dropped)));
        self.tags.make_contiguous().sort_unstable_by_key(|(tag, _)| *tag);
    }

    /// Moves the range into the queue, so that its tags can be acked in any order.
    fn spread(&mut self) {
        count((self.run.end - self.run.start) as usize);
        self.tags.extend(self.run.by_ref().map(|tag| (tag, State::Open)));
    }

    /// Returns the index of an unacked delivery in the queue.
    #[inline]
    fn find(&self, tag: u64) -> Option<usize> {
        let at = self.tags.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        self.tags.get(at).filter(|(_, state)| *state != State::Acked).map(|_| at)
    }

    #[inline]
    fn ack_at(&mut self, at: usize, transactional: bool) {
        let Some(entry) = self.tags.get_mut(at) else { return };
        match entry.1 {
            State::Open => self.open -= 1,
            State::Dropped => self.dropped -= 1,
            State::Acked => return,
        }
        if transactional {
            self.uncommitted.push(entry.0);
        }
        entry.1 = State::Acked;
    }

    #[inline]
    fn sweep(&mut self) {
        while let Some((_, State::Acked)) = self.tags.front() {
            count(1);
            self.tags.pop_front();
        }
        let unacked = self.open + self.dropped;
        if self.tags.len() > 2 * unacked.max(32) {
            count(self.tags.len());
            self.tags.retain(|(_, state)| *state != State::Acked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Unacked;
    use proptest::prelude::{any, proptest};
    use std::collections::BTreeSet;

    #[test]
    fn a_rollback_undoes_acks() {
        let mut unacked = Unacked::default();
        for tag in [3, 5, 6, 9] {
            unacked.push(tag);
        }
        assert!(unacked.mark_dropped(6));
        assert!(unacked.ack(5, true) && !unacked.ack(5, true));
        unacked.commit();
        assert!(unacked.ack_up_to(6, true));
        assert_eq!((unacked.held(), unacked.dropped), (1, 0));
        unacked.roll_back();
        assert_eq!((unacked.held(), unacked.dropped), (1, 2), "nobody holds 3");
        assert!(!unacked.ack(5, true), "what was committed stays acked");
        assert!(unacked.ack(3, true) && unacked.ack(6, true) && unacked.ack(9, true));
        assert!(!unacked.ack(4, false) && !unacked.ack(10, false));
        // `basic.recover` requeues only what is not acked.
        unacked.commit();
        unacked.push(12);
        unacked.push(13);
        assert!(unacked.ack(12, true));
        unacked.recover();
        unacked.roll_back();
        assert!(unacked.ack(12, true) && !unacked.ack(13, true));
    }

    /// While an earlier delivery is unacknowledged, acked ones are marked. The marked ones are removed when
    /// they are more than half.
    #[test]
    fn marks_are_swept_when_they_are_the_greater_part() {
        let mut unacked = Unacked::default();
        (1..=100).for_each(|tag| unacked.push(tag));
        assert!((2..=51).all(|tag| unacked.ack(tag, false)));
        assert_eq!((unacked.held(), unacked.tags.len()), (50, 100));
        assert!(unacked.ack(52, false));
        assert_eq!((unacked.held(), unacked.tags.len()), (49, 49));
        assert!(!unacked.ack(52, false) && unacked.ack(53, false));
        assert_eq!(unacked.lowest(), Some(1));
    }

    /// While an earlier delivery is unacknowledged, acked ones are marked. A rollback removes the marks.
    #[test]
    fn a_rollback_leaves_each_delivery_once() {
        let mut unacked = Unacked::default();
        (1..=9).for_each(|tag| unacked.push(tag));
        assert!((2..=9).all(|tag| unacked.ack(tag, true)));
        unacked.roll_back();
        assert_eq!((unacked.held(), unacked.dropped, unacked.tags.len()), (1, 8, 9));
        assert!((1..=9).all(|tag| unacked.ack(tag, true)));
        assert_eq!((unacked.held(), unacked.dropped, unacked.tags.len()), (0, 0, 0));
    }

    proptest! {
        /// It behaves like a set of tags, and acked tags do not use memory for long.
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((0_u8..4, any::<proptest::sample::Index>()), 1..400)) {
            let (mut unacked, mut model, mut next) = (Unacked::default(), BTreeSet::new(), 1_u64);
            for (step, index) in steps {
                let tag = index.index(next as usize) as u64;
                match step {
                    0 | 1 => {
                        unacked.push(next);
                        model.insert(next);
                        next += 1;
                    }
                    2 => assert_eq!(unacked.ack(tag, false), model.remove(&tag)),
                    _ => {
                        assert_eq!(unacked.ack_up_to(tag, false), model.contains(&tag));
                        if model.contains(&tag) {
                            model.retain(|other| *other > tag);
                        }
                    }
                }
                assert_eq!(unacked.held(), model.len());
                assert!(unacked.tags.len() <= 2 * model.len().max(32));
            }
        }
    }
}
