//! Connections over TLS: what passes, and why others are refused before a byte of AMQP is sent.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::LazyLock;
use std::thread;

use amqp_testkit::{Direction, Fault, Proxy};
use rustls::version::{TLS12, TLS13};

use super::api::{
    At, BasicConsume, CloseCause, Config, ConnectError, ConnectFailure, Endpoint, Publish,
    TlsErrorKind, TlsSettings,
};
use super::at::next;
use super::connecting::{fails, only_failure};
use crate::certificates::{
    AUTHORITY, AUTHORITY_FILE, Authority, NAMES, Valid, file, self_signed, trusted, uri,
};
use crate::support::{exclusive, within};
use crate::tls_server::{TlsServer, config};

super::api::on_model! {
    messages_of_any_size_pass_over_tls_1_2_and_1_3
    a_servers_certificate_is_checked_before_anything_is_sent
    a_client_certificate_is_presented_where_it_is_asked_for
    a_missing_and_a_refused_client_certificate_are_told_apart
    a_peer_of_the_wrong_kind_is_named
    a_connection_that_ends_without_a_farewell_is_truncated
    the_name_is_checked_of_the_host_that_is_dialled
}

static STRANGER: LazyLock<Authority> = LazyLock::new(|| Authority::new("A stranger"));

/// The broker at a port with TLS, of which the authority is trusted.
fn over_tls(at: &At, port: u16) -> At {
    at.to(uri(&format!("localhost:{port}")))
}

fn kind(error: &ConnectError) -> TlsErrorKind {
    let ConnectFailure::Tls { kind, .. } = only_failure(error) else { panic!("{error:?}") };
    *kind
}

async fn messages_of_any_size_pass_over_tls_1_2_and_1_3(at: At) {
    for version in [&TLS12, &TLS13] {
        let server = TlsServer::start(config(&trusted(), &[version], None), at.port());
        let connection = over_tls(&at, server.port).connect().await;
        let channel = connection.open_channel().await.unwrap();
        let queue = channel.queue_declare(exclusive("tls")).await.unwrap();
        let mut consumer = channel.basic_consume(BasicConsume::new(queue.name())).await.unwrap();
        for size in [0, 1, 16_384, 16_385, 3_000_000] {
            let body: Vec<u8> = (0..size).map(|position: u32| position as u8).collect();
            let publish = Publish::to_queue(queue.name(), body.clone());
            within("the publish", channel.basic_publish(publish)).await.unwrap();
            let delivery = next(&mut consumer).await;
            assert!(delivery.body() == body, "{size} bytes over {version:?}");
            delivery.ack().unwrap();
        }
        within("the close", connection.close()).await;
    }
}

async fn a_servers_certificate_is_checked_before_anything_is_sent(at: At) {
    let cases = [
        (AUTHORITY.server(&["other.example"], Valid::Always), TlsErrorKind::WrongName),
        (AUTHORITY.server(&NAMES, Valid::Expired), TlsErrorKind::Expired),
        (AUTHORITY.server(&NAMES, Valid::NotYet), TlsErrorKind::NotYetValid),
        (STRANGER.server(&NAMES, Valid::Always), TlsErrorKind::UnknownIssuer),
        (self_signed(&NAMES), TlsErrorKind::SelfSigned),
    ];
    for (identity, expected) in cases {
        let server = TlsServer::start(config(&identity, &[&TLS12, &TLS13], None), at.port());
        let error = fails(&over_tls(&at, server.port), |config| config).await;
        assert_eq!(kind(&error), expected, "{error}");
        assert!(error.to_string().contains("localhost"), "it names the host: {error}");
        assert_eq!(server.decrypted(), 0, "{expected:?}");
    }
}

async fn a_client_certificate_is_presented_where_it_is_asked_for(at: At) {
    let client = AUTHORITY.client("certuser");
    let files = (file(&client.certificate), file(&client.key));
    for version in [&TLS12, &TLS13] {
        let config = config(&trusted(), &[version], Some(&AUTHORITY.pem));
        let server = TlsServer::start(config, at.port());
        let settings = TlsSettings::default().ca_file(&*AUTHORITY_FILE);
        let settings = settings.client_certificate(&files.0, &files.1);
        let over_tls = over_tls(&at, server.port);
        let connection = over_tls.open(|config| config.tls_settings(settings));
        within("a connection", connection).await.unwrap().close().await;
    }
}

