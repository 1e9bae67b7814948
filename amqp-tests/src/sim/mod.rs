//! A deterministic simulation of a client, a network and a broker.
//!
//! Everything follows from one seed: what the application does, what the network does with the bytes, when the broker
//! crashes, and the time. There is no thread, no clock and no socket, so that a seed that fails can be played again,
//! frame by frame. The client is amqp-core's `Session`, which recovers its connection or ends with it, as the seed says.
//! The broker is the model of the testkit.
//!
//! | file | |
//! | --- | --- |
//! | `swarm` | what a seed has: kinds of faults, parts of the workload, rates, the policy for losses |
//! | `world` | the clock and the events, and the phases of a seed |
//! | `network` | links and their pipes: latency, segments, windows, ends, silence, stalls |
//! | `driver`, `hosting` | the client's and the broker's end of the links |
//! | `application` | a random application, and what it expects of each answer |
//! | `wire`, `truth` | what really happened, read from the bytes |
//! | `invariants` | what must hold, whatever happens |
//! | `trace` | text and hash of what happened |

mod application;
mod driver;
mod hosting;
mod invariants;
mod network;
pub(crate) mod random;
mod swarm;
mod trace;
mod truth;
mod wire;
mod world;

use std::fmt;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use trace::{Lines, Output, Trace};

/// How long the simulated application waits for a reply.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// One seed of this many is played twice, and must do the same both times.
const PLAYED_TWICE: u64 = 100;

/// What happened in one seed, or in many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Seeds.
    pub seeds: u64,
    /// Sessions after the first.
    pub sessions: u64,
    /// Dials.
    pub attempts: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Connections that were opened.
    pub opened: u64,
    /// Connections that ended, and that the application had not closed.
    pub losses: u64,
    /// Connections that were recovered.
    pub recoveries: u64,
    /// Consumers that could not be restored.
    pub lost_consumers: u64,
    /// Exchanges, queues and bindings that could not be restored.
    pub lost_entities: u64,
    /// Messages published.
    pub published: u64,
    /// Publishes that were confirmed.
    pub confirmed: u64,
    /// Publishes that were returned.
    pub returned: u64,
    /// Publishes that were reported as not sent.
    pub not_sent: u64,
    /// Publishes whose outcome is unknown.
    pub unknown: u64,
    /// Publishes without confirms that were reported as lost.
    pub lost_publishes: u64,
    /// Acks of deliveries of earlier transports.
    pub stale: u64,
    /// Deliveries that were read.
    pub delivered: u64,
    /// Those of them that may have been delivered before.
    pub redelivered: u64,
    /// Virtual time.
    pub virtual_seconds: u64,
}

/// What one seed has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Report {
    hash: u64,
    totals: Totals,
}

/// Plays `count` seeds from `first` on, on as many threads as the machine has.
///
/// # Panics
/// At the first seed that breaks a promise, after printing its number, what it has drawn, and what happened last.
pub fn run(first: u64, count: u64) -> Totals {
    let (next, end) = (AtomicU64::new(first), first + count);
    let totals = Mutex::new(Totals::default());
    let work = || {
        while let seed = next.fetch_add(1, Ordering::Relaxed)
            && seed < end
        {
            match catch_unwind(|| play(seed)) {
                Ok(played) => *totals.lock().expect("no panic while it is locked") += played,
                Err(panic) => {
                    next.store(end, Ordering::Relaxed);
                    explain(seed);
                    resume_unwind(panic);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    totals.into_inner().expect("no panic while it is locked")
}

/// Plays a seed, and prints everything that happens.
///
/// # Panics
/// If the seed breaks a promise.
pub fn replay(seed: u64) -> Totals {
    let Report { hash, totals } = world::play(seed, Trace::new(Output::Printed));
    println!("hash {hash:016x}");
    totals
}

fn play(seed: u64) -> Totals {
    let report = world::play(seed, Trace::default());
    if seed.is_multiple_of(PLAYED_TWICE) {
        let again = world::play(seed, Trace::default());
        assert_eq!(report, again, "seed {seed} does something else the second time");
    }
    report.totals
}

/// Prints what a seed has drawn, and what happened last in it.
fn explain(seed: u64) {
    let lines = Lines::default();
    let trace = Trace::new(Output::Last(Lines::clone(&lines)));
    let _ = catch_unwind(AssertUnwindSafe(|| world::play(seed, trace)));
    let drawn = swarm::Swarm::draw(&mut random::Random::new(seed).fork());
    println!("SIM_SEED={seed} fails; cargo xtask sim --seed {seed} replays it\n{drawn:#?}");
    lines.borrow().iter().for_each(|line| println!("{line}"));
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.seeds += 1;
        self.sessions += other.sessions;
        self.attempts += other.attempts;
        self.failed_attempts += other.failed_attempts;
        self.opened += other.opened;
        self.losses += other.losses;
        self.recoveries += other.recoveries;
        self.lost_consumers += other.lost_consumers;
        self.lost_entities += other.lost_entities;
        self.published += other.published;
        self.confirmed += other.confirmed;
        self.returned += other.returned;
        self.not_sent += other.not_sent;
        self.unknown += other.unknown;
        self.lost_publishes += other.lost_publishes;
        self.stale += other.stale;
        self.delivered += other.delivered;
        self.redelivered += other.redelivered;
        self.virtual_seconds += other.virtual_seconds;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, attempts, opened, losses, published, confirmed, .. } = self;
        let Self { returned, not_sent, unknown, delivered, redelivered, recoveries, .. } = self;
        let Self { lost_entities, lost_consumers, lost_publishes, stale, .. } = self;
        let hours = self.virtual_seconds / 3600;
        write!(
            f,
            "{seeds} seeds, {hours} virtual hours: {attempts} attempts, {opened} connections, {losses} lost, \
             {recoveries} recovered; {lost_entities} entities and {lost_consumers} consumers not restored; \
             {published} published, {confirmed} confirmed, {returned} returned, {not_sent} not sent, \
             {unknown} unknown, {lost_publishes} lost without confirms; \
             {delivered} delivered, {redelivered} redelivered, {stale} late acks"
        )
    }
}
