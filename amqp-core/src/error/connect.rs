//! Why a connection could not be opened: every failed attempt, with the step at which it failed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{
    BrokerError, InvalidArgument, ProtocolError, TlsError, TlsErrorKind, TransportError,
};
use crate::limits::FAILED_ATTEMPTS_SHOWN_MAX as SHOWN;
use crate::uri::UriError;

/// Why a connection could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// `close` or `abort` was called before the connection was open.
    #[error("aborted by this client")]
    Aborted,
    /// The driver, or the runtime under it, was dropped.
    #[error("the driver was dropped, or the runtime in which it runs has ended")]
    DriverGone,
    /// The driver could not be started. The system has no thread or no poller for it, or the runtime is
    /// missing or lacks a part that the driver needs.
    #[error("cannot start the driver: {0}")]
    DriverNotStarted(TransportError),
    /// Every attempt failed.
    #[error("could not connect: {}", List(attempts))]
    Failed {
        /// The failures, oldest first. There are at most
        /// [`FAILED_ATTEMPTS_MAX`](crate::limits::FAILED_ATTEMPTS_MAX): the last ones.
        attempts: Arc<[FailedAttempt]>,
    },
    /// The configuration is invalid.
    #[error("invalid configuration: {0}")]
    InvalidArgument(InvalidArgument),
    /// The text is not an AMQP URI.
    #[error("invalid URI: {0}")]
    InvalidUri(UriError),
    /// The mechanism EXTERNAL needs TLS with a client certificate, and one of the hosts is to be reached without.
    #[error(
        "the mechanism EXTERNAL needs TLS with a client certificate: use amqps, and set the certificate and its key"
    )]
    NoClientCertificate,
    /// The timeout of connecting as a whole has expired.
    #[error(
        "not connected within {} s: {} timed out while {step}{}",
        timeout.as_secs_f32(),
        Place { host, port: *port, address: *address },
        Before(attempts)
    )]
    TimedOut {
        /// The host that was being tried, without credentials.
        host: Arc<str>,
        /// Its port.
        port: u16,
        /// The address that was being tried, once the name was resolved.
        address: Option<SocketAddr>,
        /// The timeout.
        timeout: Duration,
        /// The step that was in progress.
        step: ConnectStep,
        /// The failures before that.
        attempts: Arc<[FailedAttempt]>,
    },
    /// The TLS settings for a host that is to be reached over TLS (`amqps`) are invalid: a certificate cannot be
    /// read, for example.
    #[error("{0}")]
    Tls(TlsError),
    /// A host is to be reached over TLS (`amqps`), and the connector has no TLS implementation.
    #[error(
        "amqps needs TLS: enable the feature `tls` of the adapter, or give the connector a TLS implementation"
    )]
    TlsUnsupported,
}

impl From<InvalidArgument> for ConnectError {
    fn from(error: InvalidArgument) -> Self {
        Self::InvalidArgument(error)
    }
}

impl From<UriError> for ConnectError {
    fn from(error: UriError) -> Self {
        Self::InvalidUri(error)
    }
}

impl From<TlsError> for ConnectError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl ConnectError {
    /// Returns the last failure, which is the only one if there is one host with one address and one cycle.
    pub fn last_failure(&self) -> Option<&ConnectFailure> {
        match self {
            Self::Failed { attempts } | Self::TimedOut { attempts, .. } => {
                attempts.last().map(|attempt| &attempt.failure)
            }
            _ => None,
        }
    }
}

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// The host's name, without credentials.
    pub host: Arc<str>,
    /// The port.
    pub port: u16,
    /// The address, once the name was resolved.
    pub address: Option<SocketAddr>,
    /// The number of the cycle over all hosts, from 1.
    pub cycle: u16,
    /// The step that failed.
    pub step: ConnectStep,
    /// What went wrong.
    pub failure: ConnectFailure,
}

impl fmt::Display for FailedAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Place { host: &self.host, port: self.port, address: self.address };
        match self.cycle {
            1 => write!(f, "{place}: {}", self.failure),
            cycle => write!(f, "{place} in cycle {cycle}: {}", self.failure),
        }
    }
}

