//! Heartbeats and the receive timeout (AMQP 0-9-1, 4.2.7; <https://www.rabbitmq.com/docs/heartbeats>).
//!
//! A heartbeat is sent after half an interval without output. Every byte received shows that the peer is
//! alive. The peer counts as dead after two intervals without one. While reading is paused because of unread
//! deliveries, the receive timeout is suspended. The peer must be able to write at intervals as well, so a
//! pause lasts at most a quarter of an interval (`connection/read_pause.rs`).

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Heartbeat {
    interval: Option<Duration>,
    last_sent: Instant,
    last_received: Instant,
}

impl Heartbeat {
    /// Creates the clock of a connection. With an interval of 0 seconds, nothing ever expires.
    pub(crate) fn new(seconds: u16, now: Instant) -> Self {
        let interval = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        Self { interval, last_sent: now, last_received: now }
    }

    pub(crate) const fn sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    pub(crate) const fn received(&mut self, now: Instant) {
        self.last_received = now;
    }

    pub(crate) const fn interval(&self) -> Option<Duration> {
        self.interval
    }

    pub(crate) fn send_at(&self) -> Option<Instant> {
        self.interval.map(|interval| self.last_sent + interval / 2)
    }

    pub(crate) fn dead_at(&self) -> Option<Instant> {
        self.interval.map(|interval| self.last_received + interval * 2)
    }

    /// When to interrupt a pause of reading, so that the peer can write.
    pub(crate) fn trickle_at(&self) -> Option<Instant> {
        self.interval.map(|interval| self.last_received + interval / 4)
    }

    pub(crate) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_received)
    }
}
