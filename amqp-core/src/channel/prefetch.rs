//! The prefetch of a channel: how many deliveries its consumers may hold unacknowledged.
//!
//! The broker has two limits for a channel. One applies to each consumer that starts later, and is set by
//! `basic.qos`. The other is shared by all consumers, and is set by `basic.qos` with `global`. A consumer
//! with its own prefetch needs the first limit to have that value while it starts. So this module tracks the
//! broker's limits separately from those that the application asked for. It sends only the frames that are
//! needed:
//!
//! * A consumer's own prefetch takes precedence. Otherwise the application's last `basic.qos` applies.
//!   Without one, it is 256, or only the shared limit if there is one.
//! * RabbitMQ before 4.3 removes a shared limit at the next `basic.qos` without `global`. It is then set
//!   again.
//! * RabbitMQ 4.3 has no shared limits. There, `global` sets the limit of each consumer that starts later.
//!   What was sent before such a call is no longer valid, so it is sent again.
//!
//! The limits change in the order of the frames. So they are known when a frame is queued, before its reply
//! arrives. If the broker refuses a frame, it closes the channel.

use crate::ids::TagKind;
use crate::limits::PREFETCH;
use crate::request::BasicQos;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Prefetch {
    /// The limit that the application has set for each consumer.
    asked: Option<u16>,
    /// The limit that the application has set for all consumers together. 0 means no limit.
    shared: u16,
    /// The broker's limit for the next consumer. 0 means no limit.
    sent: u16,
    /// Whether a `global` limit was sent since then, which may have changed it.
    may_have_changed: bool,
}

/// The limits that the application has set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    asked: Option<u16>,
    shared: u16,
}

/// The frames that a consumer's start needs, and their effect.
#[derive(Debug, Default)]
pub(crate) struct Start {
    pub(crate) before: Vec<BasicQos>,
    pub(crate) behind: Option<BasicQos>,
    /// The maximum number of unacknowledged deliveries, from whichever limit applies. 0 means no limit.
    pub(crate) prefetch: u16,
    /// The limits after the start.
    pub(crate) next: Prefetch,
}

impl Start {
    /// Whether the consumer has a limit of its own, whatever it shares with others.
    pub(crate) const fn has_own_limit(&self) -> bool {
        self.next.sent > 0
    }
}

impl Prefetch {
    /// Records a `basic.qos` of the application.
    pub(crate) const fn ask(&mut self, count: u16, global: bool) {
        if global {
            self.shared = count;
            self.may_have_changed = true;
        } else {
            *self = Self { asked: Some(count), shared: 0, sent: count, may_have_changed: false };
        }
    }

    /// The limits that the application has set.
    pub(crate) const fn limits(self) -> Limits {
        Limits { asked: self.asked, shared: self.shared }
    }

    /// Returns the frames that set these limits in place of the present ones, and their effect.
    pub(crate) fn set(mut self, limits: Limits) -> (Vec<BasicQos>, Self) {
        let mut frames = Vec::new();
        if limits != self.limits() {
            // A shared limit ends with the next `basic.qos` without `global`. Where the application has set none, no
            // limit is what a new channel has.
            let count = limits.asked.unwrap_or(0);
            if limits.asked.is_some() || self.sent != 0 || self.may_have_changed {
                frames.push(BasicQos::new(count));
            }
            if limits.shared > 0 {
                frames.push(BasicQos::new(limits.shared).global());
            }
            let Limits { asked, shared } = limits;
            self = Self { asked, shared, sent: count, may_have_changed: shared > 0 };
        }
        (frames, self)
    }

    /// Returns how a consumer with this prefetch starts.
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

    /// Returns how a consumer with delivery tags of this kind starts.
    pub(crate) fn start_as(self, kind: TagKind, own: Option<u16>) -> Start {
        match kind {
            TagKind::NoAck => self.start_without_ack(),
            TagKind::Stream => self.start(self.of_stream(own)),
            TagKind::Ack | TagKind::MaybeStream => self.start(own),
        }
    }

    /// Returns how a consumer without acknowledgement starts: no limit applies to it.
    pub(crate) fn start_without_ack(self) -> Start {
        Start { next: self, ..Start::default() }
    }

    /// Returns the prefetch of a stream's consumer. A stream has no shared limit.
    pub(crate) fn of_stream(self, own: Option<u16>) -> Option<u16> {
        if self.shared == 0 { own } else { own.or(self.asked).or(Some(PREFETCH)) }
    }
}
