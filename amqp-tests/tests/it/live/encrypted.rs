//! RabbitMQ's TLS listener, on every adapter.

use std::net::{TcpListener, TcpStream};
use std::process;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use amqp_blocking::errors::{ConnectFailure, TlsErrorKind};
use amqp_testkit::RabbitMq;
use amqp_tls::Rustls;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use crate::certificates::{Authority, Identity, Valid, file};
use crate::support::{exclusive, sleep, within};

/// A node with a TLS listener that demands a certificate of its clients.
struct Node {
    rabbitmq: RabbitMq,
    tls_port: u16,
    authority: Authority,
    client: Identity,
}

static NODE: LazyLock<Node> = LazyLock::new(|| {
    let authority = Authority::new("RabbitMQ's authority");
    let server = authority.server(&["localhost", "127.0.0.1"], Valid::Always);
    let client = authority.client("certuser");
    let [ca, certificate, key] = [&authority.pem, &server.certificate, &server.key]
        .map(|text| file(text).display().to_string());
    let tls_port = free_port();
    let configuration = format!(
        "listeners.ssl.1 = 127.0.0.1:{tls_port}\nssl_options.cacertfile = {ca}\n\
         ssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n\
         ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n"
    );
    let rabbitmq = RabbitMq::start_with(&configuration).unwrap_or_else(|error| panic!("{error}"));
    // The listeners are opened one after the other, and the node counts as started with the first.
    smol::block_on(within("the TLS listener", async {
        while TcpStream::connect(("127.0.0.1", tls_port)).is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    }));
    Node { rabbitmq, tls_port, authority, client }
});

/// A port that is free, below those that the system hands out by itself.
fn free_port() -> u16 {
    let first = 23_000 + (process::id() % 4_000) as u16;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (first..first + 1_000).find(free).unwrap()
}

impl Node {
    fn uri(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2f", self.tls_port)
    }

    /// A configuration that speaks one version, and presents the client's certificate.
    fn tls(&self, version: &'static SupportedProtocolVersion) -> Rustls {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem.as_bytes()).unwrap()).unwrap();
        let chain =
            vec![CertificateDer::from_pem_slice(self.client.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.client.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        Rustls::new(config)
    }

    /// The TLS version of the connection of this name, as RabbitMQ sees it.
    fn version_of(&self, name: &str) -> String {
        let columns = ["list_connections", "-q", "ssl_protocol", "client_properties"];
        let list = self.rabbitmq.ctl(&columns).unwrap();
        let line = list.lines().find(|line| line.contains(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {list}"));
        line.split_whitespace().next().unwrap().to_owned()
    }
}

/// Opens a connection by each version of TLS, and passes a message that takes many TLS records.
macro_rules! both_versions {
    ($name:ident, $adapter:ident, $block_on:expr) => {
        #[test]
        fn $name() {
            for (version, name) in [(&TLS12, "tlsv1.2"), (&TLS13, "tlsv1.3")] {
                let label = format!("{}-{name}", stringify!($adapter));
                let connector = $adapter::Connector::new(&NODE.uri()).unwrap();
                let connector = connector.tls(NODE.tls(version)).connection_name(&label);
                $block_on(async {
                    let connection = within("a connection", connector.connect()).await.unwrap();
                    assert_eq!(NODE.version_of(&label), name);
                    let channel = connection.open_channel().await.unwrap();
                    let queue = channel.queue_declare(exclusive("tls")).await.unwrap();
                    let body = vec![7; 1_000_000];
                    let publisher = channel.confirm_select().await.unwrap();
                    let publish = $adapter::Publish::to_queue(queue.name(), body.clone());
                    publisher.publish(publish).await.unwrap();
                    let get = channel.basic_get($adapter::BasicGet::new(queue.name()));
                    let delivery = within("a message", get).await.unwrap().unwrap();
                    assert!(delivery.body() == body);
                    delivery.ack().unwrap();
                    within("the close", connection.close()).await;
                });
            }
        }
    };
}

both_versions!(rabbitmq_over_tls_on_tokio, amqp_tokio, |future| {
    tokio::runtime::Runtime::new().unwrap().block_on(future);
});
both_versions!(rabbitmq_over_tls_on_smol, amqp_smol, smol::block_on);
both_versions!(rabbitmq_over_tls_on_async_std, amqp_async_std, async_std::task::block_on);

#[test]
fn rabbitmq_over_tls_on_threads() {
    for (version, name) in [(&TLS12, "tlsv1.2"), (&TLS13, "tlsv1.3")] {
        let label = format!("threads-{name}");
        let connector = amqp_blocking::Connector::new(&NODE.uri()).unwrap();
        let connector = connector.tls(NODE.tls(version)).connection_name(&label);
        let connection = connector.connect().unwrap();
        assert_eq!(NODE.version_of(&label), name);
        let channel = connection.open_channel().unwrap();
        let queue = channel.queue_declare(exclusive("tls")).unwrap();
        let body = vec![7; 1_000_000];
        let publisher = channel.confirm_select().unwrap();
        publisher.publish(amqp_blocking::Publish::to_queue(queue.name(), body.clone())).unwrap();
        let delivery = channel.basic_get(amqp_blocking::BasicGet::new(queue.name())).unwrap();
        let delivery = delivery.unwrap();
        assert!(delivery.body() == body);
        delivery.ack().unwrap();
        connection.close();
    }
}

/// RabbitMQ says why by an alert, on TLS 1.3 after the handshake.
#[test]
fn rabbitmq_refuses_a_client_without_a_certificate() {
    let ca = file(&NODE.authority.pem);
    let uri = format!("{}?cacertfile={}", NODE.uri(), ca.display());
    let error = amqp_blocking::connect(&uri).unwrap_err();
    let failure = error.last_failure();
    let Some(ConnectFailure::Tls { kind, .. }) = failure else {
        panic!("{error:?}");
    };
    assert_eq!(*kind, TlsErrorKind::ClientCertificateMissing, "{error}");
}

/// The alert of RabbitMQ's plain listener is a header of AMQP, and the other way round it is one of TLS.
#[test]
fn rabbitmqs_listeners_are_told_apart() {
    let plain = format!("amqps://localhost:{}", NODE.rabbitmq.port());
    let error = amqp_blocking::connect(&plain).unwrap_err();
    let failure = error.last_failure();
    let Some(ConnectFailure::Tls { kind, .. }) = failure else {
        panic!("{error:?}");
    };
    assert_eq!(*kind, TlsErrorKind::NotTls, "{error}");

    let tls = format!("amqp://localhost:{}", NODE.tls_port);
    let error = amqp_blocking::connect(&tls).unwrap_err();
    assert_eq!(error.last_failure(), Some(&ConnectFailure::TlsPort));
}
