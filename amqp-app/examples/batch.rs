//! Batches: a handler stores several orders at once. One bad order is parked, and does not take the others with it.
//!
//! `cargo run -p amqp-app --example batch` runs it on the broker that `AMQP_URL` names, or on a model broker.

use std::sync::{Arc, Mutex, PoisonError};

use amqp_app::prelude::*;
use amqp_testkit::EnvBroker;
use amqp_tokio::Connector;

const ORDERS: &str = "example-batch";
const PARKED: &str = "example-batch.parked";

#[derive(Debug, serde::Deserialize, serde::Serialize)]
struct Order {
    id: u64,
    quantity: u32,
}

/// A table of orders, which refuses a quantity of 0.
#[derive(Clone, Default)]
struct Database(Arc<Mutex<Vec<u64>>>);

impl Database {
    /// Inserts all orders, or none.
    fn insert_all(&self, orders: &[Order]) -> Result<(), String> {
        if let Some(order) = orders.iter().find(|order| order.quantity == 0) {
            return Err(format!("order {} is for nothing", order.id));
        }
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stored.extend(orders.iter().map(|order| order.id));
        Ok(())
    }
}

async fn store(
    Batch(orders): Batch<Json<Order>>,
    State(database): State<Database>,
) -> Result<(), Failure> {
    let orders: Vec<Order> = orders.into_iter().map(|Json(order)| order).collect();
    let stored = database.insert_all(&orders);
    println!("a batch of {}: {}", orders.len(), if stored.is_ok() { "stored" } else { "refused" });
    Ok(stored?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connection = Connector::new(&broker.uri)?.connect().await?;
    let channel = connection.open_channel().await?;
    channel.queue_declare(QueueDeclare::new(ORDERS).durable()).await?;
    let publisher = connection.publisher().await?;
    for id in 1..=100 {
        let quantity = if id == 42 { 0 } else { 1 };
        publisher.publish(&Message::json(&Order { id, quantity })?.to_queue(ORDERS)).await?;
    }

    let database = Database::default();
    let orders = Consume::new(ORDERS)
        .batches(50, Duration::from_millis(200))
        .on_failure(Retry::none().then_park());
    let app =
        App::with_state(Connector::new(&broker.uri)?, database.clone()).consume(orders, store);
    let (stopper, shutdown) = Shutdown::manual();
    let running = tokio::spawn(app.run(shutdown));
    while channel.queue_declare(QueueDeclare::passive(ORDERS)).await?.message_count > 0
        || database.0.lock().unwrap_or_else(PoisonError::into_inner).len() < 99
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stopper.stop();
    let report = running.await??;
    println!("{} handled, {} parked", report.handled, report.parked);

    for queue in [ORDERS, PARKED] {
        channel.queue_delete(QueueDelete::new(queue)).await?;
    }
    connection.close().await;
    Ok(())
}
