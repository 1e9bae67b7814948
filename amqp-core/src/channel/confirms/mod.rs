//! Publisher confirms (<https://www.rabbitmq.com/docs/confirms#publisher-confirms>).
//!
//! Publishes on a channel are numbered from 1. The broker resolves them by number: one, or all up to one. A
//! ring has a slot for each publish from the oldest open one onwards. Resolved slots at its front are removed
//! immediately. So a publish whose number is below the ring was confirmed, unless it is among the [`Failures`].
//! No publish is at or above the end of these, so the number alone shows that most publishes were confirmed.
//!
//! The numbers continue when the transport is lost. The broker's delivery tags begin at 1 on each transport
//! ([`Tags`]). Publishes that are in the [`Outbox`] stay open under their numbers, and are sent again.
//!
//! A slot stores the stream offset of its publish. When the channel or its transport ends, a publish beyond the
//! bytes written was not sent; the broker may have received any before that. An ack of a publish that the driver has not
//! taken completely is a protocol error, because the broker cannot have received it. An ack of all publishes
//! (tag 0) applies to those that the driver has taken, because the broker may send it at any time. Such an
//! ack does not say which of them had reached the broker. RabbitMQ never sends it.

mod failures;
mod lost;
mod outcome;
mod resending;
mod tags;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use crate::channel::confirms::failures::Failures;
use crate::channel::confirms::lost::Epoch;
use crate::channel::confirms::tags::Tags;
use crate::channel::fingerprint::{Fingerprint, Returned};
use crate::channel::outbox::Outbox;
use crate::channel::returns::Returns;
use crate::costs::count;
use crate::error::{Error, ProtocolDetail};
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
    tags: Tags,
    failures: Failures,
    returns: Returns,
    /// The publishes that are sent again if the transport is lost.
    outbox: Option<Box<Outbox>>,
    /// Publishes below this number were written, at least in part, to an earlier transport.
    begun_below: u64,
    /// Whether `confirm.select-ok` has arrived. Messages returned after it were published in confirm mode.
    is_selected: bool,
    /// The publishes that have failed and that `all_confirmed` has not reported yet.
    failed: Unconfirmed,
    /// The publishes that were open when the channel ended.
    ended: Option<Unconfirmed>,
}

