//! Kinds of queues: quorum queues and streams, and what expires.

use std::time::Duration;

use super::api::{
    AckError, At, BasicConsume, BasicQos, Error, Misuse, Publish, QueueDeclare, QueueDelete,
    StreamOffset, on_model, on_rabbitmq,
};
use super::at::{consumer_of, next, ready};

use crate::support::{unique, within};

on_model! {
    a_quorum_queue_gives_up_a_message_after_its_limit
    messages_and_queues_expire
    a_stream_is_read_from_any_point_and_takes_nothing_back
    a_limit_for_the_channel_is_lifted_where_a_queue_would_refuse_it
}

// A client knows a stream that was not announced by the version of RabbitMQ, and the model does not say that it is one.
on_rabbitmq! {
    a_quorum_queue_gives_up_a_message_after_its_limit
    messages_and_queues_expire
    a_stream_is_read_from_any_point_and_takes_nothing_back
    a_stream_that_was_not_announced_takes_nothing_back
    a_limit_for_the_channel_is_lifted_where_a_queue_would_refuse_it
}

/// How a message comes back to its queue.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Back {
    Reject,
    Nack,
    Recover,
    ChannelClose,
}

/// RabbitMQ 3.10 counts every redelivery. 4.3 does not count `basic.nack` and `basic.recover`.
async fn a_quorum_queue_gives_up_a_message_after_its_limit(at: At) {
    for back in [Back::Reject, Back::Nack, Back::Recover, Back::ChannelClose] {
        let counts = at.version() < (4, 3) || matches!(back, Back::Reject | Back::ChannelClose);
        returned_to_a_quorum_queue(&at, back, counts).await;
    }
}

async fn returned_to_a_quorum_queue(at: &At, back: Back, counts: bool) {
    let connection = at.connect().await;
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
    let mut consuming = connection.open_channel().await.unwrap();
    let mut consumer = consumer_of(&consuming, &name).await;
    // Where returns count, the third one is one too many: a fourth delivery shows that they do not.
    for _ in 0..if counts { 3 } else { 5 } {
        let what = format!("a delivery before {back:?}");
        let delivery = within(&what, consumer.next()).await.unwrap().unwrap();
        match back {
            Back::Reject => delivery.reject(true).unwrap(),
            Back::Nack => delivery.nack(true).unwrap(),
            Back::Recover => consuming.basic_recover().await.unwrap(),
            Back::ChannelClose => {
                consuming.close().await.unwrap();
                consuming = connection.open_channel().await.unwrap();
                consumer = consumer_of(&consuming, &name).await;
            }
        }
    }
    if counts {
        ready(&channel, &grave, 1).await;
    }
    drop(consumer);
    for queue in [&name, &grave] {
        channel.queue_delete(QueueDelete::new(queue)).await.unwrap();
    }
    connection.close().await;
}

/// What has a clock.
async fn messages_and_queues_expire(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let (name, grave) = (unique("brief"), unique("grave"));
    channel.queue_declare(QueueDeclare::new(&grave).exclusive()).await.unwrap();
    let declare = QueueDeclare::new(&name)
        .message_ttl(Duration::from_millis(50))
        .expires(Duration::from_secs(4))
        .dead_letter_exchange("")
        .dead_letter_routing_key(&grave);
    channel.queue_declare(declare).await.unwrap();
    channel.basic_publish(Publish::new("", &name, b"brief")).await.unwrap();
    ready(&channel, &grave, 1).await;
    within("the queue's end", async {
        loop {
            // Asking is a use of the queue: it is left alone for longer than it may be.
            let asking = connection.open_channel().await.unwrap();
            crate::support::sleep(Duration::from_millis(4_500)).await;
            if asking.queue_declare(QueueDeclare::passive(&name)).await.is_err() {
                break;
            }
        }
    })
    .await;
    connection.close().await;
}

