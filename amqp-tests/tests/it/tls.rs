//! `amqp-tls`: what its configurations are made from, and how long they are kept.

use std::fs;

use amqp_blocking::errors::{ConnectFailure, TlsErrorKind};
use amqp_blocking::{ConnectError, Connector, TlsSettings};
use amqp_tls::Rustls;
use rustls::version::{TLS12, TLS13};

use crate::certificates::{Authority, Valid, file, self_signed};
use crate::support::model;
use crate::tls_server::{TlsServer, config};

const NAMES: [&str; 1] = ["localhost"];

fn connector(server: &TlsServer, tls: Rustls) -> Connector {
    let uri = format!("amqps://guest:guest@localhost:{}/%2f", server.port);
    Connector::new(&uri).unwrap().tls(tls)
}

fn kind(error: &ConnectError) -> Option<TlsErrorKind> {
    match error.last_failure()? {
        ConnectFailure::Tls { kind, .. } => Some(*kind),
        _ => None,
    }
}

#[test]
fn authorities_are_added_or_replace_the_platforms() {
    let (one, two) = (Authority::new("One"), Authority::new("Two"));
    let identity = two.server(&NAMES, Valid::Always);
    let server = TlsServer::start(config(&identity, &[&TLS13], None), model().port());
    let trusting = [
        Rustls::builder().ca_pem(&*two.pem),
        Rustls::builder().ca_pem(&*one.pem).additional_ca_pem(&*two.pem),
        Rustls::builder().additional_ca_pem(&*two.pem),
        Rustls::builder().additional_ca_file(file(&two.pem)),
        Rustls::builder().danger_accept_any_certificate(),
    ];
    for builder in trusting {
        connector(&server, builder.clone().build().unwrap())
            .connect()
            .unwrap_or_else(|error| panic!("{builder:?}: {error}"))
            .close();
    }
    for builder in [Rustls::builder().ca_pem(&*one.pem), Rustls::builder()] {
        let error = connector(&server, builder.build().unwrap()).connect().unwrap_err();
        assert_eq!(kind(&error), Some(TlsErrorKind::UnknownIssuer), "{error}");
    }
}

/// The same connector: its files are read again.
#[test]
fn a_renewed_certificate_is_used_by_the_next_connection() {
    let (ours, strange) = (Authority::new("Ours"), Authority::new("Strange"));
    let identity = ours.server(&NAMES, Valid::Always);
    let server = config(&identity, &[&TLS12, &TLS13], Some(&ours.pem));
    let server = TlsServer::start(server, model().port());
    let (old, new) = (strange.client("app"), ours.client("app"));
    let files = (file(&old.certificate), file(&old.key));
    let tls = Rustls::builder()
        .ca_pem(&*ours.pem)
        .client_certificate_files(&files.0, &files.1)
        .build()
        .unwrap();
    let connector = connector(&server, tls);
    let error = connector.connect().unwrap_err();
    assert_eq!(kind(&error), Some(TlsErrorKind::ClientCertificateRefused), "{error}");

    fs::write(&files.0, &new.certificate).unwrap();
    // Certificate and key do not belong together until both are there.
    let error = connector.connect().unwrap_err();
    assert_eq!(kind(&error), Some(TlsErrorKind::Configuration), "{error}");
    fs::write(&files.1, &new.key).unwrap();
    connector.connect().unwrap().close();
}

#[test]
fn sessions_are_resumed() {
    for version in [&TLS12, &TLS13] {
        let authority = Authority::new("Ours");
        let identity = authority.server(&NAMES, Valid::Always);
        let server = TlsServer::start(config(&identity, &[version], None), model().port());
        let connector =
            connector(&server, Rustls::builder().ca_pem(&*authority.pem).build().unwrap());
        connector.connect().unwrap().close();
        assert_eq!(server.resumed(), 0);
        connector.connect().unwrap().close();
        assert_eq!(server.resumed(), 1, "{version:?}");
    }
}

#[test]
fn what_cannot_be_used_is_refused_when_it_is_built() {
    let identity = self_signed(&NAMES);
    let (certificate, key) = (file(&identity.certificate), file(&identity.key));
    let other = file(&self_signed(&NAMES).key);
    let empty = file("");
    let missing = std::path::Path::new("/no/such/file.pem");
    let cases = [
        (Rustls::builder().ca_file(missing), "/no/such/file.pem"),
        (Rustls::builder().ca_file(&empty), "there is no certificate"),
        (Rustls::builder().client_certificate_files(&certificate, &empty), "no private key"),
        (Rustls::builder().client_certificate_files(&key, &key), "there is no certificate"),
        (Rustls::builder().client_certificate_files(&certificate, &other), "keys"),
    ];
    for (builder, expected) in cases {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind, TlsErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    // A key is never shown.
    let builder = Rustls::builder().client_certificate_pem(identity.certificate, &*identity.key);
    assert!(!format!("{builder:?}").contains("PRIVATE"), "{builder:?}");

    let mut alone = TlsSettings::default();
    alone.certificate_file = Some(certificate);
    assert!(Rustls::from_settings(&alone).unwrap_err().to_string().contains("needs a key"));
}

#[test]
fn a_host_that_is_no_name_is_refused() {
    let connector =
        Connector::default().endpoints([amqp_blocking::Endpoint::new("a_b c", 1).tls(true)]);
    let dial = |_| {
        amqp_blocking::Stream::tcp(std::net::TcpStream::connect(("127.0.0.1", model().port()))?)
    };
    let error = connector.dial_with(dial).connect().unwrap_err();
    assert_eq!(kind(&error), Some(TlsErrorKind::Configuration), "{error}");
}
