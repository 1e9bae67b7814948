//! Transactions on the connections of a pool.

use std::collections::BTreeSet;
use std::thread;

use amqp_app::prelude::*;
use amqp_app::{Transaction, TransactionError};
use amqp_async::Overflow;
use amqp_testkit::{Direction, Fault, ModelBroker, Proxy};

use crate::at::{At, Make, on_model, on_rabbitmq, rabbitmq, unique, until, within};

on_model! {
    gr_16_a_transaction_that_begins_after_a_loss_is_committed
    gr_16_a_transaction_of_a_pool_is_published_as_a_whole_or_not_at_all
    gr_16_channels_of_transactions_are_kept_and_bounded
    gr_16_a_transaction_says_what_the_broker_has_refused_or_returned
    gr_16_a_transaction_whose_connection_is_lost_is_not_committed_in_part
    gr_16_a_transaction_ends_with_its_pool
}

on_rabbitmq! {
    gr_16_a_transaction_that_begins_after_a_loss_is_committed
    gr_16_a_transaction_of_a_pool_is_published_as_a_whole_or_not_at_all
    gr_16_channels_of_transactions_are_kept_and_bounded
    gr_16_a_transaction_says_what_the_broker_has_refused_or_returned
    gr_16_a_queue_that_is_full_refuses_a_part_of_a_transaction
    gr_16_a_transaction_whose_connection_is_lost_is_not_committed_in_part
    gr_16_a_transaction_ends_with_its_pool
}

async fn pool<P: Make>(uri: &str, size: usize) -> Pool<P> {
    Pool::new(P::to(uri), size).connect().await.unwrap()
}

/// Begins a transaction with a message.
async fn begun<P: Make>(pool: &Pool<P>, message: &Message) -> Transaction<P> {
    let transaction = pool.transaction().await.unwrap();
    transaction.publish(message).await.unwrap();
    transaction
}

async fn gr_16_a_transaction_of_a_pool_is_published_as_a_whole_or_not_at_all<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("committed").await;
    // Of one connection, so that the broker reads what the test asks behind what was published.
    let pool = pool::<P>(&at.uri, 1).await;
    let member = pool.connection().await.unwrap();
    let to_queue = |body: &'static str| Message::new(body).to_queue(&queue);
    // However the transaction before ended, the next transaction on its channel has nothing of it.
    for end in ["drop", "rollback", "commit"] {
        let transaction = pool.transaction().await.unwrap();
        for body in ["a", "b"] {
            transaction.publish(&to_queue(body)).await.unwrap();
        }
        let invalid = transaction.publish(&to_queue("c").message_id("i".repeat(256))).await;
        assert!(matches!(invalid, Err(TransactionError::Invalid(_))), "{invalid:?}");
        assert!(member.get(&queue).await.unwrap().is_none());
        match end {
            "drop" => drop(transaction),
            "rollback" => transaction.rollback().await,
            _ => transaction.commit().await.unwrap(),
        }
    }
    assert_eq!(client.bodies(&queue, 2).await, ["a", "b"]);
    pool.transaction().await.unwrap().commit().await.unwrap();
    assert_eq!(client.ready(&queue).await, 0);
    pool.close().await;
}

async fn gr_16_channels_of_transactions_are_kept_and_bounded<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("committed").await;
    let proxy = Proxy::start(at.port()).unwrap();
    let pool = pool::<P>(&proxy.uri(), 1).await.max_transactions(2);
    // The third channel would not be opened.
    proxy.before(Direction::ToBroker, "tx.select", 3, Fault::Cut);
    let message = Message::new("it").to_queue(&queue);
    for _ in 0..5 {
        let [first, second] =
            [pool.transaction().await.unwrap(), pool.transaction().await.unwrap()];
        second.publish(&message).await.unwrap();
        let mut third = Box::pin(pool.transaction());
        // It waits for the end of one of them.
        assert!(smol::future::poll_once(&mut third).await.is_none());
        first.rollback().await;
        let third = within("a place", third).await.unwrap();
        third.publish(&message).await.unwrap();
        third.commit().await.unwrap();
        second.commit().await.unwrap();
    }
    assert_eq!(client.bodies(&queue, 10).await, ["it"; 10]);
    assert_eq!((proxy.faulted().len(), proxy.accepted()), (0, 1));
    pool.close().await;
}

