//! How many deliveries a consumer holds, and which of them are to be acknowledged.

use super::api::{AckError, At, BasicConsume, BasicGet, BasicQos, Publish};
use super::at::{Scene, consumer_of, next, on_every_adapter, publish, ready};

use crate::support::{exclusive, within};

on_every_adapter! {
    the_channels_prefetch_holds_where_a_consumer_has_none
    a_limit_for_the_channel_survives_its_consumers
    a_tag_without_acknowledgement_acks_nothing
}

/// RabbitMQ's meaning, and pika's: the consumer's own, the channel's, the default.
async fn the_channels_prefetch_holds_where_a_consumer_has_none(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let mut consumers = Vec::new();
    for (of_channel, own, held) in [
        (None, None, 256),
        (Some(1), None, 1),
        (None, Some(3), 3),
        (None, None, 1),
        (Some(0), None, 300),
    ] {
        if let Some(count) = of_channel {
            channel.basic_qos(BasicQos::new(count)).await.unwrap();
        }
        let queue = channel.queue_declare(exclusive("held")).await.unwrap();
        publish(&channel, queue.name(), ["x"; 300]).await;
        let consume = BasicConsume::new(queue.name());
        let consume = if let Some(count) = own { consume.prefetch(count) } else { consume };
        consumers.push(channel.basic_consume(consume).await.unwrap());
        ready(&channel, queue.name(), 300 - held).await;
    }
    connection.close().await;
}

/// RabbitMQ 4.3 takes it for a limit of each consumer.
async fn a_limit_for_the_channel_survives_its_consumers(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    channel.basic_qos(BasicQos::new(2).global()).await.unwrap();
    let queue = channel.queue_declare(exclusive("shared")).await.unwrap();
    let consume = BasicConsume::new(queue.name());
    let first = channel.basic_consume(consume.clone()).await.unwrap();
    let second = channel.basic_consume(consume.clone().prefetch(1)).await.unwrap();
    let third = channel.basic_consume(consume.no_ack().priority(-1)).await.unwrap();
    drop(third);
    publish(&channel, queue.name(), ["x"; 6]).await;
    let held = if at.version() < (4, 3) { 2 } else { 3 };
    ready(&channel, queue.name(), 6 - held).await;
    drop((first, second));
    connection.close().await;
}

/// Direct replies repeat the tag of the delivery that comes next.
async fn a_tag_without_acknowledgement_acks_nothing(at: At) {
    let Scene { connection, channel, queue } = at.scene("counted").await;
    let other = channel.queue_declare(exclusive("not-counted")).await.unwrap();
    let consume = BasicConsume::new("amq.rabbitmq.reply-to").no_ack();
    let mut replies = channel.basic_consume(consume).await.unwrap();
    let mut counted = consumer_of(&channel, queue.name()).await;
    let properties = amqp_async::core::Properties::new().reply_to("amq.rabbitmq.reply-to");
    channel
        .basic_publish(Publish::new("", other.name(), b"ask").properties(&properties))
        .await
        .unwrap();
    let get = || channel.basic_get(BasicGet::new(other.name()).no_ack());
    let got = within("a message", async {
        loop {
            if let Some(got) = get().await.unwrap() {
                break got;
            }
        }
    })
    .await;
    let address = got.properties().unwrap().reply_to.unwrap();
    channel.basic_publish(Publish::new("", &address, b"answer")).await.unwrap();
    let reply = next(&mut replies).await;
    publish(&channel, queue.name(), ["x"]).await;
    let held = next(&mut counted).await;
    for tag in [got.tag(), reply.tag()] {
        let refused = Err(AckError::NoAck(tag.number()));
        assert_eq!(channel.basic_ack(tag, true), refused);
        assert_eq!(channel.basic_nack(tag, false, true), refused);
        assert_eq!(channel.basic_reject(tag, false), refused);
    }
    ready(&channel, queue.name(), 0).await;
    held.nack(true).unwrap();
    let again = next(&mut counted).await;
    again.ack().unwrap();
    connection.close().await;
}
