//! Threads as a platform. Each task is a thread, which blocks while it waits.

use amqp_async::{ConnectError, Connection};
use amqp_blocking::Connector;
use amqp_blocking::runtime::Threads;

use super::Platform;

impl Platform for Connector {
    type Executor = Threads;
    type Connection = amqp_blocking::Connection;

    fn executor(&self) -> Threads {
        Threads
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        Self::connect(self).map(Connection::from)
    }
}
