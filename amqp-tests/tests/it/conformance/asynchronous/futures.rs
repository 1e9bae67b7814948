//! What only futures can show: calls under way at once in the order in which they were made, calls that are
//! given up, streams.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use futures_core::Stream;

use super::api::{
    At, BasicConsume, BasicGet, ChannelCause, CloseCause, Error, Publish, PublishError,
    QueueDeclare, QueueDelete, TryRecvError,
};
use super::suite::at::{Scene, consumer_of, on_every_adapter, publish, ready};
use crate::support::{exclusive, unique, within};

on_every_adapter! {
    a_driver_that_is_dropped_ends_every_handle
    dropped_calls_do_no_harm
    a_dropped_get_gives_its_message_back
    na_17_a_consumer_is_a_stream
    pk_58_gets_under_way_at_once_are_answered_in_order
    pk_55_a_close_lets_earlier_calls_finish
}

async fn dropped_calls_do_no_harm(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    for _ in 0..50 {
        let mut opening = Box::pin(connection.open_channel());
        let mut declaring = Box::pin(channel.queue_declare(exclusive("dropped")));
        let mut consuming = Box::pin(channel.basic_consume(BasicConsume::new("")));
        // One poll sends the request; then the caller loses interest.
        poll_fn(|cx| {
            assert!(opening.as_mut().poll(cx).is_pending());
            assert!(declaring.as_mut().poll(cx).is_pending());
            assert!(consuming.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }
    let queue = channel.queue_declare(exclusive("kept")).await.unwrap();
    assert!(queue.name().starts_with("kept"));
    // The 50 orphans were opened and closed again: their numbers are free.
    let mut channels = Vec::new();
    for _ in 0..100 {
        channels.push(connection.open_channel().await.unwrap());
    }
    connection.close().await;
}

async fn a_dropped_get_gives_its_message_back(at: At) {
    let Scene { connection, channel, queue } = at.scene("get-dropped").await;
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    publisher.publish(Publish::new("", queue.name(), b"kept")).await.unwrap();
    for _ in 0..20 {
        let mut getting = Box::pin(channel.basic_get(queue.name()));
        poll_fn(|cx| {
            assert!(getting.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(getting);
    }
    ready(&channel, queue.name(), 1).await;
    let got = channel.basic_get(queue.name()).await.unwrap().unwrap();
    assert_eq!(got.body(), b"kept");
    got.ack().unwrap();
    connection.close().await;
}

/// NA-17: by name and as a stream, the same messages.
async fn na_17_a_consumer_is_a_stream(at: At) {
    let Scene { connection, channel, queue } = at.scene("stream").await;
    publish(&channel, queue.name(), ["1", "2", "3"]).await;
    let mut consumer = consumer_of(&channel, queue.name()).await;
    let mut bodies = Vec::new();
    while bodies.len() < 3 {
        let item = poll_fn(|cx| Pin::new(&mut consumer).poll_next(cx));
        let delivery = within("a delivery", item).await.unwrap().unwrap();
        bodies.push(delivery.body().to_vec());
        delivery.ack().unwrap();
    }
    assert_eq!(bodies, [b"1", b"2", b"3"]);
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    assert!(!consumer.is_ended());
    publish(&channel, queue.name(), ["4"]).await;
    within("the fourth", async {
        loop {
            match consumer.try_recv() {
                Ok(delivery) => return delivery.ack().unwrap(),
                Err(_) => crate::support::yield_now().await,
            }
        }
    })
    .await;
    channel.close().await.unwrap();
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Ended);
    assert!(consumer.is_ended());
    connection.close().await;
}

async fn pk_58_gets_under_way_at_once_are_answered_in_order(at: At) {
    let Scene { connection, channel, queue } = at.scene("get").await;
    assert!(channel.basic_get(queue.name()).await.unwrap().is_none());
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    let large = vec![7; 300_000];
    for body in [b"1".as_slice(), &large, b"", b"4"] {
        publisher.publish(Publish::new("", queue.name(), body)).await.unwrap();
    }
    let no_ack = BasicGet::new(queue.name()).no_ack();
    let (first, second, third) = within("messages", async {
        tokio::join!(
            channel.basic_get(queue.name()),
            channel.basic_get(queue.name()),
            channel.basic_get(no_ack)
        )
    })
    .await;
    let [first, second, third] = [first, second, third].map(|got| got.unwrap().unwrap());
    assert_eq!((first.body(), first.message_count()), (b"1".as_slice(), Some(3)));
    assert!(second.body() == large && second.routing_key() == *queue.name());
    assert_eq!((third.body(), third.message_count(), third.consumer_tag()), (&[][..], Some(1), ""));
    third.ack().unwrap();
    second.nack(true).unwrap();
    let again = channel.basic_get(queue.name()).await.unwrap().unwrap();
    assert!(again.redelivered() && again.body() == large);
    again.ack().unwrap();
    first.ack().unwrap();
    ready(&channel, queue.name(), 1).await;
    let missing = unique("missing");
    let error = channel.basic_get(missing.as_str()).await.unwrap_err();
    assert_eq!(error.reply_code().unwrap().code(), 404);
    connection.close().await;
}

async fn pk_55_a_close_lets_earlier_calls_finish(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = unique("brief");
    let (declared, deleted, closed) = within("three answers", async {
        tokio::join!(
            channel.queue_declare(QueueDeclare::new(&queue)),
            channel.queue_delete(QueueDelete::new(&queue)),
            channel.close(),
        )
    })
    .await;
    assert_eq!(declared.unwrap().queue, queue);
    deleted.unwrap();
    closed.unwrap();
    assert_eq!(channel.close_cause(), Some(ChannelCause::ByClient));
    connection.close().await;
}

/// As it is when its runtime ends.
async fn a_driver_that_is_dropped_ends_every_handle(at: At) {
    let (drop_it, dropped) = smol::channel::bounded(1);
    let connection = at.connect_until(dropped).await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("gone")).await.unwrap();
    let mut consumer = consumer_of(&channel, queue.name()).await;
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    drop_it.send(()).await.unwrap();
    assert_eq!(within("the end", connection.closed()).await, CloseCause::DriverGone);
    let gone = Error::Connection(CloseCause::DriverGone);
    assert_eq!(within("the end", consumer.next()).await.unwrap().unwrap_err(), gone);
    assert_eq!(channel.queue_declare(exclusive("late")).await.unwrap_err(), gone);
    let late = publisher.publish(Publish::new("", "q", b"late")).await.unwrap_err();
    assert_eq!(late, PublishError::NotSent(gone));
    assert_eq!(connection.close().await, CloseCause::DriverGone);
}
