//! What an application runs when a connection opens, is lost and closes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::api::{
    At, Backoff, CloseCause, Config, ConnectError, ConnectFailure, Connection, ConnectionEvent,
    Error, Publish, QueueDeclare, QueueDelete, Recovery,
};
use super::at::{Fragile, consumer_of, next, on_every_adapter, publish};
use amqp_testkit::{Direction, Fault, Proxy};

use crate::support::{sleep, unique, within};

on_every_adapter! {
    na_5_a_hook_sets_up_each_connection
    na_5_a_hook_that_fails_is_the_error_of_connecting
    na_5_a_hook_may_close_its_connection
    na_6_callbacks_hear_of_a_loss_and_of_the_end
    na_6_callbacks_hear_of_an_alarm_before_and_after_a_recovery
    pk_91_a_function_decides_about_each_loss
}

/// Recovers at once.
fn recovering(config: Config) -> Config {
    let backoff = Backoff::fixed(Duration::from_millis(20)).jitter(0.0);
    config.recovery(Recovery::automatic().backoff(backoff))
}

/// The next thing that callbacks have heard of.
async fn heard(calls: &mpsc::Receiver<String>) -> String {
    within("a callback", async {
        loop {
            match calls.try_recv() {
                Ok(call) => return call,
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

/// The queue is gone when the connection is lost. The consumer continues on the one that the hook has declared.
async fn na_5_a_hook_sets_up_each_connection(at: At) {
    let proxy = Proxy::start(at.port()).unwrap();
    let (name, runs) = (unique("hooked"), Arc::new(AtomicU32::new(0)));
    let (queue, count) = (name.clone(), Arc::clone(&runs));
    let hook = move |connection: Connection| {
        let (queue, count) = (queue.clone(), Arc::clone(&count));
        async move {
            let channel = connection.open_channel().await?;
            channel.queue_declare(QueueDeclare::new(&queue).exclusive()).await?;
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Error>(())
        }
    };
    let (calls, called) = mpsc::channel();
    let at = at.by_port(proxy.port());
    let connection = at.connect_hooked(recovering, hook, calls).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare(QueueDeclare::passive(&name)).await.unwrap();
    let mut consumer = consumer_of(&channel, &name).await;
    for run in 2..=3 {
        proxy.inject(Direction::ToClient, Fault::Cut);
        // The hook fails as long as the broker keeps the queue of the last connection: that is reported as another loss.
        while !heard(&called).await.contains("closed by the peer") {}
        // It waits until the connection is recovered.
        publish(&channel, &name, ["again"]).await;
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.body(), b"again");
        delivery.ack().unwrap();
        assert!(runs.load(Ordering::SeqCst) >= run);
    }
    connection.close().await;
}

async fn na_5_a_hook_that_fails_is_the_error_of_connecting(at: At) {
    let hook = |connection: Connection| async move {
        let channel = connection.open_channel().await?;
        channel.queue_declare(QueueDeclare::passive(unique("missing"))).await.map(|_| ())
    };
    let (calls, called) = mpsc::channel();
    let error = at.connect_hooked(recovering, hook, calls).await.unwrap_err();
    let ConnectError::Failed { attempts } = error else { panic!("{error:?}") };
    let failure = &attempts.last().unwrap().failure;
    let ConnectFailure::Hook(error) = failure else { panic!("{failure:?}") };
    assert!(error.to_string().contains("NOT_FOUND"), "{error}");
    assert!(called.recv().is_err(), "no callback is called");
}

async fn na_5_a_hook_may_close_its_connection(at: At) {
    let hook = |connection: Connection| async move {
        connection.close().await;
        Ok::<_, Error>(())
    };
    let (calls, _called) = mpsc::channel();
    let connecting = at.connect_hooked(recovering, hook, calls);
    assert_eq!(within("the end", connecting).await.unwrap_err(), ConnectError::Aborted);
}

async fn na_6_callbacks_hear_of_an_alarm_before_and_after_a_recovery(at: At) {
    let broker = Fragile::like(&at);
    let at = at.to(broker.uri());
    let proxy = Proxy::start(at.port()).unwrap();
    let (calls, called) = mpsc::channel();
    let hook = |_| async { Ok::<_, Error>(()) };
    let connection =
        at.by_port(proxy.port()).connect_hooked(recovering, hook, calls).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let queue = unique("alarmed");
    channel.queue_declare(QueueDeclare::new(&queue).durable()).await.unwrap();
    broker.alarm(true);
    let publisher = connection.publisher().await.unwrap();
    let publish = Publish::to_queue(&queue, "x");
    let _before = publisher.send(publish.clone()).await.unwrap();
    assert_eq!(heard(&called).await, "blocked: low on memory");
    proxy.inject(Direction::ToClient, Fault::Cut);
    // A connection that is lost is not blocked.
    assert_eq!(heard(&called).await, "unblocked");
    assert!(heard(&called).await.starts_with("lost: "));
    let after = within("the recovery", publisher.send(publish)).await.unwrap();
    assert_eq!(heard(&called).await, "blocked: low on memory");
    broker.alarm(false);
    assert_eq!(heard(&called).await, "unblocked");
    within("a confirm", after).await.unwrap();
    channel.queue_delete(QueueDelete::new(&queue)).await.unwrap();
    connection.close().await;
    assert!(heard(&called).await.starts_with("closed: "));
}

async fn na_6_callbacks_hear_of_a_loss_and_of_the_end(at: At) {
    let proxy = Proxy::start(at.port()).unwrap();
    let at = at.by_port(proxy.port());
    for recovers in [true, false] {
        let (calls, called) = mpsc::channel();
        let configure = |config| if recovers { recovering(config) } else { config };
        let hook = |_| async { Ok::<_, Error>(()) };
        let connection = at.connect_hooked(configure, hook, calls).await.unwrap();
        proxy.inject(Direction::ToClient, Fault::Reset);
        assert!(heard(&called).await.starts_with("lost: "));
        if recovers {
            // It waits until the connection is recovered.
            within("a channel", connection.open_channel()).await.unwrap();
            assert_eq!(called.try_recv(), Err(mpsc::TryRecvError::Empty));
            connection.close().await;
        }
        assert!(heard(&called).await.starts_with("closed: "));
        let ended = within("the end of the callbacks", async {
            while called.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                sleep(Duration::from_millis(5)).await;
            }
        });
        drop(connection);
        ended.await;
    }
}

/// The first loss is recovered, the second one is not.
async fn pk_91_a_function_decides_about_each_loss(at: At) {
    let proxy = Proxy::start(at.port()).unwrap();
    let losses = AtomicU32::new(0);
    let is_first = move |cause: &CloseCause| {
        assert!(matches!(cause, CloseCause::Transport(_)), "{cause}");
        losses.fetch_add(1, Ordering::SeqCst) == 0
    };
    let at = at.by_port(proxy.port());
    let connection = at.connect_deciding(recovering, is_first).await.unwrap();
    let mut events = connection.events();
    proxy.inject(Direction::ToClient, Fault::Cut);
    within("the recovery", async {
        while !matches!(events.next().await, Some(ConnectionEvent::Recovered { .. })) {}
    })
    .await;
    assert!(connection.is_open());
    proxy.inject(Direction::ToClient, Fault::Cut);
    let cause = within("the end", connection.closed()).await;
    assert!(matches!(cause, CloseCause::Transport(_)), "{cause}");
    assert_eq!(connection.open_channel().await.map(drop).unwrap_err(), Error::Connection(cause));
}
