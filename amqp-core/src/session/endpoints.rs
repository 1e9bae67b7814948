//! Which host and address is tried next, and the failures so far.
//!
//! A cycle tries every host once: each of its addresses, in the order of the lookup. The next cycle begins anew, with
//! new lookups, and with the hosts in another random order if they are shuffled.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{Config, Endpoint, HostOrder, PORT};
use crate::error::{ConnectFailure, ConnectStep, FailedAttempt, TransportError};
use crate::limits::FAILED_ATTEMPTS_MAX;
use crate::session::dice::throw;

/// The cycles, the hosts of the current one, and the addresses of the current host.
#[derive(Debug)]
pub(super) struct Endpoints {
    hosts: Vec<Endpoint>,
    /// The state of the random numbers that shuffle the hosts, if they are to be shuffled.
    dice: Option<u64>,
    /// The number of the current cycle, from 1.
    cycle: u16,
    cycles: u16,
    current: Endpoint,
    later: std::vec::IntoIter<Endpoint>,
    addresses: std::vec::IntoIter<SocketAddr>,
    address: Option<SocketAddr>,
    failures: VecDeque<FailedAttempt>,
}

impl Endpoints {
    pub(super) fn new(config: &Config, seed: u64) -> Self {
        let dice = (config.host_order == HostOrder::Shuffled).then_some(seed);
        Self::over(config.endpoints.clone(), config.connection_attempts, dice)
    }

    /// The first host alone, once.
    pub(super) fn first_of(config: &Config) -> Self {
        Self::over(config.endpoints.iter().take(1).cloned().collect(), 1, None)
    }

    fn over(hosts: Vec<Endpoint>, cycles: u16, dice: Option<u64>) -> Self {
        let mut endpoints = Self {
            hosts,
            dice,
            cycle: 1,
            cycles,
            // An empty list was refused before.
            current: Endpoint::new("localhost", PORT),
            later: Vec::new().into_iter(),
            addresses: Vec::new().into_iter(),
            address: None,
            failures: VecDeque::new(),
        };
        endpoints.begin_cycle();
        endpoints
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

    pub(super) const fn has_next_cycle(&self) -> bool {
        self.cycle < self.cycles
    }

    /// Begins the next cycle with its first host.
    pub(super) fn begin_next_cycle(&mut self) {
        self.cycle = self.cycle.saturating_add(1);
        self.begin_cycle();
    }

    /// Begins anew with the first cycle, and without failures.
    pub(super) fn begin_again(&mut self) {
        self.cycle = 1;
        self.failures.clear();
        self.begin_cycle();
    }

    pub(super) fn failed(&mut self, step: ConnectStep, failure: ConnectFailure) -> FailedAttempt {
        let failed = FailedAttempt {
            host: Arc::clone(&self.current.host),
            port: self.current.port,
            address: self.address,
            cycle: self.cycle,
            step,
            failure,
        };
        if self.failures.len() == FAILED_ATTEMPTS_MAX {
            self.failures.pop_front();
        }
        self.failures.push_back(failed.clone());
        failed
    }

    pub(super) fn failures(&self) -> Arc<[FailedAttempt]> {
        self.failures.iter().cloned().collect()
    }

    fn begin_cycle(&mut self) {
        let mut hosts = self.hosts.clone();
        if let Some(dice) = &mut self.dice {
            shuffle(&mut hosts, dice);
        }
        self.later = hosts.into_iter();
        self.next_host();
    }
}

/// The algorithm of Fisher and Yates.
fn shuffle<T>(items: &mut [T], dice: &mut u64) {
    for last in (1..items.len()).rev() {
        let other = throw(dice) % (last as u64 + 1);
        items.swap(last, other as usize);
    }
}
