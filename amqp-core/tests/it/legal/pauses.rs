//! Reading pauses while too much is unread that no prefetch bounds, and goes on in time.

use std::time::{Duration, Instant};

use super::world::{READ_BYTES, World};

/// Unread bytes at which reading pauses unless something is awaited.
pub(super) const HIGH: usize = 8 << 20;
/// Unread bytes at which reading pauses in any case.
pub(super) const HARD: usize = 64 << 20;
/// Unsent bytes from which a pause may be due to a peer that does not read.
const UNSENT: u64 = 1 << 20;
/// More than the largest message that is delivered.
const MESSAGE: usize = 2 << 20;

#[derive(Debug)]
pub(super) struct Pauses {
    /// The session did not want input when it was last asked.
    paused: bool,
    /// When a broker that has something to write could last write it.
    last_written: Instant,
}

impl Pauses {
    pub(super) const fn new(now: Instant) -> Self {
        Self { paused: false, last_written: now }
    }
}

impl World {
    /// Whether the session wants input. If it does not, there is a reason.
    pub(super) fn wants_input(&mut self) -> bool {
        let wants = self.session.wants_input();
        self.pauses.paused = !wants && self.session.connection().is_open();
        if wants || self.broker.wire.is_empty() {
            self.pauses.last_written = self.now;
        }
        if self.log.flood {
            let unbounded = self.application.unbounded_bytes(&self.log);
            assert!(unbounded < HARD + READ_BYTES + MESSAGE, "{unbounded} bytes are unread");
        }
        let stats = self.session.connection().stats();
        if self.pauses.paused && stats.unsent_bytes < UNSENT {
            self.application.listen(&mut self.session, &mut self.log);
            let unread = stats.unread_bytes as usize;
            assert!(unread >= HIGH, "reading pauses with {unread} bytes unread");
            let awaited = self.application.awaited();
            assert!(unread >= HARD || !awaited, "reading pauses although something is awaited");
            assert!(self.application.paused, "reading pauses without an event");
        }
        wants
    }

    /// The application does nothing but read, and less than is delivered.
    pub(super) fn flooded_step(&mut self) {
        match self.dice.below(10) {
            0 => self.application.look(&mut self.session, self.now, &mut self.dice, &mut self.log),
            1 | 2 => {
                self.write();
                while self.broker.process(&mut self.dice, &mut self.log) {}
                for _ in 0..10 {
                    self.broker.act(&mut self.dice, &mut self.log);
                }
            }
            3..=5 => {
                for _ in 0..5 {
                    self.broker.flood(&mut self.dice, &mut self.log);
                }
            }
            6 | 7 => self.feed(),
            _ => self.sleep(),
        }
        self.after();
    }

    /// The driver sleeps until a deadline while reading is paused: the broker must get to write before it
    /// takes the client for dead.
    fn sleep(&mut self) {
        if self.wants_input() || !self.session.connection().is_open() {
            return self.pass();
        }
        let Some((deadline, _)) = self.session.poll_timeout() else { return };
        self.now = self.now.max(deadline);
        self.session.handle_timeout(self.now);
        // Its transport takes bytes, and says so.
        for _ in 0..20 {
            self.write();
        }
        self.feed();
        let full = self.session.connection().stats().unread_bytes as usize >= HARD;
        if full || self.heartbeat == Duration::ZERO {
            self.pauses.last_written = self.now;
        } else if self.pauses.last_written < self.now {
            self.log.count("reading paused for long");
        }
        let waited = self.now - self.pauses.last_written;
        assert!(waited <= self.heartbeat / 2, "the broker could not write for {waited:?}");
    }

    /// Everything is read: reading goes on, and an event has said so.
    pub(super) fn check_reading(&mut self) {
        assert!(self.session.wants_input(), "reading pauses, and nothing is unread");
        self.application.listen(&mut self.session, &mut self.log);
        assert!(!self.application.paused, "no event said that reading goes on");
    }
}
