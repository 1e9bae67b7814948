//! A broker that crashes and comes back.

use super::api::{
    At, BasicConsume, CloseCause, ConnectionEvent, Publish, QueueBind, QueueDeclare, QueueDelete,
    Recovery, on_rabbitmq,
};
use super::at::{next, ready};
use super::soon;
use crate::support::{exclusive, fragile, unique, within};

on_rabbitmq! {
    na_4_a_broker_that_was_killed_is_used_again
}

async fn na_4_a_broker_that_was_killed_is_used_again(at: At) {
    let node = fragile();
    let recovery = Recovery::automatic().backoff(soon());
    let at = at.to(node.uri());
    let connection = at.open(|config| config.recovery(recovery)).await.unwrap();
    let mut events = connection.events();
    let channel = connection.open_channel().await.unwrap();
    let (durable, key) = (unique("durable"), unique("key"));
    channel.queue_declare(QueueDeclare::new(&durable).durable()).await.unwrap();
    let transient = channel.queue_declare(exclusive("transient")).await.unwrap().queue;
    channel.queue_bind(QueueBind::new(&transient, "amq.topic", &key)).await.unwrap();
    let mut consumer = channel.basic_consume(BasicConsume::new(&transient)).await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    for _ in 0..10 {
        let publish = Publish::to_queue(&durable, "kept").persistent().mandatory();
        publisher.publish(publish).await.unwrap();
    }

    // Definitions reach the disk a while after they are answered, unlike confirmed messages.
    node.ctl(&["eval", "mnesia:dump_log()."]).unwrap();
    node.kill().unwrap();
    let lost = within("the loss", events.next()).await.unwrap();
    assert!(matches!(lost, ConnectionEvent::Lost(CloseCause::Transport(_))), "{lost:?}");
    node.launch().unwrap();
    loop {
        match within("the recovery", events.next()).await.unwrap() {
            ConnectionEvent::Recovered { failed } => break assert_eq!(failed, []),
            ConnectionEvent::Closed(cause) => panic!("{cause:?}"),
            _ => {}
        }
    }
    ready(&channel, &durable, 10).await;
    publisher.publish(Publish::new("amq.topic", &key, "after").mandatory()).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.body(), b"after");
    delivery.ack().unwrap();
    channel.queue_delete(QueueDelete::new(&durable)).await.unwrap();
    connection.close().await;
}
