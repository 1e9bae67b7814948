//! TLS with [rustls](https://docs.rs/rustls) for the AMQP 0-9-1 clients `amqp-tokio`, `amqp-smol`,
//! `amqp-async-std` and `amqp-blocking`.
//!
//! Most applications enable the feature `tls` of their adapter, and name the host by an `amqps` URI. It may name the
//! files of certificates too:
//!
//! ```text
//! amqps://app:secret@broker.example/orders?cacertfile=/etc/ssl/ca.pem&certfile=client.pem&keyfile=client.key
//! ```
//!
//! This crate is for more: certificates from memory, authorities beside those of the platform, or a
//! [`ClientConfig`] of your own. [`Rustls`] goes to the method `tls` of any adapter's connector.
//!
//! TLS 1.2 and 1.3 are spoken. The server's certificate must be valid, signed by a trusted authority, and have the
//! name of the host that is dialled. No URI and no setting turns these checks off. Sessions are resumed.
//!
//! # Features
//!
//! * `platform-verifier` (default): certificates are checked as the platform checks them.
//! * `native-roots`, `webpki-roots`: authorities from the system's files, or Mozilla's as of the release of
//!   that crate. They count without `platform-verifier` only.
//! * `ring` (default), `aws-lc-rs`: cryptography. With both, aws-lc-rs is taken. Without either, the provider that
//!   the application [installed](rustls::crypto::CryptoProvider::install_default) is.
//! * `danger`: `RustlsBuilder::danger_accept_any_certificate`.

mod certificate;
mod config;
#[cfg(feature = "danger")]
mod danger;
mod error;
mod handshake;
mod transport;
mod trust;

use std::sync::Arc;

use amqp_async::{Secure, Securing, Transport};
use rustls::ClientConfig;

pub use amqp_async::core::TlsSettings;
pub use amqp_async::core::errors::{TlsError, TlsErrorKind};
pub use config::RustlsBuilder;
pub use rustls;

use config::Source;

/// Encrypts connections with rustls.
///
/// ```no_run
/// # fn example() -> Result<(), amqp_tls::TlsError> {
/// use amqp_tls::Rustls;
/// let tls = Rustls::builder()
///     .ca_file("/etc/ssl/company-ca.pem")
///     .client_certificate_files("client.pem", "client.key")
///     .build()?;
/// // amqp_tokio::Connector::new("amqps://broker.example")?.tls(tls)
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Rustls {
    source: Arc<Source>,
}

impl Rustls {
    /// Encrypts by a configuration of rustls, as it is. Give it no ALPN protocols: RabbitMQ knows none.
    pub fn new(config: impl Into<Arc<ClientConfig>>) -> Self {
        Self { source: Arc::new(Source::Fixed(config.into())) }
    }

    /// Returns a builder, which trusts what the platform trusts, and presents no certificate.
    pub fn builder() -> RustlsBuilder {
        RustlsBuilder::default()
    }

    /// Encrypts by the settings of a connection's configuration. The adapters' feature `tls` calls it.
    ///
    /// # Errors
    /// As those of [`RustlsBuilder::build`]; also if there is a certificate without a key, or a key without a
    /// certificate.
    pub fn from_settings(settings: &TlsSettings) -> Result<Self, TlsError> {
        RustlsBuilder::from_settings(settings)?.build()
    }
}

impl Secure for Rustls {
    fn secure(&self, server_name: &str, transport: Box<dyn Transport>) -> Securing {
        let config = self.source.config();
        let begun = config.and_then(|config| handshake::begin(config, server_name, transport));
        Box::pin(async move { Ok(Box::new(begun?.await?) as Box<dyn Transport>) })
    }

    fn presents_certificate(&self) -> bool {
        // Files that cannot be read are reported when a connection is encrypted.
        self.source.config().map_or(true, |config| config.client_auth_cert_resolver.has_certs())
    }
}
