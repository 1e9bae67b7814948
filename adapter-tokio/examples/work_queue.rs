//! A queue of tasks, and two workers that share them: each has one task at a time, and acknowledges it
//! when it is done, so that the tasks of a worker that dies go to the other.
//!
//! `cargo run --example work_queue` runs on an embedded broker, or on the one that `AMQP_URL` names.

use std::time::Duration;

use amqp_testkit::EnvBroker;
use amqp_tokio::{BasicConsume, Connection, Publish, QueueDeclare, QueueDelete, connect};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const QUEUE: &str = "example-tasks";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri).await?;
    let channel = connection.open_channel().await?;
    channel.queue_declare(QueueDeclare::new(QUEUE).durable()).await?;

    let publisher = channel.confirm_select().await?;
    for number in 1..=10 {
        let task = format!("task {number}");
        // Confirmed, the task survives a restart of the broker.
        publisher.publish(Publish::new("", QUEUE, &task).persistent().mandatory()).await?;
    }
    let workers = [work(connection.clone()), work(connection.clone())].map(tokio::spawn);
    let mut done = 0;
    for worker in workers {
        done += worker.await??;
    }
    println!("2 workers did {done} tasks");
    channel.queue_delete(QueueDelete::new(QUEUE)).await?;
    connection.close().await;
    Ok(())
}

/// Works until the queue is silent for a while; returns how many tasks it did.
async fn work(connection: Connection) -> Result<u32, Failure> {
    let channel = connection.open_channel().await?;
    let mut tasks = channel.basic_consume(BasicConsume::new(QUEUE).prefetch(1)).await?;
    let mut done = 0;
    while let Ok(Some(task)) = tokio::time::timeout(Duration::from_millis(500), tasks.next()).await
    {
        let task = task?;
        tokio::time::sleep(Duration::from_millis(10)).await;
        done += 1;
        task.ack()?;
    }
    Ok(done)
}
