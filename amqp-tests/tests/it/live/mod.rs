//! Against a real RabbitMQ, over adapter-tokio.

mod basics;

use std::sync::LazyLock;
use std::time::Duration;

use adapter_tokio::{Connection, QueueDeclare};
use amqp_testkit::RabbitMq;

/// The node that all tests share; its guard removes it when the process ends.
pub fn broker() -> &'static RabbitMq {
    static NODE: LazyLock<RabbitMq> =
        LazyLock::new(|| RabbitMq::start().unwrap_or_else(|error| panic!("{error}")));
    &NODE
}

pub async fn connect() -> Connection {
    let broker = tokio::task::spawn_blocking(broker).await.unwrap();
    adapter_tokio::connect(&broker.uri()).await.unwrap()
}

/// A name that no other test uses.
pub fn unique(name: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NAMES: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// A queue that goes with its connection.
pub fn exclusive(name: &str) -> QueueDeclare {
    QueueDeclare::new(unique(name)).exclusive()
}

/// What should have happened by then has not.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within 20 s"),
    }
}
