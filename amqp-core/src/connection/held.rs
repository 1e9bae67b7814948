//! What the broker puts off while a connection is restored.
//!
//! A broker that has not noticed the loss of the old connection still holds its exclusive queues and exclusive consumers.
//! It refuses them to the new connection (405, 403) for up to three heartbeat intervals. A queue whose node is down is
//! refused as well (404): of a node that has just started, for about a second. Such a refusal is not final while the
//! session waits.

use std::time::Instant;

use amqp_proto::ReplyCode;

use crate::error::BrokerError;
use crate::ids::ChannelId;

/// The channels whose restore the broker has put off.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(super) channels: Vec<ChannelId>,
    until: Option<Until>,
}

/// When refusals become final.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    /// Of what the old connection holds.
    pub(crate) noticed: Instant,
    /// Of queues whose node is down.
    pub(crate) started: Instant,
}

impl Held {
    /// Sets when refusals become final. Before the first call, they are final at once.
    pub(crate) const fn wait_until(&mut self, until: Until) {
        self.until = Some(until);
    }

    /// Whether the broker may grant what it has refused a moment later.
    pub(crate) fn waits_for(&self, error: &BrokerError, now: Instant) -> bool {
        let says = |text| error.text.contains(text);
        self.until.is_some_and(|Until { noticed, started }| match error.code {
            ReplyCode::RESOURCE_LOCKED => now < noticed,
            ReplyCode::ACCESS_REFUSED => says("exclusive") && now < noticed,
            ReplyCode::NOT_FOUND => says("is down or inaccessible") && now < started,
            _ => false,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
