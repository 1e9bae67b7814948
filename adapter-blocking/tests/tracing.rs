//! What is logged with the feature `tracing`, here also on the thread that moves a connection's bytes (NA-38).

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use amqp_blocking::{BasicConsume, CloseCause, Connector, Publish, QueueDeclare, Recovery};
use amqp_testkit::ModelBroker;
use tracing_subscriber::filter::LevelFilter;

/// Gathers what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The subscriber is the process's, because two threads log: this is the only test of its binary.
#[test]
fn na_38_the_events_of_a_blocking_connection_are_logged() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::DEBUG)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .without_time()
        .init();
    let broker = ModelBroker::start().unwrap();
    let uri = broker.uri();
    let peer = uri.split_once('@').unwrap().1.split('/').next().unwrap();
    let open = |name| {
        let connector = Connector::new(&uri).unwrap().connection_name(name);
        connector.recovery(Recovery::never()).connect().unwrap()
    };

    let connection = open("orders");
    let channel = connection.open_channel().unwrap();
    channel.queue_declare(QueueDeclare::new("tasks").exclusive()).unwrap();
    for _ in 0..2 {
        channel.basic_publish(Publish::to_queue("tasks", b"task")).unwrap();
    }
    let mut consumer =
        connection.consume(BasicConsume::new("tasks").consumer_tag("worker")).unwrap();
    for _ in 0..2 {
        drop(consumer.next().unwrap().unwrap());
    }
    channel.queue_delete("tasks").unwrap();
    consumer.next().unwrap().unwrap_err();
    consumer.channel().close().unwrap();
    let refused = connection.open_channel().unwrap();
    refused.queue_declare(QueueDeclare::passive("missing")).unwrap_err();
    assert_eq!(connection.close(), CloseCause::ByClient);
    let lost = open("lost");
    broker.close_all("maintenance");
    lost.closed();

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().map(|it| it.trim_start().replace(peer, "PEER")).collect();
    let (host, port) = peer.split_once(':').unwrap();
    let opened = format!(
        r#"connection opened host="{host}" port={port} product="model broker" version="{}""#,
        env!("CARGO_PKG_VERSION")
    );
    let consumed = r#"channel=2 queue="tasks" consumer_tag="worker""#;
    let dropped =
        "delivery dropped without ack or nack: it stays unacknowledged until the channel closes";
    let expected = [
        ("INFO", "orders", &*opened),
        ("DEBUG", "orders", "channel opened channel=1"),
        ("DEBUG", "orders", "channel opened channel=2"),
        ("WARN", "orders", &format!("{dropped} {consumed}")),
        ("INFO", "orders", &format!("consumer cancelled by the broker {consumed}")),
        ("DEBUG", "orders", "channel closed channel=2 cause=by this client"),
        ("DEBUG", "orders", "channel opened channel=3"),
        (
            "INFO",
            "orders",
            "channel closed by the broker channel=3 \
             error=404 NOT_FOUND - no queue 'missing' in vhost '/' (queue.declare)",
        ),
        ("DEBUG", "orders", "channel closed channel=1 cause=its connection closed: by this client"),
        ("INFO", "orders", "connection closed cause=by this client"),
        ("INFO", "lost", &*opened),
        (
            "WARN",
            "lost",
            "connection lost cause=by the broker: 320 CONNECTION_FORCED - maintenance",
        ),
    ];
    let expected = expected.map(|(level, name, event)| {
        format!(r#"{level} connection{{name="{name}" peer=PEER}}: amqp: {event}"#)
    });
    assert_eq!(lines, expected);
}
