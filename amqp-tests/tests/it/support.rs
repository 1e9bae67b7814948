//! What the tests share.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use adapter_tokio::{Channel, Connection, Error, QueueDeclare};
use amqp_testkit::{ModelBroker, RabbitMq};

/// The RabbitMQ that all tests share; its guard removes it when the process ends.
pub(crate) fn rabbitmq() -> &'static RabbitMq {
    static NODE: LazyLock<RabbitMq> =
        LazyLock::new(|| RabbitMq::start().unwrap_or_else(|error| panic!("{error}")));
    &NODE
}

/// The model broker that all tests share.
pub(crate) fn model() -> &'static ModelBroker {
    static BROKER: LazyLock<ModelBroker> = LazyLock::new(|| ModelBroker::start().unwrap());
    &BROKER
}

/// The URI of the shared RabbitMQ, from within a runtime.
pub(crate) async fn rabbitmq_uri() -> String {
    tokio::task::spawn_blocking(|| rabbitmq().uri()).await.unwrap()
}

pub(crate) async fn connect() -> Connection {
    adapter_tokio::connect(&rabbitmq_uri().await).await.unwrap()
}

/// A name that no other test uses.
pub(crate) fn unique(name: &str) -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// A queue that goes with its connection.
pub(crate) fn exclusive(name: &str) -> QueueDeclare {
    QueueDeclare::new(unique(name)).exclusive()
}

/// The reply code of a broker's refusal.
#[track_caller]
pub(crate) fn code(error: &Error) -> u16 {
    error.reply_code().unwrap_or_else(|| panic!("not refused by the broker: {error:?}")).code()
}

/// Waits until so many messages are ready. RabbitMQ's queues count before they take what was sent to
/// them a moment ago.
pub(crate) async fn ready(channel: &Channel, queue: &str, expected: u32) {
    within("the messages", async {
        let passive = QueueDeclare::passive(queue);
        while channel.queue_declare(passive.clone()).await.unwrap().message_count != expected {}
    })
    .await;
}

/// Fails the test if `future` takes longer than anything should.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within 20 s"),
    }
}
