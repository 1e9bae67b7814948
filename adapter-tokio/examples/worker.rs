//! A worker with graceful shutdown: on Ctrl-C it takes no more tasks, finishes those it has, and acknowledges them.
//!
//! `cargo run --example worker` runs on an embedded broker, or on the one that `AMQP_URL` names. It publishes some
//! tasks for itself first.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use amqp_testkit::EnvBroker;
use amqp_tokio::{BasicConsume, Connection, Delivery, Publish, QueueDeclare, connect};
use tokio::task::JoinSet;

const QUEUE: &str = "example-worker";
/// How long tasks may take after Ctrl-C.
const GRACE: Duration = Duration::from_secs(30);

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri).await?;
    let done = run(&connection).await;
    // Without this, the runtime would drop what is not written yet: acknowledgements, for example.
    connection.close().await;
    println!("stopped: {} tasks done", done?);
    Ok(())
}

async fn run(connection: &Connection) -> Result<u32, Failure> {
    let channel = connection.open_channel().await?;
    channel.queue_declare(QueueDeclare::new(QUEUE).auto_delete()).await?;
    let publisher = connection.open_channel().await?.confirm_select().await?;
    for task in 0..20 {
        publisher.publish(Publish::to_queue(QUEUE, task.to_string()).persistent()).await?;
    }

    let mut consumer = channel.basic_consume(BasicConsume::new(QUEUE).prefetch(4)).await?;
    let mut tasks = JoinSet::new();
    let mut done = 0;
    let stop = tokio::signal::ctrl_c();
    tokio::pin!(stop);
    // The first poll installs the signal handler.
    let stopped = poll_fn(|cx| Poll::Ready(stop.as_mut().poll(cx).is_ready())).await;
    println!("working; stop with Ctrl-C");
    if stopped {
        return Ok(0);
    }
    loop {
        tokio::select! {
            _ = &mut stop => break,
            Some(result) = tasks.join_next() => done += finished(result)?,
            delivery = consumer.next() => match delivery {
                Some(delivery) => drop(tasks.spawn(work(delivery?))),
                None => break,
            },
        }
    }

    // The broker delivers no more, and requeues what has arrived and was not started.
    consumer.cancel_and_requeue().await?;
    let finish = async {
        while let Some(result) = tasks.join_next().await {
            done += finished(result)?;
        }
        Ok::<_, Failure>(())
    };
    match tokio::time::timeout(GRACE, finish).await {
        Ok(finished) => finished?,
        // Their messages are not acknowledged, so the broker delivers them again.
        Err(_) => eprintln!("some tasks took too long and will be done again"),
    }
    Ok(done)
}

async fn work(delivery: Delivery) -> Result<(), Failure> {
    tokio::time::sleep(Duration::from_millis(10)).await;
    delivery.ack()?;
    Ok(())
}

fn finished(result: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<u32, Failure> {
    result??;
    Ok(1)
}
