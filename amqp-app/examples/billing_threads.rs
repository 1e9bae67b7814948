//! The service of the example `billing` on threads, without an asynchronous runtime: handlers are plain functions, and each
//! message that is handled at the same time has a thread.
//!
//! `cargo run -p amqp-app --features threads --example billing_threads` runs it on the broker that `AMQP_URL` names, or on a
//! model broker, until a signal. With the argument `demo` it sends itself some orders, and stops.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use amqp_app::prelude::*;
use amqp_blocking::{BasicConsume, Connection, Connector};
use amqp_testkit::EnvBroker;

const ORDERS: &str = "example-billing-threads";

#[derive(serde::Serialize, serde::Deserialize)]
struct Order {
    id: u64,
    net: u64,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Invoice {
    order: u64,
    gross: u64,
}

/// The state of the application: the sum of all invoices.
#[derive(Clone, Default)]
struct Ledger(Arc<AtomicU64>);

fn bill(State(ledger): State<Ledger>, Json(order): Json<Order>) -> Result<Message, Failure> {
    if order.id == 0 {
        // Trying again does not help: parked at once.
        return Err(Failure::permanent("order 0 does not exist"));
    }
    let gross = order.net * 119 / 100;
    ledger.0.fetch_add(gross, Ordering::Relaxed);
    let invoice = Message::json(&Invoice { order: order.id, gross })?;
    Ok(invoice.to("amq.topic", "invoice.threads"))
}

fn main() -> Result<Report, Box<dyn Error>> {
    let broker = EnvBroker::start()?;
    let connector = Connector::new(&broker.uri)?;
    let (stopper, manual) = Shutdown::manual();
    let demo_asked = std::env::args().nth(1).as_deref() == Some("demo");
    let shutdown = if demo_asked { manual } else { Shutdown::on_signals() };
    let demonstration = demo_asked.then(|| {
        let connector = connector.clone();
        thread::spawn(move || {
            let result = connector.connect().map_err(Into::into).and_then(|it| demo(&it));
            result.unwrap_or_else(|error| eprintln!("demo: {error}"));
            stopper.stop();
        })
    });
    println!("billing; stop with Ctrl-C");
    let orders = Consume::topic(ORDERS, ["order.threads"])
        .concurrency(4)
        .by_header("tenant")
        .on_failure(Retry::now(1).and_after([10, 60].map(Duration::from_secs)).then_park());
    let app = App::with_state(connector, Ledger::default()).consume(orders, bill);
    let report = app.run(shutdown.within(Duration::from_secs(30)))?;
    println!("{} handled, {} parked", report.handled, report.parked);
    if let Some(demonstration) = demonstration {
        let _ = demonstration.join();
    }
    Ok(report)
}

/// Sends three orders, and waits until two of them are billed and one is parked.
fn demo(connection: &Connection) -> Result<(), Box<dyn Error>> {
    let channel = connection.open_channel()?;
    let invoices = channel.queue_declare(QueueDeclare::new("").exclusive())?.queue;
    channel.queue_bind(QueueBind::new(&invoices, "amq.topic", "invoice.threads"))?;
    let publisher = connection.publisher()?;
    for (id, net) in [(1, 100), (0, 5), (2, 200)] {
        let order = Message::json(&Order { id, net })?.header("tenant", "north");
        let order = order.to("amq.topic", "order.threads");
        // Until the application has bound its queue.
        while publisher.publish(&order).is_err() {
            thread::sleep(Duration::from_millis(10));
        }
    }
    for delivery in connection.consume(BasicConsume::new(&invoices))?.take(2) {
        let delivery = delivery?;
        let invoice: Invoice = serde_json::from_slice(delivery.body())?;
        println!("invoice of order {}: {}", invoice.order, invoice.gross);
        delivery.ack()?;
    }
    let parked = loop {
        match channel.basic_get(format!("{ORDERS}.parked").as_str())? {
            Some(parked) => break parked,
            None => thread::sleep(Duration::from_millis(10)),
        }
    };
    println!("parked: {}", String::from_utf8_lossy(parked.body()));
    Ok(parked.ack()?)
}
