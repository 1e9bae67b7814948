//! Which host and address is tried next, and the failures so far.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{Endpoint, PORT};
use crate::error::{ConnectFailure, FailedAttempt, TransportError};

/// The hosts in order, and the addresses of the current one.
#[derive(Debug)]
pub(super) struct Endpoints {
    current: Endpoint,
    later: std::vec::IntoIter<Endpoint>,
    addresses: std::vec::IntoIter<SocketAddr>,
    address: Option<SocketAddr>,
    failures: Vec<FailedAttempt>,
}

impl Endpoints {
    pub(super) fn new(endpoints: &[Endpoint]) -> Self {
        let mut later = Vec::from(endpoints).into_iter();
        Self {
            // An empty list was refused before.
            current: later.next().unwrap_or_else(|| Endpoint::new("localhost", PORT)),
            later,
            addresses: Vec::new().into_iter(),
            address: None,
            failures: Vec::new(),
        }
    }

    /// Drops all hosts except the current one.
    pub(super) fn keep_first(&mut self) {
        self.later = Vec::new().into_iter();
    }

    pub(super) const fn host(&self) -> &Endpoint {
        &self.current
    }

    pub(super) const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Sets the addresses of the current host.
    pub(super) fn resolved(&mut self, addresses: Vec<SocketAddr>) -> Result<(), TransportError> {
        self.addresses = addresses.into_iter();
        if self.next_address() {
            Ok(())
        } else {
            Err(TransportError::new(std::io::ErrorKind::NotFound, "the host has no address"))
        }
    }

    pub(super) fn next_address(&mut self) -> bool {
        self.address = self.addresses.next();
        self.address.is_some()
    }

    pub(super) fn next_host(&mut self) -> bool {
        match self.later.next() {
            Some(endpoint) => {
                self.current = endpoint;
                self.address = None;
                true
            }
            None => false,
        }
    }

    pub(super) fn failed(&mut self, failure: ConnectFailure) -> FailedAttempt {
        let failed = FailedAttempt {
            host: Arc::clone(&self.current.host),
            port: self.current.port,
            address: self.address,
            failure,
        };
        self.failures.push(failed.clone());
        failed
    }

    pub(super) fn failures(&self) -> Arc<[FailedAttempt]> {
        self.failures.as_slice().into()
    }
}
