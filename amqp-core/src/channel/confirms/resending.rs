//! Publishes that are sent again when the transport is lost.
//!
//! Each is stored in the [`Outbox`] when it is published. When the transport is lost, [`Confirms::lose`] leaves it
//! open. On the next transport, all of them are sent again before anything else is published, in their order:
//!
//! ```text
//! while let Some(publish) = confirms.next_resend() {
//!     queue it, unless the output is full: then try again later
//!     confirms.resent(publish.seq, its stream offset)
//! }
//! ```
//!
//! A publish of which an earlier transport has written a part may have arrived. If it fails later, its outcome is
//! unknown, even if nothing was written to the last transport.

use bytes::Bytes;

use crate::channel::confirms::lost::Epoch;
use crate::channel::confirms::{Confirms, Slot};
use crate::channel::outbox::{Outbox, Resend};
use crate::error::Error;
use crate::message::Body;

impl Confirms {
    /// Creates the outbox, which accepts publishes below a number of bytes.
    pub(crate) fn open_outbox(&mut self, limit: usize) {
        self.outbox.get_or_insert_with(|| Box::new(Outbox::new(limit)));
    }

    pub(crate) const fn has_outbox(&self) -> bool {
        self.outbox.is_some()
    }

    /// Whether another publish can be stored.
    pub(crate) fn outbox_has_space(&self) -> bool {
        self.outbox.as_ref().is_none_or(|outbox| outbox.has_space())
    }

    /// Stores the next publish: see [`Outbox::push`]. Call it before [`publish`](Self::publish).
    pub(crate) fn store(&mut self, head: &[u8], body: &Body<'_>) {
        let next = self.next();
        if let Some(outbox) = &mut self.outbox {
            outbox.push(next, head, body);
        }
    }

    /// Frees the memory of publishes that are resolved. Their large bodies move to `discarded`. Call it when
    /// publishes were resolved.
    pub(crate) fn release(&mut self, discarded: &mut Vec<Bytes>) {
        self.tags.release(self.base);
        if let Some(outbox) = &mut self.outbox {
            outbox.release(self.base, discarded);
        }
    }

    /// Returns the next publish to send again. It remains the next one until it was [`resent`](Self::resent), or
    /// [cannot be](Self::cannot_resend).
    pub(crate) fn next_resend(&mut self) -> Option<Resend> {
        let Self { outbox, ring, base, .. } = self;
        outbox.as_mut()?.next_resend(|seq| {
            let index = seq.checked_sub(*base).and_then(|index| usize::try_from(index).ok());
            let slot = index.and_then(|index| ring.get(index));
            slot.is_some_and(|slot| *slot != Slot::Resolved)
        })
    }

    /// Records that the next publish is sent again, at this stream offset.
    pub(crate) fn resent(&mut self, seq: u64, offset: u64) {
        self.dealt(seq, offset);
        self.tags.resent(seq, self.next());
        if let Some(outbox) = &mut self.outbox {
            outbox.resent(seq);
        }
    }

    /// Resolves the next publish, because it cannot be sent again on this transport.
    pub(crate) fn cannot_resend(&mut self, seq: u64, cause: Error) {
        let Some(slot) = self.slot(seq).filter(|slot| **slot != Slot::Resolved) else { return };
        *slot = Slot::Resolved;
        let mut epoch = Epoch::new(cause.clone(), self.begun_below);
        epoch.push(seq);
        self.failures.lose(epoch);
        self.returns.resolve(seq, seq);
        let begun = seq < self.begun_below;
        *(if begun { &mut self.failed.unknown } else { &mut self.failed.not_sent }) += 1;
        self.failed.cause = Some(cause);
        if let Some(outbox) = &mut self.outbox {
            outbox.resent(seq);
        }
        self.trim();
    }
}
