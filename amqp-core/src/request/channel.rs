//! Calls that change how a channel works: confirm mode and flow.

use amqp_proto::method;

use crate::request::{Pending, requests};

/// Puts the channel into confirm mode
/// (`confirm.select`; <https://www.rabbitmq.com/docs/confirms#publisher-confirms>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfirmSelect {}

/// Asks the broker to start deliveries on the channel, or to stop them
/// (`channel.flow`; AMQP 0-9-1, 1.5.2.3). Resolves with what the broker does.
///
/// RabbitMQ knows `true` alone, and closes the connection on `false`; that is refused here with
/// [`Misuse::FlowInactive`](crate::Misuse::FlowInactive). To stop deliveries, limit the prefetch or
/// cancel the consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelFlow {
    active: bool,
}

impl ChannelFlow {
    /// Asks for deliveries if `active`.
    pub const fn new(active: bool) -> Self {
        Self { active }
    }
}

requests! {
    ConfirmSelect -> (), Pending::ConfirmSelect,
    |this, table, no_wait| method::confirm::Select::default();
    ChannelFlow -> bool, Pending::Flow { active: this.active },
    |this, table, no_wait| method::channel::Flow { active: this.active };
}
