//! Log messages by topic, `facility.severity`: `*` in a binding stands for one word, `#` for any number.
//!
//! `cargo run --example topics` runs on an embedded broker, or on the one that `AMQP_URL` names.

use amqp_testkit::EnvBroker;
use amqp_tokio::{ExchangeDeclare, ExchangeDelete, Publish, QueueBind, QueueDeclare, connect};

const EXCHANGE: &str = "example-logs";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri).await?;
    let channel = connection.open_channel().await?;
    channel.exchange_declare(ExchangeDeclare::topic(EXCHANGE)).await?;
    let mut queues = Vec::new();
    for pattern in ["*.critical", "kernel.*", "#"] {
        let queue = channel.queue_declare(QueueDeclare::new("").exclusive()).await?.queue;
        channel.queue_bind(QueueBind::new(&queue, EXCHANGE, pattern)).await?;
        queues.push((pattern, queue));
    }

    let publisher = connection.open_channel().await?.confirm_select().await?;
    for topic in ["kernel.critical", "kernel.info", "mail.critical", "mail.info"] {
        publisher.publish(Publish::new(EXCHANGE, topic, "").mandatory()).await?;
    }
    for (pattern, queue) in queues {
        let mut topics = Vec::new();
        while let Some(log) = channel.basic_get(queue.as_str()).await? {
            topics.push(log.routing_key().as_str()?.to_owned());
            log.ack()?;
        }
        println!("{pattern}: {}", topics.join(" "));
    }
    channel.exchange_delete(ExchangeDelete::new(EXCHANGE)).await?;
    connection.close().await;
    Ok(())
}
