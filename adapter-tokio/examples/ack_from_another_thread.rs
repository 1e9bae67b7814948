//! Work that would hold up the runtime is done on a thread of its own, which acknowledges when it is done.
//!
//! `cargo run --example ack_from_another_thread` runs on an embedded broker, or on the one that `AMQP_URL` names.

use std::thread;

use amqp_testkit::EnvBroker;
use amqp_tokio::{BasicConsume, Delivery, Publish, QueueDeclare, connect};
use tokio::sync::mpsc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri).await?;
    let channel = connection.open_channel().await?;
    let queue = channel.queue_declare(QueueDeclare::new("").exclusive()).await?.queue;
    for number in 0..5_u64 {
        channel.basic_publish(Publish::new("", &queue, number.to_string())).await?;
    }

    let (hand_over, mut deliveries) = mpsc::channel::<Delivery>(10);
    let worker = thread::spawn(move || {
        let mut sum = 0;
        while let Some(delivery) = deliveries.blocking_recv() {
            sum += std::str::from_utf8(delivery.body())?.parse::<u64>()?;
            delivery.ack()?;
        }
        Ok::<_, Failure>(sum)
    });
    let mut consumer = channel.basic_consume(BasicConsume::new(&queue).prefetch(2)).await?;
    for _ in 0..5 {
        let delivery = consumer.next().await.ok_or("the consumer ended")??;
        hand_over.send(delivery).await?;
    }
    drop(hand_over);
    let sum = worker.join().map_err(|_| "the worker panicked")??;
    println!("5 deliveries acknowledged elsewhere; they add up to {sum}");
    connection.close().await;
    Ok(())
}
