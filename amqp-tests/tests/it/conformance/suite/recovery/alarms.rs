//! A broker that blocks publishers while a connection is recovered.

use amqp_testkit::{Direction, Fault};

use super::api::{
    At, Channel, CloseCause, Config, ConnectionEvent, Consumer, Heartbeat, Publish, QueueDeclare,
    QueueDelete, Recovery,
};
use super::at::{Fragile, consumer_of, next, on_every_adapter, publish, ready};
use super::{Lossy, soon};
use crate::support::{exclusive, unique, within};

on_every_adapter! {
    pk_31_an_alarm_during_a_recovery_blocks_publishes_alone
    pk_31_what_is_published_again_waits_for_the_end_of_an_alarm
}

/// The reason that both brokers give for a memory alarm.
const REASON: &str = "low on memory";

/// RabbitMQ notices the loss of a connection that it has blocked by its heartbeats.
fn heartbeat(config: Config) -> Config {
    config.heartbeat(Heartbeat::Seconds(2))
}

/// The alarm is raised while the connection is lost.
async fn pk_31_an_alarm_during_a_recovery_blocks_publishes_alone(at: At) {
    let broker = Fragile::like(&at);
    let mut lossy = Lossy::open(&at.to(broker.uri()), heartbeat).await;
    let channel = lossy.channel().await;
    let transient = channel.queue_declare(exclusive("alarmed")).await.unwrap().queue;
    let (name, mut consumer) = filled(&channel).await;
    let publisher = lossy.connection.publisher().await.unwrap();
    publisher.all_confirmed().await.unwrap();

    lossy.goes_down().await;
    broker.alarm(true);
    lossy.comes_back();
    // Topology, channels and consumers come back. What does not publish is not blocked.
    assert_eq!(lossy.is_recovered().await, []);
    channel.queue_declare(QueueDeclare::passive(&transient)).await.unwrap();
    for body in ["1", "2"] {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.body(), body.as_bytes());
        delivery.ack().unwrap();
    }
    ready(&channel, &name, 0).await;
    // The model notices the loss of a connection that it has blocked after the alarm.
    channel.queue_delete(QueueDelete::new(&transient)).await.unwrap();
    let publish = Publish::to_queue(&name, "x").mandatory();
    let confirm = publisher.send(publish.clone()).await.unwrap();
    assert_eq!(lossy.event().await, ConnectionEvent::Blocked(REASON.into()));

    // The next connection is blocked again.
    lossy.proxy.inject(Direction::ToClient, Fault::Cut);
    assert_eq!(lossy.event().await, ConnectionEvent::Unblocked);
    lossy.is_lost().await;
    if let Err(error) = within("an outcome", confirm).await {
        assert!(error.may_have_been_taken(), "{error:?}");
    }
    assert_eq!(lossy.is_recovered().await, []);
    let confirm = publisher.send(publish).await.unwrap();
    assert_eq!(lossy.event().await, ConnectionEvent::Blocked(REASON.into()));
    broker.alarm(false);
    assert_eq!(lossy.event().await, ConnectionEvent::Unblocked);
    within("a confirm", confirm).await.unwrap();
    assert_eq!(next(&mut consumer).await.body(), b"x");
    drop(consumer);
    channel.queue_delete(QueueDelete::new(&name)).await.unwrap();
    assert_eq!(within("a close", lossy.connection.close()).await, CloseCause::ByClient);
}

/// Consumers come back before anything is published.
async fn pk_31_what_is_published_again_waits_for_the_end_of_an_alarm(at: At) {
    let broker = Fragile::like(&at);
    let policy = Recovery::automatic().backoff(soon()).republish(true);
    let configure = |config: Config| heartbeat(config).recovery(policy);
    let mut lossy = Lossy::open(&at.to(broker.uri()), configure).await;
    let channel = lossy.channel().await;
    let (name, mut consumer) = filled(&channel).await;
    let publisher = lossy.connection.publisher().await.unwrap();
    publisher.all_confirmed().await.unwrap();
    lossy.proxy.inject(Direction::ToBroker, Fault::Pause);
    let (body, mut confirms) = (vec![b'x'; 3_000], Vec::new());
    for _ in 0..100 {
        confirms.push(publisher.send(Publish::to_queue(&name, &body)).await.unwrap());
    }
    broker.alarm(true);
    for loss in 1..=2 {
        lossy.proxy.inject(Direction::ToClient, Fault::Cut);
        if loss == 2 {
            assert_eq!(lossy.event().await, ConnectionEvent::Unblocked);
        }
        lossy.is_lost().await;
        assert_eq!(lossy.is_recovered().await, []);
        assert_eq!(lossy.event().await, ConnectionEvent::Blocked(REASON.into()));
        // The broker takes what it has read with the first one.
        assert!(lossy.connection.stats().unconfirmed >= 50);
        if loss == 1 {
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.body(), b"1");
            // It is lost with this connection.
            delivery.ack().unwrap();
        }
    }
    broker.alarm(false);
    assert_eq!(lossy.event().await, ConnectionEvent::Unblocked);
    for confirm in confirms {
        within("a confirm", confirm).await.unwrap();
    }
    drop(consumer);
    channel.queue_delete(QueueDelete::new(&name)).await.unwrap();
    assert_eq!(within("a close", lossy.connection.close()).await, CloseCause::ByClient);
}

/// A durable queue with two messages, and its consumer.
async fn filled(channel: &Channel) -> (String, Consumer) {
    let name = unique("filled");
    channel.queue_declare(QueueDeclare::new(&name).durable()).await.unwrap();
    publish(channel, &name, ["1", "2"]).await;
    ready(channel, &name, 2).await;
    (name.clone(), consumer_of(channel, &name).await)
}
