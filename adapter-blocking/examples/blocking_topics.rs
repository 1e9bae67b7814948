//! Log messages by topic, `facility.severity`: `*` in a binding stands for one word, `#` for any number.
//!
//! `cargo run --example blocking_topics` runs on an embedded broker, or on the one that `AMQP_URL` names.

use amqp_blocking::{ExchangeDeclare, ExchangeDelete, Publish, QueueBind, QueueDeclare, connect};
use amqp_testkit::EnvBroker;

const EXCHANGE: &str = "example-blocking-logs";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri)?;
    let channel = connection.open_channel()?;
    channel.exchange_declare(ExchangeDeclare::topic(EXCHANGE))?;
    let mut queues = Vec::new();
    for pattern in ["*.critical", "kernel.*", "#"] {
        let queue = channel.queue_declare(QueueDeclare::new("").exclusive())?.queue;
        channel.queue_bind(QueueBind::new(&queue, EXCHANGE, pattern))?;
        queues.push((pattern, queue));
    }

    let publisher = connection.open_channel()?.confirm_select()?;
    for topic in ["kernel.critical", "kernel.info", "mail.critical", "mail.info"] {
        publisher.publish(Publish::new(EXCHANGE, topic, "").mandatory())?;
    }
    for (pattern, queue) in queues {
        let mut topics = Vec::new();
        while let Some(log) = channel.basic_get(queue.as_str())? {
            topics.push(log.routing_key().as_str()?.to_owned());
            log.ack()?;
        }
        println!("{pattern}: {}", topics.join(" "));
    }
    channel.exchange_delete(ExchangeDelete::new(EXCHANGE))?;
    connection.close();
    Ok(())
}
