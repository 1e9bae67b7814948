//! Callbacks on the main thread, which may block on the connection that they serve, and a closure that
//! another thread has run there.
//!
//! `cargo run --example blocking_callbacks` runs on an embedded broker, or on the one that `AMQP_URL` names.

use std::sync::mpsc;
use std::thread;

use amqp_blocking::{BasicConsume, Dispatcher, Publish, QueueDeclare, connect};
use amqp_testkit::EnvBroker;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri)?;
    let channel = connection.open_channel()?;
    let queue = channel.queue_declare(QueueDeclare::new("").exclusive())?.queue;
    let answers = channel.queue_declare(QueueDeclare::new("").exclusive())?.queue;
    for body in ["one", "two", "three"] {
        channel.basic_publish(Publish::new("", &queue, body))?;
    }

    let publisher = connection.open_channel()?.confirm_select()?;
    let (tell, enough) = mpsc::channel();
    let mut seen = 0;
    let mut dispatcher = Dispatcher::new(&connection);
    let submitter = dispatcher.submitter();
    let watcher = thread::spawn(move || {
        // Without a word the dispatcher is gone.
        if enough.recv().is_err() {
            return Ok(());
        }
        submitter.submit(|dispatcher| {
            if let Err(error) = dispatcher.stop_consuming() {
                eprintln!("not stopped: {error}");
            }
        })
    });
    dispatcher.basic_consume(&channel, BasicConsume::new(&queue), |_, delivery| {
        // The body of an oversize message is empty.
        if delivery.fault().is_some() {
            delivery.discard()?;
            return Ok(());
        }
        // Confirmed before the delivery is: neither is lost.
        publisher.publish(Publish::new("", &answers, delivery.body()).mandatory())?;
        delivery.ack()?;
        seen += 1;
        if seen == 3 {
            tell.send(())?;
        }
        Ok(())
    })?;
    dispatcher.start_consuming()?;
    drop(dispatcher);
    watcher.join().map_err(|_| "the watcher panicked")??;
    println!("{seen} deliveries dispatched");
    while let Some(answer) = channel.basic_get(answers.as_str())? {
        println!("{}", String::from_utf8_lossy(answer.body()));
        answer.ack()?;
    }
    connection.close();
    Ok(())
}
