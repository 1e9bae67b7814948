//! The swarm: what a seed draws before anything happens. Each seed has some kinds of faults and some parts of the
//! workload only. A fault that hides another one is then missing in half of the seeds.

use std::time::Duration;

use amqp_core::{Backoff, CloseCause, Recovery};

use super::random::Random;

pub(super) const MILLISECOND: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MILLISECOND;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A name cannot be looked up, or a port refuses.
    Refuse,
    /// A lookup or a dial has no answer.
    DialTimeout,
    /// A transport ends after a number of bytes in one direction, with a FIN.
    Close,
    /// The same with a RST, which may discard what has arrived and was not read.
    Reset,
    /// What the client writes is lost from a moment on.
    HalfOpenUp,
    /// What the broker writes is lost from a moment on.
    HalfOpenDown,
    /// Both.
    HalfOpen,
    /// A direction stops for a while, and continues.
    Stall,
    /// The broker crashes, and is back after a while without what is transient.
    Kill,
    /// An operator closes every connection.
    CloseAll,
    /// An alarm: the broker stops reading connections that publish.
    Alarm,
}

const FAULTS: [Fault; 11] = [
    Fault::Refuse,
    Fault::DialTimeout,
    Fault::Close,
    Fault::Reset,
    Fault::HalfOpenUp,
    Fault::HalfOpenDown,
    Fault::HalfOpen,
    Fault::Stall,
    Fault::Kill,
    Fault::CloseAll,
    Fault::Alarm,
];

/// How a pipe cuts what is written into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunking {
    /// The first bytes one by one, the others like `Random`.
    Bytes,
    /// At the size of a TCP segment.
    Segments,
    /// Not at all.
    Whole,
    /// Anywhere.
    Random,
}

/// A part of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Publish,
    Confirm,
    Large,
    Consume,
    Get,
    Transact,
    /// Queues and exchanges are deleted, unbound and purged.
    Churn,
    /// Exclusive, auto-delete and server-named queues.
    Volatile,
    Forget,
    /// Channels are closed and released.
    Close,
    /// The connection is closed or aborted.
    End,
}

const WORK: [Work; 11] = [
    Work::Publish,
    Work::Confirm,
    Work::Large,
    Work::Consume,
    Work::Get,
    Work::Transact,
    Work::Churn,
    Work::Volatile,
    Work::Forget,
    Work::Close,
    Work::End,
];

#[derive(Clone, Debug)]
pub(super) struct Swarm {
    pub(super) faults: Vec<Fault>,
    /// The mean time between two faults of those that happen at a moment.
    pub(super) fault_every: u64,
    /// How many percent of the transports end after a number of bytes.
    pub(super) cut_percent: usize,
    /// How many percent of lookups and dials fail.
    pub(super) dial_percent: usize,
    pub(super) latency: (u64, u64),
    pub(super) chunking: Chunking,
    /// The number of bytes that a pipe takes beyond what was read at its other end.
    pub(super) window: usize,
    pub(super) work: Vec<Work>,
    /// How often the application acts while there are faults.
    pub(super) acts: usize,
    /// The mean time between two acts.
    pub(super) act_every: u64,
    /// In seconds; 0 is none.
    pub(super) heartbeat: u16,
    pub(super) frame_max: u32,
    pub(super) channel_max: u16,
    pub(super) hosts: usize,
    pub(super) cycles: u16,
    pub(super) policy: Policy,
}

/// The delays between attempts to recover, without jitter.
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LAST_DELAY: Duration = Duration::from_secs(5);

/// What the session does when its connection is lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) recovers: bool,
    /// Whether a close by the broker ends it.
    pub(super) ends_when_closed: bool,
    /// The maximum number of attempts, if there is one.
    pub(super) attempts: Option<u32>,
    /// How many bytes of publishes each channel keeps to send them again.
    pub(super) outbox_bytes: usize,
    /// Whether consumers that the broker has cancelled start again.
    pub(super) resubscribes: bool,
    /// Whether a hook of the application sets connections up.
    pub(super) has_hook: bool,
}