async fn gr_16_a_transaction_says_what_the_broker_has_refused_or_returned<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("committed").await;
    let pool = pool::<P>(&at.uri, 1).await;
    let message = Message::new("it").to_queue(&queue);

    let transaction = begun(&pool, &message).await;
    let missing = Message::new("lost").to(unique("missing"), "key");
    transaction.publish(&missing).await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert!(
        matches!(&error, TransactionError::Refused(error) if error.code.code() == 404),
        "{error}"
    );
    assert_eq!(client.ready(&queue).await, 0, "nothing is published");

    let transaction = begun(&pool, &message).await;
    let nowhere = unique("nowhere");
    for body in ["1", "2"] {
        transaction.publish(&Message::new(body).to_queue(&nowhere)).await.unwrap();
    }
    transaction.publish(&Message::new("3").to_queue(&nowhere).optional()).await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    let TransactionError::Returned(returned) = &error else { panic!("{error}") };
    let bodies: Vec<_> = returned.iter().map(|it| it.message.body().to_vec()).collect();
    assert_eq!(bodies, [b"1", b"2"]);
    assert_eq!(client.bodies(&queue, 1).await, ["it"], "the others are published");

    begun(&pool, &message).await.commit().await.unwrap();
    assert_eq!(client.bodies(&queue, 1).await, ["it"]);
    pool.close().await;
}

async fn gr_16_a_queue_that_is_full_refuses_a_part_of_a_transaction<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (queue, full) = (client.queue("committed").await, unique("full"));
    let declare = QueueDeclare::classic(&full).max_length(1).overflow(Overflow::RejectPublish);
    client.channel.queue_declare(declare).await.unwrap();
    client.send(&full, "first").await;
    let pool = pool::<P>(&at.uri, 1).await;
    let transaction = pool.transaction().await.unwrap();
    for queue in [&queue, &full] {
        transaction.publish(&Message::new("it").to_queue(queue)).await.unwrap();
    }
    let error = transaction.commit().await.unwrap_err();
    assert!(matches!(error, TransactionError::Partial(_)), "{error}");
    assert_eq!(client.bodies(&queue, 1).await, ["it"], "the other part");
    assert_eq!(client.ready(&full).await, 1);
    pool.close().await;
}

async fn gr_16_a_transaction_whose_connection_is_lost_is_not_committed_in_part<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("committed").await;
    let proxy = Proxy::start(at.port()).unwrap();
    let pool = pool::<P>(&proxy.uri(), 1).await;
    for (direction, method, is_known) in [
        (Direction::ToBroker, "basic.publish", true),
        (Direction::ToBroker, "tx.commit", false),
        (Direction::ToClient, "tx.commit-ok", false),
    ] {
        let (faulted, accepted) = (proxy.faulted().len(), proxy.accepted());
        proxy.before(direction, method, 1, Fault::Cut);
        let transaction = begun(&pool, &Message::new("1").to_queue(&queue)).await;
        if is_known {
            until("the fault", async || proxy.faulted().len() > faulted).await;
            until("the recovery", async || proxy.accepted() > accepted && pool.status().open == 1)
                .await;
        }
        // On the recovered connection, this alone would be committed.
        let second = transaction.publish(&Message::new("2").to_queue(&queue)).await;
        assert!(second.is_ok() || is_known, "{second:?}");
        let error = within("the commit", transaction.commit()).await.unwrap_err();
        match error {
            TransactionError::Lost(_) => assert!(is_known),
            TransactionError::Unknown(_) => assert!(!is_known),
            other => panic!("{other}"),
        }
        until("the recovery", async || pool.status().open == 1).await;
        let transaction = begun(&pool, &Message::new("next").to_queue(&queue)).await;
        within("the commit", transaction.commit()).await.unwrap();
        let expected: &[&str] =
            if method == "tx.commit-ok" { &["1", "2", "next"] } else { &["next"] };
        assert_eq!(client.bodies(&queue, expected.len()).await, expected);
        assert_eq!(client.ready(&queue).await, 0);
    }
    pool.close().await;
}

