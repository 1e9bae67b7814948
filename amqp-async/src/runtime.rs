//! `Runtime`: the resolver and the sockets of a runtime, which an adapter implements.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use amqp_core::{ConnectError, Target, TlsSettings};

use crate::executor::Executor;
use crate::secure::Secure;
use crate::transport::Transport;

/// An [`Executor`] that can reach brokers. Everything else is the same on all runtimes.
///
/// Its futures must be cancel-safe: they are dropped when a timeout expires.
pub trait Runtime: Executor {
    /// The transport type: a connected byte stream.
    type Transport: Transport;

    /// Looks up the addresses of a host, in the order in which they are tried.
    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static;

    /// Connects a transport to a target, without TLS: see [`secure`](Self::secure).
    fn dial(
        &self,
        target: Target,
    ) -> impl Future<Output = io::Result<Self::Transport>> + Send + 'static;

    /// Returns whether host names are looked up before they are dialled; `true` by default. Otherwise
    /// [`resolve`](Self::resolve) is not called, and targets have no address.
    fn resolves(&self) -> bool {
        true
    }

    /// Returns whether what [`dial`](Self::dial) returns may be encrypted already, so that the mechanism EXTERNAL may be
    /// used without TLS of this crate; `false` by default.
    fn may_encrypt(&self) -> bool {
        false
    }

    /// Returns the TLS implementation for connectors that were given none
    /// ([`Connector::tls`](crate::Connector::tls)). By default there is none.
    ///
    /// # Errors
    /// [`ConnectError::TlsUnsupported`] if there is none. [`ConnectError::Tls`] if the settings are invalid.
    fn secure(&self, settings: &TlsSettings) -> Result<Arc<dyn Secure>, ConnectError> {
        let _ = settings;
        Err(ConnectError::TlsUnsupported)
    }
}
