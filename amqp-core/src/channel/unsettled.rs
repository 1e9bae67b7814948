//! The deliveries of a channel that are to be settled.
//!
//! What RabbitMQ would close the channel for is refused here: settling a delivery twice, or one that
//! an earlier `multiple` covered. Tags come in rising order and are mostly settled in about that
//! order: they are a run of numbers until one is settled out of its turn. Then they stand in a queue
//! whose settled front is popped at once; one that is settled further back is marked, and the marked
//! ones are swept when they are the greater part.
//!
//! In transaction mode a rollback undoes what was acked or nacked since the last commit, so those tags
//! are kept until then. A delivery that is handled leaves the hands of its holder. After a rollback it
//! can be acked or nacked again by its tag, but it counts as given up: nobody is known to hold it.

use std::collections::VecDeque;
use std::ops::Range;

use crate::costs::count;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Open, and whoever held the delivery has dropped it.
    GivenUp,
    Settled,
}

#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    tags: VecDeque<(u64, State)>,
    /// Tags beyond those, each of them open.
    run: Range<u64>,
    open: usize,
    /// Dropped without being settled.
    given_up: usize,
    /// Settled since the last commit.
    uncommitted: Vec<u64>,
}

impl Unsettled {
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

    /// Deliveries that somebody may yet settle.
    #[inline]
    pub(crate) const fn in_hand(&self) -> usize {
        self.open
    }

    /// The lowest tag that is not settled.
    #[inline(always)]
    pub(crate) fn lowest(&self) -> Option<u64> {
        match self.tags.front() {
            Some((tag, _)) => Some(*tag),
            None => (!self.run.is_empty()).then_some(self.run.start),
        }
    }

    /// Settles one delivery; whether it was open.
    #[inline(always)]
    pub(crate) fn settle(&mut self, tag: u64, transactional: bool) -> bool {
        // Most are settled in their order.
        if self.lowest() == Some(tag) && !transactional {
            self.settle_lowest();
            return true;
        }
        self.spread();
        let Some(at) = self.find(tag) else { return false };
        self.settle_at(at, transactional);
        self.sweep();
        true
    }

    #[inline]
    fn settle_lowest(&mut self) {
        match self.tags.pop_front() {
            None => {
                self.run.start += 1;
                self.open -= 1;
            }
            Some((_, state)) => {
                *(if state == State::GivenUp { &mut self.given_up } else { &mut self.open }) -= 1;
                self.sweep();
            }
        }
    }

    /// Settles a delivery and all before it; whether it was open.
    pub(crate) fn settle_up_to(&mut self, tag: u64, transactional: bool) -> bool {
        self.spread();
        let Some(last) = self.find(tag) else { return false };
        for at in 0..=last {
            count(1);
            self.settle_at(at, transactional);
        }
        self.sweep();
        true
    }

    /// Nobody will settle the delivery; whether anybody could have.
    pub(crate) fn give_up(&mut self, tag: u64) -> bool {
        self.spread();
        let Some(entry) = self.find(tag).and_then(|at| self.tags.get_mut(at)) else { return false };
        let open = entry.1 == State::Open;
        if open {
            entry.1 = State::GivenUp;
            self.open -= 1;
            self.given_up += 1;
        }
        open
    }

    /// The broker takes everything back that is not settled; what waits for a commit is.
    pub(crate) fn recover(&mut self) {
        self.tags.clear();
        self.run = 0..0;
        (self.open, self.given_up) = (0, 0);
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
        self.given_up += self.uncommitted.len();
        self.tags.retain(|(_, state)| *state != State::Settled);
        self.tags.extend(self.uncommitted.drain(..).map(|tag| (tag, State::GivenUp)));
        self.tags.make_contiguous().sort_unstable_by_key(|(tag, _)| *tag);
    }

    /// Lets the tags of the run be settled in any order.
    fn spread(&mut self) {
        count((self.run.end - self.run.start) as usize);
        self.tags.extend(self.run.by_ref().map(|tag| (tag, State::Open)));
    }

    /// Where an unsettled delivery stands.
    #[inline]
    fn find(&self, tag: u64) -> Option<usize> {
        let at = self.tags.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        self.tags.get(at).filter(|(_, state)| *state != State::Settled).map(|_| at)
    }

