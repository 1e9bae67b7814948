//! Channel numbers: handed out from 1 up, reused least recently used first, and never before the
//! channel has closed on both sides.
//!
//! Where both sides close at once, each owes the other an answer. RabbitMQ pays, or not: a close of ours
//! that meets a channel process on its way out is lost with it. So the broker's close is the end of such
//! a channel. Its answer to ours may come at any time, or never, and is let pass where none is due.
//!
//! RabbitMQ may repeat its close of a channel until it has read our answer. By then the number may serve
//! again, and a copy of the close may come ahead of `channel.open-ok`. It says the same as the close that
//! was answered. A close that says something else refuses the open.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::error::BrokerError;
use crate::ids::ChannelId;

#[derive(Debug)]
pub(crate) struct Numbers {
    max: u16,
    /// The channel of each number, from 1.
    channels: Vec<Option<ChannelId>>,
    free: VecDeque<u16>,
    /// Those for which a close-ok may still come that is nobody's.
    owed: BTreeSet<u16>,
    /// What the broker closed the number's last channel for.
    closed: BTreeMap<u16, BrokerError>,
}

impl Numbers {
    pub(crate) const fn new(max: u16) -> Self {
        Self {
            max,
            channels: Vec::new(),
            free: VecDeque::new(),
            owed: BTreeSet::new(),
            closed: BTreeMap::new(),
        }
    }

    pub(crate) const fn limit(&mut self, max: u16) {
        self.max = max;
    }

    pub(crate) const fn max(&self) -> u16 {
        self.max
    }

    /// A number for the channel that `open` makes of it. Fresh numbers come before used ones.
    pub(crate) fn allocate(&mut self, open: impl FnOnce(u16) -> ChannelId) -> Option<ChannelId> {
        if self.channels.len() < usize::from(self.max) {
            let number = self.channels.len() as u16 + 1;
            let id = open(number);
            self.channels.push(Some(id));
            return Some(id);
        }
        let number = self.free.pop_front()?;
        let id = open(number);
        if let Some(place) = self.channels.get_mut(usize::from(number) - 1) {
            *place = Some(id);
        }
        Some(id)
    }

    #[inline]
    pub(crate) fn channel(&self, number: u16) -> Option<ChannelId> {
        *self.channels.get(usize::from(number).checked_sub(1)?)?
    }

    /// Whether the number was ever handed out: a frame on it may be late rather than wrong.
    pub(crate) fn was_used(&self, number: u16) -> bool {
        number > 0 && usize::from(number) <= self.channels.len()
    }

    /// Our close of the number's channel may yet be answered.
    pub(crate) fn owe_close_ok(&mut self, number: u16) {
        self.owed.insert(number);
    }

    /// A close-ok has come that answers nothing; whether it was owed.
    pub(crate) fn take_owed_close_ok(&mut self, number: u16) -> bool {
        self.owed.remove(&number)
    }

    /// The broker has closed the number's channel, and is answered.
    pub(crate) fn closed_by_broker(&mut self, number: u16, error: BrokerError) {
        self.closed.insert(number, error);
    }

    /// Whether a close that comes ahead of open-ok is a copy of the one before.
    pub(crate) fn is_copy(&self, number: u16, error: &BrokerError) -> bool {
        self.closed.get(&number) == Some(error)
    }

    /// Open-ok has come: the broker has read our answer.
    pub(crate) fn opened(&mut self, number: u16) {
        self.closed.remove(&number);
    }

    pub(crate) fn free(&mut self, number: u16) {
        let place = usize::from(number).checked_sub(1).and_then(|at| self.channels.get_mut(at));
        if place.and_then(Option::take).is_some() {
            self.free.push_back(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Numbers;
    use crate::ids::ChannelId;
    use crate::slab::Key;

    #[test]
    fn the_least_recently_used_number_comes_first() {
        let mut numbers = Numbers::new(3);
        let allocate = |numbers: &mut Numbers| {
            let mut given = None;
            let id = |number| {
                given = Some(number);
                ChannelId(Key { index: u32::from(number), generation: 0 })
            };
            numbers.allocate(id).and(given)
        };
        let first: Vec<_> = (0..4).map(|_| allocate(&mut numbers)).collect();
        assert_eq!(first, [Some(1), Some(2), Some(3), None]);
        numbers.free(2);
        numbers.free(1);
        numbers.free(2);
        let again: Vec<_> = (0..3).map(|_| allocate(&mut numbers)).collect();
        assert_eq!(again, [Some(2), Some(1), None]);
    }
}
