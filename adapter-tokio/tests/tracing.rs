//! What is logged with the feature `tracing`, as the guide's page on logging says (NA-38).

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amqp_testkit::ModelBroker;
use amqp_tokio::{
    Backoff, BasicConsume, CloseCause, ConnectionEvent, Connector, Endpoint, FRAME_LOG_TARGET,
    FieldTable, LOG_TARGET, Properties, Publish, QueueDeclare, Recovery, connect,
};
use tracing_subscriber::filter::LevelFilter;

/// Gathers what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Takes the lines, with this address as `PEER`.
    fn lines(&self, peer: &str) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        text.lines().map(|line| line.trim_start().replace(peer, "PEER")).collect()
    }
}

/// Logs what this thread says, until the guard is dropped.
fn listen(level: LevelFilter) -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .without_time()
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn na_38_frames_are_logged_without_contents() {
    let (log, _guard) = listen(LevelFilter::TRACE);
    let broker = ModelBroker::start().unwrap();
    let connection = connect(&broker.uri()).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(QueueDeclare::new("").exclusive()).await.unwrap().queue;
    let publisher = channel.confirm_select().await.unwrap();
    let headers = FieldTable::from([("canary-name", "canary-header".into())]);
    let properties = Properties::new().headers(headers).message_id("canary-id");
    let large = "canary-body ".repeat(30_000);
    for body in ["canary-body", &large] {
        let publish = Publish::new("", &queue, body).properties(&properties);
        publisher.publish(publish).await.unwrap();
    }
    let mut consumer = channel.basic_consume(BasicConsume::new(&queue)).await.unwrap();
    for _ in 0..2 {
        consumer.next().await.unwrap().unwrap().ack().unwrap();
    }
    connection.update_secret("canary-secret", "canary-reason").await.unwrap();
    let other = connection.open_channel().await.unwrap();
    other.queue_declare(QueueDeclare::passive("missing")).await.unwrap_err();
    connection.close().await;
    let stats = connection.stats();

    let text = log.text();
    for logged in [
        "connection opened",
        "channel opened",
        "channel closed",
        "NOT_FOUND",
        "connection closed",
        "protocol header",
        "connection.start-ok",
        "basic.publish",
        "basic.deliver",
        "kind=Header",
        "kind=Body",
        "connection.close-ok",
    ] {
        assert!(text.contains(logged), "{logged} is missing in\n{text}");
    }
    for line in text.lines() {
        let frame = line.contains("direction=");
        assert_eq!(frame, line.contains("TRACE"), "{line}");
        let target = if frame { FRAME_LOG_TARGET } else { LOG_TARGET };
        assert!(line.contains(&format!(": {target}: ")), "{line}");
    }
    for secret in ["canary", "guest", "Z3Vlc3"] {
        assert!(!text.contains(secret), "{secret} is logged");
    }
    let frames = |direction| {
        let direction = format!("direction=\"{direction}\"");
        text.lines().filter(|line| line.contains(": frame ") && line.contains(&direction)).count()
            as u64
    };
    assert_eq!((frames("received"), frames("sent")), (stats.frames_received, stats.frames_sent));
}