impl Confirms {
    pub(crate) const fn new() -> Self {
        Self {
            base: 1,
            ring: VecDeque::new(),
            tags: Tags::new(),
            failures: Failures::new(),
            returns: Returns::new(),
            outbox: None,
            begun_below: 0,
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
        let seq = self.tags.number(tag);
        // Publishes are sent in the order of their numbers. If the last one was sent, all were.
        let (first, last) = match self.slot(seq).copied() {
            Some(Slot::Resolved) if multiple => (self.base, seq),
            Some(slot) if slot != Slot::Resolved && slot.is_sent(seq, sent) => {
                (if multiple { self.base } else { seq }, seq)
            }
            // 0 with `multiple` means all (AMQP 0-9-1, 1.8.3.13).
            None if multiple && tag == 0 => match self.last_sent(sent) {
                Some(last) => (self.base, last),
                None => return Ok(None),
            },
            None if multiple && seq < self.base && tag <= seq => return Ok(None),
            _ => return Err(ProtocolDetail::ConfirmUnknown(tag)),
        };
        if !acked {
            for seq in first..=last {
                match self.slot(seq) {
                    Some(Slot::Open { .. }) => {
                        self.failures.insert(seq, Confirmation::Nacked);
                    }
                    Some(Slot::Forgotten { .. }) => {}
                    _ => continue,
                }
                self.failed.nacked += 1;
            }
        }
        if !self.returns.is_idle() {
            let returned = self.returns.resolve(first, last);
            let returned = self.report_returned(returned).len() as u64;
            // A publish that was both returned and nacked counts as returned.
            self.failed.nacked -= if acked { 0 } else { returned };
        }
        let mut count = 1;
        if first == self.base {
            let resolved = (last - first + 1) as usize;
            count =
                self.ring.drain(..resolved).filter(|slot| *slot != Slot::Resolved).count() as u64;
            self.base = last + 1;
            self.trim();
        } else if let Some(slot) = self.slot(last) {
            *slot = Slot::Resolved;
        }
        Ok(Some((first, last, count)))
    }

    /// A fast check whether the publish was confirmed. It may return `false` for a confirmed one.
    #[inline]
    pub(crate) const fn is_confirmed(&self, PublishSeq(seq): PublishSeq) -> bool {
        seq < self.base && seq >= self.failures.end()
    }

    /// Returns the outcome of a publish. A nack or a return is reported once, and looks like a confirm
    /// afterwards. A publish that was lost with its transport is reported as lost each time.
    #[inline]
    pub(crate) fn take(&mut self, PublishSeq(seq): PublishSeq) -> Option<Confirmation> {
        let open = match self.slot(seq) {
            Some(slot) => *slot != Slot::Resolved,
            None => seq >= self.base,
        };
        if open {
            None
        } else if seq >= self.failures.end() {
            Some(Confirmation::Confirmed)
        } else {
            Some(self.failures.take(seq).unwrap_or(Confirmation::Confirmed))
        }
    }

    /// Drops the outcome of a publish: no caller will ask for it.
    pub(crate) fn forget(&mut self, PublishSeq(seq): PublishSeq) {
        self.failures.forget(seq);
        if let Some(slot) = self.slot(seq)
            && let Slot::Open { offset } = *slot
        {
            *slot = Slot::Forgotten { offset };
        }
    }

    /// Resolves all open publishes because the transport is lost, of which at most `written` bytes had been
    /// written. Those in the outbox stay open, and are to be [sent again](Self::next_resend). The channel
    /// continues on the next transport. Returns the first and the last number of each range that is resolved.
    pub(crate) fn lose(&mut self, cause: Error, written: u64) -> Vec<(u64, u64)> {
        let (ranges, lost) = self.fail_open(cause, written, true);
        self.failed.add(lost);
        self.is_selected = false;
        self.tags.restart(self.next());
        if let Some(outbox) = &mut self.outbox {
            outbox.rewind();
        }
        ranges
    }

    /// Resolves all open publishes because the channel has closed, when at most `written` bytes of the stream
    /// had been written. Returns the first and the last number that this resolves.
    pub(crate) fn end(&mut self, cause: Error, written: u64) -> Option<(u64, u64)> {
        if self.ended.is_some() {
            return None;
        }
        let (ranges, lost) = self.fail_open(cause, written, false);
        self.ended = Some(lost);
        ranges.first().copied()
    }

    /// Returns the outcome of all publishes up to `last`, `None` while one of them is open. A failure is
    /// reported once, but those with which the channel ended are reported each time.
    pub(crate) fn all_confirmed(
        &mut self,
        PublishSeq(last): PublishSeq,
    ) -> Option<Result<(), Unconfirmed>> {
        if self.base <= last && self.ended.is_none() {
            return None;
        }
        let mut unconfirmed = std::mem::take(&mut self.failed);
        if let Some(ended) = &self.ended {
            unconfirmed.add(ended.clone());
        }
        Some(if unconfirmed.count() == 0 { Ok(()) } else { Err(unconfirmed) })
    }

    /// Resolves all open publishes, except those in the outbox if it is kept. Returns the ranges of numbers that are
    /// resolved, a single one if nothing is kept, and how many publishes have failed.
    fn fail_open(
        &mut self,
        cause: Error,
        written: u64,
        keep_outbox: bool,
    ) -> (Vec<(u64, u64)>, Unconfirmed) {
        // They were returned. No ack is needed to know the outcome.
        let claimed = self.returns.take_claimed();
        let returned = self.report_returned(claimed);
        for seq in &returned {
            if let Some(slot) = self.slot(*seq) {
                *slot = Slot::Resolved;
            }
        }
        let begun = self.ring.iter().take_while(|slot| slot.begins_before(written)).count() as u64;
        self.begun_below = self.begun_below.max(self.base + begun);
        let (first, next) = (self.base, self.next());
        let mut epoch = Epoch::new(cause.clone(), self.begun_below);
        let mut lost = Unconfirmed::default();
        let outbox = self.outbox.as_deref().filter(|_| keep_outbox);
        let mut kept = outbox.into_iter().flat_map(Outbox::numbers).peekable();
        for (seq, slot) in (first..).zip(&mut self.ring) {
            count(1);
            while kept.next_if(|kept| *kept < seq).is_some() {}
            let (Slot::Open { offset } | Slot::Forgotten { offset }) = slot else { continue };
            if kept.next_if_eq(&seq).is_some() {
                *offset = u64::MAX;
                continue;
            }
            *slot = Slot::Resolved;
            epoch.push(seq);
            self.returns.resolve(seq, seq);
            let begun = seq < self.begun_below;
            *(if begun { &mut lost.unknown } else { &mut lost.not_sent }) += 1;
        }
        drop(kept);
        let any = lost.count() > 0;
        lost.cause = any.then_some(cause);
        let ranges = match keep_outbox && self.outbox.is_some() {
            // Those between them are sent again.
            true => returned.iter().map(|seq| (*seq, *seq)).chain(epoch.ranges()).collect(),
            false if any || !returned.is_empty() => vec![(first, next - 1)],
            false => Vec::new(),
        };
        self.failures.lose(epoch);
        self.trim();
        (ranges, lost)
    }

    /// Records the messages of publishes that were returned and are resolved. Returns their numbers.
    fn report_returned(&mut self, returned: Vec<(u64, Box<ReturnedMessage>)>) -> Vec<u64> {
        self.failed.returned += returned.len() as u64;
        let mut numbers = Vec::with_capacity(returned.len());
        for (seq, message) in returned {
            numbers.push(seq);
            if matches!(self.slot(seq), Some(Slot::Open { .. })) {
                self.failures.insert(seq, Confirmation::Returned(message));
            }
        }
        numbers
    }

    /// Removes the resolved slots at the front of the ring.
    #[inline]
    fn trim(&mut self) {
        while self.ring.front() == Some(&Slot::Resolved) {
            self.ring.pop_front();
            self.base += 1;
        }
    }

    /// The number of the last publish that was sent, unless all up to it are resolved.
    fn last_sent(&self, sent: Sent) -> Option<u64> {
        let waiting = usize::try_from(sent.in_lane.saturating_sub(self.base)).unwrap_or(usize::MAX);
        // Behind one that was not sent again there may be some that are resolved, so this is not a binary search.
        let is_sent = |slot: &&Slot| slot.begins_before(sent.offset);
        let count = self.ring.iter().take(waiting).take_while(is_sent).count() as u64;
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
