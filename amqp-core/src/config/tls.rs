//! The settings of TLS.

use std::path::PathBuf;
use std::sync::Arc;

/// What TLS trusts and presents: files in the PEM format, as in the query parameters of URIs
/// (<https://www.rabbitmq.com/docs/uri-query-parameters>). The default trusts what the platform trusts, and
/// presents no certificate.
///
/// Files are read again for each connection, so that renewed certificates are used by the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsSettings {
    /// Certificates of the authorities that are trusted, in place of the platform's (`cacertfile`).
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, followed by those between it and the authority (`certfile`). It needs a
    /// [key](Self::key_file).
    pub certificate_file: Option<PathBuf>,
    /// The private key of the client's certificate, without a passphrase (`keyfile`).
    pub key_file: Option<PathBuf>,
    /// The name that the server's certificate must have, and that is sent as SNI, in place of the host's
    /// (`server_name_indication`).
    pub server_name: Option<Arc<str>>,
}

impl TlsSettings {
    /// Trusts the authorities of a file instead of the platform's.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Presents a certificate to servers that ask for one, from a file and the file of its private key.
    #[must_use]
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        (self.certificate_file, self.key_file) = (Some(certificate.into()), Some(key.into()));
        self
    }

    /// Expects another name in the server's certificate than that of the host.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}
