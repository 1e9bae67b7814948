//! How a recovery ends that does not succeed, and what it leaves alone.

use std::time::Duration;

use amqp_testkit::{Direction, Fault, Proxy};

use super::api::{
    At, Backoff, BasicConsume, CloseCause, ConnectError, ConnectFailure, ConnectionEvent, Error,
    Publish, PublishError, QueueDeclare, QueueDelete, Recovery,
};
use super::at::{Fragile, consumer_of, on_every_adapter};
use super::{Lossy, soon};
use crate::support::{exclusive, sleep, sockets_to, unique, within};

on_every_adapter! {
    r2_what_is_closed_while_the_broker_is_away_stays_closed
    pk_91_a_close_by_the_broker_ends_the_connection_if_the_policy_says_so
    r10_after_the_last_attempt_everything_that_waits_returns
}

async fn r2_what_is_closed_while_the_broker_is_away_stays_closed(at: At) {
    let mut lossy = Lossy::connect(&at).await;
    let (channel, closing) = (lossy.channel().await, lossy.channel().await);
    let name = unique("closed");
    channel.queue_declare(QueueDeclare::new(&name).durable()).await.unwrap();
    let mut consumer = consumer_of(&closing, &name).await;
    lossy.goes_down().await;
    within("a close", closing.close()).await.unwrap();
    assert!(within("the end", consumer.next()).await.is_none());
    lossy.comes_back();
    assert_eq!(lossy.is_recovered().await, []);
    within("the end of the consumer", async {
        let passive = QueueDeclare::passive(&name);
        while channel.queue_declare(passive.clone()).await.unwrap().consumer_count > 0 {}
    })
    .await;
    channel.queue_delete(QueueDelete::new(&name)).await.unwrap();

    lossy.goes_down().await;
    assert_eq!(within("a close", lossy.connection.close()).await, CloseCause::ByClient);
    assert_eq!(lossy.event().await, ConnectionEvent::Closed(CloseCause::ByClient));
    within("the last socket", async {
        while sockets_to(lossy.proxy.port()) > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let accepted = lossy.proxy.accepted();
    lossy.comes_back();
    // Several times the delay between attempts.
    sleep(Duration::from_millis(700)).await;
    assert_eq!(lossy.proxy.accepted(), accepted);
    assert_eq!(lossy.connection.close_cause(), Some(CloseCause::ByClient));
}

async fn pk_91_a_close_by_the_broker_ends_the_connection_if_the_policy_says_so(at: At) {
    let broker = Fragile::like(&at);
    let at = at.to(broker.uri());
    for (policy, recovers) in
        [(Recovery::automatic(), true), (Recovery::unless_closed_by_broker(), false)]
    {
        let policy = policy.backoff(soon());
        let mut lossy = Lossy::open(&at, |config| config.recovery(policy)).await;
        let channel = lossy.channel().await;
        lossy.proxy.inject(Direction::ToClient, Fault::Cut);
        lossy.is_lost().await;
        assert_eq!(lossy.is_recovered().await, []);
        broker.close_all();
        let cause = match lossy.event().await {
            ConnectionEvent::Lost(cause) if recovers => cause,
            ConnectionEvent::Closed(cause) if !recovers => cause,
            other => panic!("recovers: {recovers}, {other:?}"),
        };
        let CloseCause::ByBroker(error) = &cause else { panic!("{cause:?}") };
        assert_eq!((error.code.code(), error.text.contains("because")), (320, true));
        if recovers {
            assert_eq!(lossy.is_recovered().await, []);
            channel.queue_declare(exclusive("forced")).await.unwrap();
            lossy.connection.close().await;
        } else {
            assert_eq!(within("the end", lossy.connection.closed()).await, cause);
            let error = channel.queue_declare(exclusive("forced")).await.unwrap_err();
            assert_eq!(error, Error::Connection(cause));
        }
    }
}

async fn r10_after_the_last_attempt_everything_that_waits_returns(at: At) {
    let proxy = Proxy::start(at.port()).unwrap();
    let backoff = Backoff::fixed(Duration::from_millis(400)).jitter(0.0);
    let recovery = Recovery::automatic().backoff(backoff).attempts(3);
    let at = at.by_port(proxy.port());
    let connection = at.open(|config| config.recovery(recovery)).await.unwrap();
    let mut events = connection.events();
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("never")).await.unwrap().queue;
    let publisher = connection.publisher().await.unwrap();
    publisher.all_confirmed().await.unwrap();
    let mut consumer = channel.basic_consume(BasicConsume::new(&queue)).await.unwrap();
    // Nothing listens on its port from here on.
    drop(proxy);
    assert!(matches!(within("an event", events.next()).await, Some(ConnectionEvent::Lost(_))));
    let calling = at.spawn(channel.queue_declare(QueueDeclare::passive(&queue)));
    let opening = connection.clone();
    let opening = at.spawn(async move { opening.open_channel().await.map(drop) });
    let publishing = at
        .spawn(async move { publisher.publish(Publish::to_queue(&queue, "x")).await.unwrap_err() });

    for expected in 1..=3 {
        match within("an event", events.next()).await {
            Some(ConnectionEvent::Retrying { attempt, .. }) => assert_eq!(attempt, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let cause = within("the end", connection.closed()).await;
    assert_eq!(
        within("an event", events.next()).await,
        Some(ConnectionEvent::Closed(cause.clone()))
    );
    let CloseCause::Connect(error) = &cause else { panic!("{cause:?}") };
    let ConnectError::Failed { attempts } = &**error else { panic!("{error:?}") };
    assert!(matches!(attempts[0].failure, ConnectFailure::Dial(_)), "{attempts:?}");
    let ended = Error::Connection(cause.clone());
    assert_eq!(within("a result", calling).await.unwrap_err(), ended);
    assert_eq!(within("a result", opening).await.unwrap_err(), ended);
    let unsent = PublishError::NotSent(ended.clone());
    assert_eq!(within("an outcome", publishing).await, unsent);
    assert_eq!(within("the end", consumer.next()).await.unwrap().unwrap_err(), ended);
    assert_eq!(connection.close().await, cause);
}
