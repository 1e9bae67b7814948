//! Calls and their replies.
//!
//! A call takes a place here when its frame is queued, and the channel keeps the calls' order: the
//! broker answers each channel in the order of its requests, but for consumers (see `reply`).
//! The place is freed once the reply has come (or never will) and nobody wants it any more. A call
//! whose caller has gone, or whose time is over, still awaits its reply: what that reply opened is
//! closed again.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::error::Error;
use crate::ids::CallKey;
use crate::request::{Pending, Reply};
use crate::slab::Slab;

#[derive(Debug)]
struct Slot {
    pending: Pending,
    deadline: Instant,
    /// The reply has not come.
    in_flight: bool,
    /// Somebody will take the result.
    wanted: bool,
    result: Option<Result<Reply, Error>>,
}

#[derive(Debug)]
pub(crate) struct Calls {
    slots: Slab<Slot>,
    deadlines: BTreeSet<(Instant, CallKey)>,
    /// Calls whose reply has not come, those whose time is over among them.
    awaited: usize,
    /// A deadline was added since they were last polled.
    has_new_deadline: bool,
}

impl Calls {
    pub(crate) const fn new() -> Self {
        Self { slots: Slab::new(), deadlines: BTreeSet::new(), awaited: 0, has_new_deadline: false }
    }

    pub(crate) fn insert(&mut self, pending: Pending, deadline: Instant) -> CallKey {
        let slot = Slot { pending, deadline, in_flight: true, wanted: true, result: None };
        let key = CallKey(self.slots.insert(slot));
        self.deadlines.insert((deadline, key));
        self.awaited += 1;
        self.has_new_deadline = true;
        key
    }

    /// A call that needs no reply.
    pub(crate) fn insert_done(&mut self, pending: Pending, now: Instant, reply: Reply) -> CallKey {
        let result = Some(Ok(reply));
        let slot = Slot { pending, deadline: now, in_flight: false, wanted: true, result };
        CallKey(self.slots.insert(slot))
    }

    /// The pending call, and whether its result is still awaited.
    pub(crate) fn pending(&self, key: CallKey) -> Option<(Pending, bool)> {
        let slot = self.slots.find(key.0)?;
        Some((slot.pending, slot.wanted && slot.result.is_none()))
    }

    /// The reply has come or never will. Returns whether a caller waits for it.
    pub(crate) fn complete(&mut self, key: CallKey, result: Result<Reply, Error>) -> bool {
        let Some(slot) = self.slots.find_mut(key.0) else { return false };
        self.deadlines.remove(&(slot.deadline, key));
        self.awaited -= usize::from(std::mem::take(&mut slot.in_flight));
        if slot.wanted {
            if slot.result.is_none() {
                slot.result = Some(result);
                return true;
            }
        } else {
            self.slots.remove(key.0);
        }
        false
    }

    /// The deadline is over, while the reply may still come.
    pub(crate) fn expire(&mut self, key: CallKey, error: Error) -> bool {
        match self.slots.find_mut(key.0) {
            Some(slot) if slot.wanted && slot.result.is_none() => {
                slot.result = Some(Err(error));
                true
            }
            _ => false,
        }
    }

    /// No reply will come to a call whose time is over.
    pub(crate) fn abandon(&mut self, key: CallKey) {
        if let Some(slot) = self.slots.find_mut(key.0) {
            self.awaited -= usize::from(std::mem::take(&mut slot.in_flight));
            if !slot.wanted {
                self.slots.remove(key.0);
            }
        }
    }

    pub(crate) fn take(&mut self, key: CallKey) -> Option<Result<Reply, Error>> {
        let slot = self.slots.find_mut(key.0)?;
        let result = slot.result.take()?;
        slot.wanted = false;
        if !slot.in_flight {
            self.slots.remove(key.0);
        }
        Some(result)
    }

    /// Nobody will take the result. A result that was there already is returned.
    pub(crate) fn forget(&mut self, key: CallKey) -> Option<(Pending, Result<Reply, Error>)> {
        let slot = self.slots.find_mut(key.0)?;
        slot.wanted = false;
        let result = slot.result.take();
        let pending = slot.pending;
        if !slot.in_flight {
            self.slots.remove(key.0);
        }
        result.map(|result| (pending, result))
    }

    /// Whether a deadline was added since the last [`poll_deadline`](Self::poll_deadline).
    #[inline]
    pub(crate) const fn has_new_deadline(&self) -> bool {
        self.has_new_deadline
    }

    /// The earliest deadline, for a timer.
    pub(crate) fn poll_deadline(&mut self) -> Option<Instant> {
        self.has_new_deadline = false;
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes a call whose time is over.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<(CallKey, Pending)> {
        let (deadline, key) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.deadlines.remove(&(deadline, key));
        self.slots.find(key.0).map(|slot| (key, slot.pending))
    }

    /// The number of calls whose reply has not come, those whose time is over among them.
    pub(crate) const fn awaited(&self) -> usize {
        self.awaited
    }

    /// The calls whose reply is due, within its time.
    pub(crate) fn in_flight(&self) -> usize {
        self.deadlines.len()
    }
}
