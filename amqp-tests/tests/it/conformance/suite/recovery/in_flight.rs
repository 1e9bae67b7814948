//! What becomes of calls and publishes that meet a loss.

use std::time::Duration;

use amqp_testkit::{Direction, Fault};

use super::Lossy;
use super::api::{At, Error, Publish, PublishError, QueueDeclare, QueueDelete, TrySendError};
use super::at::{consumer_of, next, on_every_adapter, ready};
use crate::support::{sleep, unique, within, yield_now};

on_every_adapter! {
    r13_what_is_in_flight_is_reported
    r13_what_was_not_written_is_not_sent
    r13_what_is_called_while_the_broker_is_away_waits
}

async fn r13_what_is_in_flight_is_reported(at: At) {
    let mut lossy = Lossy::connect(&at).await;
    let channel = lossy.channel().await;
    let name = unique("in-flight");
    channel.queue_declare(QueueDeclare::new(&name).durable()).await.unwrap();
    let publisher = lossy.connection.publisher().await.unwrap();
    let other = at.connect().await;
    let watching = other.open_channel().await.unwrap();

    lossy.proxy.inject(Direction::ToClient, Fault::Pause);
    let publish = Publish::to_queue(&name, "stored").mandatory();
    let confirm = publisher.send(publish.clone()).await.unwrap();
    let calling = at.spawn(channel.queue_declare(QueueDeclare::passive(&name)));
    within("the call", async {
        while lossy.connection.stats().open_calls == 0 || lossy.connection.stats().unsent_bytes > 0
        {
            yield_now().await;
        }
    })
    .await;
    ready(&watching, &name, 1).await;
    lossy.proxy.inject(Direction::ToClient, Fault::Cut);
    let cause = lossy.is_lost().await;
    let unknown = within("an outcome", confirm).await.unwrap_err();
    assert!(matches!(unknown, PublishError::Unknown(_)), "{unknown:?}");
    assert!(unknown.may_have_been_taken() && unknown.is_retryable());
    let interrupted = within("a result", calling).await.unwrap_err();
    assert_eq!(interrupted, Error::Interrupted { cause, maybe_executed: true });
    assert!(interrupted.maybe_executed() && interrupted.is_retryable());

    assert_eq!(lossy.is_recovered().await, []);
    // It was taken: now there are two.
    publisher.publish(publish).await.unwrap();
    ready(&watching, &name, 2).await;
    channel.queue_delete(QueueDelete::new(&name)).await.unwrap();
    lossy.connection.close().await;
    other.close().await;
}

async fn r13_what_was_not_written_is_not_sent(at: At) {
    let mut lossy = Lossy::connect(&at).await;
    let channel = lossy.channel().await;
    let name = unique("unwritten");
    channel.queue_declare(QueueDeclare::new(&name).durable()).await.unwrap();
    let publisher = lossy.connection.publisher().await.unwrap();
    let second = lossy.connection.publisher().await.unwrap();
    // Its channel is open.
    second.all_confirmed().await.unwrap();

    lossy.proxy.inject(Direction::ToBroker, Fault::Pause);
    let large = vec![0; 16 << 20];
    let large = publisher.send(Publish::to_queue(&name, &large)).await.unwrap();
    let mut sent = u64::MAX;
    // Until the sockets take no more.
    while std::mem::replace(&mut sent, lossy.connection.stats().bytes_sent) != sent {
        sleep(Duration::from_millis(200)).await;
    }
    let small = second.send(Publish::to_queue(&name, "small")).await.unwrap();
    let waiting = {
        let (publisher, name) = (publisher.clone(), name.clone());
        at.spawn(async move { publisher.publish(Publish::to_queue(&name, "waits")).await })
    };
    lossy.proxy.inject(Direction::ToBroker, Fault::Cut);
    lossy.is_lost().await;
    let unknown = within("an outcome", large).await.unwrap_err();
    assert!(matches!(unknown, PublishError::Unknown(_)), "{unknown:?}");
    let unsent = within("an outcome", small).await.unwrap_err();
    assert!(matches!(unsent, PublishError::NotSent(_)), "{unsent:?}");
    assert!(!unsent.may_have_been_taken() && unsent.is_retryable());
    assert_eq!(lossy.is_recovered().await, []);
    within("a confirm", waiting).await.unwrap();
    ready(&channel, &name, 1).await;
    channel.queue_delete(QueueDelete::new(&name)).await.unwrap();
    lossy.connection.close().await;
}

async fn r13_what_is_called_while_the_broker_is_away_waits(at: At) {
    let mut lossy = Lossy::connect(&at).await;
    let channel = lossy.channel().await;
    let name = unique("waits");
    channel.queue_declare(QueueDeclare::new(&name).durable()).await.unwrap();
    let publisher = lossy.connection.publisher().await.unwrap();
    lossy.goes_down().await;
    assert!(!lossy.connection.is_open() && !channel.is_open() && !publisher.is_open());
    assert_eq!(channel.number(), None);
    let refused = publisher.try_send(Publish::to_queue(&name, "x")).unwrap_err();
    assert_eq!(refused, TrySendError::Recovering);

    let declaring = at.spawn(channel.queue_declare(QueueDeclare::passive(&name)));
    let connection = lossy.connection.clone();
    let opening = at.spawn(async move { connection.open_channel().await });
    let (consuming, queue) = (channel.clone(), name.clone());
    let consuming = at.spawn(async move { consuming.basic_consume(queue).await });
    let (confirming, queue) = (publisher.clone(), name.clone());
    let confirming =
        at.spawn(async move { confirming.publish(Publish::to_queue(&queue, "confirmed")).await });
    within("the calls", async {
        while lossy.connection.stats().open_calls < 3 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    lossy.comes_back();
    assert_eq!(lossy.is_recovered().await, []);
    assert_eq!(within("a reply", declaring).await.unwrap().queue, name);
    let opened = within("a channel", opening).await.unwrap();
    within("a confirm", confirming).await.unwrap();
    let mut consumer = within("a consumer", consuming).await.unwrap();
    next(&mut consumer).await.ack().unwrap();
    drop(consumer);
    let mut consumer = consumer_of(&opened, &name).await;
    publisher.publish(Publish::to_queue(&name, "x")).await.unwrap();
    next(&mut consumer).await.ack().unwrap();
    opened.queue_delete(QueueDelete::new(&name)).await.unwrap();
    lossy.connection.close().await;
}
