//! Conversions between the handles of this crate and those of `amqp-async`.

/// For each name, conversions in both directions.
macro_rules! conversions {
    ($($name:ident)*) => {
        $(
            /// Returns a blocking handle to the same object. Its methods block the calling thread, so do not call
            /// them in a task of an asynchronous runtime.
            impl From<amqp_async::$name> for crate::$name {
                fn from(handle: amqp_async::$name) -> Self {
                    Self::new(handle)
                }
            }

            /// Returns an asynchronous handle to the same object, for code that is generic over runtimes. Its
            /// futures can be awaited on any executor, such as [`Threads`](crate::runtime::Threads).
            impl From<crate::$name> for amqp_async::$name {
                fn from(handle: crate::$name) -> Self {
                    handle.0
                }
            }
        )*
    };
}

conversions! { Channel Connection Consumer Delivery Publisher }

#[cfg(test)]
mod tests {
    use amqp_testkit::ModelBroker;

    use crate::runtime::Threads;
    use crate::{BasicConsume, Connection, Publish, QueueDeclare};

    #[test]
    fn handles_are_converted_in_both_directions() {
        let broker = ModelBroker::start().unwrap();
        let connection = crate::connect(&broker.uri()).unwrap();
        let channel = connection.open_channel().unwrap();
        let queue = channel.queue_declare(QueueDeclare::new("").exclusive()).unwrap().queue;
        let shared = amqp_async::Connection::from(connection.clone());
        let (publisher, mut consumer) = Threads.block_on(async {
            let consumer = shared.consume(BasicConsume::new(&queue)).await.unwrap();
            (shared.publisher().await.unwrap(), crate::Consumer::from(consumer))
        });
        crate::Publisher::from(publisher).publish(Publish::to_queue(&queue, b"m")).unwrap();
        let delivery = amqp_async::Delivery::from(consumer.next().unwrap().unwrap());
        assert_eq!(delivery.body(), b"m");
        delivery.ack().unwrap();
        let channel = amqp_async::Channel::from(channel);
        Threads.block_on(channel.close()).unwrap();
        Connection::from(shared).close();
        assert!(!connection.is_open());
    }
}
