//! Which tags of 1, 2, 3, ... were acked, in any order and each at most once.

use std::collections::HashSet;

/// The acked tags: all up to one, and some beyond.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tags {
    all_to: u64,
    beyond: HashSet<u64>,
}

impl Tags {
    /// The number of acked tags.
    pub(crate) fn count(&self) -> u64 {
        self.all_to + self.beyond.len() as u64
    }

    /// Records the ack of a tag, or of all up to it.
    ///
    /// # Errors
    /// The tag is above `last`, or was acked before.
    #[inline]
    pub(crate) fn ack(&mut self, tag: u64, multiple: bool, last: u64) -> Result<(), String> {
        if tag > last || tag <= self.all_to {
            return Err(format!("tag {tag} was acked out of {}..={last}", self.all_to + 1));
        }
        if multiple {
            self.all_to = tag;
            self.beyond.retain(|beyond| *beyond > tag);
        } else if tag == self.all_to + 1 {
            self.all_to = tag;
        } else if !self.beyond.insert(tag) {
            return Err(format!("tag {tag} was acked twice"));
        }
        while !self.beyond.is_empty() && self.beyond.remove(&(self.all_to + 1)) {
            self.all_to += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Tags;

    #[test]
    fn every_tag_counts_once_in_any_order() {
        let mut tags = Tags::default();
        for (tag, multiple, acked) in [
            (1, false, 1),
            (3, false, 2),
            (4, false, 3),
            (2, false, 4),
            (7, false, 5),
            (8, true, 8),
        ] {
            assert_eq!(tags.ack(tag, multiple, 10), Ok(()));
            assert_eq!(tags.count(), acked);
        }
        for tag in [0, 8, 11] {
            assert!(tags.ack(tag, false, 10).is_err());
        }
        assert_eq!(tags.ack(10, false, 10), Ok(()));
        assert!(tags.ack(10, false, 10).is_err());
        assert_eq!(tags.count(), 9);
    }
}
