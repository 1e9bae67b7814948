//! Every operation, to be dropped in the middle.

use std::pin::Pin;
use std::time::Duration;

use amqp_async::core::{
    BasicConsume, BasicGet, BasicQos, ExchangeBind, ExchangeDeclare, ExchangeDelete, Publish,
    QueueBind, QueueDeclare, QueueDelete, QueuePurge,
};
use amqp_async::{Channel, Connection, Publisher, Tx};

/// What operations work on; they leave it as it is, however far they get.
pub(crate) struct Fixture {
    pub(crate) connection: Connection,
    pub(crate) channel: Channel,
    pub(crate) publisher: Publisher,
    pub(crate) tx: Tx,
    /// It holds messages, and an operation that takes one takes one at most.
    pub(crate) queue: String,
    /// It holds none.
    pub(crate) other: String,
}

/// The messages in a fixture's queue.
pub(crate) const MESSAGES: u32 = 200;

impl Fixture {
    pub(crate) async fn new(connection: Connection) -> Self {
        let channel = connection.open_channel().await.unwrap();
        let declare = || channel.queue_declare(QueueDeclare::new("").exclusive());
        let (queue, other) = (declare().await.unwrap().queue, declare().await.unwrap().queue);
        let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
        let tx = connection.open_channel().await.unwrap().tx_select().await.unwrap();
        for _ in 0..MESSAGES {
            publisher.publish(Publish::new("", &queue, b"message")).await.unwrap();
        }
        Self { connection, channel, publisher, tx, queue, other }
    }

    fn get(&self) -> BasicGet {
        BasicGet::new(&self.queue).requeue_on_drop()
    }

    fn consume(&self) -> BasicConsume {
        BasicConsume::new(&self.queue).prefetch(3).requeue_on_drop()
    }
}

pub(crate) type Operation = for<'f> fn(&'f Fixture) -> Pin<Box<dyn Future<Output = ()> + 'f>>;

macro_rules! operations {
    ($($name:ident |$f:ident| $body:block)*) => {
        /// Every operation by its name.
        pub(crate) const OPERATIONS: &[(&str, Operation)] =
            &[$((stringify!($name), |$f| Box::pin(async move { $body }))),*];
    };
}

