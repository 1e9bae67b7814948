//! Publisher confirms (<https://www.rabbitmq.com/docs/confirms#publisher-confirms>).
//!
//! Publishes on a channel are numbered from 1, and the broker settles them by number, one or all up
//! to one. A ring holds a slot for each publish from the oldest open one on; its settled front is
//! popped at once, so that a publish before the ring is confirmed unless the side table says
//! otherwise. The side table holds what was nacked or returned until its publisher takes it.
//!
//! A slot keeps the stream offset of its publish: after a loss, one that lies beyond the bytes
//! written was not sent, while the broker may have any before.

use std::collections::{BTreeMap, VecDeque};

use crate::channel::returns::{Fingerprint, Returns};
use crate::error::{ChannelCause, CloseCause, Error, ProtocolDetail};
use crate::ids::PublishSeq;
use crate::message::ReturnedMessage;

/// What became of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Confirmation {
    /// The broker took responsibility for it.
    Confirmed,
    /// The broker refused it, such as a full queue with `x-overflow=reject-publish`.
    Nacked,
    /// It was mandatory and reached no queue.
    Returned(Box<ReturnedMessage>),
    /// No byte of it was written before the connection was lost.
    NotSent(CloseCause),
    /// The connection was lost after it was written, in part at least: the broker may have it.
    Unknown(CloseCause),
    /// The channel closed before the broker answered.
    Closed(Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Open {
        offset: u64,
    },
    /// Open, and nobody will ask.
    Forgotten,
    Settled,
}

#[derive(Debug)]
pub(crate) struct Confirms {
    /// The number of the ring's front slot.
    base: u64,
    ring: VecDeque<Slot>,
    side: BTreeMap<u64, Confirmation>,
    returns: Returns,
    ended: Option<Ended>,
}

#[derive(Debug)]
struct Ended {
    cause: ChannelCause,
    written: u64,
}

impl Confirms {
    pub(crate) const fn new() -> Self {
        Self {
            base: 1,
            ring: VecDeque::new(),
            side: BTreeMap::new(),
            returns: Returns::new(),
            ended: None,
        }
    }

    /// The number that the next publish gets.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.base + self.ring.len() as u64
    }

    /// The publishes between the oldest open one and the newest.
    #[inline]
    pub(crate) fn span(&self) -> u64 {
        self.ring.len() as u64
    }

    #[inline]
    pub(crate) fn publish(&mut self, offset: u64, mandatory: Option<Fingerprint>) {
        if let Some(fingerprint) = mandatory {
            self.returns.publish(self.next(), fingerprint);
        }
        self.ring.push_back(Slot::Open { offset });
    }

    /// A content that waited in a lane has begun.
    pub(crate) fn dealt(&mut self, seq: u64, at: u64) {
        if let Some(Slot::Open { offset }) = self.slot(seq) {
            *offset = at;
        }
    }

    pub(crate) fn returned(&mut self, fingerprint: Fingerprint, message: ReturnedMessage) {
        self.returns.returned(fingerprint, message);
    }

    /// Takes an ack or a nack. Returns the first and the last number that it settles, and how many of
    /// them were open.
    #[inline]
    pub(crate) fn settle(
        &mut self,
        tag: u64,
        multiple: bool,
        acked: bool,
    ) -> Result<Option<(u64, u64, u64)>, ProtocolDetail> {
        let next = self.next();
        let (first, last) = match (tag, multiple) {
            // 0 with `multiple` stands for all (AMQP 0-9-1, 1.8.3.13).
            (0, true) => (self.base, next - 1),
            (tag, true) if tag < next => (self.base, tag),
            (tag, false) if tag != 0 && tag < next => (tag, tag),
            (tag, _) => return Err(ProtocolDetail::ConfirmUnknown(tag)),
        };
        if !multiple && !matches!(self.slot(tag), Some(Slot::Open { .. } | Slot::Forgotten)) {
            return Err(ProtocolDetail::ConfirmUnknown(tag));
        }
        if last < first {
            return Ok(None);
        }
        if !acked {
            for seq in first..=last {
                if matches!(self.slot(seq), Some(Slot::Open { .. })) {
                    self.side.insert(seq, Confirmation::Nacked);
                }
            }
        }
        if !self.returns.is_idle() {
            for (seq, message) in self.returns.settle(first, last, acked) {
                if matches!(self.slot(seq), Some(Slot::Open { .. })) {
                    self.side.insert(seq, Confirmation::Returned(Box::new(message)));
                }
            }
        }
        let mut count = 1;
        if first == self.base {
            let settled = (last - first + 1) as usize;
            count = self.ring.drain(..settled).filter(|slot| *slot != Slot::Settled).count() as u64;
            self.base = last + 1;
            while self.ring.front() == Some(&Slot::Settled) {
                self.ring.pop_front();
                self.base += 1;
            }
        } else if let Some(slot) = self.slot(tag) {
            *slot = Slot::Settled;
        }
        Ok(Some((first, last, count)))
    }

    /// Whether the publish was confirmed, as far as that is plain to see.
    #[inline]
    pub(crate) fn is_confirmed(&self, PublishSeq(seq): PublishSeq) -> bool {
        seq < self.base && self.side.is_empty()
    }

    /// What became of a publish; tells nacks and returns once.
    #[inline]
    pub(crate) fn take(&mut self, PublishSeq(seq): PublishSeq) -> Option<Confirmation> {
        if !self.side.is_empty()
            && let Some(confirmation) = self.side.remove(&seq)
        {
            return Some(confirmation);
        }
        if seq < self.base {
            return Some(Confirmation::Confirmed);
        }
        match (self.slot(seq).copied()?, &self.ended) {
            (Slot::Settled, _) => Some(Confirmation::Confirmed),
            (_, None) => None,
            (slot, Some(ended)) => Some(ended.outcome(slot)),
        }
    }

    /// Nobody will ask for the publish.
    pub(crate) fn forget(&mut self, PublishSeq(seq): PublishSeq) {
        self.side.remove(&seq);
        if let Some(slot @ Slot::Open { .. }) = self.slot(seq) {
            *slot = Slot::Forgotten;
        }
    }

    /// The channel has closed, when at most `written` bytes of the stream had been written. Returns
    /// the first and last number that this settles.
    pub(crate) fn end(&mut self, cause: ChannelCause, written: u64) -> Option<(u64, u64)> {
        if self.ended.is_some() {
            return None;
        }
        self.ended = Some(Ended { cause, written });
        (!self.ring.is_empty()).then(|| (self.base, self.next() - 1))
    }

    #[inline]
    fn slot(&mut self, seq: u64) -> Option<&mut Slot> {
        self.ring.get_mut(usize::try_from(seq.checked_sub(self.base)?).ok()?)
    }
}

