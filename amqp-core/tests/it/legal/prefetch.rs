//! What `basic.qos` and the prefetch of consumers mean to an application, whichever frames say so.
//!
//! A consumer's own prefetch is its limit. Without one, the channel's last `basic.qos` counts in its own
//! scope, and 256 without any. The application notes what it asks for in the order in which it asks; the
//! broker takes the notes when the frames arrive, and compares what they have made of its own numbers.

use std::collections::VecDeque;

use amqp_core::BasicConsume;

use super::versions::Version;

const DEFAULT: u16 = 256;

/// The limits of a channel.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// For each consumer.
    asked: Option<u16>,
    /// For all consumers together; 0 is no limit.
    shared: u16,
    /// What the broker has not seen.
    notes: VecDeque<Note>,
    /// The shared limit as far as the broker has seen.
    seen: u16,
}

#[derive(Clone, Copy, Debug)]
enum Note {
    Shared(u16),
    Consumer(Limit),
}

/// The limits of a consumer when it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Its own; 0 is no limit. `None` if it consumes without acknowledgement, so that none holds for it.
    pub(crate) own: Option<u16>,
    /// The one that it shares.
    pub(crate) shared: u16,
}

impl Limits {
    /// The application calls `basic.qos`.
    pub(crate) fn ask(&mut self, count: u16, global: bool) {
        if global {
            self.shared = count;
        } else {
            (self.asked, self.shared) = (Some(count), 0);
        }
        self.notes.push_back(Note::Shared(self.shared));
    }

    /// The limits of a consumer that starts after everything the application has asked for.
    pub(crate) fn of(&self, consume: &BasicConsume, version: Version) -> Limit {
        let of_each = self.asked.unwrap_or(DEFAULT);
        let own = match (consume.prefetch, self.shared, version) {
            _ if consume.no_ack => None,
            (Some(own), ..) => Some(own),
            (None, 0, _) => Some(of_each),
            // A stream refuses a shared limit.
            _ if consume.is_stream() => Some(of_each),
            (None, _, Version::V3) => Some(self.asked.unwrap_or(0)),
            (None, shared, Version::V4) => Some(shared),
        };
        Limit { own, shared: self.shared }
    }

    /// The application starts a consumer.
    pub(crate) fn start(&mut self, limit: Limit) {
        self.notes.push_back(Note::Consumer(limit));
    }

    /// The broker starts the next consumer.
    pub(crate) fn started(&mut self) -> Limit {
        loop {
            match self.notes.pop_front().expect("a consumer that was asked for") {
                Note::Shared(shared) => self.seen = shared,
                Note::Consumer(limit) => return limit,
            }
        }
    }

    /// The shared limit that the broker has must be what one of the calls has asked for that it may have
    /// seen. A consumer that starts may change it for a moment alone.
    pub(crate) fn check_shared(&mut self, shared: u16) {
        while self.seen != shared {
            let Some(Note::Shared(next)) = self.notes.front() else {
                panic!("a shared limit of {shared}: {self:?}");
            };
            self.seen = *next;
            self.notes.pop_front();
        }
    }

    /// The broker has seen everything.
    pub(crate) fn check_rest(&mut self, version: Version, shared: u16) {
        let expected = if version == Version::V3 { self.shared } else { 0 };
        assert_eq!(shared, expected, "the shared limit at the end: {self:?}");
    }
}
