//! Calls that change how a channel works: confirm mode and flow.

use amqp_proto::method;

use crate::request::{Pending, requests};

/// Selects confirm mode
/// (`confirm.select`; <https://www.rabbitmq.com/docs/confirms#publisher-confirms>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfirmSelect {}

/// Asks the broker to start or stop deliveries on the channel (`channel.flow`; AMQP 0-9-1, 1.5.2.3). Resolves
/// to whether deliveries are active.
///
/// RabbitMQ supports only `true`, and closes the connection for `false`. So `false` returns
/// [`Misuse::FlowInactive`](crate::errors::Misuse::FlowInactive). To stop deliveries, lower the prefetch or cancel the
/// consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelFlow {
    /// Whether deliveries are wanted.
    pub active: bool,
}

impl ChannelFlow {
    /// Asks the broker to start deliveries, or to stop them.
    pub const fn new(active: bool) -> Self {
        Self { active }
    }
}

impl From<bool> for ChannelFlow {
    fn from(active: bool) -> Self {
        Self::new(active)
    }
}

requests! {
    ConfirmSelect -> (), Pending::ConfirmSelect,
    |this, table, no_wait| method::confirm::Select::default();
    ChannelFlow -> bool, Pending::Flow { active: this.active },
    |this, table, no_wait| method::channel::Flow { active: this.active };
}
