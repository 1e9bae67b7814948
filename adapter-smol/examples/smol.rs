//! The client on smol: a queue, confirmed publishing, and a consumer.
//!
//! `cargo run --example smol` runs on an embedded broker, or on the one that `AMQP_URL` names.

use amqp_smol::{BasicConsume, Publish, QueueDeclare, connect};
use amqp_testkit::EnvBroker;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    smol::block_on(async {
        let connection = connect(&broker.uri).await?;
        let channel = connection.open_channel().await?;
        let queue = channel.queue_declare(QueueDeclare::new("").exclusive()).await?.queue;
        let publisher = channel.confirm_select().await?;
        for body in ["one", "two", "three"] {
            publisher.publish(Publish::new("", &queue, body).mandatory()).await?;
        }
        let mut consumer = channel.basic_consume(BasicConsume::new(&queue).prefetch(10)).await?;
        for _ in 0..3 {
            let delivery = consumer.next().await.ok_or("the consumer ended")??;
            println!("{}", String::from_utf8_lossy(delivery.body()));
            delivery.ack()?;
        }
        connection.close().await;
        Ok(())
    })
}