    #[inline]
    fn settle_at(&mut self, at: usize, transactional: bool) {
        let Some(entry) = self.tags.get_mut(at) else { return };
        match entry.1 {
            State::Open => self.open -= 1,
            State::GivenUp => self.given_up -= 1,
            State::Settled => return,
        }
        if transactional {
            self.uncommitted.push(entry.0);
        }
        entry.1 = State::Settled;
    }

    #[inline]
    fn sweep(&mut self) {
        while let Some((_, State::Settled)) = self.tags.front() {
            count(1);
            self.tags.pop_front();
        }
        let unsettled = self.open + self.given_up;
        if self.tags.len() > 2 * unsettled.max(32) {
            count(self.tags.len());
            self.tags.retain(|(_, state)| *state != State::Settled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Unsettled;
    use proptest::prelude::{any, proptest};
    use std::collections::BTreeSet;

    #[test]
    fn a_rollback_makes_settlements_undone() {
        let mut unsettled = Unsettled::default();
        for tag in [3, 5, 6, 9] {
            unsettled.push(tag);
        }
        assert!(unsettled.give_up(6));
        assert!(unsettled.settle(5, true) && !unsettled.settle(5, true));
        unsettled.commit();
        assert!(unsettled.settle_up_to(6, true));
        assert_eq!((unsettled.in_hand(), unsettled.given_up), (1, 0));
        unsettled.roll_back();
        assert_eq!((unsettled.in_hand(), unsettled.given_up), (1, 2), "nobody holds 3");
        assert!(!unsettled.settle(5, true), "what was committed stays settled");
        assert!(
            unsettled.settle(3, true) && unsettled.settle(6, true) && unsettled.settle(9, true)
        );
        assert!(!unsettled.settle(4, false) && !unsettled.settle(10, false));
        // Recovering takes back what is not settled alone.
        unsettled.commit();
        unsettled.push(12);
        unsettled.push(13);
        assert!(unsettled.settle(12, true));
        unsettled.recover();
        unsettled.roll_back();
        assert!(unsettled.settle(12, true) && !unsettled.settle(13, true));
    }

    /// Where a delivery before them is open, settled ones are marked. The marks go with the one that makes
    /// them the greater part.
    #[test]
    fn marks_are_swept_when_they_are_the_greater_part() {
        let mut unsettled = Unsettled::default();
        (1..=100).for_each(|tag| unsettled.push(tag));
        assert!((2..=51).all(|tag| unsettled.settle(tag, false)));
        assert_eq!((unsettled.in_hand(), unsettled.tags.len()), (50, 100));
        assert!(unsettled.settle(52, false));
        assert_eq!((unsettled.in_hand(), unsettled.tags.len()), (49, 49));
        assert!(!unsettled.settle(52, false) && unsettled.settle(53, false));
        assert_eq!(unsettled.lowest(), Some(1));
    }

    /// Where a delivery before them is open, settled ones are marked: the marks go.
    #[test]
    fn a_rollback_leaves_each_delivery_once() {
        let mut unsettled = Unsettled::default();
        (1..=9).for_each(|tag| unsettled.push(tag));
        assert!((2..=9).all(|tag| unsettled.settle(tag, true)));
        unsettled.roll_back();
        assert_eq!((unsettled.in_hand(), unsettled.given_up, unsettled.tags.len()), (1, 8, 9));
        assert!((1..=9).all(|tag| unsettled.settle(tag, true)));
        assert_eq!((unsettled.in_hand(), unsettled.given_up, unsettled.tags.len()), (0, 0, 0));
    }

    proptest! {
        /// As a set of tags behaves; and settled ones take no memory for long.
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((0_u8..4, any::<proptest::sample::Index>()), 1..400)) {
            let (mut unsettled, mut model, mut next) = (Unsettled::default(), BTreeSet::new(), 1_u64);
            for (step, index) in steps {
                let tag = index.index(next as usize) as u64;
                match step {
                    0 | 1 => {
                        unsettled.push(next);
                        model.insert(next);
                        next += 1;
                    }
                    2 => assert_eq!(unsettled.settle(tag, false), model.remove(&tag)),
                    _ => {
                        assert_eq!(unsettled.settle_up_to(tag, false), model.contains(&tag));
                        if model.contains(&tag) {
                            model.retain(|other| *other > tag);
                        }
                    }
                }
                assert_eq!(unsettled.in_hand(), model.len());
                assert!(unsettled.tags.len() <= 2 * model.len().max(32));
            }
        }
    }
}
