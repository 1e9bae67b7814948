//! A broker that is short of memory reads no publishes (BR-35).

use std::time::{Duration, Instant};

use super::api::{
    self, At, BasicConsume, CloseCause, ConnectionEvent, Error, Publish, PublishError, QueueDeclare,
};
use super::at::{Fragile, next, on_every_adapter, ready};
use crate::support::{self, within};

on_every_adapter! {
    pk_31_pk_32_br_35_alarms_are_told_and_pass
}

/// The stages of an alarm follow each other on one broker: starting another costs seconds.
async fn pk_31_pk_32_br_35_alarms_are_told_and_pass(at: At) {
    let broker = Fragile::like(&at);
    let at = at.to(broker.uri());
    publishes_wait_and_resolve_once(&at, &broker).await;
    a_close_ends_by_its_deadline(&at, &broker).await;
    a_blocked_connection_may_be_given_up(&at, &broker).await;
    // Nothing of it lasts.
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let publisher = connection.open_channel().await.unwrap().confirm_select().await.unwrap();
    publisher.publish(Publish::new("", "kept", b"last").mandatory()).await.unwrap();
    channel.queue_delete(api::QueueDelete::new("kept")).await.unwrap();
    connection.close().await;
}

/// K9: told once, in order after the alarm, and deliveries go on meanwhile.
async fn publishes_wait_and_resolve_once(at: &At, broker: &Fragile) {
    let connection = at.connect().await;
    let watching = at.connect().await;
    let mut events = connection.events();
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare(QueueDeclare::new("kept").durable()).await.unwrap();
    let publisher = channel.confirm_select().await.unwrap();
    let watcher = watching.open_channel().await.unwrap();
    let mut consumer = watcher.basic_consume(BasicConsume::new("kept")).await.unwrap();

    broker.alarm(true);
    // The first one tells the broker that this connection publishes.
    let mut confirms = vec![publisher.send(Publish::new("", "kept", b"0")).await.unwrap()];
    let blocked = within("the news", events.next()).await.unwrap();
    assert_eq!(blocked, ConnectionEvent::Blocked("low on memory".into()));
    assert_eq!(connection.blocked().as_deref(), Some("low on memory"));
    let body = vec![b'x'; 3_000];
    for _ in 1..100 {
        confirms.push(publisher.send(Publish::new("", "kept", &body)).await.unwrap());
    }
    let mut last = confirms.pop().unwrap();
    assert!(api::is_open(&mut last, Duration::from_millis(300)).await);
    // Who does not publish is not blocked.
    assert_eq!(watching.blocked(), None);
    watcher.queue_declare(QueueDeclare::passive("kept")).await.unwrap();

    broker.alarm(false);
    assert_eq!(within("the news", events.next()).await, Some(ConnectionEvent::Unblocked));
    assert_eq!(connection.blocked(), None);
    for confirm in confirms {
        within("a confirm", confirm).await.unwrap();
    }
    within("a confirm", last).await.unwrap();
    for at in 0..100 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.body().len(), if at == 0 { 1 } else { 3_000 });
        delivery.ack().unwrap();
    }
    assert_eq!(events.try_next(), None);
    drop(consumer);
    ready(&watcher, "kept", 0).await;
    connection.close().await;
    watching.close().await;
}

/// K10: a blocked broker does not answer a close.
async fn a_close_ends_by_its_deadline(at: &At, broker: &Fragile) {
    let configure = |config: api::Config| config.close_timeout(Duration::from_secs(1));
    let connection = at.open(configure).await.unwrap();
    let mut events = connection.events();
    let channel = connection.open_channel().await.unwrap();
    let publisher = channel.confirm_select().await.unwrap();
    broker.alarm(true);
    let first = publisher.send(Publish::new("", "kept", b"first")).await.unwrap();
    within("the news", events.next()).await;
    let second = publisher.send(Publish::new("", "kept", b"second")).await.unwrap();
    let declaring = at.spawn(channel.queue_declare(QueueDeclare::passive("kept")));
    within("the call", async {
        while connection.stats().open_calls == 0 {
            support::yield_now().await;
        }
    })
    .await;
    let begun = Instant::now();
    assert_eq!(within("the end", connection.close()).await, CloseCause::ByClientForced);
    let taken = begun.elapsed();
    // The default would be ten times as long.
    assert!(taken >= Duration::from_secs(1) && taken < api::limits::CLOSE_TIMEOUT, "{taken:?}");
    let forced = Error::Connection(CloseCause::ByClientForced);
    assert_eq!(declaring.await.unwrap_err(), forced);
    let outcome = second.await.unwrap_err();
    assert!(matches!(outcome, PublishError::Unknown(_) | PublishError::NotSent(_)), "{outcome}");
    drop(first);
    broker.alarm(false);
}

async fn a_blocked_connection_may_be_given_up(at: &At, broker: &Fragile) {
    let configure = |config: api::Config| config.blocked_timeout(Duration::from_millis(700));
    let connection = at.open(configure).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    broker.alarm(true);
    channel.basic_publish(Publish::new("", "kept", b"x")).await.unwrap();
    let cause = within("the end", connection.closed()).await;
    let CloseCause::BlockedTimeout { reason, timeout } = cause else { panic!("{cause:?}") };
    assert_eq!((&*reason, timeout), ("low on memory", Duration::from_millis(700)));
    broker.alarm(false);
}