/// Every event of a connection that is closed in the end, with its level and its fields.
#[tokio::test]
async fn na_38_the_events_of_a_connection_are_logged() {
    let (log, _guard) = listen(LevelFilter::DEBUG);
    let broker = ModelBroker::start().unwrap();
    let peer = peer(&broker);
    let connector = Connector::new(&broker.uri()).unwrap().connection_name("orders");
    let connection = connector.connect().await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let queue = QueueDeclare::new("tasks").exclusive();
    channel.queue_declare(queue).await.unwrap();

    let mut events = connection.events();
    broker.set_alarm(Some("low on memory"));
    channel.basic_publish(Publish::to_queue("tasks", b"one")).await.unwrap();
    assert!(matches!(events.next().await, Some(ConnectionEvent::Blocked(_))));
    broker.set_alarm(None);
    assert_eq!(events.next().await, Some(ConnectionEvent::Unblocked));

    // Dropped deliveries are logged once for each consumer, and once for what a channel gets.
    channel.basic_publish(Publish::to_queue("tasks", b"two")).await.unwrap();
    let consume = BasicConsume::new("tasks").consumer_tag("worker");
    let mut consumer = connection.consume(consume).await.unwrap();
    for _ in 0..2 {
        drop(consumer.next().await.unwrap().unwrap());
    }
    channel.queue_delete("tasks").await.unwrap();
    consumer.next().await.unwrap().unwrap_err();
    channel.queue_declare(QueueDeclare::new("got").exclusive()).await.unwrap();
    for _ in 0..2 {
        channel.basic_publish(Publish::to_queue("got", b"three")).await.unwrap();
        drop(channel.basic_get("got").await.unwrap().unwrap());
    }

    consumer.channel().close().await.unwrap();
    let refused = connection.open_channel().await.unwrap();
    refused.queue_declare(QueueDeclare::passive("missing")).await.unwrap_err();
    assert_eq!(connection.close().await, CloseCause::ByClient);

    let version = env!("CARGO_PKG_VERSION");
    let (host, port) = peer.split_once(':').unwrap();
    let opened = format!(
        r#"connection opened host="{host}" port={port} product="model broker" version="{version}""#
    );
    let dropped =
        "delivery dropped without ack or nack: it stays unacknowledged until the channel closes";
    let missing = "404 NOT_FOUND - no queue 'missing' in vhost '/' (queue.declare)";
    let expected = [
        ("INFO", &*opened),
        ("DEBUG", "channel opened channel=1"),
        ("WARN", r#"connection blocked by the broker reason="low on memory""#),
        ("INFO", "connection unblocked by the broker"),
        ("DEBUG", "channel opened channel=2"),
        ("WARN", &format!(r#"{dropped} channel=2 queue="tasks" consumer_tag="worker""#)),
        (
            "INFO",
            r#"consumer cancelled by the broker channel=2 queue="tasks" consumer_tag="worker""#,
        ),
        ("WARN", &format!(r#"{dropped} channel=1 queue="got""#)),
        ("DEBUG", "channel closed channel=2 cause=by this client"),
        ("DEBUG", "channel opened channel=3"),
        ("INFO", &format!("channel closed by the broker channel=3 error={missing}")),
        ("DEBUG", "channel closed channel=1 cause=its connection closed: by this client"),
        ("INFO", "connection closed cause=by this client"),
    ];
    let span = r#"connection{name="orders" peer=PEER}: amqp:"#;
    let expected = expected.map(|(level, event)| format!("{level} {span} {event}"));
    assert_eq!(log.lines(&peer), expected);
}

/// An end that the application did not ask for is a warning, also one of several. A connection without a name has
/// its peer alone.
#[tokio::test]
async fn na_38_an_abnormal_end_is_a_warning() {
    let (log, _guard) = listen(LevelFilter::INFO);
    let broker = ModelBroker::start().unwrap();
    let peer = peer(&broker);
    let connector = Connector::new(&broker.uri()).unwrap().recovery(Recovery::never());
    let connection = connector.connect().await.unwrap();
    broker.close_all("maintenance");
    connection.closed().await;
    let aborted = connect(&broker.uri()).await.unwrap();
    aborted.abort();
    aborted.closed().await;

    let lines = log.lines(&peer);
    let [opened, lost, opened_again, aborted] = &lines[..] else { panic!("{lines:#?}") };
    let span = "connection{peer=PEER}: amqp:";
    for opened in [opened, opened_again] {
        assert!(opened.starts_with(&format!("INFO {span} connection opened host=")), "{opened}");
    }
    let reason = "by the broker: 320 CONNECTION_FORCED - maintenance";
    assert_eq!(*lost, format!("WARN {span} connection lost cause={reason}"));
    assert_eq!(*aborted, format!("INFO {span} connection closed cause=aborted by this client"));
}

/// Each attempt that fails is logged when it does. The error of the last one is the connector's.
#[tokio::test]
async fn na_38_failed_attempts_are_logged() {
    let (log, _guard) = listen(LevelFilter::DEBUG);
    let broker = ModelBroker::start().unwrap();
    let peer = peer(&broker);
    let port = peer.split_once(':').unwrap().1.parse().unwrap();
    let vacant = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = Endpoint::new("127.0.0.1", vacant.local_addr().unwrap().port());
    drop(vacant);
    let connector =
        Connector::default().endpoints([dead.clone(), Endpoint::new("127.0.0.1", port)]);
    connector.connect().await.unwrap().close().await;
    let lines = log.lines(&peer);
    let [failed, opened, _] = &lines[..] else { panic!("{lines:#?}") };
    let place = format!("127.0.0.1 (127.0.0.1:{})", dead.port);
    let attempt = format!("attempt to connect failed attempt={place}: cannot dial: ");
    assert!(failed.starts_with(&format!("DEBUG connection: amqp: {attempt}")), "{failed}");
    assert!(opened.starts_with("INFO connection{peer=PEER}: amqp: connection opened"), "{opened}");

    let error = Connector::default().endpoints([dead]).connect().await.unwrap_err();
    let lines = log.lines(&peer);
    assert!(lines[0].contains(&attempt), "{lines:#?}");
    assert_eq!(
        lines[1..],
        [format!("DEBUG connection: amqp: connection not opened cause={error}")]
    );
}

#[tokio::test]
async fn na_38_a_loss_and_its_recovery_are_logged() {
    let (log, _guard) = listen(LevelFilter::INFO);
    let broker = ModelBroker::start().unwrap();
    let peer = peer(&broker);
    let backoff = Backoff::fixed(Duration::from_millis(20)).jitter(0.0);
    let connector = Connector::new(&broker.uri()).unwrap();
    let connector = connector.recovery(Recovery::automatic().backoff(backoff));
    let connection = connector.connect().await.unwrap();
    let mut events = connection.events();
    broker.close_all("maintenance");
    let Some(ConnectionEvent::Lost(cause)) = events.next().await else { panic!("it is not lost") };
    while !matches!(events.next().await, Some(ConnectionEvent::Recovered { .. })) {}
    connection.close().await;

    let port = broker.port();
    let all = log.lines(&peer);
    let lines: Vec<_> = all.iter().map(|line| line.split_once("amqp: ").unwrap()).collect();
    assert!(lines[0].1.starts_with("connection opened"), "{lines:#?}");
    let expected = [
        ("WARN", format!("connection lost, recovering cause={cause}")),
        ("INFO", format!("connection retry scheduled attempt=1 delay=20ms cause={cause}")),
        ("INFO", format!("connection recovered host=\"127.0.0.1\" port={port}")),
        ("INFO", format!("connection closed cause={}", CloseCause::ByClient)),
    ];
    assert_eq!(lines.len(), 1 + expected.len(), "{lines:#?}");
    for ((span, event), (level, expected)) in lines[1..].iter().zip(expected) {
        assert_eq!(*span, format!("{level} connection{{peer=PEER}}: "));
        assert_eq!(*event, expected);
    }
}

/// The address that the broker listens on.
fn peer(broker: &ModelBroker) -> String {
    let uri = broker.uri();
    let (_, rest) = uri.split_once('@').unwrap();
    rest.split('/').next().unwrap().to_owned()
}

/// Ten publishes that returned `Ok`, and a `main` that ends: none of them is sent, and the log says so.
#[test]
fn a_runtime_that_ends_before_its_driver_has_sent_everything_warns() {
    let broker = ModelBroker::start().unwrap();
    for graceful in [false, true] {
        let (log, _guard) = listen(LevelFilter::WARN);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (handles, unsent) = runtime.block_on(async {
            let connection = connect(&broker.uri()).await.unwrap();
            let channel = connection.open_channel().await.unwrap();
            for _ in 0..10 {
                channel.basic_publish(Publish::new("", "orders", b"order")).await.unwrap();
            }
            let unsent = connection.stats().unsent_bytes;
            if graceful {
                connection.close().await;
            }
            ((connection, channel), unsent)
        });
        drop(runtime);
        drop(handles);
        let text = log.text();
        if graceful {
            assert_eq!(text, "");
        } else {
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.contains("WARN connection{"), "{text}");
            let gone = CloseCause::DriverGone;
            let event =
                format!("connection ended with unsent bytes cause={gone} unsent_bytes={unsent}\n");
            assert!(text.ends_with(&event), "{text}");
            assert!(unsent > 10 * b"order".len() as u64);
        }
    }
}
