//! Reading a stream from its beginning, as often as one likes.
//!
//! `AMQP_URL=amqp://guest:guest@localhost cargo run --example stream_reader`: it needs a RabbitMQ, because the embedded
//! broker has no streams.

use amqp_testkit::EnvBroker;
use amqp_tokio::{
    BasicConsume, Channel, Publish, QueueDeclare, QueueDelete, StreamOffset, connect,
};

const STREAM: &str = "example-stream";

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let broker = EnvBroker::external().ok_or("set AMQP_URL to a RabbitMQ")?;
    let connection = connect(&broker.uri).await?;
    let channel = connection.open_channel().await?;
    channel.queue_delete(QueueDelete::new(STREAM)).await?;
    channel.queue_declare(QueueDeclare::stream(STREAM)).await?;
    let publisher = connection.open_channel().await?.confirm_select().await?;
    for body in ["one", "two", "three"] {
        publisher.publish(Publish::to_queue(STREAM, body).mandatory()).await?;
    }

    // A stream keeps its messages: both readers get all of them, from where they begin.
    read(&channel, StreamOffset::First, 3).await?;
    read(&channel, StreamOffset::Offset(1), 2).await?;
    channel.queue_delete(QueueDelete::new(STREAM)).await?;
    connection.close().await;
    Ok(())
}

async fn read(channel: &Channel, from: StreamOffset, count: usize) -> Result<(), Failure> {
    // A stream wants a prefetch and acknowledgements, which only ask for more: nothing is removed.
    let consume = BasicConsume::new(STREAM).stream_offset(from).prefetch(100);
    let mut reader = channel.basic_consume(consume).await?;
    for _ in 0..count {
        let delivery = reader.next().await.ok_or("the reader ended")??;
        let offset = delivery.stream_offset().ok_or("a delivery without an offset")?;
        println!("{from:?}: {} at offset {offset}", String::from_utf8_lossy(delivery.body()));
        delivery.ack()?;
    }
    reader.cancel().await?;
    Ok(())
}
