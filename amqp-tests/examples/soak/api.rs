//! What the load needs of an adapter: tokio's.

use std::pin::Pin;

pub(crate) use amqp_tokio::{
    BasicConsume, CloseCause, Config, ConnectError, Connection, ConnectionEvent, Connector, Events,
    Publish, PublishError, QueueDeclare, QueueDelete,
};

/// A broker.
pub(crate) struct At {
    uri: String,
}

impl At {
    pub(crate) const fn new(uri: String) -> Self {
        Self { uri }
    }

    pub(crate) async fn open(
        &self,
        configure: impl FnOnce(Config) -> Config,
    ) -> Result<Connection, ConnectError> {
        Connector::new(&self.uri)?.configure(configure).connect().await
    }

    #[allow(clippy::unused_self, reason = "where there are several runtimes, it has one")]
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Pin<Box<dyn Future<Output = T> + Send>> {
        let task = tokio::spawn(work);
        Box::pin(async move { task.await.unwrap() })
    }
}
