//! What the login of a connection waits for: credentials that are fetched, and mechanisms of the application.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use amqp_core::errors::TransportError;
use amqp_core::types::{AuthExchange, Challenge};
use amqp_core::{Attempt, Config, ConnectError, ProvidedCredentials};

use crate::provider::{CredentialsProvider, Fetching, Plugins};
use crate::pump::Pump;
use crate::runtime::Runtime;

/// The driver's part of logging in.
#[derive(Default)]
pub(crate) struct Authentication {
    provider: Option<Arc<dyn CredentialsProvider>>,
    fetching: Option<(Attempt, Fetching)>,
    /// What a mechanism of the application has begun.
    exchange: Option<Box<dyn AuthExchange>>,
    /// Whether EXTERNAL can be used.
    external: bool,
}

impl Authentication {
    /// Checks the credentials of a configuration whose transports are encrypted with `plugins.secure`.
    ///
    /// # Errors
    /// [`ConnectError::NoClientCertificate`] if they need a client certificate, and there is none.
    pub(crate) fn new<R: Runtime>(
        runtime: &R,
        config: &Config,
        plugins: &Plugins,
    ) -> Result<Self, ConnectError> {
        if plugins.credentials.is_none() && !config.login().has_external() {
            return Ok(Self::default());
        }
        let presents = plugins.secure.as_ref().is_some_and(|secure| secure.presents_certificate());
        let external =
            config.hosts_tls().all(|tls| if tls { presents } else { runtime.may_encrypt() });
        if plugins.credentials.is_none() && !external {
            return Err(ConnectError::NoClientCertificate);
        }
        Ok(Self { provider: plugins.credentials.clone(), external, ..Self::default() })
    }

    /// For a stream that is connected already, and may be encrypted.
    pub(crate) fn over_stream(plugins: Plugins) -> Self {
        Self { provider: plugins.credentials, external: true, ..Self::default() }
    }

    /// Starts to fetch credentials.
    pub(crate) fn fetch(&mut self, attempt: Attempt) {
        self.fetching = self.provider.as_ref().map(|provider| (attempt, provider.fetch()));
    }

    /// Passes a challenge to its mechanism, and the response to the session.
    pub(crate) fn respond(
        &mut self,
        now: Instant,
        attempt: Attempt,
        challenge: &Challenge,
        pump: &mut Pump,
    ) {
        let bytes = challenge.challenge.as_deref();
        let begun = self.exchange.take().filter(|_| bytes.is_some());
        let mut exchange = begun.unwrap_or_else(|| challenge.mechanism.begin());
        let response = exchange.respond(bytes);
        self.exchange = response.is_ok().then_some(exchange);
        pump.responded(now, attempt, response);
    }

    /// Whether a mechanism of the application has begun an exchange.
    pub(crate) const fn has_exchange(&self) -> bool {
        self.exchange.is_some()
    }

    /// Drops the exchange, which may hold a secret.
    pub(crate) fn end_exchange(&mut self) {
        self.exchange = None;
    }

    /// Drops what an attempt has begun.
    pub(crate) fn stop(&mut self) {
        (self.fetching, self.exchange) = (None, None);
    }

    /// Ready with the result of fetching.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<(Attempt, Result<ProvidedCredentials, TransportError>)> {
        let Some((attempt, fetching)) = &mut self.fetching else { return Poll::Pending };
        let Poll::Ready(fetched) = fetching.as_mut().poll(cx) else { return Poll::Pending };
        let (attempt, checked) = (*attempt, fetched.and_then(|it| self.check(it)));
        self.fetching = None;
        Poll::Ready((attempt, checked.map_err(TransportError::from)))
    }

    fn check(&self, provided: ProvidedCredentials) -> io::Result<ProvidedCredentials> {
        if provided.credentials.has_external() && !self.external {
            return Err(io::Error::other(ConnectError::NoClientCertificate));
        }
        Ok(provided)
    }
}
