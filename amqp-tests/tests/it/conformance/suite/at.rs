//! What the behaviours share: connecting, a scene to begin with, and waiting for messages.

use amqp_testkit::{ModelBroker, RabbitMq};
use smol::lock::MutexGuard;

use super::api::{At, BasicConsume, Channel, Connection, Consumer, Delivery, Publish};
use super::api::{QueueDeclare, QueueDeclareOk};
use crate::support::{self, exclusive, within};

/// A connection, a channel, and a queue that goes with the connection.
pub(crate) struct Scene {
    pub(crate) connection: Connection,
    pub(crate) channel: Channel,
    pub(crate) queue: QueueDeclareOk,
}

impl At {
    pub(crate) fn port(&self) -> u16 {
        support::port(self.uri())
    }

    /// The same broker by another port: that of a proxy before it.
    pub(crate) fn by_port(&self, port: u16) -> Self {
        self.to(self.uri().replace(&format!(":{}/", self.port()), &format!(":{port}/")))
    }

    /// The version that the broker behaves as.
    pub(crate) fn version(&self) -> (u32, u32) {
        support::version(self.port())
    }

    pub(crate) async fn connect(&self) -> Connection {
        self.open(|config| config).await.unwrap()
    }

    /// The queue's name begins with `name`, and no other test uses it.
    pub(crate) async fn scene(&self, name: &str) -> Scene {
        let connection = self.connect().await;
        let channel = connection.open_channel().await.unwrap();
        let queue = channel.queue_declare(exclusive(name)).await.unwrap();
        Scene { connection, channel, queue }
    }
}

/// A broker that one test at a time may disturb.
pub(crate) enum Fragile {
    Model(ModelBroker),
    RabbitMq(MutexGuard<'static, RabbitMq>),
}

impl Fragile {
    /// Of the same kind as the shared one.
    pub(crate) fn like(at: &At) -> Self {
        if at.uri() == support::model().uri() {
            Self::Model(ModelBroker::start().unwrap())
        } else {
            Self::RabbitMq(support::fragile())
        }
    }

    pub(crate) fn uri(&self) -> String {
        match self {
            Self::Model(model) => model.uri(),
            Self::RabbitMq(node) => node.uri(),
        }
    }

    /// Raises or ends a memory alarm.
    pub(crate) fn alarm(&self, raised: bool) {
        match self {
            Self::Model(model) => model.set_alarm(raised.then_some("low on memory")),
            Self::RabbitMq(node) => {
                let mark = if raised { "0.00001" } else { "0.4" };
                node.ctl(&["set_vm_memory_high_watermark", mark]).unwrap();
            }
        }
    }

    /// Closes all connections, as an operator does.
    pub(crate) fn close_all(&self) {
        match self {
            Self::Model(model) => model.close_all("because"),
            Self::RabbitMq(node) => {
                node.ctl(&["close_all_connections", "because"]).unwrap();
            }
        }
    }
}

/// Publishes these bodies to a queue, without waiting for confirms.
pub(crate) async fn publish(
    channel: &Channel,
    queue: &str,
    bodies: impl IntoIterator<Item = &str>,
) {
    for body in bodies {
        channel.basic_publish(Publish::new("", queue, body)).await.unwrap();
    }
}

/// A consumer with everything by default.
pub(crate) async fn consumer_of(channel: &Channel, queue: &str) -> Consumer {
    channel.basic_consume(BasicConsume::new(queue)).await.unwrap()
}

/// The next delivery. Fails the test if none comes.
pub(crate) async fn next(consumer: &mut Consumer) -> Delivery {
    within("a delivery", consumer.next()).await.unwrap().unwrap()
}

/// Waits until this many messages are ready. RabbitMQ's queues count before they take what was sent
/// to them a moment ago.
pub(crate) async fn ready(channel: &Channel, queue: &str, expected: u32) {
    within("the messages", async {
        let passive = QueueDeclare::passive(queue);
        while channel.queue_declare(passive.clone()).await.unwrap().message_count != expected {}
    })
    .await;
}

/// Turns each `async fn name(at: At)` into a test for every adapter, on the model broker and on
/// RabbitMQ.
macro_rules! on_every_adapter {
    ($($name:ident)*) => {
        super::api::on_model! { $($name)* }
        super::api::on_rabbitmq! { $($name)* }
    };
}

pub(crate) use on_every_adapter;
