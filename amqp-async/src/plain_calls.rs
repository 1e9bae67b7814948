//! The plain calls: calls with one value as the request, and the broker's reply as the result.
//!
//! This table lists them once. Macros create the async handles, the blocking handles and the handles of the
//! conformance suite from its rows.

/// Passes the rows of the table to the macro `$make`: those of `Channel`, or those of `Tx`.
///
/// A row is the documentation of a method, then `name(argument: type) -> reply = request type, request;`. The
/// methods take `impl Into` of the argument's type. The names must be in scope where the macro is called.
/// Links in the documentation are relative to the root of the calling crate.
#[doc(hidden)]
#[macro_export]
macro_rules! plain_calls {
    (Channel => $make:ident) => {
        $make! {
            /// Declares an exchange, or checks that it exists (`exchange.declare`; AMQP 0-9-1, 1.6.2.1).
            exchange_declare(declare: ExchangeDeclare) -> () = ExchangeDeclare, declare;

            /// Deletes an exchange (`exchange.delete`; AMQP 0-9-1, 1.6.2.3).
            exchange_delete(delete: ExchangeDelete) -> () = ExchangeDelete, delete;

            /// Binds an exchange to an exchange (`exchange.bind`; <https://www.rabbitmq.com/docs/e2e>).
            exchange_bind(bind: ExchangeBind) -> () = ExchangeBind, bind;

            /// Removes a binding between exchanges (`exchange.unbind`; <https://www.rabbitmq.com/docs/e2e>).
            exchange_unbind(binding: ExchangeBind) -> () =
                ExchangeUnbind, ExchangeUnbind::new(binding);

            /// Declares a queue, or checks that it exists (`queue.declare`; AMQP 0-9-1, 1.7.2.1;
            /// <https://www.rabbitmq.com/docs/queues>). The reply contains its name.
            queue_declare(declare: QueueDeclare) -> QueueDeclareOk = QueueDeclare, declare;

            /// Binds a queue to an exchange (`queue.bind`; AMQP 0-9-1, 1.7.2.3).
            queue_bind(bind: QueueBind) -> () = QueueBind, bind;

            /// Removes a binding of a queue (`queue.unbind`; AMQP 0-9-1, 1.7.2.5).
            queue_unbind(binding: QueueBind) -> () = QueueUnbind, QueueUnbind::new(binding);

            /// Removes the ready messages of a queue (`queue.purge`; AMQP 0-9-1, 1.7.2.7). The reply contains
            /// their number.
            queue_purge(purge: QueuePurge) -> MessageCount = QueuePurge, purge;

            /// Deletes a queue (`queue.delete`; AMQP 0-9-1, 1.7.2.9). The reply contains the number of its
            /// messages.
            queue_delete(delete: QueueDelete) -> MessageCount = QueueDelete, delete;

            /// Sets the prefetch: the maximum number of unacknowledged deliveries (`basic.qos`; AMQP 0-9-1,
            /// 1.8.3.1; <https://www.rabbitmq.com/docs/consumer-prefetch>).
            ///
            /// It applies to each consumer that starts on the channel after this call, or with
            /// [`global`](crate::BasicQos::global) to the channel as a whole. A consumer's own
            /// [`prefetch`](crate::BasicConsume::prefetch) takes precedence. Without either, the prefetch is
            /// 256.
            basic_qos(qos: BasicQos) -> () = BasicQos, qos;

            /// Requeues all unacknowledged deliveries of the channel (`basic.recover`; AMQP 0-9-1, 1.8.3.16).
            ///
            /// The broker delivers them again, marked as redelivered. The deliveries that the application
            /// holds, and those that a consumer's handle has buffered, can no longer be acknowledged
            /// ([`AckError::Recovered`](crate::AckError::Recovered)).
            basic_recover() -> () = BasicRecover, BasicRecover::default();

            /// Asks the broker to start deliveries (`channel.flow`; AMQP 0-9-1, 1.5.2.3). RabbitMQ cannot
            /// stop them: see [`ChannelFlow`](crate::requests::ChannelFlow).
            flow(flow: ChannelFlow) -> bool = ChannelFlow, flow;
        }
    };
    (Tx => $make:ident) => {
        $make! {
            /// Commits the transaction (`tx.commit`; AMQP 0-9-1, 1.9.2.3): publishes and acknowledgements
            /// since the last commit take effect.
            ///
            /// If the connection was lost meanwhile, and publishes or acknowledgements of the transaction with it, the rest is
            /// not committed: this resolves to [`Error::Interrupted`](crate::Error::Interrupted), and the rest is
            /// rolled back. Deliveries that were acknowledged before the loss come again. Those after it do not: they stay
            /// unacknowledged until the channel closes, or
            /// [`basic_recover`](crate::Channel::basic_recover) requeues them.
            ///
            /// Messages that reached no queue are returned before the reply: see
            /// [`Channel::take_returned`](crate::Channel::take_returned).
            commit() -> () = TxCommit, TxCommit::default();

            /// Rolls the transaction back (`tx.rollback`; AMQP 0-9-1, 1.9.2.5): publishes and
            /// acknowledgements since the last commit have no effect.
            ///
            /// Deliveries are not requeued: they stay unacknowledged.
            rollback() -> () = TxRollback, TxRollback::default();
        }
    };
}

pub(crate) use plain_calls;
