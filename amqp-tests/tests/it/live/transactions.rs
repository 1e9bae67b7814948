//! Transactions, which the model broker does not have.

use adapter_tokio::{BasicConsume, Error, Misuse, Publish, QueueDeclare};

use crate::support::{connect, exclusive, unique, within};

async fn ready(channel: &adapter_tokio::Channel, queue: &str) -> u32 {
    channel.queue_declare(QueueDeclare::passive(queue)).await.unwrap().message_count
}

/// NA-26: publishes are unseen until they are committed, and never seen once rolled back.
#[tokio::test]
async fn publishes_take_effect_when_they_are_committed() {
    let connection = connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("tx")).await.unwrap();
    let tx = channel.tx_select().await.unwrap();
    tx.channel().basic_publish(Publish::new("", queue.name(), b"dropped")).await.unwrap();
    tx.rollback().await.unwrap();
    channel.basic_publish(Publish::new("", queue.name(), b"kept")).await.unwrap();
    assert_eq!(ready(&channel, queue.name()).await, 0);
    tx.commit().await.unwrap();
    let got = channel.basic_get(queue.name()).await.unwrap().unwrap();
    assert_eq!((got.body(), got.message_count()), (b"kept".as_slice(), Some(0)));
    connection.close().await;
}

/// BR-32: after a rollback a delivery is unacknowledged, and may be acknowledged again.
#[tokio::test]
async fn settlements_take_effect_when_they_are_committed() {
    let connection = connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("tx-ack")).await.unwrap();
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    for body in [b"1", b"2"] {
        publisher.publish(Publish::new("", queue.name(), body)).await.unwrap();
    }
    let tx = channel.tx_select().await.unwrap();
    let consume = BasicConsume::new(queue.name()).prefetch(1);
    let mut consumer = channel.basic_consume(consume).await.unwrap();
    let first = within("a delivery", consumer.next()).await.unwrap().unwrap();
    first.ack().unwrap();
    tx.rollback().await.unwrap();
    channel.close().await.unwrap();

    let channel = connection.open_channel().await.unwrap();
    let tx = channel.tx_select().await.unwrap();
    let again = channel.basic_get(queue.name()).await.unwrap().unwrap();
    assert_eq!((again.body(), again.redelivered()), (b"1".as_slice(), true));
    again.ack().unwrap();
    tx.commit().await.unwrap();
    channel.close().await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    assert_eq!(ready(&channel, queue.name()).await, 1);
    connection.close().await;
}

/// BR-18: what reached no queue comes back before the commit resolves.
#[tokio::test]
async fn an_unroutable_message_comes_back_at_the_commit() {
    let connection = connect().await;
    let channel = connection.open_channel().await.unwrap();
    let tx = channel.tx_select().await.unwrap();
    let nowhere = unique("nowhere");
    channel.basic_publish(Publish::new("", &nowhere, b"lost").mandatory()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(channel.take_returned().unwrap().message.body(), b"lost");
    connection.close().await;
}

/// H9, BR-12: what RabbitMQ would close the channel for is refused here, and the channel lives.
#[tokio::test]
async fn modes_exclude_each_other() {
    let connection = connect().await;
    let channel = connection.open_channel().await.unwrap();
    let tx = channel.tx_select().await.unwrap();
    channel.tx_select().await.unwrap();
    let error = channel.confirm_select().await.unwrap_err();
    assert_eq!(error, Error::Misuse(Misuse::TransactionMode));
    tx.commit().await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let publisher = channel.confirm_select().await.unwrap();
    let error = channel.tx_select().await.unwrap_err();
    assert_eq!(error, Error::Misuse(Misuse::ConfirmMode));
    publisher.publish(Publish::new("", "nowhere", b"x")).await.unwrap();
    connection.close().await;
}
