//! Publisher confirms (<https://www.rabbitmq.com/docs/confirms#publisher-confirms>).
//!
//! Publishes on a channel are numbered from 1. The broker resolves them by number: one, or all up to one. A
//! ring has a slot for each publish from the oldest open one onwards. Resolved slots at its front are removed
//! immediately. So a publish whose number is below the ring was confirmed, unless the side table has an entry
//! for it. The side table has the publishes that were nacked or returned, until their publisher takes the
//! outcome.
//!
//! A slot stores the stream offset of its publish. When the channel ends, a publish beyond the bytes written
//! was not sent; the broker may have received any before that. An ack of a publish that the driver has not
//! taken completely is a protocol error, because the broker cannot have received it. An ack of all publishes
//! (tag 0) applies to those that the driver has taken, because the broker may send it at any time. Such an
//! ack does not say which of them had reached the broker. RabbitMQ never sends it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use crate::channel::fingerprint::{Fingerprint, Returned};
use crate::channel::returns::Returns;
use crate::error::{ChannelCause, Error, ProtocolDetail, PublishError};
use crate::ids::PublishSeq;
use crate::message::ReturnedMessage;
use crate::transmit::Sent;

/// The outcome of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Confirmation {
    /// The broker took responsibility for it.
    Confirmed,
    /// The broker refused it, for example because a queue with `x-overflow=reject-publish` is full.
    Nacked,
    /// It was mandatory and reached no queue.
    Returned(Box<ReturnedMessage>),
    /// Its channel or connection closed, for this reason, before any byte of it was written. The broker has
    /// not taken it.
    NotSent(Error),
    /// Its channel or connection closed, for this reason, after at least a part of it was written and before
    /// the broker answered. The broker may have taken it.
    Unknown(Error),
}

impl Confirmation {
    /// Returns `Ok` for a confirmed publish, and the error of any other.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn into_result(self) -> Result<(), PublishError> {
        match self {
            Self::Confirmed => Ok(()),
            Self::Nacked => Err(PublishError::Nacked),
            Self::Returned(message) => Err(PublishError::Returned(message)),
            Self::NotSent(error) => Err(PublishError::NotSent(error)),
            Self::Unknown(error) => Err(PublishError::Unknown(error)),
        }
    }
}

/// The publishes of a channel that were not confirmed, counted by outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Unconfirmed {
    /// The number of publishes that the broker refused.
    pub nacked: u64,
    /// The number of mandatory publishes that reached no queue.
    pub returned: u64,
    /// The number of publishes of which no byte was written before the channel closed: the broker did not take them.
    pub not_sent: u64,
    /// The number of publishes that the broker had not answered when the channel closed: it may have taken them.
    pub unknown: u64,
    /// Why the channel closed, if publishes were not sent or not answered at that time.
    pub cause: Option<Error>,
}

impl Unconfirmed {
    /// The number of publishes that were not confirmed.
    pub const fn count(&self) -> u64 {
        self.nacked + self.returned + self.not_sent + self.unknown
    }
}

impl fmt::Display for Unconfirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nacked, returned, not_sent, unknown, cause } = self;
        write!(f, "{} publishes not confirmed: {nacked} nacked by the broker, ", self.count())?;
        write!(f, "{returned} returned, {not_sent} not sent, {unknown} with unknown outcome")?;
        match cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

/// The state of a publish. `offset` is the stream offset of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Open {
        offset: u64,
    },
    /// Open, and no caller will ask for the outcome.
    Forgotten {
        offset: u64,
    },
    Resolved,
}