async fn a_missing_and_a_refused_client_certificate_are_told_apart(at: At) {
    let client = STRANGER.client("certuser");
    let files = (file(&client.certificate), file(&client.key));
    for version in [&TLS12, &TLS13] {
        let config = config(&trusted(), &[version], Some(&AUTHORITY.pem));
        let server = TlsServer::start(config, at.port());
        let over_tls = over_tls(&at, server.port);

        let error = fails(&over_tls, |config| config).await;
        assert_eq!(kind(&error), TlsErrorKind::ClientCertificateMissing, "{version:?}: {error}");

        let settings = TlsSettings::default().ca_file(&*AUTHORITY_FILE);
        let settings = settings.client_certificate(&files.0, &files.1);
        let error = fails(&over_tls, |config: Config| config.tls_settings(settings)).await;
        assert_eq!(kind(&error), TlsErrorKind::ClientCertificateRefused, "{version:?}: {error}");
        assert_eq!(server.decrypted(), 0);
    }
}

async fn a_peer_of_the_wrong_kind_is_named(at: At) {
    let error = fails(&over_tls(&at, at.port()), |config| config).await;
    assert_eq!(kind(&error), TlsErrorKind::NotTls);
    assert!(error.to_string().contains("amqp://"), "{error}");

    let server = TlsServer::trusted(at.port());
    let plain = at.to(format!("amqp://guest:guest@localhost:{}/%2f", server.port));
    let error = fails(&plain, |config| config).await;
    assert_eq!(only_failure(&error), &ConnectFailure::TlsPort);
    assert!(error.to_string().contains("amqps://"), "{error}");

    // A server of another age answers with an alert: protocol_version.
    let port = answering(|mut client| {
        let _ = client.read(&mut [0; 4096]);
        let _ = client.write_all(&[0x15, 3, 1, 0, 2, 2, 70]);
    });
    let error = fails(&over_tls(&at, port), |config| config).await;
    assert_eq!(kind(&error), TlsErrorKind::Incompatible, "{error}");
}

/// The last bytes may be missing: that is not a peer that has closed.
async fn a_connection_that_ends_without_a_farewell_is_truncated(at: At) {
    let server = TlsServer::trusted(at.port());
    let proxy = Proxy::start(server.port).unwrap();
    let connection = within("a connection", over_tls(&at, proxy.port()).connect()).await;
    proxy.inject(Direction::ToClient, Fault::Cut);
    let cause = within("the end", connection.closed()).await;
    let CloseCause::Transport(error) = &cause else { panic!("{cause:?}") };
    assert_eq!(error.tls, Some(TlsErrorKind::Truncated), "{error}");
}

/// The first host cannot be reached. The second one has the certificate of the first.
async fn the_name_is_checked_of_the_host_that_is_dialled(at: At) {
    let identity = AUTHORITY.server(&["one.example"], Valid::Always);
    let server = TlsServer::start(config(&identity, &[&TLS13], None), at.port());
    let port = server.port;
    let dial = move |one_is_up: bool| {
        move |endpoint: Endpoint| match &*endpoint.host {
            "one.example" if !one_is_up => Err(std::io::ErrorKind::ConnectionRefused.into()),
            _ => TcpStream::connect(("127.0.0.1", port)),
        }
    };
    let hosts = at.to(uri("one.example,two.example"));
    let error = within("a failure", hosts.connect_by(dial(false))).await.unwrap_err();
    let ConnectError::Failed { attempts } = &error else { panic!("{error:?}") };
    let [refused, wrong] = &attempts[..] else { panic!("{error:?}") };
    assert!(matches!(refused.failure, ConnectFailure::Dial(_)), "{error:?}");
    let ConnectFailure::Tls { kind, .. } = wrong.failure else { panic!("{error:?}") };
    assert_eq!((kind, server.decrypted()), (TlsErrorKind::WrongName, 0));

    within("a connection", hosts.connect_by(dial(true))).await.unwrap().close().await;

    // The name may be another one by configuration.
    let renamed = at.to(uri("two.example") + "&server_name_indication=one.example");
    within("a connection", renamed.connect_by(dial(true))).await.unwrap().close().await;
}

/// The port of a server that does this with each client.
fn answering(answer: impl Fn(TcpStream) + Send + Sync + Copy + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || answer(client));
        }
    });
    port
}
