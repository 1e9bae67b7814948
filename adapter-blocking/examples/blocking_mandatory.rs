//! What becomes of a message that no queue wants: it comes back, if it is mandatory.
//!
//! `cargo run --example blocking_mandatory` runs on an embedded broker, or on the one that `AMQP_URL` names.

use amqp_blocking::{Publish, PublishError, connect};
use amqp_testkit::EnvBroker;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri)?;
    let nowhere = "example-no-such-queue";

    // With confirms, the message's own publish tells.
    let publisher = connection.open_channel()?.confirm_select()?;
    match publisher.publish(Publish::new("", nowhere, "one").mandatory()) {
        Err(PublishError::Returned(message)) => println!("one: {}", message.code),
        other => return Err(format!("{other:?}").into()),
    }
    // One that is not mandatory is gone, and confirmed.
    publisher.publish(Publish::new("", nowhere, "two"))?;
    println!("two: confirmed");

    // Without confirms, it comes back to the channel.
    let channel = connection.open_channel()?;
    channel.basic_publish(Publish::new("", nowhere, "three").mandatory())?;
    let returned = channel.returned()?;
    println!("{}: {}", String::from_utf8_lossy(returned.message.body()), returned.code);
    connection.close();
    Ok(())
}
