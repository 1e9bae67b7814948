//! Exchanges, queues, bindings and consumers are as they were, or it is reported.

use std::time::Duration;

use amqp_testkit::{Direction, Fault};

use super::api::types::{FailedEntity, TopologyEntity};
use super::api::{
    At, Channel, CloseCause, Connection, ConnectionEvent, Error, ExchangeBind, ExchangeDeclare,
    ExchangeDelete, Publish, PublishError, QueueBind, QueueDeclare, QueueDelete, Recovery,
};
use super::at::{consumer_of, next, on_every_adapter, publish, ready};
use super::{Lossy, soon};
use crate::support::{code, sleep, unique, within};

on_every_adapter! {
    r5_a_queue_that_the_broker_names_is_one_after_five_losses
    r16_the_topology_is_as_declared_after_each_loss
    r6_a_conflict_is_reported_and_the_rest_is_declared
    r7_a_consumer_whose_queue_is_gone_ends_with_the_reason
    a_consumer_that_the_broker_cancels_subscribes_again_if_the_policy_says_so
}

/// Waits until a queue does not exist. Until the broker has noticed the end of a connection, it locks its exclusive queues.
async fn gone(connection: &Connection, queue: &str) {
    within("the end of the queue", async {
        loop {
            let channel = connection.open_channel().await.unwrap();
            let error = channel.queue_declare(QueueDeclare::passive(queue)).await.unwrap_err();
            if code(&error) == 404 {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn r5_a_queue_that_the_broker_names_is_one_after_five_losses(at: At) {
    let mut lossy = Lossy::connect(&at).await;
    let (other, channel) = (at.connect().await, lossy.channel().await);
    let deleting = other.open_channel().await.unwrap();
    let (checked, key) = (unique("checked"), unique("renamed"));
    deleting.queue_declare(QueueDeclare::new(&checked).durable()).await.unwrap();

    let named = channel.queue_declare(QueueDeclare::new("").exclusive()).await.unwrap().queue;
    channel.queue_bind(QueueBind::new(&named, "amq.topic", &key)).await.unwrap();
    let mut consumer = consumer_of(&channel, &named).await;
    channel.queue_declare(QueueDeclare::passive(&checked)).await.unwrap();
    deleting.queue_delete(QueueDelete::new(&checked)).await.unwrap();
    let publisher = lossy.connection.publisher().await.unwrap();
    let mut names = vec![named];
    for _ in 0..5 {
        lossy.proxy.inject(Direction::ToClient, Fault::Cut);
        lossy.is_lost().await;
        let (events, failed) = lossy.is_recovered_after().await;
        let [ConnectionEvent::QueueRenamed { from, to }] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!((&**from, failed.len()), (&**names.last().unwrap(), 0));
        let passive = channel.queue_declare(QueueDeclare::passive(to.as_ref())).await.unwrap();
        assert_eq!(passive.consumer_count, 1);
        names.push(to.to_string());
        publisher.publish(Publish::new("amq.topic", &key, "once").mandatory()).await.unwrap();
        let delivery = next(&mut consumer).await;
        assert_eq!((delivery.body(), delivery.redelivered()), (b"once".as_slice(), false));
        delivery.ack().unwrap();
    }
    let present = names.pop().unwrap();
    for earlier in &names {
        gone(&other, earlier).await;
    }
    gone(&other, &checked).await;
    ready(&channel, &present, 0).await;
    lossy.connection.close().await;
    other.close().await;
}

/// R1, R4 and R9: also what a channel declared that is closed; not what was deleted.
async fn r16_the_topology_is_as_declared_after_each_loss(at: At) {
    let mut lossy = Lossy::connect(&at).await;
    let declaring = lossy.channel().await;
    let [source, middle, queue, deleted, key] =
        ["source", "middle", "queue", "deleted", "unbound"].map(unique);
    declaring.exchange_declare(ExchangeDeclare::topic(&source)).await.unwrap();
    declaring.exchange_declare(ExchangeDeclare::fanout(&middle)).await.unwrap();
    declaring.exchange_declare(ExchangeDeclare::direct(&deleted)).await.unwrap();
    declaring.exchange_bind(ExchangeBind::new(&middle, &source, "kept.#")).await.unwrap();
    let declare = QueueDeclare::new(&queue).durable().max_length(100);
    declaring.queue_declare(declare.clone()).await.unwrap();
    declaring.queue_declare(QueueDeclare::new(&deleted).durable()).await.unwrap();
    declaring.queue_bind(QueueBind::new(&queue, &middle, "")).await.unwrap();
    let unbound = QueueBind::new(&queue, "amq.topic", &key);
    declaring.queue_bind(unbound.clone()).await.unwrap();
    declaring.queue_unbind(unbound).await.unwrap();
    declaring.queue_delete(QueueDelete::new(&deleted)).await.unwrap();
    declaring.exchange_delete(ExchangeDelete::new(&deleted)).await.unwrap();
    declaring.close().await.unwrap();
    let publisher = lossy.connection.publisher().await.unwrap();
    let other = at.connect().await;
    let others = other.open_channel().await.unwrap();
    for messages in [1, 2] {
        lossy.goes_down().await;
        if messages == 1 {
            others.queue_delete(QueueDelete::new(&queue)).await.unwrap();
            for exchange in [&source, &middle] {
                others.exchange_delete(ExchangeDelete::new(exchange)).await.unwrap();
            }
        }
        lossy.comes_back();
        assert_eq!(lossy.is_recovered().await, []);
        publisher.publish(Publish::new(&source, "kept.1", "x").mandatory()).await.unwrap();
        ready(&others, &queue, messages).await;
        // With the same arguments.
        others.queue_declare(declare.clone()).await.unwrap();
        for (exchange, key) in [("amq.topic", &*key), (&source, "other")] {
            let publish = Publish::new(exchange, key, "x").mandatory();
            let returned = publisher.publish(publish).await.unwrap_err();
            assert!(matches!(returned, PublishError::Returned(_)), "{returned:?}");
        }
        gone(&other, &deleted).await;
        let channel = other.open_channel().await.unwrap();
        let passive = ExchangeDeclare::passive(&deleted);
        assert_eq!(code(&channel.exchange_declare(passive).await.unwrap_err()), 404);
    }
    others.queue_delete(QueueDelete::new(&queue)).await.unwrap();
    for exchange in [&source, &middle] {
        others.exchange_delete(ExchangeDelete::new(exchange)).await.unwrap();
    }
    lossy.connection.close().await;
    other.close().await;
}

async fn r6_a_conflict_is_reported_and_the_rest_is_declared(at: At) {
    let mut lossy = Lossy::connect(&at).await;
    let channel = lossy.channel().await;
    let [taken, rest, key] = ["taken", "rest", "to-rest"].map(unique);
    for queue in [&taken, &rest] {
        channel.queue_declare(QueueDeclare::new(queue).durable()).await.unwrap();
    }
    channel.queue_bind(QueueBind::new(&rest, "amq.topic", &key)).await.unwrap();
    let mut consumer = consumer_of(&channel, &taken).await;
    let publisher = lossy.connection.publisher().await.unwrap();
    let (other, others) = other_client(&at).await;
    lossy.goes_down().await;
    for queue in [&taken, &rest] {
        others.queue_delete(QueueDelete::new(queue)).await.unwrap();
    }
    let conflicting = QueueDeclare::new(&taken).durable().max_length(3);
    others.queue_declare(conflicting).await.unwrap();
    lossy.comes_back();
    let failed = lossy.is_recovered().await;
    let [FailedEntity { entity, error, .. }] = &failed[..] else { panic!("{failed:?}") };
    assert_eq!(*entity, TopologyEntity::Queue { name: taken.clone() });
    assert_eq!(code(error), 406);
    publisher.publish(Publish::new("amq.topic", &key, "x").mandatory()).await.unwrap();
    ready(&others, &rest, 1).await;
    publisher.publish(Publish::to_queue(&taken, "x").mandatory()).await.unwrap();
    next(&mut consumer).await.ack().unwrap();
    for queue in [taken, rest] {
        others.queue_delete(QueueDelete::new(queue)).await.unwrap();
    }
    lossy.connection.close().await;
    other.close().await;
}

async fn r7_a_consumer_whose_queue_is_gone_ends_with_the_reason(at: At) {
    let mut lossy = Lossy::connect(&at).await;
    let channel = lossy.channel().await;
    let (other, others) = other_client(&at).await;
    let [deleted, kept] = ["deleted", "kept"].map(unique);
    // Another client's: it is not declared again.
    others.queue_declare(QueueDeclare::new(&deleted).durable()).await.unwrap();
    channel.queue_declare(QueueDeclare::new(&kept).durable()).await.unwrap();
    let mut lost = consumer_of(&channel, &deleted).await;
    let mut going_on = consumer_of(&channel, &kept).await;
    let publisher = lossy.connection.publisher().await.unwrap();
    lossy.goes_down().await;
    others.queue_delete(QueueDelete::new(&deleted)).await.unwrap();
    lossy.comes_back();
    let (events, failed) = lossy.is_recovered_after().await;
    assert_eq!(failed, []);
    let [ConnectionEvent::ConsumerLost { queue, consumer_tag, error }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((&**queue, &**consumer_tag, code(error)), (&*deleted, lost.tag(), 404));
    let end: Error = within("the end", lost.next()).await.unwrap().unwrap_err();
    assert_eq!(end, *error);
    assert!(within("the end", lost.next()).await.is_none());
    publisher.publish(Publish::to_queue(&kept, "x").mandatory()).await.unwrap();
    next(&mut going_on).await.ack().unwrap();
    channel.queue_delete(QueueDelete::new(&kept)).await.unwrap();
    lossy.connection.close().await;
    other.close().await;
}

async fn a_consumer_that_the_broker_cancels_subscribes_again_if_the_policy_says_so(at: At) {
    let policy = Recovery::automatic().backoff(soon()).resubscribe(true);
    let lossy = Lossy::open(&at, |config| config.recovery(policy)).await;
    let (other, others) = other_client(&at).await;
    let name = unique("again");
    others.queue_declare(QueueDeclare::new(&name).durable()).await.unwrap();
    let mut consumer = consumer_of(&lossy.channel().await, &name).await;
    for _ in 0..2 {
        others.queue_delete(QueueDelete::new(&name)).await.unwrap();
        others.queue_declare(QueueDeclare::new(&name).durable()).await.unwrap();
        publish(&others, &name, ["x"]).await;
        next(&mut consumer).await.ack().unwrap();
        ready(&others, &name, 0).await;
    }
    assert_eq!(lossy.connection.close().await, CloseCause::ByClient);
    others.queue_delete(QueueDelete::new(&name)).await.unwrap();
    other.close().await;
}

async fn other_client(at: &At) -> (Connection, Channel) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    (connection, channel)
}
