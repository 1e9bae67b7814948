//! The plain calls: those whose request is one value, and whose result is the broker's reply.
//!
//! They stand in one table. The asynchronous handles, the blocking handles and the handles of the conformance
//! suite are made from it, each by a macro of its own that takes the rows.

/// Passes the rows of the table to the macro `$make`: those of `Channel`, or those of `Tx`.
///
/// A row is a method's documentation, `name(argument: type) -> reply = request type, request;`. The methods take
/// whatever becomes the argument's type by `Into`. Names are to
/// be in scope where the macro is called, those of the documentation from the root of the calling crate.
#[doc(hidden)]
#[macro_export]
macro_rules! plain_calls {
    (Channel => $make:ident) => {
        $make! {
            /// Declares an exchange, or checks that it exists (AMQP 0-9-1, 1.6.2.1).
            exchange_declare(declare: ExchangeDeclare) -> () = ExchangeDeclare, declare;

            /// Deletes an exchange (AMQP 0-9-1, 1.6.2.3).
            exchange_delete(delete: ExchangeDelete) -> () = ExchangeDelete, delete;

            /// Binds an exchange to an exchange (<https://www.rabbitmq.com/docs/e2e>).
            exchange_bind(bind: ExchangeBind) -> () = ExchangeBind, bind;

            /// Removes a binding between exchanges (<https://www.rabbitmq.com/docs/e2e>).
            exchange_unbind(binding: ExchangeBind) -> () =
                ExchangeUnbind, ExchangeUnbind::new(binding);

            /// Declares a queue, or checks that it exists (AMQP 0-9-1, 1.7.2.1). The reply holds its name.
            queue_declare(declare: QueueDeclare) -> QueueDeclareOk = QueueDeclare, declare;

            /// Binds a queue to an exchange (AMQP 0-9-1, 1.7.2.3).
            queue_bind(bind: QueueBind) -> () = QueueBind, bind;

            /// Removes a binding of a queue (AMQP 0-9-1, 1.7.2.5).
            queue_unbind(binding: QueueBind) -> () = QueueUnbind, QueueUnbind::new(binding);

            /// Removes the ready messages of a queue (AMQP 0-9-1, 1.7.2.7). The reply is their number.
            queue_purge(purge: QueuePurge) -> MessageCount = QueuePurge, purge;

            /// Deletes a queue (AMQP 0-9-1, 1.7.2.9). The reply is the number of messages that it held.
            queue_delete(delete: QueueDelete) -> MessageCount = QueueDelete, delete;

            /// Sets the maximum number of unacknowledged deliveries (AMQP 0-9-1, 1.8.3.1;
            /// <https://www.rabbitmq.com/docs/consumer-prefetch>).
            ///
            /// It holds for each consumer that starts on the channel from here on, or with
            /// [`global`](crate::BasicQos::global) for the channel as a whole. A consumer's own
            /// [`prefetch`](crate::BasicConsume::prefetch) takes precedence. Without either it is 256.
            basic_qos(qos: BasicQos) -> () = BasicQos, qos;

            /// Asks the broker to redeliver all unacknowledged deliveries of the channel (AMQP 0-9-1, 1.8.3.16).
            ///
            /// They come again, marked as redelivered. The deliveries that the application has, and those that
            /// a consumer's handle has buffered, can no longer be acknowledged
            /// ([`AckError::Recovered`](crate::AckError::Recovered)).
            basic_recover() -> () = BasicRecover, BasicRecover::default();

            /// Asks the broker to send deliveries (AMQP 0-9-1, 1.5.2.3). See
            /// [`ChannelFlow`](crate::ChannelFlow) for what RabbitMQ refuses.
            flow(flow: ChannelFlow) -> bool = ChannelFlow, flow;
        }
    };
    (Tx => $make:ident) => {
        $make! {
            /// Commits: publishes and acknowledgements since the last commit take effect.
            ///
            /// Messages that reached no queue come back before the reply: see
            /// [`Channel::take_returned`](crate::Channel::take_returned).
            commit() -> () = TxCommit, TxCommit::default();

            /// Rolls back: publishes and acknowledgements since the last commit have no effect.
            ///
            /// Deliveries are not requeued by that; they stay unacknowledged.
            rollback() -> () = TxRollback, TxRollback::default();
        }
    };
}

pub(crate) use plain_calls;
