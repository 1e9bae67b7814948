//! Connecting, and failing to: typed errors in time.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use adapter_tokio::{
    CloseCause, ConnectError, ConnectFailure, ConnectStep, Connector, Credentials, Error,
    Heartbeat, connect,
};

use crate::support::{rabbitmq_uri, unique, within};

fn only_failure(error: &ConnectError) -> &ConnectFailure {
    let ConnectError::Failed { attempts } = error else { panic!("{error:?}") };
    assert_eq!(attempts.len(), 1, "{error}");
    error.last_failure().unwrap()
}

#[tokio::test]
async fn na_35_pk_26_rabbitmq_says_what_it_is() {
    let connection = connect(&rabbitmq_uri().await).await.unwrap();
    let properties = connection.server_properties();
    assert_eq!(properties.get("product").and_then(|value| value.as_str()), Some("RabbitMQ"));
    let tuning = connection.tuning();
    assert_eq!((tuning.channel_max, tuning.frame_max, tuning.heartbeat), (2047, 131_072, 60));
    connection.close().await;
}

#[tokio::test]
async fn the_clients_limits_count_where_they_are_lower() {
    let connector = Connector::new(&rabbitmq_uri().await).unwrap().configure(|config| {
        config.channel_max(7).frame_max(8_192).heartbeat(Heartbeat::Seconds(1))
    });
    let connection = connector.connect().await.unwrap();
    let tuning = connection.tuning();
    assert_eq!((tuning.channel_max, tuning.frame_max, tuning.heartbeat), (7, 8_192, 1));
    // The broker drops a client that is silent for three intervals.
    let lost = tokio::time::timeout(Duration::from_secs(4), connection.closed()).await;
    assert!(lost.is_err(), "heartbeats keep an idle connection: {lost:?}");
    connection.close().await;
}

#[tokio::test]
async fn a_wrong_password_is_refused_with_403() {
    let credentials = Credentials::plain("guest", "wrong");
    let connector = Connector::new(&rabbitmq_uri().await)
        .unwrap()
        .configure(|config| config.credentials(credentials));
    let error = within("a refusal", connector.connect()).await.unwrap_err();
    let ConnectFailure::Authentication(refused) = only_failure(&error) else { panic!("{error:?}") };
    assert_eq!(refused.code.code(), 403);
    assert!(!format!("{error} {error:?}").contains("wrong"));
}

#[tokio::test]
async fn br_9_a_missing_virtual_host_is_refused_with_530() {
    let uri = rabbitmq_uri().await.replace("%2f", "nope");
    let error = within("a refusal", connect(&uri)).await.unwrap_err();
    let ConnectFailure::VirtualHost(refused) = only_failure(&error) else { panic!("{error:?}") };
    assert_eq!((refused.code.code(), refused.text.contains("nope")), (530, true));
}

/// The broker says nothing, and resets after three seconds: the core makes of it that tuning was
/// refused, and never sends such.
#[test]
fn br_24_br_25_a_tuning_that_rabbitmq_refuses_is_reset() {
    use amqp_proto::method::connection::{StartOk, TuneOk};
    use amqp_proto::{PROTOCOL_HEADER, ShortStr};
    for (channel_max, frame_max) in [(0, 131_072), (2_047, 1_024), (2_047, 0), (2_047, 262_144)] {
        let mut wire = amqp_testkit::Wire::connect(crate::support::rabbitmq().port());
        wire.send_bytes(&PROTOCOL_HEADER);
        wire.expect("connection.Start");
        let start_ok = StartOk {
            mechanism: ShortStr::new("PLAIN").unwrap(),
            response: b"\0guest\0guest",
            locale: ShortStr::new("en_US").unwrap(),
            ..Default::default()
        };
        wire.send(0, &start_ok);
        wire.expect("connection.Tune");
        wire.send(0, &TuneOk { channel_max, frame_max, heartbeat: 0 });
        let said = wire.read_to_end();
        assert!(said.is_empty(), "{channel_max} {frame_max}: {said:?}");
    }
}

