//! What applications name: `use amqp_app::prelude::*`.

pub use std::time::Duration;

pub use amqp_async::{
    BasicConsume, Delivery, ExchangeBind, ExchangeDeclare, ExchangeDelete, FieldTable, FieldValue,
    Properties, QueueBind, QueueDeclare, QueueDelete, QueuePurge,
};

pub use crate::{Error, Failure, Member, Message, Platform, Pool, Pools};
