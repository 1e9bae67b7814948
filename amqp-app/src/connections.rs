//! Where an application has its connections from: a connector, which dials them, or a pool, which lends them.

use amqp_async::Connection;

use crate::error::Error;
use crate::platform::Platform;
use crate::runner::BoxFuture;

/// A source of connections.
pub(crate) trait Connections: Send + Sync {
    /// Resolves to an open connection.
    fn lease(&self) -> BoxFuture<'_, Result<Lease, Error>>;
}

/// A connection in use.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) connection: Connection,
    /// Whether the one who uses it closes it.
    pub(crate) owned: bool,
}

/// One connection, which is another's.
pub(crate) struct Borrowed(pub(crate) Connection);

impl Connections for Borrowed {
    fn lease(&self) -> BoxFuture<'_, Result<Lease, Error>> {
        Box::pin(async { Ok(Lease { connection: self.0.clone(), owned: false }) })
    }
}

/// Connections of a connector, which belong to the one who asks for them.
pub(crate) struct Dialled<P>(pub(crate) P);

impl<P: Platform> Connections for Dialled<P> {
    fn lease(&self) -> BoxFuture<'_, Result<Lease, Error>> {
        Box::pin(async {
            let connection = self.0.connect().await?;
            Ok(Lease { connection, owned: true })
        })
    }
}
