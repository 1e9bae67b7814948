//! Requests and replies (RPC): a service that prices orders, and a program that asks it for many prices at once, with a
//! deadline for each.
//!
//! `cargo run -p amqp-app --example requests` runs it on the broker that `AMQP_URL` names, or on a model broker.

use amqp_app::prelude::*;
use amqp_app::{BoxError, RequestError};
use amqp_testkit::EnvBroker;
use amqp_tokio::Connector;

const PRICES: &str = "example-prices";
const WITHIN: Duration = Duration::from_secs(10);

#[derive(serde::Serialize, serde::Deserialize)]
struct Order {
    pieces: u64,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Price {
    cents: u64,
}

/// The service: what it returns goes to the one who asked.
async fn price(Json(order): Json<Order>) -> Result<Reply<Json<Price>>, Failure> {
    let cents = order.pieces.checked_mul(119).ok_or("too many pieces")?;
    Ok(Reply(Json(Price { cents })))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let pool = Pool::new(Connector::new(&broker.uri)?, 2).connect().await?;
    let connection = pool.connection().await?;
    let channel = connection.open_channel().await?;
    channel.queue_declare(QueueDeclare::classic(PRICES)).await?;
    let consume = Consume::new(PRICES).concurrency(8).on_failure(Retry::none().then_discard());
    let service = connection.consume_with(consume, price).await?;

    // Clones share one channel.
    let requester = Requester::on(&pool);
    let asking = (1..=100).map(|pieces| {
        let requester = requester.clone();
        tokio::spawn(async move {
            let request = Message::json(&Order { pieces })?.to_queue(PRICES);
            let response = requester.request(request, WITHIN).await?;
            Ok::<_, BoxError>(response.json::<Price>()?.cents)
        })
    });
    let mut sum = 0;
    for price in asking.collect::<Vec<_>>() {
        sum += price.await?.map_err(|error| error.to_string())?;
    }
    println!("100 prices add up to {sum} cents");

    // A service that is not there is an error at once.
    let request = Message::json(&Order { pieces: 1 })?.to_queue("example-no-service");
    match requester.request(request, WITHIN).await {
        Err(error @ RequestError::Unroutable { .. }) => println!("{error}"),
        other => return Err(format!("not expected: {other:?}").into()),
    }
    println!("{} requests wait", requester.stats().waiting);

    service.cancel().await?;
    channel.queue_delete(QueueDelete::new(PRICES)).await?;
    pool.close().await;
    Ok(())
}
