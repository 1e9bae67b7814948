//! Testing code that talks to RabbitMQ without a RabbitMQ: the tests below run on the model broker.
//!
//! `cargo test -p amqp-tokio --example unit_test` runs the tests, `cargo run --example unit_test` the program.

use amqp_testkit::EnvBroker;
use amqp_tokio::{Channel, Error, Publish, PublishError, Publisher, QueueDeclare, connect};

/// The code to test: moves every message of a queue to another one. Returns their number.
async fn move_all(
    channel: &Channel,
    from: &str,
    publisher: &Publisher,
    to: &str,
) -> Result<u32, Error> {
    let mut moved = 0;
    while let Some(message) = channel.basic_get(from).await? {
        // The body of an oversize message is empty.
        if message.fault().is_some() {
            message.discard()?;
            continue;
        }
        publisher.publish(Publish::to_queue(to, message.body()).mandatory()).await?;
        message.ack()?;
        moved += 1;
    }
    Ok(moved)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = EnvBroker::start()?;
    let connection = connect(&broker.uri).await?;
    let channel = connection.open_channel().await?;
    let from = channel.queue_declare(QueueDeclare::new("").exclusive()).await?.queue;
    let to = channel.queue_declare(QueueDeclare::new("").exclusive()).await?.queue;
    let publisher = connection.open_channel().await?.confirm_select().await?;
    for body in ["one", "two"] {
        publisher.publish(Publish::to_queue(&from, body)).await?;
    }
    println!("{} moved", move_all(&channel, &from, &publisher, &to).await?);
    match move_all(&channel, &to, &publisher, "example-no-such-queue").await {
        Err(Error::Publish(error)) if matches!(*error, PublishError::Returned(_)) => {
            println!("no queue to move to");
        }
        other => return Err(format!("{other:?}").into()),
    }
    connection.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use amqp_testkit::ModelBroker;
    use amqp_tokio::{Connection, Error, Publish, QueueDeclare, connect};

    use super::move_all;

    /// A broker of its own for each test: nothing is left over, and tests run side by side.
    async fn connected() -> (ModelBroker, Connection) {
        let broker = ModelBroker::start().unwrap();
        let connection = connect(&broker.uri()).await.unwrap();
        (broker, connection)
    }

    #[tokio::test]
    async fn every_message_is_moved() -> Result<(), Error> {
        let (_broker, connection) = connected().await;
        let channel = connection.open_channel().await?;
        for queue in ["from", "to"] {
            channel.queue_declare(QueueDeclare::new(queue)).await?;
        }
        let publisher = connection.open_channel().await?.confirm_select().await?;
        for body in ["one", "two"] {
            publisher.publish(Publish::to_queue("from", body)).await?;
        }
        assert_eq!(move_all(&channel, "from", &publisher, "to").await?, 2);
        assert_eq!(channel.queue_declare(QueueDeclare::passive("from")).await?.message_count, 0);
        let first = channel.basic_get("to").await?.expect("a message was moved");
        assert_eq!(first.body(), b"one");
        Ok(())
    }

    #[tokio::test]
    async fn a_message_that_cannot_be_moved_stays() -> Result<(), Error> {
        let (_broker, connection) = connected().await;
        let channel = connection.open_channel().await?;
        channel.queue_declare(QueueDeclare::new("from")).await?;
        let publisher = connection.open_channel().await?.confirm_select().await?;
        publisher.publish(Publish::to_queue("from", "one")).await?;
        let error = move_all(&channel, "from", &publisher, "missing").await.unwrap_err();
        assert!(matches!(error, Error::Publish(_)), "{error}");
        // The channel still holds it, unacknowledged. Closing requeues it.
        channel.close().await?;
        let channel = connection.open_channel().await?;
        assert_eq!(channel.queue_declare(QueueDeclare::passive("from")).await?.message_count, 1);
        Ok(())
    }
}
