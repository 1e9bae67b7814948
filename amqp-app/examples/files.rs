//! Files as messages, and messages as files: one application sends what is put into a directory, and another one stores what it
//! receives in a second directory.
//!
//! `cargo run -p amqp-app --features files --example files` runs both on the broker that `AMQP_URL` names, or on a model broker.

use std::error::Error;
use std::fs;
use std::path::Path;

use amqp_app::Relay;
use amqp_app::files::{Header, Reader, Writer};
use amqp_app::prelude::*;
use amqp_testkit::EnvBroker;
use amqp_tokio::Connector;

const QUEUE: &str = "example-files";
const KEY: &str = "example.files";

/// As a program does that knows no AMQP: it writes elsewhere, and renames.
fn put(spool: &Path, name: &str, content: &str) -> std::io::Result<()> {
    fs::write(spool.join("tmp").join(name), content)?;
    fs::rename(spool.join("tmp").join(name), spool.join("new").join(name))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = EnvBroker::start()?;
    let directory = std::env::temp_dir().join(format!("example-files-{}", std::process::id()));
    let [from, to] = ["from", "to"].map(|name| directory.join(name));
    let connector = Connector::new(&broker.uri)?;
    let pool = Pool::new(connector.clone(), 1).connect().await?;

    // Stores what is sent to the key, until it has stored two messages.
    let (stopper, shutdown) = Shutdown::manual();
    let (stored, mut storing) = tokio::sync::mpsc::unbounded_channel();
    let writer = Writer::new(&to).pattern("${routing_key}/${xfilename}")?.on_stored(move |it| {
        let _ = stored.send(it.clone());
    });
    let app = App::new(connector).consume(Consume::topic(QUEUE, [KEY]), writer);
    let (started, starting) = tokio::sync::oneshot::channel();
    let app = app.on_started(async move |_| started.send(()).map_err(|()| "the program has ended"));
    let running = tokio::spawn(app.run(shutdown));
    starting.await?;

    // Sends each file of the directory, and ends when all are sent. `run` would wait for more.
    let reader = Reader::new(&from, KEY)?;
    for (name, content) in [("first.xml", "<order id='1'/>"), ("second.xml", "<order id='2'/>")] {
        put(&from, name, content)?;
    }
    let report = Relay::new(reader, &pool).run_until_empty(Shutdown::never()).await?;
    println!("{} files sent", report.sent);

    for _ in 0..2 {
        let stored = storing.recv().await.ok_or("the application has ended")?;
        let header = Header::beside(stored.path())?;
        let kind = header.properties.content_type.unwrap_or_default();
        println!("stored: {} ({kind}): {}", stored.name(), fs::read_to_string(stored.path())?);
    }
    stopper.stop();
    println!("{} messages stored", running.await??.handled);

    let member = pool.connection().await?;
    member
        .with_channel(async |channel| channel.queue_delete(QueueDelete::new(QUEUE)).await)
        .await?;
    pool.close().await;
    fs::remove_dir_all(directory)?;
    Ok(())
}