operations! {
    open_channel |f| {
        f.connection.open_channel().await.unwrap();
    }
    close_channel |f| {
        let channel = f.connection.open_channel().await.unwrap();
        channel.close().await.unwrap();
    }
    with_channel |f| {
        let body = async |channel: Channel| {
            channel.basic_qos(BasicQos::new(1)).await?;
            Ok::<_, amqp_async::core::Error>(())
        };
        f.connection.with_channel(body).await.unwrap();
    }
    flow |f| {
        f.channel.flow(true).await.unwrap();
    }
    exchanges |f| {
        let (one, two) = ("swept-1", "swept-2");
        f.channel.exchange_declare(ExchangeDeclare::fanout(one)).await.unwrap();
        f.channel.exchange_declare(ExchangeDeclare::fanout(two)).await.unwrap();
        f.channel.exchange_bind(ExchangeBind::new(one, two, "k")).await.unwrap();
        f.channel.exchange_unbind(ExchangeBind::new(one, two, "k")).await.unwrap();
        f.channel.exchange_delete(ExchangeDelete::new(one)).await.unwrap();
        f.channel.exchange_delete(ExchangeDelete::new(two)).await.unwrap();
    }
    queues |f| {
        let declared = f.channel.queue_declare(QueueDeclare::new("").exclusive()).await.unwrap();
        let bind = QueueBind::new(declared.name(), "amq.direct", "k");
        f.channel.queue_bind(bind.clone()).await.unwrap();
        f.channel.queue_unbind(bind).await.unwrap();
        f.channel.queue_purge(QueuePurge::new(declared.name())).await.unwrap();
        f.channel.queue_delete(QueueDelete::new(declared.name())).await.unwrap();
    }
    no_wait |f| {
        f.channel.no_wait(QueuePurge::new(&f.other)).await.unwrap();
        f.channel.queue_declare(QueueDeclare::passive(&f.other)).await.unwrap();
    }
    basic_qos |f| {
        f.channel.basic_qos(BasicQos::new(0)).await.unwrap();
        f.channel.basic_qos(BasicQos::new(0).global()).await.unwrap();
    }
    basic_consume |f| {
        let mut consumer = f.channel.basic_consume(f.consume()).await.unwrap();
        consumer.next().await.unwrap().unwrap().nack(true).unwrap();
        consumer.next().await.unwrap().unwrap().reject(true).unwrap();
        drop(consumer.next().await.unwrap().unwrap());
        consumer.cancel().await.unwrap();
        while let Some(delivery) = consumer.next().await {
            delivery.unwrap().nack(true).unwrap();
        }
    }
    basic_consume_without_acknowledgement |f| {
        let consume = BasicConsume::new(&f.other).no_ack();
        let mut consumer = f.channel.basic_consume(consume).await.unwrap();
        f.channel.basic_publish(Publish::new("", &f.other, b"x")).await.unwrap();
        consumer.next().await.unwrap().unwrap();
    }
    basic_get |f| {
        let got = f.channel.basic_get(f.get()).await.unwrap().unwrap();
        drop(got);
        let got = f.channel.basic_get(f.get()).await.unwrap().unwrap();
        f.publisher.publish(Publish::new("", &f.queue, b"in its place")).await.unwrap();
        got.ack().unwrap();
        assert!(f.channel.basic_get(f.other.as_str()).await.unwrap().is_none());
    }
    basic_recover |f| {
        // Not on the channel of the others: it would hide what they leave.
        let channel = f.connection.open_channel().await.unwrap();
        let got = channel.basic_get(f.get()).await.unwrap().unwrap();
        channel.basic_recover().await.unwrap();
        drop(got);
    }
    basic_publish |f| {
        f.channel.basic_publish(Publish::new("amq.direct", "nobody", b"x")).await.unwrap();
    }
    returned |f| {
        let publish = Publish::new("amq.direct", "nobody", b"x").mandatory();
        f.channel.basic_publish(publish).await.unwrap();
        f.channel.returned().await.unwrap();
    }
    confirm_select |f| {
        let channel = f.connection.open_channel().await.unwrap();
        channel.confirm_select().await.unwrap();
    }
    publisher |f| {
        let publisher = f.connection.publisher().await.unwrap();
        publisher.publish(Publish::new("amq.direct", "nobody", b"x")).await.unwrap();
    }
    consume |f| {
        let mut consumer = f.connection.consume(f.consume()).await.unwrap();
        consumer.next().await.unwrap().unwrap().requeue().unwrap();
        consumer.canceller().cancel().await.unwrap();
    }
    publish |f| {
        f.publisher.publish(Publish::new("amq.direct", "nobody", b"x")).await.unwrap();
        let large = vec![0; 300_000];
        f.publisher.publish(Publish::new("amq.direct", "nobody", &large)).await.unwrap();
    }
    send |f| {
        let publish = Publish::new("amq.direct", "nobody", b"x").mandatory();
        let confirm = f.publisher.send(publish).await.unwrap();
        confirm.await.unwrap_err();
    }
    tx |f| {
        f.tx.channel().basic_publish(Publish::new("amq.direct", "nobody", b"x")).await.unwrap();
        f.tx.commit().await.unwrap();
        f.tx.channel().basic_publish(Publish::new("amq.direct", "nobody", b"x")).await.unwrap();
        f.tx.rollback().await.unwrap();
    }
    tx_select |f| {
        let channel = f.connection.open_channel().await.unwrap();
        channel.tx_select().await.unwrap();
    }
    update_secret |f| {
        f.connection.update_secret("guest", "swept").await.unwrap();
    }
    drain |f| {
        f.connection.drain(Duration::from_secs(60)).await.unwrap();
    }
    closed |f| {
        let mut polls = 0;
        let mut closed = std::pin::pin!(f.connection.closed());
        // It ends with the connection alone: three polls of it are as many as any.
        std::future::poll_fn(|cx| {
            polls += 1;
            assert!(closed.as_mut().poll(cx).is_pending());
            if polls < 3 {
                cx.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            std::task::Poll::Ready(())
        })
        .await;
    }
    events |f| {
        let mut events = f.connection.events();
        let channel = f.connection.open_channel().await.unwrap();
        drop(channel.basic_get(BasicGet::new(&f.queue)).await.unwrap());
        events.next().await.unwrap();
    }
}
