//! Publishing with confirms, many on their way at once, into a queue that takes only five messages.
//!
//! `cargo run --example blocking_confirms` runs on an embedded broker, or on the one that `AMQP_URL` names.

use amqp_blocking::{Overflow, Publish, PublishError, QueueDeclare, connect};
use amqp_testkit::EnvBroker;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri)?;
    let channel = connection.open_channel()?;
    let declare = QueueDeclare::new("").exclusive().max_length(5);
    let queue = channel.queue_declare(declare.overflow(Overflow::RejectPublish))?.queue;

    let publisher = channel.confirm_select()?;
    let mut confirms = Vec::new();
    for number in 0..12 {
        let body = number.to_string();
        confirms.push(publisher.send(Publish::new("", &queue, &body).mandatory())?);
    }
    let (mut taken, mut refused) = (0, 0);
    for confirm in confirms {
        match confirm.wait() {
            Ok(()) => taken += 1,
            Err(PublishError::Nacked) => refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    println!("{taken} taken, {refused} refused");
    connection.close();
    Ok(())
}
