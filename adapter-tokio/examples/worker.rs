//! A worker with graceful shutdown: on Ctrl-C it takes no more tasks, finishes those it has, and acknowledges them.
//!
//! `cargo run --example worker` runs on an embedded broker, or on the one that `AMQP_URL` names. It publishes some
//! tasks for itself first.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use amqp_testkit::EnvBroker;
use amqp_tokio::{
    AckError, BasicConsume, Connection, Consumer, Delivery, Publish, QueueDeclare, connect,
};
use tokio::task::{JoinError, JoinSet};

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
    let result = read(&mut consumer, &mut tasks, &mut done).await;

    // However the reading has ended, tasks may be at work.
    let finish = async {
        while let Some(result) = tasks.join_next().await {
            done += finished(result);
        }
    };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        // Their messages are not acknowledged, so the broker delivers them again.
        eprintln!("some tasks took too long and will be done again");
    }
    result.map(|()| done)
}

/// Starts a task for each delivery until Ctrl-C. Then the broker delivers no more, and requeues what has arrived and was
/// not started.
async fn read(
    consumer: &mut Consumer,
    tasks: &mut JoinSet<Result<(), AckError>>,
    done: &mut u32,
) -> Result<(), Failure> {
    // Created once: a new future in every turn of the loop would miss a signal between two turns.
    let stop = tokio::signal::ctrl_c();
    tokio::pin!(stop);
    // The first poll installs the signal handler.
    let stopped = poll_fn(|cx| Poll::Ready(stop.as_mut().poll(cx).is_ready())).await;
    println!("working; stop with Ctrl-C");
    if stopped {
        return Ok(());
    }
    loop {
        tokio::select! {
            _ = &mut stop => break,
            Some(result) = tasks.join_next() => *done += finished(result),
            delivery = consumer.next() => match delivery {
                Some(delivery) => drop(tasks.spawn(work(delivery?))),
                None => break,
            },
        }
    }
    consumer.cancel_and_requeue().await?;
    Ok(())
}

async fn work(delivery: Delivery) -> Result<(), AckError> {
    if let Some(fault) = delivery.fault() {
        // The body of an oversize message is empty. An ack would lose it.
        eprintln!("discarded: {fault}");
        return delivery.discard();
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    delivery.ack()
}

/// Returns the number of tasks that were done: 1, or 0 if it failed. Its message is then delivered again.
fn finished(result: Result<Result<(), AckError>, JoinError>) -> u32 {
    let failure = match result {
        Ok(Ok(())) => return 1,
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => panicked.to_string(),
    };
    eprintln!("not done: {failure}");
    0
}
