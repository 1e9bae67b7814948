//! Exchanges that the model broker does not have.

use adapter_tokio::{
    ExchangeBind, ExchangeDeclare, ExchangeDelete, Publish, PublishError, QueueBind,
};

use crate::support::{connect, exclusive, unique};

/// NA-28: only what is published while the exchanges are bound arrives.
#[tokio::test]
async fn an_exchange_is_bound_to_an_exchange() {
    let connection = connect().await;
    let channel = connection.open_channel().await.unwrap();
    let (source, destination) = (unique("source"), unique("destination"));
    for exchange in [&source, &destination] {
        channel.exchange_declare(ExchangeDeclare::fanout(exchange)).await.unwrap();
    }
    let queue = channel.queue_declare(exclusive("bound")).await.unwrap();
    channel.queue_bind(QueueBind::new(queue.name(), &destination, "")).await.unwrap();
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    let publish = || publisher.publish(Publish::new(&source, "", b"x").mandatory());
    let binding = ExchangeBind::new(&destination, &source, "");
    assert!(matches!(publish().await, Err(PublishError::Returned(_))));
    channel.exchange_bind(binding.clone()).await.unwrap();
    publish().await.unwrap();
    channel.exchange_unbind(binding).await.unwrap();
    assert!(matches!(publish().await, Err(PublishError::Returned(_))));
    for exchange in [&source, &destination] {
        channel.exchange_delete(ExchangeDelete::new(exchange)).await.unwrap();
    }
    connection.close().await;
}
