//! An outbox: orders and the messages about them are stored together, and a relay publishes the messages. A map stands for the
//! database.
//!
//! `cargo run -p amqp-app --example outbox` runs it on the broker that `AMQP_URL` names, or on a model broker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amqp_app::prelude::*;
use amqp_app::{BoxError, Outbox, Relay};
use amqp_testkit::EnvBroker;
use amqp_tokio::Connector;

const PLACED: &str = "example-outbox";

/// The database: a table of orders, and one of messages that are not sent.
#[derive(Clone, Default)]
struct Database(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    orders: Vec<u64>,
    messages: BTreeMap<u64, Message>,
    last_id: u64,
}

impl Database {
    fn transaction(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores an order and the message about it, or neither.
    fn place(&self, order: u64) {
        let mut tables = self.transaction();
        tables.orders.push(order);
        tables.last_id += 1;
        let id = tables.last_id;
        tables.messages.insert(id, Message::new(order.to_string()).to_queue(PLACED));
    }
}

impl Outbox for Database {
    type Id = u64;

    async fn take(&mut self, most: usize) -> Result<Vec<(u64, Message)>, BoxError> {
        let tables = self.transaction();
        let oldest = tables.messages.iter().take(most);
        Ok(oldest.map(|(id, message)| (*id, message.clone())).collect())
    }

    async fn sent(&mut self, ids: &[u64]) -> Result<(), BoxError> {
        self.transaction().messages.retain(|id, _| !ids.contains(id));
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let pool = Pool::new(Connector::new(&broker.uri)?, 1).connect().await?;
    let connection = pool.connection().await?;
    let channel = connection.open_channel().await?;
    channel.queue_declare(QueueDeclare::classic(PLACED)).await?;

    let database = Database::default();
    let (stopper, shutdown) = Shutdown::manual();
    let relay = Relay::new(database.clone(), &pool).every(Duration::from_millis(50));
    let relaying = tokio::spawn(relay.run(shutdown));
    for order in 1..=3 {
        database.place(order);
    }
    for _ in 0..3 {
        let placed = connection.consume_one(PLACED, Duration::from_secs(10)).await?;
        let placed = placed.ok_or("no message within 10 s")?;
        println!("placed: order {}", String::from_utf8_lossy(placed.body()));
        placed.ack()?;
    }
    stopper.stop();
    let report = relaying.await??;
    println!("{} sent, {} left", report.sent, database.transaction().messages.len());

    channel.queue_delete(QueueDelete::new(PLACED)).await?;
    pool.close().await;
    Ok(())
}
