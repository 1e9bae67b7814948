//! Why a connection could not be opened: every attempt, with the step at which it failed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{BrokerError, InvalidArgument, ProtocolError, TransportError};
use crate::uri::UriError;

/// Why a connection could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The attempt was given up by `close`.
    #[error("given up by this client")]
    Aborted,
    /// The driver, or the runtime under it, was dropped.
    #[error(
        "the driver is gone: the runtime in which it was to be opened has ended, or the driver was dropped"
    )]
    DriverGone,
    /// The driver cannot run: the system has no thread or no poller for it, or the runtime is missing or
    /// was built without a part that the driver needs.
    #[error("cannot start the driver: {0}")]
    DriverNotStarted(TransportError),
    /// Every attempt failed.
    #[error("could not connect: {}", List(attempts))]
    Failed {
        /// The failures in the order in which they came.
        attempts: Arc<[FailedAttempt]>,
    },
    /// The configuration cannot be used.
    #[error("invalid configuration: {0}")]
    InvalidArgument(InvalidArgument),
    /// The text is not an AMQP URI.
    #[error("invalid URI: {0}")]
    InvalidUri(UriError),
    /// The time for connecting as a whole ran out.
    #[error(
        "not connected within {} s: {step}, {}{}",
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
        /// The time there was.
        timeout: Duration,
        /// What was awaited at the end.
        step: ConnectStep,
        /// The failures until then.
        attempts: Arc<[FailedAttempt]>,
    },
    /// A host is to be reached by TLS (`amqps`), which the runtime does not support.
    #[error("amqps is not supported by this release: use amqp")]
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

impl ConnectError {
    /// The last failure: with one host and one address, the only one.
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
    /// What went wrong.
    pub failure: ConnectFailure,
}

impl fmt::Display for FailedAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Place { host: &self.host, port: self.port, address: self.address };
        write!(f, "{place}: {}", self.failure)
    }
}

/// What went wrong with one attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// The broker refused the login (403).
    #[error("login refused: {0}")]
    Authentication(BrokerError),
    /// The broker closed the connection for another reason while it was being opened.
    #[error("refused: {0}")]
    Closed(BrokerError),
    /// The connection could not be made: refused, unreachable, no answer.
    #[error("cannot dial: {0}")]
    Dial(TransportError),
    /// The transport was lost while the connection was being opened.
    #[error("lost while {step}: {error}")]
    Lost {
        /// What was awaited.
        step: ConnectStep,
        /// What the transport said.
        error: TransportError,
    },
    /// The broker's limits cannot be lived with.
    #[error("the broker's frame_max of {frame_max} is below the least that the protocol allows")]
    Limits {
        /// The broker's frame size limit in bytes.
        frame_max: u32,
    },
    /// The broker offers no mechanism that this client is configured for.
    #[error("no shared mechanism; the broker offers {offered}")]
    NoSharedMechanism {
        /// What the broker offers.
        offered: Arc<str>,
    },
    /// The peer does not speak AMQP.
    #[error("the peer does not speak AMQP")]
    NotAmqp,
    /// The peer closed right after the login: most likely a refusal by a broker that says no more.
    #[error("closed after the login, which was probably refused: {0}")]
    ProbablyAuthentication(TransportError),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(ProtocolError),
    /// The host's name could not be resolved, or has no address.
    #[error("cannot resolve: {0}")]
    Resolve(TransportError),
    /// The peer did not go on in time.
    #[error("no answer within {} s while {step}", timeout.as_secs_f32())]
    TimedOut {
        /// The time there was for this address.
        timeout: Duration,
        /// What was awaited.
        step: ConnectStep,
    },
    /// The peer closed right after the limits were chosen: RabbitMQ's way to refuse them.
    #[error("closed after tuning, which was probably refused: {0}")]
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
    /// The broker refused the virtual host (530): it is missing, forbidden or full.
    #[error("virtual host refused: {0}")]
    VirtualHost(BrokerError),
}

/// What was awaited when connecting failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectStep {
    /// The host's addresses.
    Resolve,
    /// The connection of the transport.
    Dial,
    /// The broker's greeting.
    Start,
    /// The answer to the login.
    Tune,
    /// The answer to the choice of virtual host.
    Open,
}

impl fmt::Display for ConnectStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolving the host",
            Self::Dial => "dialling",
            Self::Start => "awaiting the broker's greeting",
            Self::Tune => "awaiting the answer to the login",
            Self::Open => "opening the virtual host",
        })
    }
}

/// A host, with its address once that is known.
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

/// What failed before, if anything did.
struct Before<'a>(&'a [FailedAttempt]);

impl fmt::Display for Before<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; before that: {}", List(self.0)) }
    }
}

struct List<'a>(&'a [FailedAttempt]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, attempt) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("; ")?;
            }
            attempt.fmt(f)?;
        }
        Ok(())
    }
}