/// Older protocols are answered; what the client cannot do, the broker does without.
#[test]
fn br_7_br_8_br_21_rabbitmq_heeds_what_a_client_can() {
    use amqp_proto::method::connection::StartOk;
    use amqp_proto::{PROTOCOL_HEADER, ShortStr};
    let port = crate::support::rabbitmq().port();
    for greeting in [b"AMQP\x01\x01\x08\0", b"AMQP\x01\x01\0\x09"] {
        let mut wire = amqp_testkit::Wire::connect(port);
        wire.send_bytes(greeting);
        wire.expect("connection.Start");
    }
    // Without `authentication_failure_close` a wrong password is answered by a reset, three seconds later.
    let mut wire = amqp_testkit::Wire::connect(port);
    wire.send_bytes(&PROTOCOL_HEADER);
    wire.expect("connection.Start");
    let start_ok = StartOk {
        mechanism: ShortStr::new("PLAIN").unwrap(),
        response: b"\0guest\0wrong",
        locale: ShortStr::new("en_US").unwrap(),
        ..Default::default()
    };
    let begun = Instant::now();
    wire.send(0, &start_ok);
    assert!(wire.read_to_end().is_empty());
    assert!(begun.elapsed() > Duration::from_secs(2));
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_host_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = connect(&format!("amqp://127.0.0.1:{port}")).await.unwrap_err();
    let ConnectFailure::Dial(cause) = only_failure(&error) else { panic!("{error:?}") };
    assert_eq!(cause.kind, std::io::ErrorKind::ConnectionRefused);

    let error = within("no address", connect("amqp://no-such-host.invalid")).await.unwrap_err();
    assert!(matches!(only_failure(&error), ConnectFailure::Resolve(_)), "{error:?}");
}

#[tokio::test]
async fn a_silent_peer_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connector = Connector::new(&format!("amqp://{address}"))
        .unwrap()
        .configure(|config| config.address_timeout(Duration::from_millis(300)));
    let begun = Instant::now();
    let error = within("a time-out", connector.connect()).await.unwrap_err();
    let step = match only_failure(&error) {
        ConnectFailure::TimedOut { step, .. } => *step,
        other => panic!("{other:?}"),
    };
    assert_eq!(step, ConnectStep::Start);
    assert!(begun.elapsed() >= Duration::from_millis(300));

    let connector = connector.configure(|config| {
        config.address_timeout(Duration::from_secs(60)).connect_timeout(Duration::from_millis(300))
    });
    let error = within("a time-out", connector.connect()).await.unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { step: ConnectStep::Start, .. }), "{error:?}");
}

#[tokio::test]
async fn the_next_host_is_tried_where_one_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let good = rabbitmq_uri().await;
    let good = good.strip_prefix("amqp://guest:guest@").unwrap();
    let uri = format!("amqp://guest:guest@{closed},no-such-host.invalid,{silent},{good}");
    let connector = Connector::new(&uri)
        .unwrap()
        .configure(|config| config.address_timeout(Duration::from_millis(500)));
    let connection = within("a connection", connector.connect()).await.unwrap();
    assert!(connection.is_open());
    connection.close().await;

    let uri = format!("amqp://{closed},no-such-host.invalid,{closed}");
    let error = within("failures", connect(&uri)).await.unwrap_err();
    let ConnectError::Failed { attempts } = &error else { panic!("{error:?}") };
    assert_eq!(attempts.len(), 3, "{error}");
}

