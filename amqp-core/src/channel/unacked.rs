//! The deliveries of a channel that are neither acked nor nacked. Here *acked* stands for both.
//!
//! What RabbitMQ would close the channel for is refused: acking a delivery twice, or one that an earlier
//! `multiple` covered. Tags come in rising order and are mostly acked in about that order. They are a
//! run of numbers until one is acked out of its turn. Then they stand in a queue whose acked front is
//! popped at once. One that is acked further back is marked, and the marked ones are swept when they are
//! the greater part.
//!
//! In transaction mode a rollback undoes what was acked since the last commit, so those tags are kept
//! until then. An acked delivery has left its holder. After a rollback it can be acked again by its tag,
//! but it counts as dropped: no holder is known.

use std::collections::VecDeque;
use std::ops::Range;

use crate::costs::count;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Open, and its holder has dropped the delivery.
    Dropped,
    Acked,
}

#[derive(Debug, Default)]
pub(crate) struct Unacked {
    tags: VecDeque<(u64, State)>,
    /// Tags beyond those, each of them open.
    run: Range<u64>,
    open: usize,
    /// Dropped without being acked.
    dropped: usize,
    /// Acked since the last commit.
    uncommitted: Vec<u64>,
}

impl Unacked {
    /// A delivery has come; tags rise.
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

    /// The number of deliveries whose holder may yet ack them.
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

    /// Whether a delivery is still to be acked.
    pub(crate) fn is_open(&self, tag: u64) -> bool {
        self.run.contains(&tag) || self.find(tag).is_some()
    }

    /// Marks one delivery as acked; whether it was open.
    #[inline(always)]
    pub(crate) fn ack(&mut self, tag: u64, transactional: bool) -> bool {
        // Most are acked in their order.
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

    /// Marks a delivery and all before it as acked; whether it was open.
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

    /// Its holder has dropped the delivery; whether it had one.
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

    /// The broker takes everything back that is not acked; what waits for a commit is.
    pub(crate) fn recover(&mut self) {
        self.tags.clear();
        self.run = 0..0;
        (self.open, self.dropped) = (0, 0);
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

    /// Lets the tags of the run be acked in any order.
    fn spread(&mut self) {
        count((self.run.end - self.run.start) as usize);
        self.tags.extend(self.run.by_ref().map(|tag| (tag, State::Open)));
    }

    /// Where an unacked delivery stands.
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
        // Recovering takes back what is not acked alone.
        unacked.commit();
        unacked.push(12);
        unacked.push(13);
        assert!(unacked.ack(12, true));
        unacked.recover();
        unacked.roll_back();
        assert!(unacked.ack(12, true) && !unacked.ack(13, true));
    }

    /// Where a delivery before them is open, acked ones are marked. The marks go with the one that makes
    /// them the greater part.
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

    /// Where a delivery before them is open, acked ones are marked: the marks go.
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
        /// As a set of tags behaves; and acked ones take no memory for long.
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
