//! What rustls reports, as the kinds that an application can act on.

use amqp_async::core::errors::{TlsError, TlsErrorKind};
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use crate::certificate::SelfSigned;

/// `presents` is whether this client has a certificate for servers that ask for one; `negotiated`, whether the
/// version and the cipher suite were agreed on.
pub(crate) fn tls_error(error: &Error, presents: bool, negotiated: bool) -> TlsError {
    let kind = match error {
        Error::InvalidCertificate(reason) => certificate_kind(reason),
        Error::AlertReceived(alert) => alert_kind(*alert, presents, negotiated),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) if !negotiated => TlsErrorKind::NotTls,
        Error::PeerIncompatible(_) => TlsErrorKind::Incompatible,
        Error::InconsistentKeys(_) | Error::UnsupportedNameType => TlsErrorKind::Configuration,
        _ => TlsErrorKind::Protocol,
    };
    TlsError::new(kind, error.to_string())
}

fn certificate_kind(reason: &CertificateError) -> TlsErrorKind {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            TlsErrorKind::Expired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsErrorKind::NotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsErrorKind::WrongName
        }
        CertificateError::Revoked => TlsErrorKind::Revoked,
        CertificateError::UnknownIssuer => TlsErrorKind::UnknownIssuer,
        CertificateError::Other(other) if other.0.is::<SelfSigned>() => TlsErrorKind::SelfSigned,
        _ => TlsErrorKind::InvalidCertificate,
    }
}

/// Servers on TLS 1.3 have an alert of its own for a missing certificate. On TLS 1.2 they say `handshake_failure` or
/// `bad_certificate`: what that is about is seen by whether the parameters were agreed on already.
fn alert_kind(alert: AlertDescription, presents: bool, negotiated: bool) -> TlsErrorKind {
    match alert {
        AlertDescription::CertificateRequired if !presents => {
            TlsErrorKind::ClientCertificateMissing
        }
        AlertDescription::HandshakeFailure
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
            if negotiated && !presents =>
        {
            TlsErrorKind::ClientCertificateMissing
        }
        AlertDescription::HandshakeFailure if negotiated => TlsErrorKind::ClientCertificateRefused,
        AlertDescription::CertificateRequired
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => TlsErrorKind::ClientCertificateRefused,
        AlertDescription::ProtocolVersion
        | AlertDescription::HandshakeFailure
        | AlertDescription::InsufficientSecurity => TlsErrorKind::Incompatible,
        _ => TlsErrorKind::Protocol,
    }
}
