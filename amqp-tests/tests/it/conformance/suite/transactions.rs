//! Transactions: what takes effect at a commit.

use super::api::{At, BasicConsume, BasicQos, Publish, QueueDeclare, QueueDelete, TryRecvError};
use super::at::{next, on_every_adapter, ready};
use super::scopes::queue_with;
use crate::support::unique;

on_every_adapter! {
    na_26_publishes_take_effect_when_they_are_committed
    na_26_what_follows_a_commit_waits_for_its_reply
    br_32_acks_take_effect_when_they_are_committed
    br_18_an_unroutable_message_comes_back_at_the_commit
}

async fn na_26_publishes_take_effect_when_they_are_committed(at: At) {
    let (connection, channel, queue) = queue_with(&at, &[]).await;
    let tx = channel.tx_select().await.unwrap();
    tx.channel().basic_publish(Publish::new("", &queue, b"dropped")).await.unwrap();
    tx.rollback().await.unwrap();
    channel.basic_publish(Publish::new("", &queue, b"kept")).await.unwrap();
    let count = channel.queue_declare(QueueDeclare::passive(&queue)).await.unwrap().message_count;
    assert_eq!(count, 0);
    tx.commit().await.unwrap();
    let got = channel.basic_get(queue.as_str()).await.unwrap().unwrap();
    assert_eq!((got.body(), got.message_count()), (b"kept".as_slice(), Some(0)));
    got.ack().unwrap();
    tx.commit().await.unwrap();
    connection.close().await;
}

/// RabbitMQ closes the connection if a method arrives while it commits to a durable queue.
async fn na_26_what_follows_a_commit_waits_for_its_reply(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = unique("commits");
    channel.queue_declare(QueueDeclare::classic(&queue)).await.unwrap();
    let tx = channel.tx_select().await.unwrap();
    for _ in 0..20 {
        let message = Publish::new("", &queue, b"m").persistent();
        channel.basic_publish(message.clone()).await.unwrap();
        let behind = async {
            channel.basic_publish(message).await.unwrap();
            channel.basic_qos(BasicQos::new(1)).await
        };
        let (committed, set) = smol::future::zip(tx.commit(), behind).await;
        committed.unwrap();
        set.unwrap();
        tx.commit().await.unwrap();
    }
    ready(&channel, &queue, 40).await;
    channel.queue_delete(QueueDelete::new(&queue)).await.unwrap();
    connection.close().await;
}

/// After a rollback a delivery is neither ready nor redelivered, and can be acked again.
async fn br_32_acks_take_effect_when_they_are_committed(at: At) {
    let (connection, channel, queue) = queue_with(&at, &["1", "2"]).await;
    let tx = channel.tx_select().await.unwrap();
    let consume = BasicConsume::new(&queue).prefetch(1);
    let mut consumer = channel.basic_consume(consume).await.unwrap();
    let first = next(&mut consumer).await;
    let tag = first.tag();
    first.ack().unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(
        consumer.try_recv().unwrap_err(),
        TryRecvError::Empty,
        "a rollback gives nothing back"
    );
    channel.basic_ack(tag, false).unwrap();
    assert!(channel.basic_ack(tag, false).is_err(), "within one transaction once");
    assert_eq!(
        consumer.try_recv().unwrap_err(),
        TryRecvError::Empty,
        "its place is free at the commit"
    );
    tx.commit().await.unwrap();
    let second = next(&mut consumer).await;
    assert_eq!(second.body(), b"2");
    second.nack(true).unwrap();
    tx.commit().await.unwrap();
    let again = next(&mut consumer).await;
    assert!(again.redelivered());
    again.ack().unwrap();
    // Uncommitted at the close: the message goes back.
    channel.close().await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    ready(&channel, &queue, 1).await;
    connection.close().await;
}

async fn br_18_an_unroutable_message_comes_back_at_the_commit(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let tx = channel.tx_select().await.unwrap();
    let nowhere = unique("nowhere");
    channel.basic_publish(Publish::new("", &nowhere, b"lost").mandatory()).await.unwrap();
    channel.basic_qos(BasicQos::new(1)).await.unwrap();
    assert!(channel.take_returned().is_none());
    tx.commit().await.unwrap();
    let returned = channel.take_returned().unwrap();
    assert_eq!((returned.code.code(), returned.message.body()), (312, b"lost".as_slice()));
    connection.close().await;
}
