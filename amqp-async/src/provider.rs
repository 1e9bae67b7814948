//! Credentials that are fetched for each attempt to connect, such as tokens.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use amqp_core::{Config, ProvidedCredentials};

use crate::hooks::Hooks;
use crate::secure::Secure;

/// Provides the credentials of connections: see
/// [`Connector::credentials_provider`](crate::Connector::credentials_provider).
///
/// Functions that return a future of [`Credentials`](crate::Credentials) or [`ProvidedCredentials`] implement it.
pub trait CredentialsProvider: Send + Sync {
    /// Fetches credentials. The future resolves to them, and to how long they are valid.
    ///
    /// For an attempt to connect, the future is dropped when the
    /// [timeout of the address](crate::Connector::address_timeout) expires. For an open connection, it is given up after
    /// the [timeout of a call](crate::Connector::call_timeout), and dropped when the next fetch begins.
    ///
    /// # Errors
    /// For an attempt, [`ConnectFailure::Credentials`](amqp_core::errors::ConnectFailure::Credentials) has the error's
    /// text; for an open connection, [`ConnectionEvent::CredentialsNotRenewed`](crate::ConnectionEvent::CredentialsNotRenewed)
    /// has it. It is shown and logged, so it must not hold a secret.
    fn fetch(&self) -> Fetching;
}

/// The future of credentials that are being fetched.
pub type Fetching = Pin<Box<dyn Future<Output = io::Result<ProvidedCredentials>> + Send>>;

impl<F, Fut, P, E> CredentialsProvider for F
where
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = Result<P, E>> + Send + 'static,
    P: Into<ProvidedCredentials>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    fn fetch(&self) -> Fetching {
        let fetching = self();
        Box::pin(async move { fetching.await.map(P::into).map_err(io::Error::other) })
    }
}

/// What an application plugs into its connections.
#[derive(Clone, Default)]
pub struct Plugins {
    /// What encrypts transports to hosts that are to be reached over TLS. Without it,
    /// [`Runtime::secure`](crate::Runtime::secure) is called.
    pub secure: Option<Arc<dyn Secure>>,
    /// What provides credentials, in place of those of the configuration.
    pub credentials: Option<Arc<dyn CredentialsProvider>>,
    /// What runs when a connection opens, is lost, is blocked or closes.
    pub hooks: Hooks,
}

impl Plugins {
    /// Creates plugins that do nothing.
    pub const fn new() -> Self {
        Self { secure: None, credentials: None, hooks: Hooks::new() }
    }

    /// Returns a configuration with what the session must know of the plugins.
    pub(crate) fn apply(&self, config: Config) -> Config {
        config
            .fetch_credentials(self.credentials.is_some())
            .runs_hook(self.hooks.has_on_connect())
            .asks_to_recover(self.hooks.has_condition())
    }
}

impl fmt::Debug for Plugins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugins")
            .field("secure", &self.secure)
            .field("credentials", &self.credentials.is_some())
            .field("hooks", &self.hooks)
            .finish()
    }
}
