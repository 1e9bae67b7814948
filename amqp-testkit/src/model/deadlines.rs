//! Deadlines in the order of their times, each at most once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::broker::ConnectionId;

/// What happens at a deadline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The first message of this queue expires.
    Message(String),
    /// The dead letters of this queue that no queue has taken are published again.
    DeadLetters(String),
    /// The oldest delivery of this channel is unacknowledged for too long.
    Acknowledgement(ConnectionId, u16),
    /// This queue expires, if it has no consumer.
    Queue(String),
}

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    in_order: BTreeSet<(Duration, Due)>,
    times: BTreeMap<Due, Duration>,
}

impl Deadlines {
    /// Sets a deadline, in place of an earlier one for the same, or removes it with `None`.
    pub(super) fn set(&mut self, due: Due, at: Option<Duration>) {
        if let Some((due, time)) = self.times.remove_entry(&due) {
            self.in_order.remove(&(time, due));
        }
        if let Some(at) = at {
            self.times.insert(due.clone(), at);
            self.in_order.insert((at, due));
        }
    }

    /// Returns the time of the first deadline.
    pub(super) fn first(&self) -> Option<Duration> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// Removes the first deadline, if it is not after this time.
    pub(super) fn pop(&mut self, now: Duration) -> Option<(Duration, Due)> {
        self.first().filter(|first| *first <= now)?;
        let (at, due) = self.in_order.pop_first()?;
        self.times.remove(&due);
        Some((at, due))
    }

    pub(super) fn clear(&mut self) {
        self.in_order.clear();
        self.times.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Deadlines, Due};

    #[test]
    fn deadlines_are_replaced_and_come_in_order() {
        let at = Duration::from_secs;
        let queue = |name: &str| Due::Queue(name.to_owned());
        let mut deadlines = Deadlines::default();
        for (name, seconds) in [("a", 3), ("b", 2), ("c", 1), ("b", 4)] {
            deadlines.set(queue(name), Some(at(seconds)));
        }
        deadlines.set(queue("c"), None);
        assert_eq!(deadlines.first(), Some(at(3)));
        assert_eq!(deadlines.pop(at(2)), None);
        assert_eq!(deadlines.pop(at(9)), Some((at(3), queue("a"))));
        assert_eq!(deadlines.pop(at(9)), Some((at(4), queue("b"))));
        assert_eq!(deadlines.pop(at(9)), None);
    }
}
