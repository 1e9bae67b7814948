//! The delivery acknowledgement timeout: a channel that keeps a delivery for too long is closed
//! (<https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout>).
//!
//! A channel's deadline is set by its first delivery. When it passes, it is set again for the oldest delivery that is
//! unacknowledged then, so that most deliveries and acks cost nothing. RabbitMQ looks once in a minute; the model closes
//! the channel at the moment itself.

use std::time::Duration;

use super::broker::{Broker, ConnectionId};
use super::channel::ChannelState;
use super::deadlines::{Deadlines, Due};
use super::refusal::Refusal;

/// RabbitMQ's default, half an hour.
pub(super) const DEFAULT: Duration = Duration::from_secs(1_800);

/// What sets the deadline of a channel.
#[derive(Debug)]
pub(super) struct AcknowledgementTimer<'b> {
    pub(super) now: Duration,
    pub(super) timeout: Option<Duration>,
    pub(super) deadlines: &'b mut Deadlines,
}

impl AcknowledgementTimer<'_> {
    /// Sets the deadline of a channel that has a delivery and no deadline.
    pub(super) fn start(&mut self, id: ConnectionId, number: u16, channel: &mut ChannelState) {
        if channel.has_deadline {
            return;
        }
        let Some(timeout) = self.timeout else { return };
        channel.has_deadline = true;
        let at = self.now.saturating_add(timeout);
        self.deadlines.set(Due::Acknowledgement(id, number), Some(at));
    }
}

impl Broker {
    /// Sets how long a client may keep a delivery unacknowledged, `None` for any time. RabbitMQ's default is half an hour. After
    /// that the channel is closed with 406.
    pub const fn set_consumer_timeout(&mut self, timeout: Option<Duration>) {
        self.consumer_timeout = timeout;
    }

    /// Closes a channel whose oldest delivery has been unacknowledged for too long, or sets the next deadline.
    pub(super) fn check_acknowledgements(&mut self, id: ConnectionId, number: u16) {
        let (now, timeout) = (self.now, self.consumer_timeout);
        let Some(mut view) = self.channel(id, number) else { return };
        let channel = view.state();
        channel.has_deadline = false;
        let oldest = channel.unacked.first_key_value().map(|(_, oldest)| oldest.delivered_at);
        let (Some(oldest), Some(timeout)) = (oldest, timeout) else { return };
        let at = oldest.saturating_add(timeout);
        if at > now {
            channel.has_deadline = true;
            self.deadlines.set(Due::Acknowledgement(id, number), Some(at));
            return;
        }
        let milliseconds = timeout.as_millis();
        let text = format!(
            "delivery acknowledgement on channel {number} timed out. Timeout value used: \
             {milliseconds} ms. This timeout value can be configured, see consumers doc guide to \
             learn more"
        );
        self.refuse(id, number, None, Refusal::precondition_failed(text));
        self.mark_dirty(id);
    }
}
