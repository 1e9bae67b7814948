//! Connecting: resolves the hosts and dials their addresses one after the other, until one handshake
//! succeeds. After a failure, the next address is tried, then the next host. When all have failed, the session waits,
//! and begins the next cycle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{CloseCause, ConnectError, ConnectFailure, ConnectStep, TransportError};
use crate::event::{Action, Event, TimeoutReason};
use crate::ids::Attempt;
use crate::session::{Phase, PhaseInput, Session};

impl Session {
    /// Reports the result of [`Action::Resolve`].
    pub fn handle_resolved(
        &mut self,
        now: Instant,
        attempt: Attempt,
        result: Result<Vec<SocketAddr>, TransportError>,
    ) {
        if attempt != self.attempt || self.phase != Phase::Resolving {
            return;
        }
        match result.and_then(|addresses| self.endpoints.resolved(addresses)) {
            Ok(()) => {
                self.step(PhaseInput::Resolved);
                self.dial(now);
            }
            Err(error) => self.attempt_failed(now, ConnectFailure::Resolve(error)),
        }
    }

    /// Reports that the transport is connected and that the driver encrypts it, so that errors name the step.
    /// [`handle_connected`](Self::handle_connected) or [`handle_disconnected`](Self::handle_disconnected) follows.
    pub fn handle_dialled(&mut self, attempt: Attempt) {
        if attempt == self.attempt && self.phase == Phase::Dialling {
            self.step(PhaseInput::Dialled);
        }
    }

    /// Reports the success of [`Action::Dial`]: the transport is connected, and encrypted if the target is to be
    /// reached over TLS.
    pub fn handle_connected(&mut self, now: Instant, attempt: Attempt) {
        if attempt == self.attempt && matches!(self.phase, Phase::Dialling | Phase::Securing) {
            self.step(PhaseInput::Connected);
            self.connection.handle_connected(now);
        }
    }

    /// Starts with the current host: requests its addresses, or dials it by its name.
    pub(super) fn try_host(&mut self, now: Instant) {
        if self.by_name {
            self.step(PhaseInput::Resolved);
            return self.dial(now);
        }
        self.next_attempt();
        self.timers.set(TimeoutReason::Address, Some(now + self.config.address_timeout));
        let endpoint = self.endpoints.host();
        let (host, port) = (Arc::clone(&endpoint.host), endpoint.port);
        self.actions.push_back(Action::Resolve { attempt: self.attempt, host, port });
    }

    /// Dials the current address, or the current host by its name.
    fn dial(&mut self, now: Instant) {
        self.next_attempt();
        self.connection.relink(now);
        self.timers.set(TimeoutReason::Address, Some(now + self.config.address_timeout));
        self.dial_or_fetch(now);
    }

    /// Dials, unless credentials are to be fetched before.
    pub(super) fn dial_or_fetch(&mut self, now: Instant) {
        if self.config.fetch_credentials {
            self.step(PhaseInput::Fetch);
            self.actions.push_back(Action::FetchCredentials { attempt: self.attempt });
        } else {
            self.dial_now(now);
        }
    }

    /// Dials, unless the transport is connected already.
    pub(super) fn dial_now(&mut self, now: Instant) {
        if self.is_dialled {
            self.step(PhaseInput::Connected);
            self.connection.handle_connected(now);
        } else {
            self.actions.push_back(Action::Dial { attempt: self.attempt, target: self.target() });
        }
    }

    /// Begins the next cycle.
    pub(super) fn retry(&mut self, now: Instant) {
        if self.opened {
            self.endpoints.begin_again();
            self.timers.set(TimeoutReason::Connect, Some(now + self.config.connect_timeout));
        } else {
            self.endpoints.begin_next_cycle();
        }
        self.step(PhaseInput::Due);
        self.try_host(now);
    }

    /// Continues with the next address, host or cycle, unless the failure is a refusal, or all have failed.
    pub(super) fn attempt_failed(&mut self, now: Instant, failure: ConnectFailure) {
        self.timers.set(TimeoutReason::Address, None);
        let refused = !(self.opened && self.config.recovery.retries_refused())
            && matches!(
                failure,
                ConnectFailure::Authentication(_)
                    | ConnectFailure::InvalidCredentials(_)
                    | ConnectFailure::Mechanism { .. }
                    | ConnectFailure::NoSharedMechanism { .. }
                    | ConnectFailure::VirtualHost(_)
            );
        let failed = self.endpoints.failed(self.connect_step(), failure);
        self.connection.events.push_back(Event::AttemptFailed(Box::new(failed)));
        if !refused && self.endpoints.next_address() {
            self.step(PhaseInput::NextAddress);
            self.dial(now);
        } else if !refused && self.endpoints.next_host() {
            self.step(PhaseInput::NextHost);
            self.connection.relink(now);
            self.try_host(now);
        } else if !refused && self.opened {
            self.pass_failed(now);
        } else if !refused && self.endpoints.has_next_cycle() {
            self.step(PhaseInput::NextCycle);
            self.wait(now);
        } else {
            let attempts = self.endpoints.failures();
            self.end(CloseCause::Connect(Arc::new(ConnectError::Failed { attempts })));
        }
    }

    pub(super) fn address_timed_out(&mut self, now: Instant) {
        let timeout = self.config.address_timeout;
        if matches!(self.phase, Phase::Resolving | Phase::FetchingCredentials | Phase::Securing) {
            let step = self.connect_step();
            return self.attempt_failed(now, ConnectFailure::TimedOut { timeout, step });
        }
        self.connection.time_out_handshake(timeout);
        self.react(now);
    }

    pub(super) fn connect_timed_out(&mut self, now: Instant) {
        if self.opened {
            return self.pass_failed(now);
        }
        let step = self.connect_step();
        let attempts = self.endpoints.failures();
        let timeout = self.config.connect_timeout;
        let (host, port) = (Arc::clone(&self.endpoints.host().host), self.endpoints.host().port);
        let address = self.endpoints.address();
        let error = ConnectError::TimedOut { host, port, address, timeout, step, attempts };
        self.end(CloseCause::Connect(Arc::new(error)));
    }

    /// Waits before the next cycle, without a transport.
    fn wait(&mut self, now: Instant) {
        self.actions.push_back(Action::Disconnect { attempt: self.attempt });
        self.next_attempt();
        self.connection.relink(now);
        self.timers.set(TimeoutReason::Retry, Some(now + self.config.retry_delay));
    }

    /// Late reports about an earlier attempt are ignored from now on.
    pub(super) fn next_attempt(&mut self) {
        self.attempt = Attempt(self.attempt.0.wrapping_add(1));
        self.actions.retain(|action| matches!(action, Action::Disconnect { .. }));
    }

    /// The step that is in progress, or that has failed.
    const fn connect_step(&self) -> ConnectStep {
        match self.phase {
            Phase::Resolving => ConnectStep::Resolve,
            Phase::FetchingCredentials => ConnectStep::Credentials,
            Phase::Dialling => ConnectStep::Dial,
            Phase::Securing => ConnectStep::Tls,
            Phase::SettingUp => ConnectStep::Hook,
            Phase::Handshake | Phase::Replaying | Phase::Attaching | Phase::Open | Phase::Ended => {
                self.connection.handshake_step()
            }
            Phase::Waiting => ConnectStep::Retry,
        }
    }
}

/// What a loss of the transport means while it is being encrypted.
pub(super) fn not_secured(error: TransportError) -> ConnectFailure {
    match error.tls {
        Some(kind) => ConnectFailure::Tls { kind, error },
        None => ConnectFailure::Lost { step: ConnectStep::Tls, error },
    }
}
