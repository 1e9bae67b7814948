//! Deadlines of a fixed set of kinds.

use std::time::Instant;

use crate::event::TimeoutReason;

/// At most one deadline of each kind.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    address: Option<Instant>,
    blocked: Option<Instant>,
    call: Option<Instant>,
    close: Option<Instant>,
    connect: Option<Instant>,
    heartbeat_receive: Option<Instant>,
    heartbeat_send: Option<Instant>,
    trickle: Option<Instant>,
    write_stall: Option<Instant>,
    /// One was set since they were last looked at.
    moved: bool,
}

impl Timers {
    pub(crate) const fn set(&mut self, reason: TimeoutReason, deadline: Option<Instant>) {
        self.moved |= deadline.is_some();
        *match reason {
            TimeoutReason::Address => &mut self.address,
            TimeoutReason::Blocked => &mut self.blocked,
            TimeoutReason::Call => &mut self.call,
            TimeoutReason::Close => &mut self.close,
            TimeoutReason::Connect => &mut self.connect,
            TimeoutReason::HeartbeatReceive => &mut self.heartbeat_receive,
            TimeoutReason::HeartbeatSend => &mut self.heartbeat_send,
            TimeoutReason::Trickle => &mut self.trickle,
            TimeoutReason::WriteStall => &mut self.write_stall,
        } = deadline;
    }

    /// Whether one was set since the last [`look`](Self::look).
    #[inline]
    pub(crate) const fn moved(&self) -> bool {
        self.moved
    }

    /// The earliest deadline, for whoever waits for it.
    pub(crate) fn look(&mut self) -> Option<(Instant, TimeoutReason)> {
        self.moved = false;
        self.next()
    }

    /// The earliest deadline.
    fn next(&self) -> Option<(Instant, TimeoutReason)> {
        self.all().into_iter().flatten().min()
    }

    /// Takes a deadline that is over, if there is one.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<TimeoutReason> {
        let (deadline, reason) = self.next()?;
        if deadline > now {
            return None;
        }
        self.set(reason, None);
        Some(reason)
    }

    fn all(&self) -> [Option<(Instant, TimeoutReason)>; 9] {
        let entry = |deadline: Option<Instant>, reason| deadline.map(|deadline| (deadline, reason));
        [
            entry(self.address, TimeoutReason::Address),
            entry(self.blocked, TimeoutReason::Blocked),
            entry(self.call, TimeoutReason::Call),
            entry(self.close, TimeoutReason::Close),
            entry(self.connect, TimeoutReason::Connect),
            entry(self.heartbeat_receive, TimeoutReason::HeartbeatReceive),
            entry(self.heartbeat_send, TimeoutReason::HeartbeatSend),
            entry(self.trickle, TimeoutReason::Trickle),
            entry(self.write_stall, TimeoutReason::WriteStall),
        ]
    }
}