/// What went wrong with one attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// The broker refused the login (403): wrong user name or password, or a user that may not connect from
    /// here.
    #[error("login refused: {0}")]
    Authentication(BrokerError),
    /// The broker closed the connection for another reason during the handshake.
    #[error("the broker closed the connection: {0}")]
    Closed(BrokerError),
    /// The credentials could not be fetched.
    #[error("cannot fetch the credentials: {0}")]
    Credentials(TransportError),
    /// The application's hook failed, which sets the connection up, or its timeout has expired.
    #[error("set-up failed: {0}")]
    Hook(TransportError),
    /// The credentials that were provided cannot be sent.
    #[error("invalid credentials: {0}")]
    InvalidCredentials(InvalidArgument),
    /// The transport could not be connected: refused, unreachable or timed out.
    #[error("cannot dial: {0}")]
    Dial(TransportError),
    /// The transport was lost during the handshake.
    #[error("connection lost while {step}: {error}")]
    Lost {
        /// The step that was in progress.
        step: ConnectStep,
        /// The error of the transport.
        error: TransportError,
    },
    /// The broker's `frame_max` is below the minimum of the protocol.
    #[error("the broker's frame_max ({frame_max}) is below the minimum of the protocol (4096)")]
    Limits {
        /// The broker's `frame_max` in bytes.
        frame_max: u32,
    },
    /// An authentication mechanism of the application failed.
    #[error("the authentication mechanism {mechanism} failed: {message}")]
    Mechanism {
        /// Its name.
        mechanism: Arc<str>,
        /// Its error.
        message: Arc<str>,
    },
    /// The broker offers none of the configured authentication mechanisms.
    #[error("the broker does not offer {wanted}, only {offered}")]
    NoSharedMechanism {
        /// The mechanisms that are configured.
        wanted: Arc<str>,
        /// The mechanisms that the broker offers.
        offered: Arc<str>,
    },
    /// The peer does not speak AMQP.
    #[error("the peer does not speak AMQP")]
    NotAmqp,
    /// The peer closed the transport right after the login. Most likely it has refused the login without a
    /// message.
    #[error("closed by the peer after the login, which it has probably refused: {0}")]
    ProbablyAuthentication(TransportError),
    /// The peer violated the protocol.
    #[error("the peer violated the protocol: {0}")]
    Protocol(ProtocolError),
    /// The host's name could not be resolved, or has no address.
    #[error("cannot resolve the host: {0}")]
    Resolve(TransportError),
    /// The timeout of this address has expired.
    #[error("timed out after {} s while {step}", timeout.as_secs_f32())]
    TimedOut {
        /// The timeout of this address.
        timeout: Duration,
        /// The step that was in progress.
        step: ConnectStep,
    },
    /// The transport could not be encrypted, or the peer ended TLS while the connection was being opened. With TLS 1.3,
    /// a server refuses a client certificate after the TLS handshake.
    #[error("not encrypted: {error}")]
    Tls {
        /// Which check failed.
        kind: TlsErrorKind,
        /// The error of the TLS library.
        error: TransportError,
    },
    /// The peer replied with TLS to a connection without TLS.
    #[error("the peer speaks TLS (is this a TLS port? use amqps://)")]
    TlsPort,
    /// The peer closed the transport right after the limits were sent. RabbitMQ refuses limits in this way.
    #[error("closed by the peer after connection.tune-ok: it has probably refused the limits: {0}")]
    TuningRefused(TransportError),
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks AMQP {major}.{minor}.{revision}, not 0.9.1")]
    Version {
        /// The major version.
        major: u8,
        /// The minor version.
        minor: u8,
        /// The revision.
        revision: u8,
    },
    /// The broker refused the virtual host (530): it does not exist, or the user has no access to it, or it
    /// has reached its connection limit.
    #[error("virtual host refused: {0}")]
    VirtualHost(BrokerError),
}

/// The steps of connecting. An error has the one that was in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectStep {
    /// Resolving the host's name.
    Resolve,
    /// Waiting before the next cycle over all hosts.
    Retry,
    /// Fetching the credentials.
    Credentials,
    /// Connecting the transport.
    Dial,
    /// Encrypting the transport.
    Tls,
    /// Waiting for the broker's `connection.start`.
    Start,
    /// Waiting for the reply to the login.
    Tune,
    /// Waiting for the reply to `connection.open`, which names the virtual host.
    Open,
    /// Running the application's hook.
    Hook,
}

impl fmt::Display for ConnectStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolving the host",
            Self::Retry => "waiting for the next attempt",
            Self::Credentials => "fetching the credentials",
            Self::Dial => "dialling",
            Self::Tls => "setting up TLS",
            Self::Start => "waiting for connection.start",
            Self::Tune => "waiting for the reply to the login",
            Self::Open => "opening the virtual host",
            Self::Hook => "setting up the connection",
        })
    }
}

/// A host, with its address if that is known.
struct Place<'a> {
    host: &'a str,
    port: u16,
    address: Option<SocketAddr>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{} ({address})", self.host),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The failures before the last one, if there are any.
struct Before<'a>(&'a [FailedAttempt]);

impl fmt::Display for Before<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; before that: {}", List(self.0)) }
    }
}

struct List<'a>(&'a [FailedAttempt]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In a long list, the first failures and the last ones say most.
        let left_out = self.0.len().saturating_sub(2 * SHOWN);
        for (position, attempt) in self.0.iter().enumerate() {
            if left_out > 0 && position == SHOWN {
                write!(f, "; {left_out} more")?;
            }
            if left_out > 0 && (SHOWN..SHOWN + left_out).contains(&position) {
                continue;
            }
            if position > 0 {
                f.write_str("; ")?;
            }
            attempt.fmt(f)?;
        }
        Ok(())
    }
}
