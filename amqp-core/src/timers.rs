//! The deadlines of a connection, one for each kind.

use std::time::Instant;

use crate::event::TimeoutReason;

/// All kinds. The index of each is its number.
const REASONS: [TimeoutReason; 14] = [
    TimeoutReason::Address,
    TimeoutReason::Blocked,
    TimeoutReason::Call,
    TimeoutReason::Close,
    TimeoutReason::Connect,
    TimeoutReason::Credentials,
    TimeoutReason::Held,
    TimeoutReason::HeartbeatReceive,
    TimeoutReason::HeartbeatSend,
    TimeoutReason::Hook,
    TimeoutReason::Resubscribe,
    TimeoutReason::Retry,
    TimeoutReason::Trickle,
    TimeoutReason::WriteStall,
];

/// Holds at most one deadline of each kind.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    deadlines: [Option<Instant>; REASONS.len()],
    /// A bit for each kind that has a deadline, because two or three of them have one in most cases.
    armed: u16,
    /// Whether a deadline was set since the last poll.
    has_new: bool,
}

impl Timers {
    pub(crate) fn set(&mut self, reason: TimeoutReason, deadline: Option<Instant>) {
        self.has_new |= deadline.is_some();
        if let Some(place) = self.deadlines.get_mut(reason as usize) {
            *place = deadline;
            let bit = 1 << reason as u16;
            self.armed = if deadline.is_some() { self.armed | bit } else { self.armed & !bit };
        }
    }

    /// Whether a deadline of this kind is set.
    pub(crate) fn is_set(&self, reason: TimeoutReason) -> bool {
        self.deadlines.get(reason as usize).is_some_and(|deadline| deadline.is_some())
    }

    /// Whether a deadline was set since the last [`poll`](Self::poll).
    #[inline]
    pub(crate) const fn has_new(&self) -> bool {
        self.has_new
    }

    /// Returns the earliest deadline, for a driver that sleeps until then.
    pub(crate) fn poll(&mut self) -> Option<(Instant, TimeoutReason)> {
        self.has_new = false;
        self.earliest()
    }

    /// Takes one deadline that has passed, if there is one.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<TimeoutReason> {
        let (deadline, reason) = self.earliest()?;
        if deadline > now {
            return None;
        }
        self.set(reason, None);
        Some(reason)
    }

    fn earliest(&self) -> Option<(Instant, TimeoutReason)> {
        let mut earliest: Option<(Instant, TimeoutReason)> = None;
        let mut armed = self.armed;
        while armed != 0 {
            let index = armed.trailing_zeros() as usize;
            armed &= armed - 1;
            if let (Some(&Some(at)), Some(&reason)) =
                (self.deadlines.get(index), REASONS.get(index))
                && earliest.is_none_or(|(before, _)| at < before)
            {
                earliest = Some((at, reason));
            }
        }
        earliest
    }
}

#[cfg(test)]
mod tests {
    use super::{REASONS, Timers};
    use std::time::{Duration, Instant};

    #[test]
    fn each_kind_has_a_deadline_of_its_own() {
        assert!(REASONS.iter().enumerate().all(|(index, reason)| *reason as usize == index));
        let (mut timers, start) = (Timers::default(), Instant::now());
        for (index, reason) in REASONS.into_iter().enumerate().rev() {
            let deadline = start + Duration::from_secs(index as u64);
            timers.set(reason, Some(deadline));
            assert_eq!(timers.poll(), Some((deadline, reason)));
        }
        for reason in REASONS {
            assert_eq!(timers.expired(start + Duration::from_secs(60)), Some(reason));
        }
        assert_eq!((timers.poll(), timers.expired(start)), (None, None));
    }
}
