//! The numbers of the publishes that the broker's delivery tags mean.
//!
//! The tags count from 1 on each transport. The publishes that are sent again have the first of them, in the
//! order of their numbers. Publishes between them that were resolved before are not sent again, so they have no
//! tag. Behind them, tags and numbers differ by a constant.

#[derive(Debug)]
pub(super) struct Tags {
    /// The number of a publish less its tag, for all but those that were sent again.
    shift: u64,
    /// The number of publishes that were sent again.
    resent: u64,
    /// The first publish of each run of consecutive numbers that were sent again.
    runs: Vec<First>,
}

#[derive(Clone, Copy, Debug)]
struct First {
    tag: u64,
    seq: u64,
}

impl Tags {
    pub(super) const fn new() -> Self {
        Self { shift: 0, resent: 0, runs: Vec::new() }
    }

    /// Begins with a transport on which nothing was published. `next` is the number of the next new publish.
    pub(super) fn restart(&mut self, next: u64) {
        *self = Self { shift: next - 1, ..Self::new() };
    }

    /// Records that a publish is sent again, in the order of the numbers. `next` is the number of the next new
    /// publish.
    pub(super) fn resent(&mut self, seq: u64, next: u64) {
        self.resent += 1;
        let tag = self.resent;
        if self.runs.last().is_none_or(|run| run.seq + (tag - run.tag) != seq) {
            self.runs.push(First { tag, seq });
        }
        self.shift = next - 1 - self.resent;
    }

    /// Returns the number of the publish with this tag, 0 for the tag 0. The number of a tag that is too large
    /// is that of no publish, or wraps and is smaller than the tag.
    #[inline]
    pub(super) fn number(&self, tag: u64) -> u64 {
        if tag > self.resent { tag.wrapping_add(self.shift) } else { self.resent_number(tag) }
    }

    /// Frees the memory when all publishes below `base` are resolved, if all that were sent again are.
    pub(super) fn release(&mut self, base: u64) {
        if self.resent > 0 && base > self.shift + self.resent {
            self.restart(self.shift + 1);
        }
    }

    #[cold]
    fn resent_number(&self, tag: u64) -> u64 {
        let after = self.runs.partition_point(|run| run.tag <= tag);
        let run = after.checked_sub(1).and_then(|index| self.runs.get(index));
        run.map_or(0, |run| run.seq + (tag - run.tag))
    }
}

#[cfg(test)]
mod tests {
    use super::Tags;

    #[test]
    fn resolved_publishes_have_no_tag() {
        let mut tags = Tags::new();
        assert_eq!((tags.number(0), tags.number(1), tags.number(7)), (0, 1, 7));
        tags.restart(10);
        // 5 and 8 were resolved before.
        for (sent, seq) in [3, 4, 6, 7, 9].into_iter().enumerate() {
            let first_unsent = sent as u64 + 1;
            assert_eq!(tags.number(first_unsent), 10, "nothing else is published yet");
            tags.resent(seq, 10);
        }
        let numbers: Vec<_> = (0..=7).map(|tag| tags.number(tag)).collect();
        assert_eq!(numbers, [0, 3, 4, 6, 7, 9, 10, 11]);
        assert_eq!(tags.runs.len(), 3);
        tags.release(9);
        assert_eq!(tags.number(3), 6, "9 is open");
        tags.release(10);
        assert_eq!((tags.number(5), tags.number(6), tags.number(7)), (9, 10, 11));
        assert!(tags.runs.is_empty());
        assert!(tags.number(u64::MAX) < u64::MAX);
    }
}
