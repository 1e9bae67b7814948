//! One publisher, three subscribers, each of which gets every message: a fanout exchange, and a queue for
//! each subscriber that goes with its connection.
//!
//! `cargo run --example blocking_publish_subscribe` runs on an embedded broker, or on the one that `AMQP_URL` names.

use amqp_blocking::{
    BasicConsume, Connection, Consumer, Error, ExchangeDeclare, ExchangeDelete, Publish, QueueBind,
    QueueDeclare, connect,
};
use amqp_testkit::EnvBroker;

const EXCHANGE: &str = "example-blocking-news";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri)?;
    let channel = connection.open_channel()?;
    channel.exchange_declare(ExchangeDeclare::fanout(EXCHANGE))?;
    let mut subscribers = Vec::new();
    for _ in 0..3 {
        subscribers.push(subscribe(&connection)?);
    }

    let publisher = channel.confirm_select()?;
    for news in ["first", "second"] {
        publisher.publish(Publish::new(EXCHANGE, "", news).mandatory())?;
    }
    for (number, subscriber) in subscribers.iter_mut().enumerate() {
        for _ in 0..2 {
            let news = subscriber.next().ok_or("the subscription ended")??;
            println!("subscriber {number}: {}", String::from_utf8_lossy(news.body()));
            news.ack()?;
        }
    }
    channel.exchange_delete(ExchangeDelete::new(EXCHANGE))?;
    connection.close();
    Ok(())
}

/// A queue of the broker's naming, bound to the exchange.
fn subscribe(connection: &Connection) -> Result<Consumer, Error> {
    let channel = connection.open_channel()?;
    let queue = channel.queue_declare(QueueDeclare::new("").exclusive())?;
    channel.queue_bind(QueueBind::new(queue.name(), EXCHANGE, ""))?;
    channel.basic_consume(BasicConsume::new(queue.name()))
}
