//! Which errors may not occur again if the application retries.

use amqp_proto::ReplyCode;

use crate::error::{
    AckError, BrokerError, ChannelCause, CloseCause, ConnectError, ConnectFailure, Error, Misuse,
    PublishError, TlsErrorKind,
};

impl Error {
    /// Whether the same call may succeed later: on this channel, or on another channel or connection if this
    /// one has closed.
    ///
    /// It is false for mistakes of the caller, for refusals such as 404 and 406, and after a close or abort
    /// by this client.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Channel(cause) => cause.is_retryable(),
            Self::Connect(error) => error.is_retryable(),
            Self::Connection(cause) => cause.is_retryable(),
            Self::ConnectionLost(_)
            | Self::ConsumerCancelled { .. }
            | Self::Deadline { .. }
            | Self::DrainTimeout { .. }
            | Self::Interrupted { .. }
            | Self::PublishesLost { .. } => true,
            Self::Ack(_) | Self::InvalidArgument(_) | Self::Returned(_) => false,
            Self::Misuse(misuse) => misuse.is_retryable(),
            Self::Publish(error) => error.is_retryable(),
        }
    }
}

impl From<AckError> for Error {
    fn from(error: AckError) -> Self {
        Self::Ack(Box::new(error))
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error.into())
    }
}

impl From<PublishError> for Error {
    fn from(error: PublishError) -> Self {
        Self::Publish(Box::new(error))
    }
}

impl ChannelCause {
    /// See [`Error::is_retryable`].
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ByBroker(error) => error.is_retryable(),
            Self::ByClient => false,
            Self::Connection(cause) => cause.is_retryable(),
            Self::NoFreeNumber { .. } => true,
        }
    }
}

impl CloseCause {
    /// See [`Error::is_retryable`].
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::BlockedTimeout { .. }
            | Self::HeartbeatTimeout { .. }
            | Self::Transport(_)
            | Self::WriteTimeout { .. } => true,
            Self::ByBroker(error) => error.is_retryable(),
            Self::Connect(error) => error.is_retryable(),
            Self::Aborted
            | Self::ByClient
            | Self::ByClientForced
            | Self::DriverGone
            | Self::Panicked
            | Self::Protocol(_) => false,
        }
    }
}

impl BrokerError {
    /// Whether the reason may be gone later: an operator closed the connection (320), a resource is locked (405) or
    /// exhausted (506), or the broker has failed (541).
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self.code,
            ReplyCode::CONNECTION_FORCED
                | ReplyCode::RESOURCE_LOCKED
                | ReplyCode::RESOURCE_ERROR
                | ReplyCode::INTERNAL_ERROR
        )
    }
}

impl ConnectError {
    /// Whether a broker was reached and refused the connection, or was refused by this client: the login, the
    /// virtual host, the limits, the protocol or TLS. It is true as well if this client cannot log in: its credentials
    /// cannot be sent, or its mechanism failed. Trying again helps only when the configuration of the client or of the
    /// broker has changed.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::InvalidArgument(_)
            | Self::InvalidUri(_)
            | Self::NoClientCertificate
            | Self::Tls(_)
            | Self::TlsUnsupported => false,
            Self::Aborted | Self::DriverGone | Self::DriverNotStarted(_) => false,
            Self::Failed { .. } | Self::TimedOut { .. } => {
                self.last_failure().is_some_and(ConnectFailure::is_refusal)
            }
        }
    }

    /// Whether connecting again may succeed: the hosts could not be reached, or the broker was not ready.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::TimedOut { .. } => !self.is_refusal(),
            Self::Aborted
            | Self::DriverGone
            | Self::DriverNotStarted(_)
            | Self::InvalidArgument(_)
            | Self::InvalidUri(_)
            | Self::NoClientCertificate
            | Self::Tls(_)
            | Self::TlsUnsupported => false,
        }
    }
}

impl ConnectFailure {
    /// See [`ConnectError::is_refusal`].
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Authentication(_)
            | Self::InvalidCredentials(_)
            | Self::Limits { .. }
            | Self::Mechanism { .. }
            | Self::NoSharedMechanism { .. }
            | Self::NotAmqp
            | Self::ProbablyAuthentication(_)
            | Self::Protocol(_)
            | Self::TlsPort
            | Self::TuningRefused(_)
            | Self::Version { .. }
            | Self::VirtualHost(_) => true,
            Self::Closed(error) => !error.is_retryable(),
            Self::Tls { kind, .. } => *kind != TlsErrorKind::Truncated,
            Self::Credentials(_)
            | Self::Hook(_)
            | Self::Dial(_)
            | Self::Lost { .. }
            | Self::Resolve(_)
            | Self::TimedOut { .. } => false,
        }
    }
}

impl Misuse {
    /// Whether the application can retry later without a change: the state that the error names passes by
    /// itself.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::ChannelNotOpen
                | Self::NoFreeChannels { .. }
                | Self::NotConnected
                | Self::TooManyCalls
        )
    }
}
