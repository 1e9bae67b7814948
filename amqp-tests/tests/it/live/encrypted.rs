//! RabbitMQ's TLS listener, on every adapter.

use amqp_blocking::errors::{ConnectFailure, TlsErrorKind};
use rustls::version::{TLS12, TLS13};

use super::tls_node::NODE;
use crate::certificates::file;
use crate::support::{exclusive, within};

/// Opens a connection by each version of TLS, and passes a message that takes many TLS records.
macro_rules! both_versions {
    ($name:ident, $adapter:ident, $block_on:expr) => {
        #[test]
        fn $name() {
            for (version, name) in [(&TLS12, "tlsv1.2"), (&TLS13, "tlsv1.3")] {
                let label = format!("{}-{name}", stringify!($adapter));
                let connector = $adapter::Connector::new(&NODE.uri()).unwrap();
                let connector = connector.tls(NODE.tls(&[version])).connection_name(&label);
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
        let connector = connector.tls(NODE.tls(&[version])).connection_name(&label);
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
    // It resets the connection behind the alert, and the client sometimes writes before it reads.
    for _ in 0..50 {
        let error = amqp_blocking::connect(&uri).unwrap_err();
        let failure = error.last_failure();
        let Some(ConnectFailure::Tls { kind, .. }) = failure else {
            panic!("{error:?}");
        };
        assert_eq!(*kind, TlsErrorKind::ClientCertificateMissing, "{error}");
    }
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
