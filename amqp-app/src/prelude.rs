//! What applications name: `use amqp_app::prelude::*`.

pub use std::time::Duration;

pub use amqp_async::{
    BasicConsume, Delivery, ExchangeBind, ExchangeDeclare, ExchangeDelete, FieldTable, FieldValue,
    Properties, QueueBind, QueueDeclare, QueueDelete, QueuePurge,
};

#[cfg(feature = "threads")]
pub use crate::ThreadNext;
pub use crate::{
    App, Attempt, Batch, Body, Consume, Context, Deadline, Delays, Error, Exchange, Extension,
    Failure, FromContext, Headers, IntoOutcome, Json, Member, Message, MessageId, Next, Outcome,
    Outgoing, Participant, Participants, Payload, Platform, Pool, Pools, QueueName, Redelivered,
    Reply, Report, Requester, Retry, RoutingKey, Shutdown, State, Text, blocking,
};
#[cfg(feature = "config")]
pub use crate::{Config, Settings};
