//! A check of server certificates that tells a self-signed one from one of an unknown authority.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

/// Why a certificate is not trusted: its issuer is its subject.
#[derive(Debug)]
pub(crate) struct SelfSigned;

impl fmt::Display for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("issuer and subject are the same")
    }
}

impl std::error::Error for SelfSigned {}

/// The checks of another verifier, and the better reason for what it refuses.
#[derive(Debug)]
pub(crate) struct Explaining(pub(crate) Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for Explaining {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        verified.map_err(|error| match error {
            // An authority's own certificate as a server's has another error.
            Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::Other(_),
            ) if is_self_issued(end_entity) => {
                CertificateError::Other(OtherError(Arc::new(SelfSigned))).into()
            }
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.0.root_hint_subjects()
    }
}

/// Whether issuer and subject of a certificate are the same (RFC 5280, 4.1).
fn is_self_issued(certificate: &[u8]) -> bool {
    let names = || {
        let (certificate, _) = element(certificate)?;
        let (mut fields, _) = element(certificate.contents)?;
        // The version is optional, and has a tag of its own.
        if fields.contents.first() == Some(&0xa0) {
            fields.contents = element(fields.contents)?.1;
        }
        let (_serial, rest) = element(fields.contents)?;
        let (_algorithm, rest) = element(rest)?;
        let (issuer, rest) = element(rest)?;
        let (_validity, rest) = element(rest)?;
        let (subject, _) = element(rest)?;
        Some((issuer.contents, subject.contents))
    };
    names().is_some_and(|(issuer, subject)| issuer == subject)
}

/// An element of DER.
struct Element<'a> {
    contents: &'a [u8],
}

/// The first element, and what follows it.
fn element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (header, rest) = bytes.split_at_checked(2)?;
    let (length, rest) = match header[1] {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            // Certificates are far below 4 GiB.
            let length = (digits.len() <= 4).then(|| {
                digits.iter().fold(0, |length: usize, digit| length << 8 | usize::from(*digit))
            })?;
            (length, rest)
        }
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((Element { contents }, rest))
}

#[cfg(test)]
mod tests {
    use super::is_self_issued;

    /// A certificate as far as the subject.
    fn certificate(version: bool, issuer: &[u8], subject: &[u8]) -> Vec<u8> {
        let element = |tag: u8, contents: &[u8]| {
            let length = contents.len();
            let header = match length {
                0..0x80 => vec![tag, length as u8],
                _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
            };
            [header, contents.to_vec()].concat()
        };
        let mut fields = if version { element(0xa0, &[2, 1, 2]) } else { Vec::new() };
        for (tag, contents) in
            [(2, &[7][..]), (0x30, &[1]), (0x30, issuer), (0x30, &[3]), (0x30, subject)]
        {
            fields.extend(element(tag, contents));
        }
        element(0x30, &element(0x30, &fields))
    }

    #[test]
    fn issuer_and_subject_are_compared() {
        let long = [9; 300];
        for version in [false, true] {
            assert!(is_self_issued(&certificate(version, b"me", b"me")));
            assert!(is_self_issued(&certificate(version, &long, &long)));
            assert!(!is_self_issued(&certificate(version, b"me", b"you")));
            assert!(!is_self_issued(&certificate(version, &long, b"you")));
        }
    }

    #[test]
    fn what_is_cut_short_is_not_self_issued() {
        let whole = certificate(true, b"me", b"me");
        for end in 0..whole.len() {
            assert!(!is_self_issued(&whole[..end]), "{end}");
        }
        // Lengths that are longer than anything.
        assert!(!is_self_issued(&[0x30, 0xff, 0xff, 0xff]));
        assert!(!is_self_issued(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 1]));
    }
}