impl Swarm {
    pub(super) fn draw(random: &mut Random) -> Self {
        let calm = random.chance(10);
        let faults = FAULTS.into_iter().filter(|_| !calm && random.chance(40)).collect();
        let mut work: Vec<_> = WORK.into_iter().filter(|_| random.chance(60)).collect();
        if work.is_empty() {
            work.push(Work::Publish);
        }
        let latency = random.one_of(&[(0, 0), (1, 1), (1, 20), (0, 200), (50, 500)]);
        let policy = Policy::draw(random);
        Self {
            faults,
            fault_every: random.one_of(&[500, 2_000, 10_000]) * MILLISECOND,
            cut_percent: random.one_of(&[20, 60, 90]),
            dial_percent: random.one_of(&[10, 30, 60]),
            latency: (latency.0 * MILLISECOND, latency.1 * MILLISECOND),
            chunking: if random.chance(12) {
                Chunking::Bytes
            } else {
                random.one_of(&[Chunking::Segments, Chunking::Whole, Chunking::Random])
            },
            // A small window on a slow link takes minutes for what a session may queue.
            window: if latency.1 > 20 {
                random.one_of(&[65_536, 1 << 20])
            } else {
                random.one_of(&[512, 4_096, 65_536, 1 << 20])
            },
            work,
            acts: random.between(100, 500) as usize,
            act_every: random.one_of(&[1, 20, 200]) * MILLISECOND,
            heartbeat: random.one_of(&[0, 2, 10]),
            frame_max: random.one_of(&[4_096, 8_192, 131_072]),
            // The session needs a channel to ask for the queue of a consumer, and the hook has one.
            channel_max: match policy.resubscribes || policy.has_hook {
                true => 2_047,
                false => random.one_of(&[2, 5, 2_047]),
            },
            hosts: random.one_of(&[1, 2]),
            cycles: random.one_of(&[1, 2, 5]),
            policy,
        }
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    pub(super) fn does(&self, work: Work) -> bool {
        self.work.contains(&work)
    }

    /// Returns the kinds of faults that happen at a moment.
    pub(super) fn sudden(&self) -> Vec<Fault> {
        let sudden = |fault: &&Fault| {
            !matches!(fault, Fault::Refuse | Fault::DialTimeout | Fault::Close | Fault::Reset)
        };
        self.faults.iter().filter(sudden).copied().collect()
    }

    /// Nothing fails any more, and the network is fast.
    pub(super) fn heal(&mut self) {
        self.faults.clear();
        (self.latency, self.chunking) = ((0, MILLISECOND), Chunking::Segments);
        self.window = 1 << 20;
    }
}

impl Policy {
    fn draw(random: &mut Random) -> Self {
        let recovers = random.chance(65);
        Self {
            recovers,
            ends_when_closed: random.chance(20),
            attempts: random.chance(15).then(|| random.between(1, 4) as u32),
            outbox_bytes: random.one_of(&[0, 0, 2_000, 16 << 20]),
            resubscribes: recovers && random.chance(40),
            has_hook: random.chance(20),
        }
    }

    pub(super) fn recovery(self) -> Recovery {
        let recovery = match (self.recovers, self.ends_when_closed) {
            (false, _) => return Recovery::never(),
            (true, false) => Recovery::automatic(),
            (true, true) => Recovery::unless_closed_by_broker(),
        };
        let recovery = recovery
            .backoff(Backoff::exponential(FIRST_DELAY, LAST_DELAY))
            .republish_bytes(self.outbox_bytes)
            .resubscribe(self.resubscribes);
        match self.attempts {
            Some(attempts) => recovery.attempts(attempts),
            None => recovery,
        }
    }

    /// Whether publishes are sent again that were not confirmed when the connection was lost.
    pub(super) const fn republishes(self) -> bool {
        self.recovers && self.outbox_bytes > 0
    }

    /// Whether a session that has been open does not end for this cause.
    pub(super) const fn goes_on_after(self, cause: &CloseCause) -> bool {
        let closed = matches!(cause, CloseCause::ByBroker(_)) && self.ends_when_closed;
        self.recovers && !closed && self.attempts.is_none()
    }

    /// Returns the shortest and the longest delay before this attempt.
    pub(super) fn delays(attempt: u32) -> (Duration, Duration) {
        let delay = FIRST_DELAY.saturating_mul(1 << (attempt - 1).min(10)).min(LAST_DELAY);
        (delay / 2, delay * 3 / 2)
    }
}
