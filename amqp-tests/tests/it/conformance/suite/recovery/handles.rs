//! The handles of before are those of after.

use std::io::ErrorKind;
use std::time::Duration;

use amqp_testkit::{Direction, Fault};

use super::Lossy;
use super::api::{
    self, AckError, At, BasicConsume, BasicQos, ChannelCause, CloseCause, Error, Heartbeat,
    Publish, QueueDeclare, QueueDelete,
};
use super::at::{consumer_of, next, on_every_adapter, publish, ready};
use crate::support::{self, code, exclusive, sleep, unique, within};

on_every_adapter! {
    na_4_the_same_handles_go_on_after_each_loss
    na_4_an_exclusive_queue_comes_back_when_the_broker_lets_go
    r1_prefetch_and_consumer_tags_are_as_before
    r8_a_channel_that_has_ended_stays_closed
    a_transaction_that_is_lost_is_not_committed
}

async fn na_4_the_same_handles_go_on_after_each_loss(at: At) {
    let mut lossy = Lossy::connect(&at).await;
    let channel = lossy.channel().await;
    let name = unique("goes-on");
    channel.queue_declare(QueueDeclare::new(&name).durable()).await.unwrap();
    let publisher = lossy.connection.publisher().await.unwrap();
    let mut consumer = consumer_of(&channel, &name).await;
    let tag = consumer.tag().to_owned();
    for (fault, kind) in
        [(Fault::Cut, ErrorKind::UnexpectedEof), (Fault::Reset, ErrorKind::ConnectionReset)]
    {
        publisher.publish(Publish::to_queue(&name, "kept").mandatory()).await.unwrap();
        let old = next(&mut consumer).await;
        lossy.proxy.inject(Direction::ToClient, fault);
        let cause = lossy.is_lost().await;
        let CloseCause::Transport(error) = &cause else { panic!("{cause:?}") };
        assert_eq!(error.kind, kind, "{fault:?}");
        assert_eq!(lossy.is_recovered().await, []);
        assert!(lossy.connection.is_open() && channel.is_open() && publisher.is_open());
        assert!(channel.number().is_some() && !consumer.is_ended());

        let again = next(&mut consumer).await;
        assert_eq!((again.body(), again.redelivered()), (b"kept".as_slice(), true));
        assert_eq!((again.consumer_tag(), consumer.tag()), (&*tag, &*tag));
        // The broker would take the tag for that of the new delivery, and refuse the new delivery's own ack.
        assert!(old.is_stale());
        assert!(matches!(old.ack_multiple(), Err(AckError::Stale(_))));
        publisher.publish(Publish::to_queue(&name, "new").mandatory()).await.unwrap();
        let new = next(&mut consumer).await;
        assert_eq!((new.body(), new.redelivered()), (b"new".as_slice(), false));
        new.ack().unwrap();
        again.ack().unwrap();
        ready(&channel, &name, 0).await;
    }
    assert_eq!(lossy.proxy.accepted(), 3);
    channel.queue_delete(QueueDelete::new(&name)).await.unwrap();
    lossy.connection.close().await;
}