#[derive(Debug)]
pub(crate) struct Confirms {
    /// The number of the first slot's publish.
    base: u64,
    ring: VecDeque<Slot>,
    side: BTreeMap<u64, Confirmation>,
    returns: Returns,
    /// Whether `confirm.select-ok` has arrived. Messages returned after it were published in confirm mode.
    is_selected: bool,
    /// The publishes that were nacked or returned and that `all_confirmed` has not reported yet.
    failed: Unconfirmed,
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
            is_selected: false,
            failed: Unconfirmed { nacked: 0, returned: 0, not_sent: 0, unknown: 0, cause: None },
            ended: None,
        }
    }

    /// Records that `confirm.select-ok` has arrived.
    pub(crate) const fn selected(&mut self) {
        self.is_selected = true;
    }

    /// Whether a returned message was published in confirm mode.
    pub(crate) const fn is_selected(&self) -> bool {
        self.is_selected
    }

    /// The number of the next publish.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.base + self.ring.len() as u64
    }

    /// The number of publishes from the oldest open one to the newest.
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

    /// Records the stream offset of a publish that waited in a lane and whose first frame is sent.
    pub(crate) fn dealt(&mut self, seq: u64, at: u64) {
        if let Some(Slot::Open { offset } | Slot::Forgotten { offset }) = self.slot(seq) {
            *offset = at;
        }
    }

    /// Handles a returned message. Returns it if no open publish that was sent matches it.
    pub(crate) fn returned(
        &mut self,
        returned: Returned,
        message: ReturnedMessage,
        sent: Sent,
    ) -> Option<ReturnedMessage> {
        match self.returns.claimable(returned) {
            Some(seq) if self.slot(seq).is_some_and(|slot| slot.is_sent(seq, sent)) => {
                self.returns.claim(seq, message);
                None
            }
            _ => Some(message),
        }
    }

    /// Handles an ack or a nack, which may cover the publishes that were `sent`. Returns the first and the
    /// last number that it resolves, and how many of these were open.
    #[inline]
    pub(crate) fn resolve(
        &mut self,
        tag: u64,
        multiple: bool,
        acked: bool,
        sent: Sent,
    ) -> Result<Option<(u64, u64, u64)>, ProtocolDetail> {
        // Publishes are sent in the order of their numbers. If the last one was sent, all were.
        let (first, last) = match self.slot(tag).copied() {
            Some(Slot::Resolved) if multiple => (self.base, tag),
            Some(slot) if slot != Slot::Resolved && slot.is_sent(tag, sent) => {
                (if multiple { self.base } else { tag }, tag)
            }
            // 0 with `multiple` means all (AMQP 0-9-1, 1.8.3.13).
            None if multiple && tag == 0 => match self.last_sent(sent) {
                Some(last) => (self.base, last),
                None => return Ok(None),
            },
            None if multiple && tag < self.base => return Ok(None),
            _ => return Err(ProtocolDetail::ConfirmUnknown(tag)),
        };
        if !acked {
            for seq in first..=last {
                match self.slot(seq) {
                    Some(Slot::Open { .. }) => {
                        self.side.insert(seq, Confirmation::Nacked);
                    }
                    Some(Slot::Forgotten { .. }) => {}
                    _ => continue,
                }
                self.failed.nacked += 1;
            }
        }
        if !self.returns.is_idle() {
            let returned = self.report_returned(first, last).len() as u64;
            // A publish that was both returned and nacked counts as returned.
            self.failed.nacked -= if acked { 0 } else { returned };
        }
        let mut count = 1;
        if first == self.base {
            let resolved = (last - first + 1) as usize;
            count =
                self.ring.drain(..resolved).filter(|slot| *slot != Slot::Resolved).count() as u64;
            self.base = last + 1;
            while self.ring.front() == Some(&Slot::Resolved) {
                self.ring.pop_front();
                self.base += 1;
            }
        } else if let Some(slot) = self.slot(tag) {
            *slot = Slot::Resolved;
        }
        Ok(Some((first, last, count)))
    }

    /// A fast check whether the publish was confirmed. It may return `false` for a confirmed one.
    #[inline]
    pub(crate) fn is_confirmed(&self, PublishSeq(seq): PublishSeq) -> bool {
        seq < self.base && self.side.is_empty()
    }

    /// Returns the outcome of a publish. A nack or a return is reported once.
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
            (Slot::Resolved, _) => Some(Confirmation::Confirmed),
            (_, None) => None,
            (slot, Some(ended)) => Some(ended.outcome(slot)),
        }
    }

    /// Drops the outcome of a publish: no caller will ask for it.
    pub(crate) fn forget(&mut self, PublishSeq(seq): PublishSeq) {
        self.side.remove(&seq);
        if let Some(slot) = self.slot(seq)
            && let Slot::Open { offset } = *slot
        {
            *slot = Slot::Forgotten { offset };
        }
    }

    /// Resolves all open publishes because the channel has closed, when at most `written` bytes of the stream
    /// had been written. Returns the first and the last number that this resolves.
    pub(crate) fn end(&mut self, cause: ChannelCause, written: u64) -> Option<(u64, u64)> {
        if self.ended.is_some() {
            return None;
        }
        self.ended = Some(Ended { cause, written });
        // They were returned. No ack is needed to know the outcome.
        for seq in self.report_returned(self.base, u64::MAX) {
            if let Some(slot) = self.slot(seq) {
                *slot = Slot::Resolved;
            }
        }
        (!self.ring.is_empty()).then(|| (self.base, self.next() - 1))
    }

    /// Returns the outcome of all publishes up to `last`, `None` while one of them is open. A nack or a
    /// return is reported once.
    pub(crate) fn all_confirmed(
        &mut self,
        PublishSeq(last): PublishSeq,
    ) -> Option<Result<(), Unconfirmed>> {
        if self.base <= last && self.ended.is_none() {
            return None;
        }
        let mut unconfirmed = std::mem::take(&mut self.failed);
        if let Some(ended) = &self.ended {
            for slot in self.ring.iter().filter(|slot| **slot != Slot::Resolved) {
                let begun = slot.begins_before(ended.written);
                *(if begun { &mut unconfirmed.unknown } else { &mut unconfirmed.not_sent }) += 1;
            }
            let open = unconfirmed.unknown + unconfirmed.not_sent > 0;
            unconfirmed.cause = open.then(|| ended.cause.clone().into_error());
        }
        Some(if unconfirmed.count() == 0 { Ok(()) } else { Err(unconfirmed) })
    }

    /// Marks the returned ones among the publishes from `first` to `last`, which are resolved. Returns their
    /// numbers.
    fn report_returned(&mut self, first: u64, last: u64) -> Vec<u64> {
        let returned = self.returns.resolve(first, last);
        self.failed.returned += returned.len() as u64;
        let mut numbers = Vec::with_capacity(returned.len());
        for (seq, message) in returned {
            numbers.push(seq);
            if matches!(self.slot(seq), Some(Slot::Open { .. })) {
                self.side.insert(seq, Confirmation::Returned(message));
            }
        }
        numbers
    }

    /// The number of the last publish that was sent, unless all up to it are resolved.
    fn last_sent(&self, sent: Sent) -> Option<u64> {
        let waiting = usize::try_from(sent.in_lane.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let is_sent = |slot: &Slot| slot.begins_before(sent.offset);
        let count = self.ring.partition_point(is_sent).min(waiting) as u64;
        (count > 0).then(|| self.base + count - 1)
    }

    #[inline]
    fn slot(&mut self, seq: u64) -> Option<&mut Slot> {
        self.ring.get_mut(usize::try_from(seq.checked_sub(self.base)?).ok()?)
    }
}

