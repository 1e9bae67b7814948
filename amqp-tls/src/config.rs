//! Configurations of rustls that are made from certificates and keys, and made again when their files change.

use std::fmt;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use amqp_async::core::TlsSettings;
use amqp_async::core::errors::{TlsError, TlsErrorKind};
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Rustls;
use crate::certificate::Explaining;
use crate::trust;

/// Builds a [`Rustls`] of certificates and keys in the PEM format.
///
/// Files are read again for each connection. When one has changed, the next connection uses it; until then TLS
/// sessions are resumed.
#[derive(Clone, Debug, Default)]
pub struct RustlsBuilder {
    authorities: Vec<Pem>,
    without_platform: bool,
    client: Option<(Pem, Pem)>,
    #[cfg(feature = "danger")]
    accept_any: bool,
}

impl RustlsBuilder {
    /// Trusts the authorities of a file, in place of those of the platform.
    #[must_use]
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        Self { without_platform: true, ..self }.with_authority(Pem::File(path.into()))
    }

    /// Trusts the authorities of a text, in place of those of the platform.
    #[must_use]
    pub fn ca_pem(self, pem: impl Into<Vec<u8>>) -> Self {
        Self { without_platform: true, ..self }.with_authority(Pem::Text(pem.into()))
    }

    /// Trusts the authorities of a file beside those that are trusted already.
    #[must_use]
    pub fn additional_ca_file(self, path: impl Into<PathBuf>) -> Self {
        self.with_authority(Pem::File(path.into()))
    }

    /// Trusts the authorities of a text beside those that are trusted already.
    #[must_use]
    pub fn additional_ca_pem(self, pem: impl Into<Vec<u8>>) -> Self {
        self.with_authority(Pem::Text(pem.into()))
    }

    /// Presents a certificate to servers that ask for one: from a file, which may have the certificates between it
    /// and the authority too, and from the file of its private key, without a passphrase.
    #[must_use]
    pub fn client_certificate_files(
        self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        Self { client: Some((Pem::File(certificate.into()), Pem::File(key.into()))), ..self }
    }

    /// Presents a certificate to servers that ask for one, as
    /// [`client_certificate_files`](Self::client_certificate_files) does, from texts.
    #[must_use]
    pub fn client_certificate_pem(
        self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        Self { client: Some((Pem::Text(certificate.into()), Pem::Text(key.into()))), ..self }
    }

    /// Accepts any certificate of any server. **Whoever is between this client and the broker can then read the
    /// password and every message, and change them.** For a test with a broker whose authority is not at hand;
    /// elsewhere trust its certificate by [`ca_file`](Self::ca_file).
    #[cfg(feature = "danger")]
    #[must_use]
    pub fn danger_accept_any_certificate(self) -> Self {
        Self { accept_any: true, ..self }
    }

    /// Returns what encrypts connections. It has read all files.
    ///
    /// # Errors
    /// [`TlsErrorKind::Configuration`] if a file cannot be read or has no certificate or key, if certificate and key do
    /// not belong together, or if no provider of cryptography is there.
    pub fn build(self) -> Result<Rustls, TlsError> {
        let built = Mutex::new(None);
        let source = Source::Built { builder: self, hasher: RandomState::new(), built };
        source.config()?;
        Ok(Rustls { source: Arc::new(source) })
    }

    pub(crate) fn from_settings(settings: &TlsSettings) -> Result<Self, TlsError> {
        let mut builder = Self::default();
        if let Some(path) = &settings.ca_file {
            builder = builder.ca_file(path);
        }
        match (&settings.certificate_file, &settings.key_file) {
            (Some(certificate), Some(key)) => {
                Ok(builder.client_certificate_files(certificate, key))
            }
            (None, None) => Ok(builder),
            (Some(_), None) => Err(unusable("a client certificate needs a key")),
            (None, Some(_)) => Err(unusable("a client key needs a certificate")),
        }
    }

    fn with_authority(mut self, pem: Pem) -> Self {
        self.authorities.push(pem);
        self
    }

    /// Reads all texts.
    fn read(&self) -> Result<Texts, TlsError> {
        let authorities = self.authorities.iter().map(Pem::read).collect::<Result<_, _>>()?;
        let client = match &self.client {
            Some((certificate, key)) => Some((certificate.read()?, key.read()?)),
            None => None,
        };
        Ok(Texts { authorities, client })
    }

    fn config(&self, texts: &Texts) -> Result<ClientConfig, TlsError> {
        let provider = provider()?;
        let mut authorities = Vec::new();
        for (pem, text) in self.authorities.iter().zip(&texts.authorities) {
            authorities.append(&mut certificates(pem, text)?);
        }
        let verifier = if self.without_platform {
            trust::only(authorities, &provider)?
        } else {
            trust::platform_and(authorities, &provider)?
        };
        #[cfg(feature = "danger")]
        let verifier = if self.accept_any { crate::danger::any(&provider) } else { verifier };
        let versions =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = versions
            .map_err(|error| unusable(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Explaining(verifier)));
        let (Some((certificate, key)), Some((certificate_text, key_text))) =
            (&self.client, &texts.client)
        else {
            return Ok(config.with_no_client_auth());
        };
        let chain = certificates(certificate, certificate_text)?;
        let private = PrivateKeyDer::from_pem_slice(key_text)
            .map_err(|error| unusable(format!("{key}: no private key: {error}")))?;
        let with_client = config.with_client_auth_cert(chain, private);
        with_client.map_err(|error| unusable(format!("{certificate} and {key}: {error}")))
    }
}

