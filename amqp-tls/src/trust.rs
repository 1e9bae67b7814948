//! Which authorities are trusted.

use std::sync::Arc;

use amqp_async::core::errors::{TlsError, TlsErrorKind};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;

/// Checks certificates against these authorities alone.
pub(crate) fn only(
    authorities: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    add(&mut roots, authorities)?;
    by_roots(roots, provider)
}

/// Checks certificates as the platform does, which also trusts these authorities.
#[cfg(feature = "platform-verifier")]
pub(crate) fn platform_and(
    authorities: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let provider = Arc::clone(provider);
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(authorities, provider);
    Ok(Arc::new(verifier.map_err(|error| unusable(&error))?))
}

/// Checks certificates against the authorities of the system or of Mozilla, and these.
#[cfg(not(feature = "platform-verifier"))]
pub(crate) fn platform_and(
    authorities: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    #[cfg(feature = "native-roots")]
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    #[cfg(feature = "webpki-roots")]
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    add(&mut roots, authorities)?;
    by_roots(roots, provider)
}

fn add(
    roots: &mut RootCertStore,
    authorities: Vec<CertificateDer<'static>>,
) -> Result<(), TlsError> {
    authorities
        .into_iter()
        .try_for_each(|authority| roots.add(authority))
        .map_err(|error| unusable(&error))
}

fn by_roots(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(provider)).build();
    Ok(verifier.map_err(|error| unusable(&error))?)
}

fn unusable(error: &dyn std::fmt::Display) -> TlsError {
    TlsError::new(TlsErrorKind::Configuration, error.to_string())
}
