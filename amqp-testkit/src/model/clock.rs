//! The clock of a served broker: the system's time, or one that stands still.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Debug)]
pub(super) struct Clock {
    /// The time at the start, since 1970, and how far the clock was moved forward.
    base: Duration,
    /// When it was started, unless it stands still.
    started: Option<Instant>,
}

impl Clock {
    pub(super) fn running() -> Self {
        Self { started: Some(Instant::now()), ..Self::stopped() }
    }

    /// Returns a clock that stands still at the current time.
    pub(super) fn stopped() -> Self {
        let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { base, started: None }
    }

    pub(super) const fn is_running(&self) -> bool {
        self.started.is_some()
    }

    /// Returns the time since 1970.
    pub(super) fn now(&self) -> Duration {
        self.base + self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// Moves the clock forward.
    pub(super) fn advance(&mut self, by: Duration) {
        self.base = self.base.saturating_add(by);
    }
}
