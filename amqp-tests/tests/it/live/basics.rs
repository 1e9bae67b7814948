//! The main job, step by step.

use adapter_tokio::{BasicConsume, Publish};

use super::{connect, exclusive, within};

#[tokio::test]
async fn declare_publish_confirm_consume_ack() {
    let connection = connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("main-job")).await.unwrap();
    let publisher = channel.confirm_select().await.unwrap();
    publisher
        .publish(Publish::new("", queue.name(), b"one").persistent().mandatory())
        .await
        .unwrap();
    let mut consumer = channel.basic_consume(BasicConsume::new(queue.name())).await.unwrap();
    let delivery = within("a delivery", consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.body(), b"one");
    assert_eq!(delivery.properties().unwrap().delivery_mode, Some(2));
    delivery.ack().unwrap();
    println!("{}", connection.close().await);
}
