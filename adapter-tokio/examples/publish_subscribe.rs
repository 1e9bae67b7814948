//! One publisher, three subscribers, each of which gets every message: a fanout exchange, and a queue for
//! each subscriber that goes with its connection.
//!
//! `cargo run --example publish_subscribe` runs on an embedded broker, or on the one that `AMQP_URL` names.

use amqp_testkit::EnvBroker;
use amqp_tokio::{
    BasicConsume, Connection, Consumer, Error, ExchangeDeclare, ExchangeDelete, Publish, QueueBind,
    QueueDeclare, connect,
};

const EXCHANGE: &str = "example-news";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri).await?;
    let channel = connection.open_channel().await?;
    channel.exchange_declare(ExchangeDeclare::fanout(EXCHANGE)).await?;
    let mut subscribers = Vec::new();
    for _ in 0..3 {
        subscribers.push(subscribe(&connection).await?);
    }

    let publisher = channel.confirm_select().await?;
    for news in ["first", "second"] {
        publisher.publish(Publish::new(EXCHANGE, "", news).mandatory()).await?;
    }
    for (number, subscriber) in subscribers.iter_mut().enumerate() {
        for _ in 0..2 {
            let news = subscriber.next().await.ok_or("the subscription ended")??;
            println!("subscriber {number}: {}", String::from_utf8_lossy(news.body()));
            news.ack()?;
        }
    }
    channel.exchange_delete(ExchangeDelete::new(EXCHANGE)).await?;
    connection.close().await;
    Ok(())
}

/// A queue of the broker's naming, bound to the exchange.
async fn subscribe(connection: &Connection) -> Result<Consumer, Error> {
    let channel = connection.open_channel().await?;
    let queue = channel.queue_declare(QueueDeclare::new("").exclusive()).await?;
    channel.queue_bind(QueueBind::new(queue.name(), EXCHANGE, "")).await?;
    channel.basic_consume(BasicConsume::new(queue.name())).await
}
