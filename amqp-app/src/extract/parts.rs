//! Arguments that are parts of a message, or facts about it.

use std::time::Instant;

use amqp_async::{FieldTable, Properties};

use super::{FromContext, Scope};
use crate::context::Context;
use crate::failure::Failure;

/// Arguments with one field, which is read from the context, and what they read.
macro_rules! parts {
    ($($(#[$doc:meta])* $scope:ident $name:ident($type:ty): $read:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq)]
            #[allow(clippy::exhaustive_structs, reason = "handlers take it apart")]
            pub struct $name(pub $type);

            impl<S> FromContext<S> for $name {
                const SCOPE: Scope = Scope::$scope;

                fn from_context(context: &Context<S>) -> Result<Self, Failure> {
                    let read: fn(&Context<S>) -> $type = $read;
                    Ok(Self(read(context)))
                }
            }
        )*
    };
}

parts! {
    /// The headers. The table is empty if there are none.
    Message Headers(FieldTable): |context| context.headers().cloned().unwrap_or_default();
    /// The routing key with which the message was published first.
    Message RoutingKey(String): |context| context.routing_key().to_owned();
    /// The exchange to which the message was published first.
    Message Exchange(String): |context| context.exchange().to_owned();
    /// The queue that the message came from.
    Message QueueName(String): |context| context.queue().to_owned();
    /// The message id, `None` if there is none.
    Message MessageId(Option<String>): |context| context.properties().ok().and_then(|it| it.message_id.clone());
    /// Whether the broker may have delivered the message before.
    Message Redelivered(bool): |context| context.redelivered();
    /// The number of this attempt, from 1: see [`Context::attempt`].
    Message Attempt(u32): |context| context.attempt();
    /// When the timeout of the source expires, `None` without one.
    Application Deadline(Option<Instant>): |context| context.deadline();
}

impl<S> FromContext<S> for Properties {
    fn from_context(context: &Context<S>) -> Result<Self, Failure> {
        context.properties().cloned().map_err(Failure::undecodable)
    }
}
