//! What a call changes in the topology of the broker: its exchanges, queues and bindings.

use crate::request::{
    ExchangeBind, ExchangeDeclare, ExchangeDelete, ExchangeUnbind, QueueBind, QueueDeclare,
    QueueDelete, QueueUnbind,
};

/// A change, as it was requested. It counts when the broker has confirmed it.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq)]
#[allow(unreachable_pub, reason = "it stands in a sealed trait")]
pub enum Change {
    ExchangeBind(ExchangeBind),
    ExchangeDeclare(ExchangeDeclare),
    ExchangeDelete(ExchangeDelete),
    ExchangeUnbind(ExchangeUnbind),
    QueueBind(QueueBind),
    QueueDeclare(QueueDeclare),
    QueueDelete(QueueDelete),
    QueueUnbind(QueueUnbind),
}

/// The name under which RabbitMQ keeps an exchange or a queue: it drops line ends.
pub(crate) fn kept_name(name: &str) -> String {
    name.replace(['\r', '\n'], "")
}
