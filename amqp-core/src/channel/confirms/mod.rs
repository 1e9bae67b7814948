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

mod outcome;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use crate::channel::fingerprint::{Fingerprint, Returned};
use crate::channel::returns::Returns;
use crate::error::{ChannelCause, ProtocolDetail};
use crate::ids::PublishSeq;
use crate::message::ReturnedMessage;
use crate::transmit::Sent;

pub use outcome::{Confirmation, Unconfirmed};

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