impl Ended {
    fn outcome(&self, slot: Slot) -> Confirmation {
        match (&self.cause, slot) {
            (ChannelCause::Connection(cause), Slot::Open { offset }) if offset >= self.written => {
                Confirmation::NotSent(cause.clone())
            }
            (ChannelCause::Connection(cause), _) => Confirmation::Unknown(cause.clone()),
            (cause, _) => Confirmation::Closed(cause.clone().into_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Confirmation, Confirms};
    use crate::error::{ChannelCause, CloseCause, ProtocolDetail};
    use crate::ids::PublishSeq;

    fn confirms(publishes: u64) -> Confirms {
        let mut confirms = Confirms::new();
        for seq in 0..publishes {
            confirms.publish(seq * 100, None);
        }
        confirms
    }

    fn outcomes(confirms: &mut Confirms, last: u64) -> String {
        (1..=last)
            .map(|seq| match confirms.take(PublishSeq(seq)) {
                None => '.',
                Some(Confirmation::Confirmed) => 'c',
                Some(Confirmation::Nacked) => 'n',
                Some(Confirmation::NotSent(_)) => 's',
                Some(Confirmation::Unknown(_)) => 'u',
                Some(Confirmation::Closed(_)) => 'x',
                Some(Confirmation::Returned(_)) => 'r',
            })
            .collect()
    }

    #[test]
    fn out_of_order_and_multiple() {
        let mut confirms = confirms(8);
        assert_eq!(confirms.settle(3, false, true), Ok(Some((3, 3, 1))));
        assert_eq!(outcomes(&mut confirms, 8), "..c.....");
        assert_eq!(confirms.settle(1, false, true), Ok(Some((1, 1, 1))));
        assert_eq!(confirms.settle(2, false, true), Ok(Some((2, 2, 1))));
        assert_eq!(confirms.span(), 5);
        assert_eq!(confirms.settle(6, true, false), Ok(Some((4, 6, 3))));
        assert_eq!(outcomes(&mut confirms, 8), "cccnnn..");
        assert_eq!(confirms.settle(0, true, true), Ok(Some((7, 8, 2))));
        assert_eq!(confirms.settle(0, true, true), Ok(None));
        assert_eq!(confirms.span(), 0);
    }

    #[test]
    fn unknown_and_repeated_tags_are_refused() {
        let mut confirms = confirms(3);
        for (tag, multiple) in [(4, false), (4, true), (0, false)] {
            assert_eq!(
                confirms.settle(tag, multiple, true),
                Err(ProtocolDetail::ConfirmUnknown(tag))
            );
        }
        confirms.settle(2, false, true).unwrap();
        assert_eq!(confirms.settle(2, false, false), Err(ProtocolDetail::ConfirmUnknown(2)));
        assert_eq!(outcomes(&mut confirms, 3), ".c.");
    }

    #[test]
    fn a_nack_is_told_once_and_not_kept_for_those_who_left() {
        let mut confirms = confirms(2);
        confirms.forget(PublishSeq(1));
        confirms.settle(2, true, false).unwrap();
        assert_eq!(confirms.take(PublishSeq(2)), Some(Confirmation::Nacked));
        assert!(confirms.side.is_empty());
    }

    #[test]
    fn a_loss_tells_what_was_not_sent_from_what_may_have_arrived() {
        let mut confirms = confirms(5);
        confirms.settle(2, false, true).unwrap();
        let cause = ChannelCause::Connection(CloseCause::DriverGone);
        // The third publish begins at byte 200, the fourth at 300: one byte of it was written.
        assert_eq!(confirms.end(cause, 301), Some((1, 5)));
        assert_eq!(outcomes(&mut confirms, 5), "ucuus");
    }
}
