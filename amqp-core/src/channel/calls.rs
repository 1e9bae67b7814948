//! Calls and their replies.
//!
//! A call gets an entry here when its frame is queued. The order of the calls is kept by their channel: the
//! broker answers each channel in the order of its requests, except for consumers (see `reply`). An entry is
//! freed when the reply has arrived, or can no longer arrive, and no caller waits for the result. A call
//! whose caller is gone, or whose deadline has passed, still awaits its reply. What that reply opened is
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
    /// Whether the reply is still to come.
    in_flight: bool,
    /// Whether a caller will take the result.
    wanted: bool,
    result: Option<Result<Reply, Error>>,
}

#[derive(Debug)]
pub(crate) struct Calls {
    slots: Slab<Slot>,
    deadlines: BTreeSet<(Instant, CallKey)>,
    /// The number of calls whose reply has not arrived, including those whose deadline has passed.
    awaited: usize,
    /// Whether a deadline was added since they were last polled.
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

    /// Adds a call that needs no reply, with its result.
    pub(crate) fn insert_done(&mut self, pending: Pending, now: Instant, reply: Reply) -> CallKey {
        let result = Some(Ok(reply));
        let slot = Slot { pending, deadline: now, in_flight: false, wanted: true, result };
        CallKey(self.slots.insert(slot))
    }

    /// Returns the pending call, and whether a caller still waits for its result.
    pub(crate) fn pending(&self, key: CallKey) -> Option<(Pending, bool)> {
        let slot = self.slots.find(key.0)?;
        Some((slot.pending, slot.wanted && slot.result.is_none()))
    }

    /// Records the result of a call whose reply has arrived or can no longer arrive. Returns whether a caller
    /// waits for it.
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

    /// Records that the deadline of a call has passed. The reply may still come. Returns whether a caller
    /// waits for it.
    pub(crate) fn expire(&mut self, key: CallKey, error: Error) -> bool {
        match self.slots.find_mut(key.0) {
            Some(slot) if slot.wanted && slot.result.is_none() => {
                slot.result = Some(Err(error));
                true
            }
            _ => false,
        }
    }

    /// Removes a call whose deadline has passed and that will get no reply.
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

    /// Records that the caller of a call is gone. Returns the result if it was there already.
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

    /// Returns whether a deadline was added since the last [`poll_deadline`](Self::poll_deadline).
    #[inline]
    pub(crate) const fn has_new_deadline(&self) -> bool {
        self.has_new_deadline
    }

    /// Returns the earliest deadline, for a timer.
    pub(crate) fn poll_deadline(&mut self) -> Option<Instant> {
        self.has_new_deadline = false;
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes a call whose deadline has passed.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<(CallKey, Pending)> {
        let (deadline, key) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.deadlines.remove(&(deadline, key));
        self.slots.find(key.0).map(|slot| (key, slot.pending))
    }

    /// The number of calls whose reply has not arrived, including those whose deadline has passed.
    pub(crate) const fn awaited(&self) -> usize {
        self.awaited
    }

    /// The number of calls whose reply has not arrived and whose deadline has not passed.
    pub(crate) fn in_flight(&self) -> usize {
        self.deadlines.len()
    }
}
