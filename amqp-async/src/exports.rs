//! What adapters hand on to applications, which depend on the adapter alone.

/// What programs name, the same for async and blocking handles: configuration, messages, requests, errors.
pub mod values {
    pub use crate::{
        AnswerError, ConnectionEvent, FRAME_LOG_TARGET, LOG_TARGET, TryRecvError, TrySendError,
        errors, guide, limits, requests, types,
    };
    pub use amqp_core::{
        AckError, AmqpUri, Backoff, BasicConsume, BasicGet, BasicQos, Body, BrokerError,
        ChannelCause, CloseCause, Config, ConnectError, Credentials, DeliveryMode, DeliveryTag,
        Endpoint, Error, ExchangeBind, ExchangeDeclare, ExchangeDelete, ExchangeType, Fault,
        FieldTable, FieldValue, Heartbeat, HostOrder, Message, Overflow, Properties,
        ProvidedCredentials, Publish, PublishError, PublishSeq, QueueBind, QueueDeclare,
        QueueDeclareOk, QueueDelete, QueuePurge, ReceivedMessage, Recovery, ReplyCode,
        ReturnedMessage, StreamOffset, TcpOptions, TlsSettings, Unconfirmed,
    };
}

/// The handles, and the module of their futures.
pub mod handles {
    pub use crate::{
        Canceller, Channel, Confirm, Connection, Consumer, Delivery, Events, Publisher, Tx, futures,
    };
}

/// The futures that methods return, and what stands in their types. A program names them to keep one in a struct.
pub mod futures {
    pub use crate::call::{
        Calling, CancelConsumer, Cancelling, CloseChannel, Drain, Start, UpdateSecret,
    };
    pub use crate::channel::{ChannelClosed, SendingNoWait};
    pub use crate::connection::{Closed, Closing, OpeningChannel};
    pub use crate::connector::Connecting;
    pub use crate::consumer::{Consuming, Next};
    pub use crate::events::NextEvent;
    pub use crate::get::Getting;
    pub use crate::pipelined::{OpeningConsumer, OpeningPublisher};
    pub use crate::publisher::{AllConfirmed, Publishing, SelectingConfirms, Sending};
    pub use crate::tx::SelectingTx;
    pub use crate::unconfirmed::{BasicPublish, Returned};
}
