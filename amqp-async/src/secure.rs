//! TLS, as far as this crate knows it: what encrypts is given to the connector.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use crate::transport::Transport;

/// What encrypts transports: a TLS library. `amqp_tls::Rustls` is one.
///
/// An implementation for another library makes a transport of the one that it is given, and returns it once its
/// TLS handshake is done. Its errors should be made from a [`TlsError`](amqp_core::errors::TlsError), whose kind tells an application what
/// to mend. Others are taken for [`TlsErrorKind::Protocol`](amqp_core::errors::TlsErrorKind::Protocol).
pub trait Secure: fmt::Debug + Send + Sync {
    /// Encrypts a transport that is connected to the server of this name (a host name, or an IP address
    /// without brackets), and checks that the server's certificate has the name.
    ///
    /// The future is dropped when the [timeout of the address](crate::Connector::address_timeout) expires.
    fn secure(&self, server_name: &str, transport: Box<dyn Transport>) -> Securing;

    /// Returns whether a certificate is presented to servers that ask for one, which the mechanism EXTERNAL needs. It
    /// may read files. By default `true`, for an implementation that does not know.
    fn presents_certificate(&self) -> bool {
        true
    }
}

/// The TLS handshake of a transport, which resolves with the encrypted one.
pub type Securing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Transport>>> + Send>>;

impl<S: Secure + ?Sized> Secure for Arc<S> {
    fn secure(&self, server_name: &str, transport: Box<dyn Transport>) -> Securing {
        (**self).secure(server_name, transport)
    }

    fn presents_certificate(&self) -> bool {
        (**self).presents_certificate()
    }
}