/// R1: RabbitMQ holds the old connection, and with it the queue, until it notices the loss too.
async fn na_4_an_exclusive_queue_comes_back_when_the_broker_lets_go(at: At) {
    let two_seconds = |config: api::Config| config.heartbeat(Heartbeat::Seconds(2));
    let mut lossy = Lossy::open(&at, two_seconds).await;
    let channel = lossy.channel().await;
    let queue = channel.queue_declare(exclusive("locked")).await.unwrap();
    let publisher = lossy.connection.publisher().await.unwrap();
    let mut consumer = consumer_of(&channel, queue.name()).await;
    for direction in [Direction::ToBroker, Direction::ToClient] {
        lossy.proxy.inject(direction, Fault::Pause);
    }
    let cause = lossy.is_lost().await;
    assert!(matches!(cause, CloseCause::HeartbeatTimeout { .. }), "{cause:?}");
    if at.uri() == support::model().uri() {
        within("the next connection", async {
            while lossy.proxy.accepted() < 2 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        // The model has no timers. It notices the loss when the line is up again, after the queue was refused.
        sleep(Duration::from_secs(1)).await;
        lossy.proxy.resume();
    }
    assert_eq!(lossy.is_recovered().await, []);
    publisher.publish(Publish::to_queue(queue.name(), "after").mandatory()).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.body(), b"after");
    delivery.ack().unwrap();
    lossy.connection.close().await;
}

async fn r1_prefetch_and_consumer_tags_are_as_before(at: At) {
    const MESSAGES: u32 = 20;
    let mut lossy = Lossy::connect(&at).await;
    let channel = lossy.channel().await;
    channel.basic_qos(BasicQos::new(4)).await.unwrap();
    let mut consumers = Vec::new();
    for (own, held) in [(None, 4), (Some(2), 2), (Some(7), 7)] {
        let name = unique("filled");
        channel.queue_declare(QueueDeclare::new(&name).durable()).await.unwrap();
        publish(&channel, &name, ["x"; MESSAGES as usize]).await;
        let consume = BasicConsume::new(&name);
        let consume = if let Some(count) = own { consume.prefetch(count) } else { consume };
        let consumer = channel.basic_consume(consume).await.unwrap();
        ready(&channel, &name, MESSAGES - held).await;
        consumers.push((name, held, consumer));
    }
    let tags: Vec<_> = consumers.iter().map(|(.., consumer)| consumer.tag().to_owned()).collect();
    for _ in 0..2 {
        lossy.proxy.inject(Direction::ToClient, Fault::Cut);
        lossy.is_lost().await;
        assert_eq!(lossy.is_recovered().await, []);
        for ((name, held, consumer), tag) in consumers.iter_mut().zip(&tags) {
            let mut unread = Vec::new();
            for _ in 0..*held {
                unread.push(next(consumer).await);
            }
            assert!(api::is_silent(consumer, Duration::from_millis(300)).await);
            assert!(unread.iter().all(|delivery| delivery.consumer_tag() == tag));
            ready(&channel, name, MESSAGES - *held).await;
            unread.into_iter().for_each(|delivery| delivery.requeue().unwrap());
        }
    }
    for (name, _, consumer) in consumers {
        drop(consumer);
        channel.queue_delete(QueueDelete::new(name)).await.unwrap();
    }
    lossy.connection.close().await;
}

async fn r8_a_channel_that_has_ended_stays_closed(at: At) {
    let mut lossy = Lossy::connect(&at).await;
    let (refused, closed, open) =
        (lossy.channel().await, lossy.channel().await, lossy.channel().await);
    let passive = || QueueDeclare::passive("not-there");
    assert_eq!(code(&refused.queue_declare(passive()).await.unwrap_err()), 404);
    closed.close().await.unwrap();
    lossy.proxy.inject(Direction::ToClient, Fault::Cut);
    lossy.is_lost().await;
    assert_eq!(lossy.is_recovered().await, []);
    assert_eq!(code(&refused.queue_declare(passive()).await.unwrap_err()), 404);
    let by_client = Error::Channel(ChannelCause::ByClient);
    assert_eq!(closed.queue_declare(passive()).await.unwrap_err(), by_client);
    open.queue_declare(exclusive("open")).await.unwrap();
    lossy.connection.close().await;
}

async fn a_transaction_that_is_lost_is_not_committed(at: At) {
    let mut lossy = Lossy::connect(&at).await;
    let name = unique("transacted");
    let watching = lossy.channel().await;
    watching.queue_declare(QueueDeclare::new(&name).durable()).await.unwrap();
    let tx = lossy.channel().await.tx_select().await.unwrap();
    publish(&tx.channel(), &name, ["lost"]).await;
    lossy.proxy.inject(Direction::ToClient, Fault::Cut);
    lossy.is_lost().await;
    assert_eq!(lossy.is_recovered().await, []);
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
    publish(&tx.channel(), &name, ["kept"]).await;
    tx.commit().await.unwrap();
    ready(&watching, &name, 1).await;
    watching.queue_delete(QueueDelete::new(&name)).await.unwrap();
    lossy.connection.close().await;
}
