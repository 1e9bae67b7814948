//! A consumer as an iterator, and one that notices silence: what pika calls a generator.
//!
//! `cargo run --example blocking_iterate` runs on an embedded broker, or on the one that `AMQP_URL` names.

use std::time::Duration;

use amqp_blocking::{BasicConsume, Publish, QueueDeclare, connect};
use amqp_testkit::EnvBroker;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri)?;
    let channel = connection.open_channel()?;
    let queue = channel.queue_declare(QueueDeclare::new("").exclusive())?.queue;
    for body in ["one", "two", "three", "four", "five"] {
        channel.basic_publish(Publish::new("", &queue, body))?;
    }

    let mut consumer = channel.basic_consume(BasicConsume::new(&queue))?;
    for delivery in consumer.by_ref().take(2) {
        let delivery = delivery?;
        println!("{}", String::from_utf8_lossy(delivery.body()));
        delivery.ack()?;
    }
    while let Some(delivery) = consumer.recv_timeout(Duration::from_millis(300))? {
        println!("{}", String::from_utf8_lossy(delivery.body()));
        delivery.ack()?;
    }
    println!("silence");
    println!("{} given back", consumer.cancel_and_requeue()?);
    connection.close();
    Ok(())
}
