//! How many deliveries the consumers of a channel may hold unacknowledged.
//!
//! The broker keeps two numbers for a channel: the limit of each consumer that starts from here on, set
//! by `basic.qos`, and a limit that all consumers share, set by `basic.qos` with `global`. A consumer
//! with a prefetch of its own needs the first number to be that one, for the moment in which it starts.
//! So the numbers that the broker has are tracked here, detached from those that the application asked
//! for, and only the frames that are needed are sent:
//!
//! * A consumer's own prefetch wins. Otherwise the application's last `basic.qos` counts, otherwise 256,
//!   or the shared limit if there is one.
//! * RabbitMQ before 4.3 ends a shared limit at the next `basic.qos` without `global`: it is set again.
//! * RabbitMQ 4.3 has no shared limits. It takes `global` for the limit of each consumer that starts
//!   from here on. What was sent before such a call does not count there, so it is sent again.
//!
//! The numbers change in the order of the frames, so they are known when a frame is queued, whether its
//! answer is awaited or not. A refusal closes the channel.

use crate::limits::PREFETCH;
use crate::request::BasicQos;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Prefetch {
    /// What the application asked for each consumer.
    asked: Option<u16>,
    /// What it asked for all consumers together; 0 is no limit.
    shared: u16,
    /// The limit of the next consumer at the broker; 0 is no limit.
    sent: u16,
    /// A `global` limit was sent since, which may have changed it.
    may_have_changed: bool,
}

/// How a consumer starts: what is sent before and behind `basic.consume`.
#[derive(Debug, Default)]
pub(crate) struct Start {
    pub(crate) before: Vec<BasicQos>,
    pub(crate) behind: Option<BasicQos>,
    /// How many deliveries it may hold, whichever limit is the reason; 0 is no limit.
    pub(crate) prefetch: u16,
    /// What holds from then on.
    pub(crate) next: Prefetch,
}

impl Start {
    /// Whether the consumer has a limit of its own, whatever it shares with others.
    pub(crate) const fn has_own_limit(&self) -> bool {
        self.next.sent > 0
    }
}

impl Prefetch {
    /// The application sends `basic.qos`.
    pub(crate) const fn ask(&mut self, count: u16, global: bool) {
        if global {
            self.shared = count;
            self.may_have_changed = true;
        } else {
            *self = Self { asked: Some(count), shared: 0, sent: count, may_have_changed: false };
        }
    }

    /// How a consumer starts that has this prefetch of its own.
    pub(crate) fn start(self, own: Option<u16>) -> Start {
        let shared = BasicQos::new(self.shared).global();
        let (count, before, behind) = match (self.shared, own) {
            (0, own) => {
                let count = own.or(self.asked).unwrap_or(PREFETCH);
                let is_set = count == self.sent && !self.may_have_changed;
                let before = if is_set { vec![] } else { vec![BasicQos::new(count)] };
                (count, before, None)
            }
            (_, Some(count)) => (count, vec![BasicQos::new(count)], Some(shared)),
            (_, None) => {
                let count = self.asked.unwrap_or(0);
                let is_set = count == self.sent;
                let before = if is_set { vec![] } else { vec![BasicQos::new(count), shared] };
                (count, before, None)
            }
        };
        let prefetch = if count == 0 { self.shared } else { count };
        let next = Self { sent: count, may_have_changed: self.shared > 0, ..self };
        Start { before, behind, prefetch, next }
    }

    /// How a consumer without acknowledgement starts: no limit holds for it.
    pub(crate) fn start_without_ack(self) -> Start {
        Start { next: self, ..Start::default() }
    }

    /// The prefetch of a stream's consumer with this one of its own: a stream has no shared limit.
    pub(crate) fn of_stream(self, own: Option<u16>) -> Option<u16> {
        if self.shared == 0 { own } else { own.or(self.asked).or(Some(PREFETCH)) }
    }
}
