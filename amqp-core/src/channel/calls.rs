//! Calls and their replies.
//!
//! A call gets an entry here when its frame is queued. The order of the calls is kept by their channel: the
//! broker answers each channel in the order of its requests, except for consumers (see `reply`). An entry is
//! freed when the reply has arrived, or can no longer arrive, and no caller waits for the result. A call
//! whose caller is gone, or whose deadline has passed, still awaits its reply. What that reply opened is
//! closed again.
//!
//! The session makes calls too, to restore channels and topology. Their results are queued for it.
//!
//! When the transport is lost, a call of which no byte was written is sent on the next one. So its frame is
//! kept, with its offset in the stream. If the offset is not known, the frame counts as written.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use crate::error::Error;
use crate::ids::CallKey;
use crate::request::{Change, Pending, Reply};
use crate::slab::Slab;

#[derive(Debug)]
struct Slot {
    pending: Pending,
    deadline: Instant,
    /// Whether the reply is still to come.
    in_flight: bool,
    owner: Owner,
    result: Option<Result<Reply, Error>>,
    /// The frame, if it is sent again in case it was not written.
    frame: Option<Frame>,
    /// What the call changes in the topology, if that is recorded.
    change: Option<Box<Change>>,
}

/// Who takes the result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Caller,
    Session,
    /// The caller is gone.
    Gone,
}

/// The frame of a call, and the stream offset of its first byte.
#[derive(Debug)]
struct Frame {
    offset: u64,
    bytes: Box<[u8]>,
}

/// The result of a call of the session.
#[derive(Debug)]
pub(crate) struct SessionReply {
    pub(crate) call: CallKey,
    pub(crate) result: Result<Reply, Error>,
}

#[derive(Debug)]
pub(crate) struct Calls {
    slots: Slab<Slot>,
    deadlines: BTreeSet<(Instant, CallKey)>,
    /// The number of calls whose reply has not arrived, including those whose deadline has passed.
    awaited: usize,
    /// The results of the session's calls.
    for_session: VecDeque<SessionReply>,
    /// The number of the session's calls that await their reply.
    sessions_open: usize,
    /// Whether a deadline was added since they were last polled.
    has_new_deadline: bool,
}

