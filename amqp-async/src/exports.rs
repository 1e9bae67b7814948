//! What adapters hand on to applications, which depend on the adapter alone.

/// The arguments, results and errors of calls, the same for async and blocking handles.
pub mod values {
    pub use crate::{
        AnswerError, ConnectionEvent, FRAME_LOG_TARGET, LOG_TARGET, TryRecvError, TrySendError,
        guide, limits,
    };
    pub use amqp_core::{
        AckError, AmqpUri, BasicConsume, BasicGet, BasicQos, BasicRecover, Body, BrokerError,
        ChannelCause, ChannelFlow, CloseCause, Config, ConfirmSelect, ConnectError, ConnectFailure,
        ConnectStep, ConsumeOk, Credentials, Decimal, DeliveryMode, DeliveryTag, Endpoint, Error,
        ExchangeBind, ExchangeDeclare, ExchangeDelete, ExchangeType, ExchangeUnbind, FailedAttempt,
        Fault, FieldTable, FieldValue, Heartbeat, InvalidArgument, InvalidReason, Malformed,
        Message, MessageCount, Misuse, NoWait, Overflow, Properties, PropertiesRef, ProtocolDetail,
        ProtocolError, Publish, PublishError, PublishSeq, QueueBind, QueueDeclare, QueueDeclareOk,
        QueueDelete, QueuePurge, QueueUnbind, ReceivedMessage, ReplyCode, ReturnedMessage, Secret,
        ShortStr, Stats, StreamOffset, TransportError, Tuning, TxCommit, TxRollback, TxSelect,
        Unconfirmed, UriError,
    };
}

/// The handles, and the futures that they return.
pub mod handles {
    pub use crate::{
        AllConfirmed, BasicPublish, Calling, Canceller, Cancelling, Channel, ChannelClosed, Closed,
        Closing, Confirm, Connecting, Connection, ConnectorOver, Consumer, Consuming, Delivery,
        DriverOver, Events, Getting, Next, NextEvent, OpeningChannel, OpeningConsumer,
        OpeningPublisher, Over, Publisher, Publishing, Returned, SelectingConfirms, SelectingTx,
        Sending, SendingNoWait, Tx,
    };
}
