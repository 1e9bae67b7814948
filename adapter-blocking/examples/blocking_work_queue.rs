//! A queue of tasks, and two workers that share them: each has one task at a time, and acknowledges it
//! when it is done, so that the tasks of a worker that dies go to the other.
//!
//! `cargo run --example blocking_work_queue` runs on an embedded broker, or on the one that `AMQP_URL` names.

use std::thread;
use std::time::Duration;

use amqp_blocking::{BasicConsume, Connection, Publish, QueueDeclare, QueueDelete, connect};
use amqp_testkit::EnvBroker;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const QUEUE: &str = "example-blocking-tasks";

fn main() -> Result<(), Failure> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri)?;
    let channel = connection.open_channel()?;
    channel.queue_declare(QueueDeclare::new(QUEUE).durable())?;

    let publisher = channel.confirm_select()?;
    for number in 1..=10 {
        let task = format!("task {number}");
        // Confirmed, the task survives a restart of the broker.
        publisher.publish(Publish::new("", QUEUE, &task).persistent().mandatory())?;
    }
    let workers = [connection.clone(), connection.clone()];
    let workers = workers.map(|connection| thread::spawn(move || work(&connection)));
    let mut done = 0;
    for worker in workers {
        done += worker.join().map_err(|_| "a worker panicked")??;
    }
    println!("2 workers did {done} tasks");
    channel.queue_delete(QueueDelete::new(QUEUE))?;
    connection.close();
    Ok(())
}

/// Works until the queue is silent for a while; returns how many tasks it did.
fn work(connection: &Connection) -> Result<u32, Failure> {
    let channel = connection.open_channel()?;
    let mut tasks = channel.basic_consume(BasicConsume::new(QUEUE).prefetch(1))?;
    let mut done = 0;
    while let Some(task) = tasks.recv_timeout(Duration::from_millis(500))? {
        thread::sleep(Duration::from_millis(10));
        done += 1;
        task.ack()?;
    }
    Ok(done)
}
