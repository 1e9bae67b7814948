//! What is told to `tracing`: names and sizes, never what a message or a login holds (NA-38).

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use amqp_testkit::ModelBroker;
use amqp_tokio::{BasicConsume, FieldTable, Properties, Publish, QueueDeclare, connect};
use tracing_subscriber::filter::LevelFilter;

/// Gathers what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
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
async fn na_38_frames_and_lives_are_told_and_nothing_of_the_users() {
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
    for told in [
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
        assert!(text.contains(told), "{told} is missing in\n{text}");
    }
    for line in text.lines() {
        let frame = line.contains("direction=");
        assert_eq!(frame, line.contains("TRACE"), "{line}");
        assert_eq!(!frame, line.contains("DEBUG"), "{line}");
    }
    for secret in ["canary", "guest", "Z3Vlc3"] {
        assert!(!text.contains(secret), "{secret} is told");
    }
    let frames = |direction| {
        let direction = format!("direction=\"{direction}\"");
        text.lines().filter(|line| line.contains("frame") && line.contains(&direction)).count()
            as u64
    };
    assert_eq!((frames("received"), frames("sent")), (stats.frames_received, stats.frames_sent));
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
            assert!(text.contains(" WARN ") && text.contains(&format!("bytes={unsent}")), "{text}");
            assert!(unsent > 10 * b"order".len() as u64);
        }
    }
}
