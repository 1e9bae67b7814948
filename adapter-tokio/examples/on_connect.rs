//! A hook that sets up each connection, the first one and each that is recovered, before anything else uses it.
//!
//! `cargo run --example on_connect` runs on an embedded broker, or on the local one that `AMQP_URL` names. A proxy before
//! the broker cuts the connection twice.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use amqp_testkit::{Direction, EnvBroker, Fault, Proxy};
use amqp_tokio::{
    AmqpUri, Backoff, Connection, ConnectionEvent, Connector, Endpoint, Error, ExchangeDeclare,
    Publish, QueueBind, QueueDeclare, Recovery,
};

const EXCHANGE: &str = "example-on-connect";
const QUEUE: &str = "example-on-connect";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let proxy = Proxy::start(broker.uri.parse::<AmqpUri>()?.hosts[0].1)?;
    let recovery = Recovery::automatic().backoff(Backoff::fixed(Duration::from_millis(100)));
    let connections = AtomicU32::new(0);
    let connection = Connector::new(&broker.uri)?
        .endpoints([Endpoint::new("127.0.0.1", proxy.port())])
        .recovery(recovery)
        .on_connect(move |connection| {
            let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
            set_up(connection, number)
        })
        .connect()
        .await?;

    let mut events = connection.events();
    // The exchange and the queue are there.
    let channel = connection.open_channel().await?;
    let mut tasks = channel.basic_consume(QUEUE).await?;
    let publisher = connection.publisher().await?;
    for number in 1..=3 {
        let body = number.to_string();
        publisher.publish(Publish::new(EXCHANGE, "task", &body).mandatory()).await?;
        let Some(task) = tasks.next().await else { break };
        let task = task?;
        println!("task {}", String::from_utf8_lossy(task.body()));
        task.ack()?;
        if number < 3 {
            proxy.inject(Direction::ToClient, Fault::Cut);
            // The hook is done before.
            while !matches!(events.next().await, Some(ConnectionEvent::Recovered { .. }) | None) {}
        }
    }
    connection.close().await;
    Ok(())
}

/// Declares what the application needs. An error would fail the attempt to connect, which is repeated after a delay.
async fn set_up(connection: Connection, number: u32) -> Result<(), Error> {
    let channel = connection.open_channel().await?;
    channel.exchange_declare(ExchangeDeclare::topic(EXCHANGE).auto_delete()).await?;
    channel.queue_declare(QueueDeclare::new(QUEUE).exclusive()).await?;
    channel.queue_bind(QueueBind::new(QUEUE, EXCHANGE, "task")).await?;
    println!("connection {number} is set up");
    Ok(())
}
