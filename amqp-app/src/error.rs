use amqp_async::{CloseCause, ConnectError};

use crate::failure::BoxError;

/// Why an application could not start, or has ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation of the client failed.
    #[error(transparent)]
    Client(#[from] amqp_async::Error),
    /// The configuration does not fit the application.
    #[cfg(feature = "config")]
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// A connection could not be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A connection was lost, and is not recovered.
    #[error("the connection has ended, and is not recovered: {0}")]
    ConnectionEnded(CloseCause),
    /// A hook of the application failed.
    #[error("{hook} failed: {error}")]
    Hook {
        /// The method that added it, such as `on_initialise`.
        hook: &'static str,
        /// Why.
        error: BoxError,
    },
    /// The server for health cannot listen at the address of the configuration.
    #[cfg(all(feature = "config", feature = "http"))]
    #[error("cannot answer probes at {address}: {error}")]
    Health {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// A rule of the application contradicts another one, or cannot be carried out.
    #[error("invalid application: {0}")]
    Invalid(String),
    /// The pool was closed while a connection was awaited.
    #[error("the pool was closed")]
    PoolClosed,
    /// The broker refused an exchange, a queue or a binding that the application needs.
    #[error("cannot set up {what}: {error}")]
    Setup {
        /// What could not be set up.
        what: String,
        /// Why.
        error: amqp_async::Error,
    },
    /// The system refused to report signals: see [`Shutdown::on_signals`](crate::Shutdown).
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    /// A handler returned [`Failure::stop`](crate::Failure::stop), or a retry policy ended the application.
    #[error("stopped by the handler of queue {queue:?}: {error}")]
    Stopped {
        /// The queue of the message.
        queue: String,
        /// The handler's error.
        error: BoxError,
    },
    /// There is no pool of this kind.
    #[error("no pool {kind:?}: there are {}", known.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(", "))]
    UnknownPool {
        /// The kind that was asked for.
        kind: String,
        /// The kinds that there are.
        known: Vec<String>,
    },
}
