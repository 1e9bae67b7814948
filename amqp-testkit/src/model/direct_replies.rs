//! Direct reply-to: a consumer of a pseudo-queue, and publishes to its address
//! (<https://www.rabbitmq.com/docs/direct-reply-to>).
//!
//! A request names the pseudo-queue in `reply-to`. The broker replaces that name by an address, which holds the
//! connection and the channel of the consumer. A publish to the default exchange with that address as its routing key
//! goes straight to the consumer. It is in no queue.

use amqp_proto::method::basic;

use super::broker::{Broker, ConnectionId};
use super::channel::Channel;
use super::fields::short;
use super::message::Message;
use super::refusal::Refusal;

/// The pseudo-queue of direct replies.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

impl Channel<'_> {
    /// Checks that the consumer is without acknowledgement, and the only reply consumer of its channel.
    pub(super) fn check_reply_consumer(&mut self, no_ack: bool) -> Result<(), Refusal> {
        if !no_ack {
            return Err(Refusal::precondition_failed("reply consumer cannot acknowledge"));
        }
        if self.state().reply_consumer.is_some() {
            return Err(Refusal::precondition_failed("reply consumer already set"));
        }
        Ok(())
    }

    /// Replaces the name of the pseudo-queue in `reply-to` by the address of the channel's reply consumer.
    pub(super) fn address_reply(&mut self, message: &mut Message) -> Result<(), Refusal> {
        if message.properties().reply_to.is_none_or(|it| it != *REPLY_TO) {
            return Ok(());
        }
        if self.state().reply_consumer.is_none() {
            return Err(Refusal::precondition_failed("fast reply consumer does not exist"));
        }
        let address = format!("{REPLY_TO}.{}.{}", self.id.0, self.number);
        if !message.change_properties(|it| it.reply_to = Some(address)) {
            return Err(Refusal::not_implemented("replies to what it cannot write"));
        }
        Ok(())
    }
}

impl Broker {
    /// Delivers a message whose routing key is the address of a reply consumer.
    pub(super) fn reply_directly(&mut self, message: &Message) {
        let Some((id, number)) = address(message) else { return };
        let Some(mut channel) = self.channel(id, number) else { return };
        let state = channel.state();
        let Some(tag) = state.reply_consumer.clone() else { return };
        let deliver = basic::Deliver {
            consumer_tag: short(&tag),
            // RabbitMQ does not count these deliveries: each has the tag of the next counted one.
            delivery_tag: state.last_tag + 1,
            redelivered: false,
            exchange: short(message.exchange.as_bytes()),
            routing_key: short(&message.wire_key),
        };
        channel.send_message(&deliver, message);
        self.mark_dirty(id);
    }
}

/// Returns the connection and the channel that a message replies to, if it is a direct reply.
fn address(message: &Message) -> Option<(ConnectionId, u16)> {
    if !message.exchange.is_empty() {
        return None;
    }
    let address = message.routing_key.strip_prefix(REPLY_TO)?.strip_prefix('.')?;
    let (connection, number) = address.split_once('.')?;
    Some((ConnectionId(connection.parse().ok()?), number.parse().ok()?))
}
