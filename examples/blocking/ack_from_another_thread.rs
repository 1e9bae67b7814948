//! Deliveries that are worked on, and acknowledged, by a pool of threads.
//!
//! `cargo run --example blocking_ack_from_another_thread` runs on an embedded broker; with `AMQP_URL` set,
//! on that one.

use std::sync::{Mutex, mpsc};
use std::thread;

use adapter_blocking::{BasicConsume, Delivery, Publish, QueueDeclare, connect};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = examples::broker()?;
    let connection = connect(&broker.uri)?;
    let channel = connection.open_channel()?;
    let queue = channel.queue_declare(QueueDeclare::new("").exclusive())?.queue;
    for number in 0..20_u64 {
        channel.basic_publish(Publish::new("", &queue, number.to_string()))?;
    }

    let (hand_over, deliveries) = mpsc::sync_channel::<Delivery>(4);
    let (deliveries, sum) = (Mutex::new(deliveries), Mutex::new(0));
    let work = || {
        loop {
            let next = deliveries.lock().expect("no worker panics").recv();
            let Ok(delivery) = next else { return };
            let text = std::str::from_utf8(delivery.body()).expect("a number");
            *sum.lock().expect("no worker panics") += text.parse::<u64>().expect("a number");
            // Handles are for any thread: there is nothing to be handed back.
            delivery.ack().expect("the channel is open");
        }
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(work);
        }
        let consumer = channel.basic_consume(BasicConsume::new(&queue).prefetch(8))?;
        for delivery in consumer.take(20) {
            hand_over.send(delivery?)?;
        }
        drop(hand_over);
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    let sum = sum.into_inner()?;
    println!("20 deliveries acknowledged by 3 threads; they add up to {sum}");
    connection.close();
    Ok(())
}
