//! Credentials that the driver fetches, and the challenges of mechanisms of the application.
//!
//! Each attempt fetches credentials before it dials. If they expire, a renewal fetches new ones while the connection
//! is open, and sends their password by `connection.update-secret`. A renewal that fails is tried again after half of
//! the time that is left.

use std::time::{Duration, Instant};

use zeroize::Zeroize as _;

use crate::config::{Credentials, ProvidedCredentials};
use crate::error::{ConnectFailure, TransportError};
use crate::event::{Action, Event, TimeoutReason};
use crate::ids::Attempt;
use crate::limits::RENEWAL_RETRY_MIN;
use crate::session::{Phase, PhaseInput, Session};

/// The renewal of credentials that expire.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// When to begin the next renewal.
    at: Option<Instant>,
    /// When the credentials in use expire.
    expiry: Option<Instant>,
    /// Whether credentials are being fetched for an open connection.
    fetching: bool,
}

impl Session {
    /// Reports the result of [`Action::FetchCredentials`]. Returns credentials that are not used, or
    /// that were replaced. They may have code of the application in their `Drop`: drop them outside of any lock.
    pub fn handle_credentials(
        &mut self,
        now: Instant,
        attempt: Attempt,
        result: Result<ProvidedCredentials, TransportError>,
    ) -> Option<Credentials> {
        let awaited = self.phase == Phase::FetchingCredentials;
        let renews = self.renewal.fetching && self.connection.is_open();
        match result {
            Ok(provided) if attempt != self.attempt => Some(provided.credentials),
            Ok(provided) if awaited => self.fetched(now, provided),
            Ok(provided) if renews => self.renewed(now, provided),
            Ok(provided) => Some(provided.credentials),
            Err(_) if attempt != self.attempt => None,
            Err(error) => {
                if awaited {
                    self.attempt_failed(now, ConnectFailure::Credentials(error));
                } else if renews {
                    self.not_renewed(now, &error.message);
                }
                None
            }
        }
    }

    /// Reports the response to the challenge of [`Action::Authenticate`]. An error fails the attempt.
    pub fn handle_response(
        &mut self,
        now: Instant,
        attempt: Attempt,
        response: Result<Vec<u8>, String>,
    ) {
        if attempt == self.attempt && self.phase == Phase::Handshake {
            self.connection.handle_response(response);
            self.react(now);
        } else if let Ok(mut late) = response {
            late.zeroize();
        }
    }

    /// Passes a challenge of the handshake to the driver, if there is one.
    pub(super) fn authenticate(&mut self) {
        if let Some(challenge) = self.connection.take_challenge() {
            self.actions.push_back(Action::Authenticate { attempt: self.attempt, challenge });
        }
    }

    /// Sets the timer of the first renewal.
    pub(super) fn await_expiry(&mut self) {
        self.timers.set(TimeoutReason::Credentials, self.renewal.at);
    }

    /// Ends a renewal, because the connection is lost that it is for.
    pub(super) fn stop_renewal(&mut self) {
        self.renewal = Renewal::default();
    }

    /// A renewal is due, or has taken too long.
    pub(super) fn credentials_due(&mut self, now: Instant) {
        if !self.connection.is_open() {
            return;
        }
        if self.renewal.fetching {
            let timeout = self.config.call_timeout.as_secs_f32();
            return self.not_renewed(now, &format!("timed out after {timeout} s"));
        }
        self.renewal.fetching = true;
        self.timers.set(TimeoutReason::Credentials, Some(now + self.config.call_timeout));
        self.actions.push_back(Action::FetchCredentials { attempt: self.attempt });
    }

    /// Continues the attempt with credentials. Returns those that are not used.
    fn fetched(&mut self, now: Instant, provided: ProvidedCredentials) -> Option<Credentials> {
        self.renewal = Renewal::of(now, provided.valid_for);
        match self.connection.provide(provided.credentials) {
            Ok(replaced) => {
                self.step(PhaseInput::Fetched);
                self.dial_now(now);
                replaced
            }
            Err((error, refused)) => {
                self.attempt_failed(now, ConnectFailure::InvalidCredentials(error));
                Some(refused)
            }
        }
    }

    /// Sends the broker a new secret. Returns the credentials that are not used.
    fn renewed(&mut self, now: Instant, provided: ProvidedCredentials) -> Option<Credentials> {
        let sent = match provided.credentials.secret() {
            Some(secret) => self.connection.update_secret(now, secret, "renewed"),
            None => {
                self.not_renewed(now, "the new credentials have no password");
                return Some(provided.credentials);
            }
        };
        match sent {
            // A broker that refuses the secret closes the connection.
            Ok(call) => self.connection.forget(now, call.key),
            Err(error) => {
                self.not_renewed(now, &error.to_string());
                return Some(provided.credentials);
            }
        }
        self.renewal = Renewal::of(now, provided.valid_for);
        self.await_expiry();
        // `update_secret` has checked that they can be sent, though perhaps not in a login.
        self.connection.provide(provided.credentials).unwrap_or_else(|(_, refused)| Some(refused))
    }

    fn not_renewed(&mut self, now: Instant, reason: &str) {
        self.renewal.fetching = false;
        let left =
            self.renewal.expiry.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        self.timers.set(TimeoutReason::Credentials, Some(now + (left / 2).max(RENEWAL_RETRY_MIN)));
        self.connection.events.push_back(Event::CredentialsNotRenewed(reason.into()));
    }
}

impl Renewal {
    fn of(now: Instant, valid_for: Option<Duration>) -> Self {
        let valid_for = valid_for.map(|duration| duration.min(crate::limits::TIMEOUT_MAX));
        Self {
            at: valid_for.map(|duration| now + (duration / 5 * 4).max(RENEWAL_RETRY_MIN)),
            expiry: valid_for.map(|duration| now + duration),
            fetching: false,
        }
    }
}
