//! Channel numbers. They are allocated from 1 up, and reused in least recently used order, only after the
//! channel has closed on both sides.
//!
//! **Crossing closes.** If both sides close a channel at once, each owes the other a close-ok. RabbitMQ may
//! or may not send its own: if our close reaches a channel process that is terminating, it is lost. So the
//! broker's close ends such a channel. A close-ok that arrives later, at any time or never, is ignored.
//!
//! **Repeated closes.** RabbitMQ may repeat its close of a channel until it has read our close-ok. By then
//! the number may be in use again, and a copy of the close may arrive before `channel.open-ok`. A copy has
//! the same code and text as the close that was answered. A close with a different one refuses the open.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::error::BrokerError;
use crate::ids::ChannelId;

#[derive(Debug)]
pub(crate) struct Numbers {
    max: u16,
    /// The channel of each number, starting at 1.
    channels: Vec<Option<ChannelId>>,
    free: VecDeque<u16>,
    /// The numbers for which a close-ok may still arrive that answers no current close.
    owed: BTreeSet<u16>,
    /// The broker's reason for closing the last channel of each number.
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

    /// Allocates a number for the channel that `open` creates with it. Unused numbers come before used ones.
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

    /// Whether the number was ever allocated. A frame on it may then be late, and is not a protocol error.
    pub(crate) fn was_used(&self, number: u16) -> bool {
        number > 0 && usize::from(number) <= self.channels.len()
    }

    /// Records that our close of this channel may still be answered.
    pub(crate) fn owe_close_ok(&mut self, number: u16) {
        self.owed.insert(number);
    }

    /// Handles a close-ok that answers no current close. Returns whether it was expected.
    pub(crate) fn take_owed_close_ok(&mut self, number: u16) -> bool {
        self.owed.remove(&number)
    }

    /// Records that the broker has closed the channel of this number, and that the close is answered.
    pub(crate) fn closed_by_broker(&mut self, number: u16, error: BrokerError) {
        self.closed.insert(number, error);
    }

    /// Whether a close that arrives before open-ok is a copy of the previous one.
    pub(crate) fn is_copy(&self, number: u16, error: &BrokerError) -> bool {
        self.closed.get(&number) == Some(error)
    }

    /// Records that open-ok has arrived, so that the broker has read our close-ok.
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
