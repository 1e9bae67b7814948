//! A connection that is lost and recovered: its handles go on, with the queue, its binding and its consumer.
//!
//! `cargo run --example reconnect` runs on an embedded broker, or on the local one that `AMQP_URL` names. A proxy before
//! the broker cuts the connection.

use std::time::Duration;

use amqp_testkit::{Direction, EnvBroker, Fault, Proxy};
use amqp_tokio::{
    AmqpUri, Backoff, ConnectionEvent, Connector, Endpoint, Events, Publish, QueueBind,
    QueueDeclare, Recovery,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let proxy = Proxy::start(broker.uri.parse::<AmqpUri>()?.hosts[0].1)?;
    let recovery = Recovery::automatic().backoff(Backoff::fixed(Duration::from_millis(100)));
    let connection = Connector::new(&broker.uri)?
        .endpoints([Endpoint::new("127.0.0.1", proxy.port())])
        .recovery(recovery)
        .connect()
        .await?;
    let mut events = connection.events();

    let channel = connection.open_channel().await?;
    // The broker chooses its name, and another one after each loss.
    let queue = channel.queue_declare(QueueDeclare::new("").exclusive()).await?.queue;
    channel.queue_bind(QueueBind::new(&queue, "amq.topic", "example.reconnect")).await?;
    let mut consumer = channel.basic_consume(queue).await?;
    let publisher = connection.publisher().await?;
    for number in 0..3 {
        if number > 0 {
            proxy.inject(Direction::ToClient, Fault::Cut);
            until_recovered(&mut events).await?;
        }
        let body = number.to_string();
        let publish = Publish::new("amq.topic", "example.reconnect", &body).mandatory();
        publisher.publish(publish).await?;
        let Some(delivery) = consumer.next().await else { break };
        let delivery = delivery?;
        println!("received {}", String::from_utf8_lossy(delivery.body()));
        delivery.ack()?;
    }
    connection.close().await;
    Ok(())
}

/// Prints what happens. Calls and publishes would wait for the recovery by themselves.
async fn until_recovered(events: &mut Events) -> Result<(), Box<dyn std::error::Error>> {
    while let Some(event) = events.next().await {
        match event {
            ConnectionEvent::Lost(_) => println!("lost"),
            ConnectionEvent::Retrying { delay, cause, .. } => {
                eprintln!("trying again in {delay:?}: {cause}");
            }
            ConnectionEvent::QueueRenamed { .. } => println!("the queue has another name"),
            ConnectionEvent::ConsumerLost { queue, error, .. } => {
                eprintln!("the consumer of {queue} has ended: {error}");
            }
            ConnectionEvent::Recovered { failed, .. } => {
                println!("recovered, {} not declared again", failed.len());
                return Ok(());
            }
            ConnectionEvent::Closed(cause) => return Err(cause.into()),
            _ => {}
        }
    }
    Ok(())
}