impl Slot {
    #[inline]
    const fn begins_before(self, end: u64) -> bool {
        match self {
            Self::Open { offset } | Self::Forgotten { offset } => offset < end,
            Self::Resolved => true,
        }
    }

    /// Whether the driver has taken all bytes of the publish.
    #[inline]
    const fn is_sent(self, seq: u64, sent: Sent) -> bool {
        self.begins_before(sent.offset) && seq < sent.in_lane
    }
}

impl Ended {
    fn outcome(&self, slot: Slot) -> Confirmation {
        let cause = self.cause.clone().into_error();
        if slot.begins_before(self.written) {
            Confirmation::Unknown(cause)
        } else {
            Confirmation::NotSent(cause)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Confirmation, Confirms};
    use crate::error::{ChannelCause, CloseCause, ProtocolDetail};
    use crate::ids::PublishSeq;
    use crate::transmit::Sent;

    const ALL: Sent = Sent { offset: u64::MAX, in_lane: u64::MAX };

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
                Some(Confirmation::Returned(_)) => 'r',
            })
            .collect()
    }

    #[test]
    fn out_of_order_and_multiple() {
        let mut confirms = confirms(8);
        assert_eq!(confirms.resolve(3, false, true, ALL), Ok(Some((3, 3, 1))));
        assert_eq!(outcomes(&mut confirms, 8), "..c.....");
        assert_eq!(confirms.resolve(1, false, true, ALL), Ok(Some((1, 1, 1))));
        assert_eq!(confirms.resolve(2, false, true, ALL), Ok(Some((2, 2, 1))));
        assert_eq!(confirms.span(), 5);
        assert_eq!(confirms.resolve(6, true, false, ALL), Ok(Some((4, 6, 3))));
        assert_eq!(outcomes(&mut confirms, 8), "cccnnn..");
        assert_eq!(confirms.resolve(0, true, true, ALL), Ok(Some((7, 8, 2))));
        assert_eq!(confirms.resolve(0, true, true, ALL), Ok(None));
        assert_eq!(confirms.span(), 0);
    }

    #[test]
    fn unknown_and_repeated_tags_are_refused() {
        let mut confirms = confirms(3);
        for (tag, multiple) in [(4, false), (4, true), (0, false)] {
            assert_eq!(
                confirms.resolve(tag, multiple, true, ALL),
                Err(ProtocolDetail::ConfirmUnknown(tag))
            );
        }
        confirms.resolve(2, false, true, ALL).unwrap();
        assert_eq!(confirms.resolve(2, false, false, ALL), Err(ProtocolDetail::ConfirmUnknown(2)));
        assert_eq!(outcomes(&mut confirms, 3), ".c.");
    }

    #[test]
    fn a_nack_is_reported_once_and_not_kept_for_callers_that_left() {
        let mut confirms = confirms(2);
        confirms.forget(PublishSeq(1));
        confirms.resolve(2, true, false, ALL).unwrap();
        assert_eq!(confirms.take(PublishSeq(2)), Some(Confirmation::Nacked));
        assert!(confirms.side.is_empty());
    }

    #[test]
    fn a_loss_tells_what_was_not_sent_from_what_may_have_arrived() {
        let mut confirms = confirms(5);
        confirms.resolve(2, false, true, ALL).unwrap();
        let cause = ChannelCause::Connection(CloseCause::DriverGone);
        // The third publish begins at byte 200, the fourth at 300: one byte of it was written.
        assert_eq!(confirms.end(cause, 301), Some((1, 5)));
        assert_eq!(outcomes(&mut confirms, 5), "ucuus");
    }

    #[test]
    fn all_are_confirmed_or_counted_by_what_became_of_them() {
        let mut confirms = confirms(6);
        let all = PublishSeq(6);
        assert_eq!(confirms.all_confirmed(PublishSeq(0)), Some(Ok(())));
        confirms.forget(PublishSeq(1));
        confirms.resolve(2, true, false, ALL).unwrap();
        confirms.resolve(4, false, true, ALL).unwrap();
        assert_eq!(confirms.all_confirmed(all), None);
        confirms.resolve(3, false, true, ALL).unwrap();
        let nacked = confirms.all_confirmed(PublishSeq(4)).unwrap().unwrap_err();
        assert_eq!((nacked.nacked, nacked.count()), (2, 2), "also the one that is not asked for");
        assert_eq!(confirms.all_confirmed(PublishSeq(4)), Some(Ok(())), "they are reported once");
        assert_eq!(confirms.all_confirmed(all), None);
        // The fifth publish begins at byte 400, the sixth at 500.
        let cause = ChannelCause::Connection(CloseCause::DriverGone);
        confirms.end(cause.clone(), 401);
        let lost = confirms.all_confirmed(all).unwrap().unwrap_err();
        assert_eq!((lost.unknown, lost.not_sent, lost.nacked), (1, 1, 0));
        assert_eq!(lost.cause, Some(cause.into_error()));
    }

    #[test]
    fn what_was_not_sent_whole_cannot_be_confirmed() {
        // The third publish begins at byte 200; the second one is still in a lane.
        for sent in [Sent { offset: 101, in_lane: 3 }, Sent { offset: 300, in_lane: 3 }] {
            for (tag, multiple) in [(3, false), (3, true), (4, true), (5, false)] {
                let mut confirms = confirms(5);
                confirms.forget(PublishSeq(3));
                let refused = confirms.resolve(tag, multiple, true, sent);
                assert_eq!(refused, Err(ProtocolDetail::ConfirmUnknown(tag)), "{sent:?}");
                assert_eq!(confirms.resolve(0, true, true, sent), Ok(Some((1, 2, 2))), "{sent:?}");
                assert_eq!(confirms.resolve(0, true, true, sent), Ok(None), "{sent:?}");
                assert_eq!(outcomes(&mut confirms, 5), "cc...");
            }
        }
    }
}