/// Its channel was kept, and nothing of it is lost.
async fn gr_16_a_transaction_that_begins_after_a_loss_is_committed<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("committed").await;
    let proxy = Proxy::start(at.port()).unwrap();
    let pool = pool::<P>(&proxy.uri(), 1).await;
    let message = Message::new("it").to_queue(&queue);
    begun(&pool, &message).await.commit().await.unwrap();
    let member = pool.connection().await.unwrap();
    // Another channel of the connection publishes before the loss.
    member.publish(&message).await.unwrap();
    proxy.inject(Direction::ToClient, Fault::Cut);
    until("the recovery", async || proxy.accepted() == 2 && pool.status().open == 1).await;
    begun(&pool, &message).await.commit().await.unwrap();
    assert_eq!(client.bodies(&queue, 3).await, ["it"; 3]);
    pool.close().await;
}

async fn gr_16_a_transaction_ends_with_its_pool<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("committed").await;
    let pool = pool::<P>(&at.uri, 1).await;
    let message = Message::new("it").to_queue(&queue);
    let transaction = begun(&pool, &message).await;
    within("the close", pool.close()).await;
    let error = transaction.commit().await.unwrap_err();
    assert!(matches!(error, TransactionError::Lost(_)), "{error}");
    // The pool opens its connections again.
    begun(&pool, &message).await.commit().await.unwrap();
    assert_eq!(client.bodies(&queue, 1).await, ["it"]);
    assert_eq!(client.ready(&queue).await, 0);
    pool.close().await;
}

#[test]
fn gr_16_threads_share_the_transactions_of_a_pool_on_the_model() {
    threads_share_transactions(&ModelBroker::start().unwrap().uri());
}

#[test]
fn gr_16_threads_share_the_transactions_of_a_pool_on_rabbitmq() {
    threads_share_transactions(&rabbitmq().uri());
}

fn threads_share_transactions(uri: &str) {
    const THREADS: usize = 8;
    let connector = amqp_blocking::Connector::new(uri).unwrap();
    let pool = Pool::new(connector, 2).max_transactions(3).connect().unwrap();
    let channel = pool.connection().unwrap().open_channel().unwrap();
    let queue = unique("committed");
    channel.queue_declare(QueueDeclare::classic(&queue)).unwrap();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (pool, queue) = (&pool, &queue);
            scope.spawn(move || {
                for part in ["never", "a", "b"] {
                    let transaction = pool.transaction().unwrap();
                    let message = Message::new(format!("{number}{part}")).to_queue(queue);
                    // Threads share a transaction.
                    thread::scope(|scope| {
                        for _ in 0..2 {
                            scope.spawn(|| transaction.publish(&message).unwrap());
                        }
                    });
                    match part {
                        "never" => transaction.rollback(),
                        _ => transaction.commit().unwrap(),
                    }
                }
            });
        }
    });
    let mut received = Vec::new();
    while let Some(delivery) = channel.basic_get(&queue).unwrap() {
        received.push(String::from_utf8(delivery.body().to_vec()).unwrap());
        delivery.ack().unwrap();
    }
    assert_eq!(received.len(), 4 * THREADS);
    assert_eq!(received.into_iter().collect::<BTreeSet<_>>().len(), 2 * THREADS);
    pool.close();
}
