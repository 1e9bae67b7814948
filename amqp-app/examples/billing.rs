//! A service that bills orders: typed JSON, retries, parking, order by tenant, RPC, middleware, graceful shutdown. Its unit
//! tests are below.
//!
//! `cargo run -p amqp-app --example billing` runs it on the broker that `AMQP_URL` names, or on a model broker, until a signal.
//! With the argument `demo` it sends itself some orders, and stops. `cargo test -p amqp-app --example billing` runs the tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amqp_app::prelude::*;
use amqp_app::{Asynchronous, Shutdown};
use amqp_testkit::EnvBroker;
use amqp_tokio::{Connection, Connector};

#[derive(serde::Serialize, serde::Deserialize)]
struct Order {
    id: u64,
    net: u64,
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Invoice {
    order: u64,
    gross: u64,
}

/// The state of the application: where the invoices' sum is kept.
#[derive(Clone, Default)]
struct Ledger(Arc<AtomicU64>);

impl Ledger {
    fn book(&self, gross: u64) -> Result<(), std::io::Error> {
        if gross > 1_000_000 {
            return Err(std::io::Error::other("the ledger is locked"));
        }
        self.0.fetch_add(gross, Ordering::Relaxed);
        Ok(())
    }
}

async fn bill(State(ledger): State<Ledger>, Json(order): Json<Order>) -> Result<Message, Failure> {
    if order.id == 0 {
        // Trying again does not help: parked at once.
        return Err(Failure::permanent("order 0 does not exist"));
    }
    let gross = order.net * 119 / 100;
    // Any error: tried again, as the policy says.
    ledger.book(gross)?;
    let invoice = Message::json(&Invoice { order: order.id, gross })?;
    Ok(invoice.to("amq.topic", "invoice.created"))
}

/// Answers with the sum of all invoices.
async fn sum(State(ledger): State<Ledger>) -> Reply<Json<u64>> {
    Reply(Json(ledger.0.load(Ordering::Relaxed)))
}

fn app<P: Asynchronous>(platform: P) -> App<P, Ledger> {
    let orders = Consume::topic("example-billing", ["order.created"])
        .concurrency(16)
        .by_header("tenant")
        .timeout(Duration::from_secs(30))
        .on_failure(Retry::now(1).and_after([10, 60].map(Duration::from_secs)).then_park());
    App::with_state(platform, Ledger::default())
        .consume(orders, bill)
        .consume(QueueDeclare::classic("example-sum"), sum)
        .wrap(|context, next| async move {
            let order = context.properties().ok().and_then(|it| it.message_id.clone());
            let outcome = next.run(context).await;
            if let Err(failure) = outcome.as_result() {
                println!("{}: {failure}", order.as_deref().unwrap_or("a message"));
            }
            outcome
        })
}

#[tokio::main]
async fn main() -> Result<Report, Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connector = Connector::new(&broker.uri)?;
    let shutdown = match std::env::args().nth(1).as_deref() {
        Some("demo") => {
            let connection = connector.connect().await?;
            Shutdown::when(async move {
                demo(&connection).await.unwrap_or_else(|error| eprintln!("demo: {error}"));
            })
        }
        _ => Shutdown::on_signals(),
    };
    println!("billing; stop with Ctrl-C");
    let report = app(connector).run(shutdown.within(Duration::from_secs(30))).await?;
    println!("{} handled, {} parked", report.handled, report.parked);
    Ok(report)
}

/// Sends three orders, and waits until two of them are billed and one is parked.
async fn demo(connection: &Connection) -> Result<(), Box<dyn std::error::Error>> {
    let channel = connection.open_channel().await?;
    let invoices = channel.queue_declare(QueueDeclare::new("").exclusive()).await?.queue;
    channel.queue_bind(QueueBind::new(&invoices, "amq.topic", "invoice.created")).await?;
    let publisher = connection.publisher().await?;
    for (id, net) in [(1, 100), (0, 5), (2, 200)] {
        let order = Message::json(&Order { id, net })?.message_id(format!("order {id}"));
        let order = order.header("tenant", "north").to("amq.topic", "order.created");
        // Until the application has bound its queue.
        while publisher.publish(&order).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let mut consumer = connection.consume(BasicConsume::new(&invoices)).await?;
    for _ in 0..2 {
        let Some(delivery) = consumer.next().await else { break };
        let delivery = delivery?;
        let invoice: Invoice = serde_json::from_slice(delivery.body())?;
        println!("invoice of order {}: {}", invoice.order, invoice.gross);
        delivery.ack()?;
    }
    let parked = loop {
        match channel.basic_get("example-billing.parked").await? {
            Some(parked) => break parked,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    println!("parked: {}", String::from_utf8_lossy(parked.body()));
    parked.ack()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use amqp_app::prelude::*;
    use amqp_app::testing::{Test, call};
    use amqp_tokio::Connector;

    use super::{Invoice, Ledger, Order, app, bill};

    #[tokio::test]
    async fn an_order_is_billed_and_nonsense_is_parked() {
        let test = Test::start(Connector::new).await;
        test.queue("invoices").await;
        test.bind("invoices", "amq.topic", "invoice.created").await;
        test.run(app(test.platform())).await;

        test.send("example-billing", &Order { id: 7, net: 100 }).await;
        let invoice: Invoice = test.expect("invoices").await;
        assert_eq!(invoice, Invoice { order: 7, gross: 119 });

        test.send_message(Message::new("no json").to_queue("example-billing")).await;
        let parked = test.expect_delivery("example-billing.parked").await;
        let reason = parked.header("retry-error").unwrap().unwrap();
        assert!(reason.as_str().unwrap().contains("expected"));
        assert_eq!(test.stop().await.parked, 1);
    }

    /// The policy takes more than a minute. The test does not.
    #[tokio::test]
    async fn an_order_that_cannot_be_booked_is_tried_for_a_minute() {
        let test = Test::start(Connector::new).await;
        test.run(app(test.platform())).await;
        test.send("example-billing", &Order { id: 8, net: 1_000_000 }).await;
        for delay in [10, 60] {
            test.advance(Duration::from_secs(delay)).await;
        }
        let parked: Order = test.expect("example-billing.parked").await;
        let report = test.stop().await;
        assert_eq!((parked.id, report.failed, report.retried, report.parked), (8, 4, 3, 1));
    }

    #[tokio::test]
    async fn order_0_fails_without_a_broker() {
        let order = Message::json(&Order { id: 0, net: 1 }).unwrap();
        let outcome = call(bill, Context::with_state(order, Ledger::default())).await;
        let failure = outcome.into_result().unwrap_err();
        assert_eq!(
            (failure.is_retried(), failure.to_string().as_str()),
            (false, "order 0 does not exist")
        );
    }
}
