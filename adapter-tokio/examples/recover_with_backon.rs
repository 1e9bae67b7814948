//! Connecting again without the client's recovery, by a crate for retries: it repeats everything, with a growing delay.
//!
//! `cargo run --example recover_with_backon` runs on an embedded broker, or on the local one that `AMQP_URL` names. A proxy
//! before the broker cuts the connection twice.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use amqp_testkit::{Direction, EnvBroker, Fault, Proxy};
use amqp_tokio::{AmqpUri, Connector, Endpoint, Error, Publish, QueueDeclare, Recovery};
use backon::{ExponentialBuilder, Retryable};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let proxy = Proxy::start(broker.uri.parse::<AmqpUri>()?.hosts[0].1)?;
    let connector = Connector::new(&broker.uri)?
        .endpoints([Endpoint::new("127.0.0.1", proxy.port())])
        .recovery(Recovery::never());
    let connections = AtomicU32::new(0);
    let delays = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(30))
        .with_jitter()
        .without_max_times();
    let done = (|| work(&connector, &proxy, &connections))
        .retry(delays)
        // Mistakes, refusals, and a close by the broker for them: the next attempt would fail as well.
        .when(Error::is_retryable)
        .notify(|error, delay| eprintln!("again in {delay:?}: {error}"))
        .await?;
    println!("{done} tasks done over connection {}", connections.into_inner());
    Ok(())
}

/// Connects, sets up what is needed, and works, until three tasks are done or the connection is lost. Returns how many
/// tasks were done.
async fn work(connector: &Connector, proxy: &Proxy, connections: &AtomicU32) -> Result<u32, Error> {
    let connection = connector.clone().connect().await?;
    let connected = connections.fetch_add(1, Ordering::Relaxed) + 1;
    let channel = connection.open_channel().await?;
    let queue = channel.queue_declare(QueueDeclare::new("").exclusive()).await?.queue;
    let mut tasks = channel.basic_consume(&queue).await?;
    if connected < 3 {
        proxy.inject(Direction::ToClient, Fault::Cut);
    }
    let publisher = connection.publisher().await?;
    let mut done = 0;
    while done < 3 {
        publisher.publish(Publish::to_queue(&queue, "task")).await?;
        let Some(task) = tasks.next().await else { break };
        task?.ack()?;
        done += 1;
    }
    connection.close().await;
    Ok(done)
}
