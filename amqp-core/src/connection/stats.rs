//! Counters for metrics.

use crate::channel::{ConsumerPhase, Phase};
use crate::connection::{Connection, Link};

/// Counters of a connection over all of its transports, and its current state.
///
/// To take them, the connection loops over its channels and consumers. Counters do not wrap around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Bytes received and handled.
    pub bytes_received: u64,
    /// Bytes handed to the transport.
    pub bytes_sent: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Frames queued to be sent.
    pub frames_sent: u64,
    /// Messages published.
    pub published: u64,
    /// Publishes that the broker acked, including returned ones.
    pub confirmed: u64,
    /// Publishes that the broker nacked.
    pub nacked: u64,
    /// Mandatory messages that were returned.
    pub returned: u64,
    /// Messages delivered to consumers, or fetched by `basic.get`.
    pub delivered: u64,
    /// Acks, nacks and rejects sent. One with `multiple` counts as one.
    pub acks_sent: u64,
    /// Deliveries dropped without an ack or nack.
    pub dropped: u64,
    /// Channels that are opening, open or closing.
    pub channels: u64,
    /// Consumers that receive deliveries.
    pub consumers: u64,
    /// Calls that await their reply.
    pub open_calls: u64,
    /// Publishes that await their confirm, counted on each channel from the oldest one to the newest.
    pub unconfirmed: u64,
    /// Deliveries that need an ack or nack, except those that were dropped.
    pub unacked: u64,
    /// Bytes of unread deliveries. Deliveries that a handle has taken together count until it has read all of
    /// them.
    pub unread_bytes: u64,
    /// Bytes of messages that have arrived in part.
    pub incomplete_bytes: u64,
    /// Bytes that wait to be handed to the transport.
    pub unsent_bytes: u64,
}

/// The counters among [`Stats`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) bytes_received: u64,
    pub(crate) frames_received: u64,
    pub(crate) published: u64,
    pub(crate) acked: u64,
    pub(crate) nacked: u64,
    pub(crate) returned: u64,
    pub(crate) delivered: u64,
    pub(crate) acks_sent: u64,
    pub(crate) dropped: u64,
    /// Bytes handed to the transports before the present one.
    bytes_sent_before: u64,
    /// Frames queued for the transports before the present one.
    frames_sent_before: u64,
}

impl Counters {
    /// Records that another link replaces this one.
    pub(super) const fn end_of_link(&mut self, link: &Link) {
        self.bytes_sent_before += link.outbound.handed_over();
        self.frames_sent_before += link.outbound.frames_queued();
    }
}

impl Connection {
    /// Returns the counters and the current state of the connection.
    pub fn stats(&self) -> Stats {
        let counters = &self.counters;
        let mut stats = Stats {
            bytes_received: counters.bytes_received,
            bytes_sent: counters.bytes_sent_before + self.link.outbound.handed_over(),
            frames_received: counters.frames_received,
            frames_sent: counters.frames_sent_before + self.link.outbound.frames_queued(),
            published: counters.published,
            confirmed: counters.acked,
            nacked: counters.nacked,
            returned: counters.returned,
            delivered: counters.delivered,
            acks_sent: counters.acks_sent,
            dropped: counters.dropped,
            open_calls: (self.calls.in_flight() - self.draining.len()) as u64,
            unconfirmed: self.unconfirmed,
            unread_bytes: self.consumers.backlog().bytes() as u64,
            incomplete_bytes: self.staging.incomplete_bytes() as u64,
            unsent_bytes: self.link.outbound.queued_bytes() as u64,
            ..Stats::default()
        };
        for state in self.channels.values() {
            stats.channels += u64::from(state.wire.phase != Phase::Closed);
            stats.unacked += state.held() as u64;
        }
        let consuming = self.consumers.all().filter(|it| it.phase != ConsumerPhase::Ended);
        stats.consumers = consuming.count() as u64;
        stats
    }
}
