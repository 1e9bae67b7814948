//! Connecting again without the client's recovery: a loop with a growing delay, which sets everything up each time.
//!
//! `cargo run --example recover_by_hand` runs on an embedded broker, or on the local one that `AMQP_URL` names. A proxy
//! before the broker cuts the connection twice.

use std::time::Duration;

use amqp_testkit::{Direction, EnvBroker, Fault, Proxy};
use amqp_tokio::{
    AmqpUri, Connector, Endpoint, Error, Publish, QueueDeclare, QueueDelete, Recovery,
};

const QUEUE: &str = "example-recover-by-hand";
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let proxy = Proxy::start(broker.uri.parse::<AmqpUri>()?.hosts[0].1)?;
    let connector = Connector::new(&broker.uri)?
        .endpoints([Endpoint::new("127.0.0.1", proxy.port())])
        .recovery(Recovery::never());
    let mut delay = FIRST_DELAY;
    let mut worker = Worker { connector, proxy, done: 0, connected: 0 };
    loop {
        let connected = worker.connected;
        let result = worker.work().await;
        if worker.connected > connected {
            delay = FIRST_DELAY;
        }
        match result {
            Ok(()) => break,
            // Mistakes, refusals, and a close by the broker for them: the next attempt would fail as well.
            Err(error) if !error.is_retryable() => return Err(error.into()),
            Err(error) => eprintln!("again in {delay:?}: {error}"),
        }
        tokio::time::sleep(delay).await;
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
    async fn work(&mut self) -> Result<(), Error> {
        let connection = self.connector.clone().connect().await?;
        self.connected += 1;
        let channel = connection.open_channel().await?;
        channel.queue_declare(QueueDeclare::new(QUEUE).durable()).await?;
        let publisher = connection.publisher().await?;
        let mut tasks = channel.basic_consume(QUEUE).await?;
        for _ in 0..3 {
            publisher.publish(Publish::to_queue(QUEUE, "task").persistent()).await?;
        }
        let mut here = 0;
        while let Some(task) = tasks.next().await {
            task?.ack()?;
            self.done += 1;
            here += 1;
            if here == 3 && self.connected == 3 {
                break;
            }
            if here == 3 {
                // Calls answer in order: when this one has, the broker has the acks.
                channel.queue_declare(QueueDeclare::passive(QUEUE)).await?;
                self.proxy.inject(Direction::ToClient, Fault::Cut);
            }
        }
        drop(tasks);
        channel.queue_delete(QueueDelete::new(QUEUE)).await?;
        connection.close().await;
        Ok(())
    }
}
