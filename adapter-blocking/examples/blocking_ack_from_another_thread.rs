//! Deliveries that are worked on, and acknowledged, by a pool of threads.
//!
//! `cargo run --example blocking_ack_from_another_thread` runs on an embedded broker; with `AMQP_URL` set,
//! on that one.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use amqp_blocking::{BasicConsume, Delivery, Publish, QueueDeclare, connect};
use amqp_testkit::EnvBroker;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri)?;
    let channel = connection.open_channel()?;
    let queue = channel.queue_declare(QueueDeclare::new("").exclusive())?.queue;
    for number in 0..20_u64 {
        channel.basic_publish(Publish::new("", &queue, number.to_string()))?;
    }

    let (hand_over, deliveries) = mpsc::sync_channel::<Delivery>(4);
    let deliveries = Arc::new(Mutex::new(deliveries));
    let workers = [(); 3].map(|()| {
        let deliveries = Arc::clone(&deliveries);
        thread::spawn(move || work(&deliveries))
    });
    // The workers alone have it: without one left, handing over fails rather than waits.
    drop(deliveries);
    let consumer = channel.basic_consume(BasicConsume::new(&queue).prefetch(8))?;
    for delivery in consumer.take(20) {
        hand_over.send(delivery?).map_err(|_| "no worker is left")?;
    }
    drop(hand_over);
    let mut sum = 0;
    for worker in workers {
        sum += worker.join().map_err(|_| "a worker panicked")??;
    }
    println!("20 deliveries acknowledged by 3 threads; they add up to {sum}");
    connection.close();
    Ok(())
}

/// Works until there are no more deliveries; returns the sum of their numbers.
fn work(deliveries: &Mutex<mpsc::Receiver<Delivery>>) -> Result<u64, Failure> {
    let mut sum = 0;
    loop {
        let next = deliveries.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(delivery) = next else { return Ok(sum) };
        sum += std::str::from_utf8(delivery.body())?.parse::<u64>()?;
        // Handles are for any thread: there is nothing to be handed back.
        delivery.ack()?;
    }
}