/// Localhost resolves to an IPv6 address first where there is one; the server listens on IPv4 alone.
#[tokio::test]
async fn every_address_of_a_host_is_tried() {
    let uri = rabbitmq_uri().await.replace("127.0.0.1", "localhost");
    let connection = within("a connection", connect(&uri)).await.unwrap();
    connection.close().await;
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_anything_is_dialled() {
    assert!(matches!(connect("http://localhost").await, Err(ConnectError::InvalidUri(_))));
    assert!(matches!(connect("amqps://localhost").await, Err(ConnectError::TlsUnsupported)));
    let nul = Connector::new("amqp://guest:a%00b@localhost").unwrap().connect().await;
    assert!(matches!(nul, Err(ConnectError::InvalidArgument(_))), "{nul:?}");
}

#[tokio::test]
async fn pk_24_br_38_an_operators_close_reaches_every_handle() {
    let reason = unique("because");
    let node = tokio::task::spawn_blocking(|| amqp_testkit::RabbitMq::start().unwrap());
    let node = node.await.unwrap();
    let connection = connect(&node.uri()).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(crate::support::exclusive("forced")).await.unwrap();
    let consume = adapter_tokio::BasicConsume::new(queue.name());
    let mut consumer = channel.basic_consume(consume).await.unwrap();
    let text = reason.clone();
    tokio::task::spawn_blocking(move || {
        node.ctl(&["close_all_connections", &text]).unwrap();
        node
    })
    .await
    .unwrap();
    let cause = within("the end", connection.closed()).await;
    let CloseCause::ByBroker(error) = &cause else { panic!("{cause:?}") };
    assert_eq!((error.code.code(), error.text.contains(&reason)), (320, true));
    let end = consumer.next().await.unwrap().unwrap_err();
    assert_eq!(end, Error::Connection(cause.clone()));
    assert!(consumer.next().await.is_none());
    assert_eq!(connection.open_channel().await.unwrap_err(), Error::Connection(cause.clone()));
    let error = channel.queue_declare(crate::support::exclusive("late")).await.unwrap_err();
    assert_eq!(error, Error::Connection(cause.clone()));
    assert_eq!(connection.close().await, cause);
}

#[tokio::test]
async fn pk_25_a_killed_broker_ends_the_session_with_the_loss() {
    let node = tokio::task::spawn_blocking(|| amqp_testkit::RabbitMq::start().unwrap());
    let node = node.await.unwrap();
    let connection = connect(&node.uri()).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let name = unique("survives");
    let durable = adapter_tokio::QueueDeclare::new(&name).durable();
    channel.queue_declare(durable).await.unwrap();
    let publisher = channel.confirm_select().await.unwrap();
    let publish = adapter_tokio::Publish::new("", &name, b"kept").persistent().mandatory();
    publisher.publish(publish.clone()).await.unwrap();

    let node = tokio::task::spawn_blocking(move || {
        // Definitions reach the disk a while after they are answered, unlike confirmed messages.
        node.ctl(&["eval", "mnesia:dump_log()."]).unwrap();
        node.kill().unwrap();
        node
    });
    let node = node.await.unwrap();
    let cause = within("the loss", connection.closed()).await;
    assert!(matches!(cause, CloseCause::Transport(_)), "{cause:?}");
    let late = publisher.publish(publish).await.unwrap_err();
    assert_eq!(late, adapter_tokio::PublishError::Closed(Error::Connection(cause)));

    // P9: what was confirmed is there after a crash.
    let node = tokio::task::spawn_blocking(move || {
        node.launch().unwrap();
        node
    });
    let node = node.await.unwrap();
    let connection = connect(&node.uri()).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let passive = adapter_tokio::QueueDeclare::passive(&name);
    assert_eq!(channel.queue_declare(passive).await.unwrap().message_count, 1);
    connection.close().await;
    tokio::task::spawn_blocking(move || {
        node.stop().unwrap();
        drop(node);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn dropping_the_driver_ends_every_handle() {
    let connector = Connector::new(&rabbitmq_uri().await).unwrap();
    let (connecting, driver) = connector.driver().unwrap();
    let driver = tokio::spawn(driver);
    let connection = connecting.await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    driver.abort();
    assert_eq!(within("the end", connection.closed()).await, CloseCause::DriverGone);
    let error = channel.queue_declare(crate::support::exclusive("late")).await.unwrap_err();
    assert_eq!(error, Error::Connection(CloseCause::DriverGone));

    let (connecting, driver) = connector.driver().unwrap();
    drop(driver);
    assert_eq!(connecting.await.unwrap_err(), ConnectError::DriverGone);
}

/// BR-9, BR-38, and signs of life: the model does as RabbitMQ does.
#[tokio::test]
async fn br_9_br_38_the_model_refuses_closes_and_lives() {
    let broker = amqp_testkit::ModelBroker::start().unwrap();
    let error = connect(&broker.uri().replace("%2f", "nope")).await.unwrap_err();
    let ConnectFailure::VirtualHost(refused) = only_failure(&error) else { panic!("{error:?}") };
    assert_eq!((refused.code.code(), refused.text.contains("nope")), (530, true));

    let connector = Connector::new(&broker.uri())
        .unwrap()
        .configure(|config| config.heartbeat(Heartbeat::Seconds(1)));
    let connection = connector.connect().await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    // What the client sends is no reason for the broker to be silent.
    let busy = async {
        loop {
            let publish = adapter_tokio::Publish::new("", "nobody", b"x");
            channel.basic_publish(publish).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let lived = tokio::time::timeout(Duration::from_secs(4), busy).await;
    assert!(lived.is_err() && connection.is_open(), "{:?}", connection.close_cause());
    broker.close_all("because");
    let cause = within("the end", connection.closed()).await;
    let CloseCause::ByBroker(error) = &cause else { panic!("{cause:?}") };
    assert_eq!((error.code.code(), &*error.text), (320, "CONNECTION_FORCED - because"));
}
