//! Asking for one message at a time. A consumer is the better way to get more than now and then one.
//!
//! `cargo run --example blocking_get` runs on an embedded broker, or on the one that `AMQP_URL` names.

use amqp_blocking::{Publish, QueueDeclare, connect};
use amqp_testkit::EnvBroker;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri)?;
    let channel = connection.open_channel()?;
    let queue = channel.queue_declare(QueueDeclare::new("").exclusive())?.queue;
    let publisher = connection.open_channel()?.confirm_select()?;
    for body in ["one", "two", "three"] {
        publisher.publish(Publish::new("", &queue, body).mandatory())?;
    }
    while let Some(message) = channel.basic_get(queue.as_str())? {
        let body = String::from_utf8_lossy(message.body()).into_owned();
        println!("{body}, and {} behind it", message.message_count().unwrap_or_default());
        message.ack()?;
    }
    println!("empty");
    connection.close();
    Ok(())
}
