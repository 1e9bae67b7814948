//! Publishing with confirms, many on their way at once, into a queue that takes only five messages.
//!
//! `cargo run --example confirms` runs on an embedded broker, or on the one that `AMQP_URL` names.

use amqp_testkit::EnvBroker;
use amqp_tokio::{Overflow, Publish, PublishError, QueueDeclare, connect};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri).await?;
    let channel = connection.open_channel().await?;
    let declare = QueueDeclare::new("").exclusive().max_length(5);
    let queue = channel.queue_declare(declare.overflow(Overflow::RejectPublish)).await?.queue;

    let publisher = channel.confirm_select().await?;
    let mut confirms = Vec::new();
    for number in 0..12 {
        let body = number.to_string();
        confirms.push(publisher.send(Publish::new("", &queue, &body).mandatory()).await?);
    }
    let (mut taken, mut refused) = (0, 0);
    for confirm in confirms {
        match confirm.await {
            Ok(()) => taken += 1,
            Err(PublishError::Nacked) => refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    println!("{taken} taken, {refused} refused");
    connection.close().await;
    Ok(())
}
