//! Kinds of queues that only a real RabbitMQ has: quorum queues and streams.

use std::time::Duration;

use adapter_tokio::{BasicConsume, Publish, QueueDeclare, QueueDelete, StreamOffset};

use crate::support::{connect, ready, unique, within};

#[tokio::test]
async fn a_quorum_queue_gives_up_a_message_after_its_limit() {
    let connection = connect().await;
    let channel = connection.open_channel().await.unwrap();
    let (name, grave) = (unique("quorum"), unique("grave"));
    channel.queue_declare(QueueDeclare::classic(&grave)).await.unwrap();
    let declare = QueueDeclare::quorum(&name)
        .initial_group_size(1)
        .delivery_limit(2)
        .dead_letter_exchange("")
        .dead_letter_routing_key(&grave);
    channel.queue_declare(declare).await.unwrap();
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    publisher.publish(Publish::new("", &name, b"poison").persistent().mandatory()).await.unwrap();
    let mut consumer = channel.basic_consume(BasicConsume::new(&name)).await.unwrap();
    for _ in 0..3 {
        let delivery = within("a delivery", consumer.next()).await.unwrap().unwrap();
        delivery.nack(true).unwrap();
    }
    ready(&channel, &grave, 1).await;
    drop(consumer);
    for queue in [&name, &grave] {
        channel.queue_delete(QueueDelete::new(queue)).await.unwrap();
    }
    connection.close().await;
}

/// RabbitMQ 3.10 ends the connection if a stream is given a message back.
#[tokio::test]
async fn a_stream_is_read_from_any_point_and_takes_nothing_back() {
    let connection = connect().await;
    let channel = connection.open_channel().await.unwrap();
    let name = unique("stream");
    let declare = QueueDeclare::stream(&name)
        .max_age(Duration::from_secs(3_600))
        .max_length_bytes(100_000_000)
        .max_segment_bytes(1_000_000);
    channel.queue_declare(declare).await.unwrap();
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    for number in 0..20 {
        publisher.publish(Publish::new("", &name, number.to_string())).await.unwrap();
    }
    for offset in [0, 15] {
        let consuming = connection.open_channel().await.unwrap();
        let consume = BasicConsume::new(&name)
            .prefetch(10)
            .stream_offset(StreamOffset::Offset(offset))
            .requeue_on_drop();
        let mut consumer = consuming.basic_consume(consume).await.unwrap();
        let first = within("a delivery", consumer.next()).await.unwrap().unwrap();
        let headers = first.headers().unwrap();
        assert_eq!(headers.get("x-stream-offset").and_then(|it| it.as_i64()), Some(offset as i64));
        first.ack().unwrap();
        // Unread ones, some of them in the handle's own hands.
        drop(consumer);
        consuming.queue_declare(QueueDeclare::passive(&name)).await.unwrap();
        assert_eq!(connection.stats().unsettled, 0);
        consuming.close().await.unwrap();
    }
    assert!(connection.is_open());
    channel.queue_delete(QueueDelete::new(&name)).await.unwrap();
    connection.close().await;
}
