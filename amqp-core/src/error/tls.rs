//! Why encryption failed, in the same words whichever library encrypts.

use std::io;
use std::sync::Arc;

/// Why a connection could not be encrypted, or why encryption ended: what a TLS library reports, as one of the
/// kinds that an application can act on.
///
/// A transport that encrypts returns it as the payload of an [`io::Error`] (see the `From` implementation).
/// [`TransportError`](crate::errors::TransportError) then keeps its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}{}{detail}", if detail.is_empty() { "" } else { ": " })]
#[non_exhaustive]
pub struct TlsError {
    /// Which check failed.
    pub kind: TlsErrorKind,
    /// What the TLS library says. It may be empty.
    pub detail: Arc<str>,
}

impl TlsError {
    /// An error from its kind and the TLS library's text.
    pub fn new(kind: TlsErrorKind, detail: impl Into<Arc<str>>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        let kind = match error.kind {
            TlsErrorKind::Truncated => io::ErrorKind::UnexpectedEof,
            TlsErrorKind::Configuration => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// Which check of TLS failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsErrorKind {
    /// This client's certificates, keys or settings cannot be used.
    #[error("the TLS configuration cannot be used")]
    Configuration,
    /// The server's certificate has expired. Is the clock of this machine right?
    #[error("the server's certificate has expired")]
    Expired,
    /// The server's certificate is not valid yet. Is the clock of this machine right?
    #[error("the server's certificate is not valid yet")]
    NotYetValid,
    /// The server's certificate does not have the name of the host that was dialled.
    #[error("the server's certificate is for another name")]
    WrongName,
    /// The server's certificate is signed by itself, and is not among the trusted ones.
    #[error("the server's certificate is self-signed and not trusted")]
    SelfSigned,
    /// The server's certificate is signed by an authority that is not trusted.
    #[error("the server's certificate is signed by an unknown authority")]
    UnknownIssuer,
    /// The server's certificate was revoked.
    #[error("the server's certificate was revoked")]
    Revoked,
    /// The server's certificate is unusable for another reason.
    #[error("the server's certificate is not valid")]
    InvalidCertificate,
    /// The server demands a certificate of the client, and there is none.
    #[error("the server demands a client certificate, and none is configured")]
    ClientCertificateMissing,
    /// The server does not accept the client's certificate.
    #[error("the server refused the client certificate")]
    ClientCertificateRefused,
    /// The peer and this client share no TLS version, cipher suite or other parameter.
    #[error("the peer offers no TLS version or cipher suite that this client accepts")]
    Incompatible,
    /// The peer does not speak TLS.
    #[error("the peer does not speak TLS (is this a plain port? use amqp://)")]
    NotTls,
    /// The peer closed the transport without TLS's farewell: the last bytes may be missing.
    #[error("the transport was closed within a TLS session")]
    Truncated,
    /// The peer broke the TLS protocol, or reported another error.
    #[error("error of the TLS protocol")]
    Protocol,
}
