//! Connecting again without the client's recovery: a loop with a growing delay, which sets everything up each time.
//!
//! `cargo run --example blocking_recover_by_hand` runs on an embedded broker, or on the local one that `AMQP_URL` names. A
//! proxy before the broker cuts the connection twice.

use std::time::Duration;

use amqp_blocking::{
    AmqpUri, Connector, Endpoint, Error, Publish, QueueDeclare, QueueDelete, Recovery,
};
use amqp_testkit::{Direction, EnvBroker, Fault, Proxy};

const QUEUE: &str = "example-blocking-recover-by-hand";
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let proxy = Proxy::start(broker.uri.parse::<AmqpUri>()?.hosts[0].1)?;
    let connector = Connector::new(&broker.uri)?
        .endpoints([Endpoint::new("127.0.0.1", proxy.port())])
        .recovery(Recovery::never());
    let mut delay = FIRST_DELAY;
    let mut worker = Worker { connector, proxy, done: 0, connected: 0 };
    loop {
        let connected = worker.connected;
        let result = worker.work();
        if worker.connected > connected {
            delay = FIRST_DELAY;
        }
        match result {
            Ok(()) => break,
            // Mistakes, refusals, and a close by the broker for them: the next attempt would fail as well.
            Err(error) if !error.is_retryable() => return Err(error.into()),
            Err(error) => eprintln!("again in {delay:?}: {error}"),
        }
        std::thread::sleep(delay);
        delay = (delay * 2).min(LONGEST_DELAY);
    }
    println!("{} tasks done over {} connections", worker.done, worker.connected);
    Ok(())
}

struct Worker {
    connector: Connector,
    proxy: Proxy,
    done: u32,
    connected: u32,
}

impl Worker {
    /// Connects, sets up what is needed, and works, until nine tasks are done or the connection is lost.
    fn work(&mut self) -> Result<(), Error> {
        let connection = self.connector.clone().connect()?;
        self.connected += 1;
        let channel = connection.open_channel()?;
        channel.queue_declare(QueueDeclare::new(QUEUE).durable())?;
        let publisher = connection.publisher()?;
        let tasks = channel.basic_consume(QUEUE)?;
        for _ in 0..3 {
            publisher.publish(Publish::to_queue(QUEUE, "task").persistent())?;
        }
        let mut here = 0;
        for task in tasks {
            task?.ack()?;
            self.done += 1;
            here += 1;
            if here == 3 && self.connected == 3 {
                break;
            }
            if here == 3 {
                // Calls answer in order: when this one has, the broker has the acks.
                channel.queue_declare(QueueDeclare::passive(QUEUE))?;
                self.proxy.inject(Direction::ToClient, Fault::Cut);
            }
        }
        channel.queue_delete(QueueDelete::new(QUEUE))?;
        connection.close();
        Ok(())
    }
}