impl Calls {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Slab::new(),
            deadlines: BTreeSet::new(),
            awaited: 0,
            for_session: VecDeque::new(),
            sessions_open: 0,
            has_new_deadline: false,
        }
    }

    pub(crate) fn insert(&mut self, pending: Pending, deadline: Instant) -> CallKey {
        self.insert_for(Owner::Caller, pending, deadline)
    }

    /// Adds a call of the session.
    pub(crate) fn insert_for_session(&mut self, pending: Pending, deadline: Instant) -> CallKey {
        self.sessions_open += 1;
        self.insert_for(Owner::Session, pending, deadline)
    }

    fn insert_for(&mut self, owner: Owner, pending: Pending, deadline: Instant) -> CallKey {
        let slot = Slot {
            pending,
            deadline,
            in_flight: true,
            owner,
            result: None,
            frame: None,
            change: None,
        };
        let key = CallKey(self.slots.insert(slot));
        self.deadlines.insert((deadline, key));
        self.awaited += 1;
        self.has_new_deadline = true;
        key
    }

    /// Keeps the frame of a call, which was queued at this offset of the stream.
    pub(crate) fn keep_frame(&mut self, key: CallKey, offset: u64, bytes: &[u8]) {
        if let Some(slot) = self.slots.find_mut(key.0) {
            // A commit is not sent again: its transaction has ended with the transport.
            let bytes = if slot.pending == Pending::TxCommit { &[] } else { bytes };
            slot.frame = Some(Frame { offset, bytes: bytes.into() });
        }
    }

    /// Keeps what a call changes in the topology until the broker confirms it.
    pub(crate) fn keep_change(&mut self, key: CallKey, change: Option<Box<Change>>) {
        if let Some(slot) = self.slots.find_mut(key.0) {
            slot.change = change;
        }
    }

    /// Takes what a call changes, because the broker has confirmed it.
    pub(crate) fn take_change(&mut self, key: CallKey) -> Option<Box<Change>> {
        self.slots.find_mut(key.0)?.change.take()
    }

    /// Takes the frame of a call whose caller still waits, and its offset, unless a part of it was written: see
    /// [`keep_frame`](Self::keep_frame).
    pub(crate) fn take_unwritten(
        &mut self,
        key: CallKey,
        written: u64,
    ) -> Option<(u64, Box<[u8]>)> {
        let slot = self.slots.find_mut(key.0)?;
        let waits = slot.owner == Owner::Caller && slot.result.is_none();
        let frame = slot.frame.take_if(|frame| waits && frame.offset >= written)?;
        Some((frame.offset, frame.bytes))
    }

    /// Whether a caller still waits for the result.
    pub(crate) fn is_callers(&self, key: CallKey) -> bool {
        self.slots.find(key.0).is_some_and(|it| it.owner == Owner::Caller && it.result.is_none())
    }

    /// Whether the call is one of the session's.
    pub(crate) fn is_sessions(&self, key: CallKey) -> bool {
        self.slots.find(key.0).is_some_and(|slot| slot.owner == Owner::Session)
    }

    /// Makes a call that is in flight one of the session's. Returns whether it is in flight.
    pub(crate) fn give_to_session(&mut self, key: CallKey) -> bool {
        let Some(slot) = self.slots.find_mut(key.0).filter(|slot| slot.in_flight) else {
            return false;
        };
        slot.owner = Owner::Session;
        self.sessions_open += 1;
        true
    }

    /// Removes a call of the session without reporting a result.
    pub(crate) fn drop_for_session(&mut self, key: CallKey) {
        if let Some(slot) = self.slots.find_mut(key.0) {
            let is_open = slot.owner == Owner::Session && slot.result.is_none();
            self.sessions_open -= usize::from(is_open);
            slot.owner = Owner::Gone;
            self.complete(key, Ok(Reply::Done));
        }
    }

    /// Forgets the results of the session's calls.
    pub(crate) fn clear_for_session(&mut self) {
        self.for_session.clear();
    }

    /// Whether a call of the session awaits its reply, or a result waits for the session.
    pub(crate) fn has_for_session(&self) -> bool {
        self.sessions_open > 0 || !self.for_session.is_empty()
    }

    /// Takes the result of a call of the session.
    pub(crate) fn take_for_session(&mut self) -> Option<SessionReply> {
        self.for_session.pop_front()
    }

    /// Adds a call that needs no reply, with its result.
    pub(crate) fn insert_done(&mut self, pending: Pending, now: Instant, reply: Reply) -> CallKey {
        let result = Some(Ok(reply));
        let (owner, in_flight, deadline) = (Owner::Caller, false, now);
        let slot = Slot { pending, deadline, in_flight, owner, result, frame: None, change: None };
        CallKey(self.slots.insert(slot))
    }

    /// Returns the pending call, and whether its result is still waited for.
    pub(crate) fn pending(&self, key: CallKey) -> Option<(Pending, bool)> {
        let slot = self.slots.find(key.0)?;
        let awaited = match slot.owner {
            Owner::Caller => slot.result.is_none(),
            // What it has opened is its own to close.
            Owner::Session => true,
            Owner::Gone => false,
        };
        Some((slot.pending, awaited))
    }

    /// Records the result of a call whose reply has arrived or can no longer arrive. Returns whether a caller
    /// waits for it.
    pub(crate) fn complete(&mut self, key: CallKey, result: Result<Reply, Error>) -> bool {
        let Some(slot) = self.slots.find_mut(key.0) else { return false };
        self.deadlines.remove(&(slot.deadline, key));
        self.awaited -= usize::from(std::mem::take(&mut slot.in_flight));
        (slot.frame, slot.change) = (None, None);
        match slot.owner {
            Owner::Caller if slot.result.is_none() => {
                slot.result = Some(result);
                return true;
            }
            Owner::Caller => {}
            Owner::Session => {
                // After its deadline, the session has its result.
                if slot.result.is_none() {
                    self.sessions_open -= 1;
                    self.for_session.push_back(SessionReply { call: key, result });
                }
                self.slots.remove(key.0);
            }
            Owner::Gone => {
                self.slots.remove(key.0);
            }
        }
        false
    }

    /// Records that the deadline of a call has passed. The reply may still come. Returns whether a caller
    /// waits for it.
    pub(crate) fn expire(&mut self, key: CallKey, error: Error) -> bool {
        match self.slots.find_mut(key.0) {
            Some(slot) if slot.owner == Owner::Caller && slot.result.is_none() => {
                slot.result = Some(Err(error));
                true
            }
            Some(slot) if slot.owner == Owner::Session && slot.result.is_none() => {
                slot.result = Some(Err(error.clone()));
                self.sessions_open -= 1;
                self.for_session.push_back(SessionReply { call: key, result: Err(error) });
                false
            }
            _ => false,
        }
    }

    /// Removes a call whose deadline has passed and that will get no reply.
    pub(crate) fn abandon(&mut self, key: CallKey) {
        if let Some(slot) = self.slots.find_mut(key.0) {
            self.awaited -= usize::from(std::mem::take(&mut slot.in_flight));
            if slot.owner == Owner::Gone {
                self.slots.remove(key.0);
            }
        }
    }

    pub(crate) fn take(&mut self, key: CallKey) -> Option<Result<Reply, Error>> {
        let slot = self.slots.find_mut(key.0)?;
        let result = slot.result.take()?;
        slot.owner = Owner::Gone;
        if !slot.in_flight {
            self.slots.remove(key.0);
        }
        Some(result)
    }

    /// Records that the caller of a call is gone. Returns the result if it was there already.
    pub(crate) fn forget(&mut self, key: CallKey) -> Option<(Pending, Result<Reply, Error>)> {
        let slot = self.slots.find_mut(key.0)?;
        slot.owner = Owner::Gone;
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
