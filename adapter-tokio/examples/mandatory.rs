//! What becomes of a message that no queue wants: it comes back, if it is mandatory.
//!
//! `cargo run --example mandatory` runs on an embedded broker, or on the one that `AMQP_URL` names.

use amqp_testkit::EnvBroker;
use amqp_tokio::{Publish, PublishError, connect};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri).await?;
    let nowhere = "example-no-such-queue";

    // With confirms, the message's own publish tells.
    let publisher = connection.open_channel().await?.confirm_select().await?;
    match publisher.publish(Publish::new("", nowhere, "one").mandatory()).await {
        Err(PublishError::Returned(message)) => println!("one: {}", message.code),
        other => return Err(format!("{other:?}").into()),
    }
    // One that is not mandatory is gone, and confirmed.
    publisher.publish(Publish::new("", nowhere, "two")).await?;
    println!("two: confirmed");

    // Without confirms, it comes back to the channel.
    let channel = connection.open_channel().await?;
    channel.basic_publish(Publish::new("", nowhere, "three").mandatory()).await?;
    let returned = channel.returned().await?;
    println!("{}: {}", String::from_utf8_lossy(returned.message.body()), returned.code);
    connection.close().await;
    Ok(())
}
