//! Several hosts, tried in a random order: when one goes down, the connection goes on with another.
//!
//! `cargo run --example failover` runs on an embedded broker, or on the local one that `AMQP_URL` names. Two proxies before
//! the broker are its two nodes.

use std::time::Duration;

use amqp_testkit::{Direction, EnvBroker, Fault, Proxy};
use amqp_tokio::{
    AmqpUri, Backoff, Connector, Endpoint, HostOrder, Publish, PublishError, Publisher,
    QueueDeclare, QueueDelete, Recovery,
};

const QUEUE: &str = "example-failover";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let port = broker.uri.parse::<AmqpUri>()?.hosts[0].1;
    let nodes = [Proxy::start(port)?, Proxy::start(port)?];
    goes_down(&nodes[1]);
    let recovery = Recovery::automatic().backoff(Backoff::fixed(Duration::from_millis(100)));
    let connection = Connector::new(&broker.uri)?
        .endpoints(nodes.each_ref().map(|node| Endpoint::new("127.0.0.1", node.port())))
        .host_order(HostOrder::Shuffled)
        .recovery(recovery)
        .connect()
        .await?;
    let channel = connection.open_channel().await?;
    channel.queue_declare(QueueDeclare::new(QUEUE).durable()).await?;
    let mut consumer = channel.basic_consume(QUEUE).await?;
    let publisher = connection.publisher().await?;
    for turn in 0..4 {
        let (serving, away) = (turn % 2, 1 - turn % 2);
        if turn > 0 {
            nodes[serving].heal();
            goes_down(&nodes[away]);
        }
        publish(&publisher, "hello").await?;
        let Some(delivery) = consumer.next().await else { break };
        // Of a message that was published twice, the ack may be too late: the broker delivers it again.
        let _ = delivery?.ack();
        println!("node {away} is down: served by node {serving}");
    }
    drop(consumer);
    channel.queue_delete(QueueDelete::new(QUEUE)).await?;
    connection.close().await;
    Ok(())
}

/// Cuts the connections to a node, and those that are tried.
fn goes_down(node: &Proxy) {
    node.at(Direction::ToClient, 0, Fault::Cut);
    node.inject(Direction::ToClient, Fault::Cut);
}

/// At least once: publishes again while the outcome is unknown. Each attempt waits for the recovery.
async fn publish(publisher: &Publisher, body: &str) -> Result<(), PublishError> {
    loop {
        match publisher.publish(Publish::to_queue(QUEUE, body).persistent()).await {
            Err(error) if error.is_retryable() => eprintln!("again: {error}"),
            outcome => return outcome,
        }
    }
}
