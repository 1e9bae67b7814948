//! How a connection ends that the application did not close.

use super::api::{At, CloseCause, Error, Publish, PublishError, QueueDeclare, on_rabbitmq};
use super::at::consumer_of;
use crate::support::{exclusive, fragile, unique, within};

on_rabbitmq! {
    na_35_pk_26_rabbitmq_says_what_it_is
    pk_24_br_38_an_operators_close_reaches_every_handle
    pk_25_pk_76_a_killed_broker_ends_the_session_with_the_loss
}

async fn na_35_pk_26_rabbitmq_says_what_it_is(at: At) {
    let connection = at.connect().await;
    let properties = connection.server_properties();
    assert_eq!(properties.get("product").and_then(|value| value.as_str()), Some("RabbitMQ"));
    let tuning = connection.tuning();
    assert_eq!((tuning.channel_max, tuning.frame_max, tuning.heartbeat), (2047, 131_072, 60));
    connection.close().await;
}

async fn pk_24_br_38_an_operators_close_reaches_every_handle(at: At) {
    let reason = unique("because");
    let node = fragile();
    let connection = at.to(node.uri()).connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("forced")).await.unwrap();
    let mut consumer = consumer_of(&channel, queue.name()).await;
    node.ctl(&["close_all_connections", &reason]).unwrap();
    let cause = within("the end", connection.closed()).await;
    let CloseCause::ByBroker(error) = &cause else { panic!("{cause:?}") };
    assert_eq!((error.code.code(), error.text.contains(&reason)), (320, true));
    let end = consumer.next().await.unwrap().unwrap_err();
    assert_eq!(end, Error::Connection(cause.clone()));
    assert!(consumer.next().await.is_none());
    assert_eq!(connection.open_channel().await.unwrap_err(), Error::Connection(cause.clone()));
    let error = channel.queue_declare(exclusive("late")).await.unwrap_err();
    assert_eq!(error, Error::Connection(cause.clone()));
    assert_eq!(connection.close().await, cause);
}

async fn pk_25_pk_76_a_killed_broker_ends_the_session_with_the_loss(at: At) {
    let node = fragile();
    let at = at.to(node.uri());
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let name = unique("survives");
    channel.queue_declare(QueueDeclare::new(&name).durable()).await.unwrap();
    let publisher = channel.confirm_select().await.unwrap();
    let publish = Publish::new("", &name, b"kept").persistent().mandatory();
    publisher.publish(publish.clone()).await.unwrap();

    // Definitions reach the disk a while after they are answered, unlike confirmed messages.
    node.ctl(&["eval", "mnesia:dump_log()."]).unwrap();
    node.kill().unwrap();
    let cause = within("the loss", connection.closed()).await;
    assert!(matches!(cause, CloseCause::Transport(_)), "{cause:?}");
    let late = publisher.publish(publish).await.unwrap_err();
    assert_eq!(late, PublishError::NotSent(Error::Connection(cause)));
    assert!(!connection.is_open());

    // P9: what was confirmed is there after a crash.
    node.launch().unwrap();
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let passive = QueueDeclare::passive(&name);
    assert_eq!(channel.queue_declare(passive).await.unwrap().message_count, 1);
    channel.queue_delete(super::api::QueueDelete::new(&name)).await.unwrap();
    connection.close().await;
}