/// Where configurations come from.
pub(crate) enum Source {
    /// The application's own.
    Fixed(Arc<ClientConfig>),
    /// Made from texts, and again when they have changed.
    Built {
        builder: RustlsBuilder,
        hasher: RandomState,
        /// The last one, and the hash of the texts that it is made from.
        built: Mutex<Option<(u64, Arc<ClientConfig>)>>,
    },
}

impl Source {
    /// The configuration for the next connection.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let (builder, hasher, built) = match self {
            Self::Fixed(config) => return Ok(Arc::clone(config)),
            Self::Built { builder, hasher, built } => (builder, hasher, built),
        };
        let texts = builder.read()?;
        let hash = hasher.hash_one(&texts);
        let mut built = built.lock().unwrap_or_else(PoisonError::into_inner);
        match &*built {
            // One configuration for many connections: it keeps the sessions that can be resumed.
            Some((known, config)) if *known == hash => Ok(Arc::clone(config)),
            _ => {
                let config = Arc::new(builder.config(&texts)?);
                *built = Some((hash, Arc::clone(&config)));
                Ok(config)
            }
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(_) => f.debug_tuple("Fixed").finish_non_exhaustive(),
            Self::Built { builder, .. } => builder.fmt(f),
        }
    }
}

/// The texts that a configuration is made from.
#[derive(Hash)]
struct Texts {
    authorities: Vec<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

/// A text in the PEM format.
#[derive(Clone)]
enum Pem {
    File(PathBuf),
    Text(Vec<u8>),
}

impl Pem {
    fn read(&self) -> Result<Vec<u8>, TlsError> {
        match self {
            Self::File(path) => {
                fs::read(path).map_err(|error| unusable(format!("{self}: {error}")))
            }
            Self::Text(text) => Ok(text.clone()),
        }
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Text(_) => f.write_str("text"),
        }
    }
}

/// It may be a key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn certificates(pem: &Pem, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let certificates =
        certificates.map_err(|error| unusable(format!("{pem}: not a certificate: {error}")))?;
    if certificates.is_empty() {
        return Err(unusable(format!("{pem}: there is no certificate")));
    }
    Ok(certificates)
}

/// Never the process-wide default where there is one of ours: with two providers among the dependencies of a program
/// there is none, and rustls panics.
fn provider() -> Result<Arc<CryptoProvider>, TlsError> {
    #[cfg(feature = "aws-lc-rs")]
    return Ok(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Ok(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
    CryptoProvider::get_default().cloned().ok_or_else(|| {
        unusable("no provider of cryptography: enable the feature ring or aws-lc-rs of amqp-tls")
    })
}

fn unusable(detail: impl Into<Arc<str>>) -> TlsError {
    TlsError::new(TlsErrorKind::Configuration, detail)
}
