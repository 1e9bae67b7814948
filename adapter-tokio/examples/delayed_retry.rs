//! Retrying later, and parking what never succeeds, with dead-lettering alone.
//!
//! A failed message is rejected. Its queue dead-letters it to a waiting queue, whose messages expire after a delay and
//! are dead-lettered back. RabbitMQ counts the rounds in the header `x-death`.
//!
//! `AMQP_URL=amqp://guest:guest@localhost cargo run --example delayed_retry`: it needs a RabbitMQ, because the embedded
//! broker has no expiring messages.

use std::time::Duration;

use amqp_testkit::EnvBroker;
use amqp_tokio::{
    BasicConsume, Channel, Connection, Delivery, Error, Fault, Message, Publish, QueueDeclare,
    connect,
};

type Failure = Box<dyn std::error::Error>;

const ORDERS: &str = "example-orders";
const WAITING: &str = "example-orders.waiting";
const PARKED: &str = "example-orders.parked";
const DELAY: Duration = Duration::from_millis(200);
/// The number of retries after the first attempt.
const RETRIES_MAX: u64 = 2;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let broker = EnvBroker::external().ok_or("set AMQP_URL to a RabbitMQ")?;
    let connection = connect(&broker.uri).await?;
    let channel = connection.open_channel().await?;
    declare(&channel).await?;
    let publisher = connection.open_channel().await?.confirm_select().await?;
    for order in ["good", "bad"] {
        publisher.publish(Publish::to_queue(ORDERS, order).persistent().mandatory()).await?;
    }

    let mut orders = channel.basic_consume(BasicConsume::new(ORDERS).prefetch(1)).await?;
    let mut open = 2;
    while open > 0 {
        let delivery = orders.next().await.ok_or("the consumer ended")??;
        open -= u32::from(handle(delivery, &connection).await?);
    }
    connection.close().await;
    Ok(())
}

async fn declare(channel: &Channel) -> Result<(), Error> {
    let to = |queue: QueueDeclare, target| {
        queue.dead_letter_exchange("").dead_letter_routing_key(target)
    };
    let orders = QueueDeclare::classic(ORDERS).expires(Duration::from_secs(60));
    let waiting = QueueDeclare::classic(WAITING).expires(Duration::from_secs(60));
    channel.queue_declare(to(orders, WAITING)).await?;
    channel.queue_declare(to(waiting.message_ttl(DELAY), ORDERS)).await?;
    channel.queue_declare(QueueDeclare::classic(PARKED).expires(Duration::from_secs(60))).await?;
    Ok(())
}

/// Returns whether the order is finished: done, or parked.
async fn handle(delivery: Delivery, connection: &Connection) -> Result<bool, Failure> {
    let message = match delivery.fault() {
        None => {
            let order = String::from_utf8_lossy(delivery.body()).into_owned();
            let attempt = delivery.death_count(ORDERS)? + 1;
            if order == "good" {
                println!("{order}: done");
                delivery.ack()?;
                return Ok(true);
            }
            if attempt <= RETRIES_MAX {
                println!("{order}: attempt {attempt} failed");
                delivery.discard()?;
                return Ok(false);
            }
            println!("{order}: attempt {attempt} failed, parked");
            Message::try_from(delivery.message())?
        }
        // Too much arrived at once. It may fit the next time.
        Some(Fault::Crowded { .. }) => {
            delivery.discard()?;
            return Ok(false);
        }
        // Its headers cannot be read, so attempts cannot be counted. Its body is complete.
        Some(Fault::Malformed(_)) => Message::new(delivery.shared_body()),
        // Its body was too large to be kept. Discarded, it would come back for ever.
        Some(fault) => {
            eprintln!("dropped: {fault}");
            delivery.ack()?;
            return Ok(true);
        }
    };
    // Confirmed first, acknowledged then: a crash in between makes a duplicate, and loses nothing.
    if let Err(error) = park(connection, message).await {
        // It waits for another round, and is parked then.
        eprintln!("not parked: {error}");
        delivery.discard()?;
        return Ok(false);
    }
    delivery.ack()?;
    Ok(true)
}

/// Each message has a publisher of its own, because an error may have closed the last. Parking is rare.
async fn park(connection: &Connection, message: Message) -> Result<(), Error> {
    let mut parked = message.to_queue(PARKED).persistent().mandatory();
    // RabbitMQ refuses a message that has the name of another user.
    parked.properties.user_id = None;
    connection.publisher().await?.publish(&parked).await?;
    Ok(())
}