/// RabbitMQ 3.10 ends the connection if a stream is given a message back.
async fn a_stream_is_read_from_any_point_and_takes_nothing_back(at: At) {
    let connection = at.connect().await;
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
        let first = next(&mut consumer).await;
        let headers = first.headers().unwrap();
        assert_eq!(headers.get("x-stream-offset").and_then(|it| it.as_i64()), Some(offset as i64));
        first.ack().unwrap();
        // Refused, dropped by the application, unread, and some of them in the handle's own hands.
        next(&mut consumer).await.nack(true).unwrap();
        drop(next(&mut consumer).await);
        let refused = next(&mut consumer).await;
        consuming.basic_nack(refused.tag(), false, true).unwrap();
        assert!(matches!(refused.reject(true), Err(AckError::AlreadyAcked(_))));
        // As if dropped, which requeues here: of a stream, acknowledges.
        let refused = next(&mut consumer).await;
        assert!(matches!(refused.nack_multiple(true), Err(AckError::Stream(_))));
        drop(consumer);
        consuming.queue_declare(QueueDeclare::passive(&name)).await.unwrap();
        assert_eq!(connection.stats().unacked, 0);
        consuming.close().await.unwrap();
    }
    assert!(connection.is_open());
    channel.queue_delete(QueueDelete::new(&name)).await.unwrap();
    connection.close().await;
}

/// Without `stream_offset` the header of the deliveries tells; RabbitMQ 3.11 and later bear refusals.
async fn a_stream_that_was_not_announced_takes_nothing_back(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let name = unique("stream");
    channel.queue_declare(QueueDeclare::stream(&name)).await.unwrap();
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    let fragile = at.version() < (3, 11);
    for dropped in [true, false] {
        let consuming = connection.open_channel().await.unwrap();
        let consume = BasicConsume::new(&name).prefetch(10).requeue_on_drop();
        let mut consumer = consuming.basic_consume(consume).await.unwrap();
        for number in 0..8 {
            publisher.publish(Publish::new("", &name, number.to_string())).await.unwrap();
        }
        let first = next(&mut consumer).await;
        let (tag, number) = (first.tag(), first.tag().number());
        let expected = if fragile { Err(AckError::MaybeStream(number)) } else { Ok(()) };
        assert_eq!(consuming.basic_nack(tag, false, true), expected);
        if fragile {
            first.ack().unwrap();
        }
        let second = next(&mut consumer).await;
        assert_eq!(second.reject(true).is_err(), fragile);
        // It is dropped, as others are, in the application's hands and unread.
        drop(next(&mut consumer).await);
        if dropped {
            drop(consumer);
        } else {
            consumer.cancel_and_requeue().await.unwrap();
        }
        consuming.queue_declare(QueueDeclare::passive(&name)).await.unwrap();
        consuming.close().await.unwrap();
    }
    let announced = || BasicConsume::new(&name).stream_offset(StreamOffset::First);
    let error = channel.basic_consume(announced().no_ack()).await.unwrap_err();
    assert_eq!(error, Error::Misuse(Misuse::StreamNeedsAck));
    let error = channel.basic_consume(announced().prefetch(0)).await.unwrap_err();
    assert_eq!(error, Error::Misuse(Misuse::StreamNeedsPrefetch));
    assert!(connection.is_open());
    channel.queue_delete(QueueDelete::new(&name)).await.unwrap();
    connection.close().await;
}

/// Quorum queues refuse consumers of a channel that has such a limit; one with its own prefetch starts.
async fn a_limit_for_the_channel_is_lifted_where_a_queue_would_refuse_it(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    channel.basic_qos(BasicQos::new(5).global()).await.unwrap();
    let name = unique("quorum");
    channel.queue_declare(QueueDeclare::quorum(&name)).await.unwrap();
    let consumer = channel.basic_consume(BasicConsume::new(&name).prefetch(2)).await.unwrap();
    for _ in 0..4 {
        channel.basic_publish(Publish::new("", &name, b"x")).await.unwrap();
    }
    ready(&channel, &name, 2).await;
    drop(consumer);
    channel.queue_delete(QueueDelete::new(&name)).await.unwrap();
    connection.close().await;
}
