//! One channel, one publisher and one consumer, shared by threads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;

use super::api::{
    At, BasicConsume, Overflow, Publish, PublishError, QueueDeclare, QueueDelete, on_rabbitmq,
};
use super::at::ready;

use crate::support::{unique, within};

const THREADS: u32 = 8;
const EACH: u32 = 600;

/// What becomes of a message is known beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Confirmed,
    Nacked,
    Returned,
}

const fn expected(number: u32) -> Outcome {
    match number % 3 {
        0 => Outcome::Confirmed,
        1 => Outcome::Nacked,
        _ => Outcome::Returned,
    }
}

on_rabbitmq! {
    h7_threads_that_share_handles_get_what_is_theirs
}

async fn h7_threads_that_share_handles_get_what_is_theirs(at: At) {
    let connection = at.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let (taken, full) = (unique("taken"), unique("full"));
    channel.queue_declare(QueueDeclare::new(&taken)).await.unwrap();
    let declare = QueueDeclare::new(&full).max_length(1).overflow(Overflow::RejectPublish);
    channel.queue_declare(declare).await.unwrap();
    // Calls and publishes go by one channel.
    let publisher = channel.confirm_select().await.unwrap();
    publisher.publish(Publish::new("", &full, b"fills it")).await.unwrap();
    let consuming = connection.open_channel().await.unwrap();
    let consumer = consuming.basic_consume(BasicConsume::new(&taken).prefetch(50)).await.unwrap();
    let consumer = Arc::new(smol::lock::Mutex::new(consumer));
    let delivered = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));

    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let (channel, publisher) = (channel.clone(), publisher.clone());
            let (consumer, delivered) = (Arc::clone(&consumer), Arc::clone(&delivered));
            let (taken, full) = (taken.clone(), full.clone());
            thread::spawn(move || {
                smol::block_on(async {
                    let mut outcomes = BTreeMap::new();
                    for message in 0..EACH {
                        // Some are cut into frames, which must not mingle.
                        let name = format!("{number}-{message}");
                        let large = message % 60 == 0;
                        let body = if large { format!("{name} ").repeat(30_000) } else { name };
                        let key = match expected(message) {
                            Outcome::Confirmed => &*taken,
                            Outcome::Nacked => &*full,
                            Outcome::Returned => "nowhere at all",
                        };
                        let publish = Publish::new("", key, &body).mandatory();
                        let outcome = match within("an outcome", publisher.publish(publish)).await {
                            Ok(()) => Outcome::Confirmed,
                            Err(PublishError::Nacked) => Outcome::Nacked,
                            Err(PublishError::Returned(returned)) => {
                                assert_eq!(returned.message.body(), body.as_bytes());
                                Outcome::Returned
                            }
                            Err(error) => panic!("{error}"),
                        };
                        assert_eq!(outcome, expected(message));
                        *outcomes.entry(outcome).or_insert(0) += 1;
                        if outcome == Outcome::Confirmed {
                            let next = async { consumer.lock().await.next().await };
                            let delivery = within("a delivery", next).await.unwrap().unwrap();
                            let body = String::from_utf8(delivery.body().to_vec()).unwrap();
                            *delivered.lock().unwrap().entry(body).or_insert(0) += 1;
                            delivery.ack().unwrap();
                        }
                        if message % 50 == 0 {
                            let passive = QueueDeclare::passive(&full);
                            let declared =
                                within("an answer", channel.queue_declare(passive)).await;
                            assert_eq!(declared.unwrap().queue, full);
                        }
                    }
                    outcomes
                })
            })
        })
        .collect();
    let joined = smol::unblock(|| {
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for outcomes in joined.await {
        assert_eq!(outcomes.values().copied().collect::<Vec<_>>(), [EACH / 3; 3]);
    }
    // Each confirmed message came once, whoever took it.
    {
        let delivered = delivered.lock().unwrap();
        assert_eq!(delivered.len() as u32, THREADS * EACH / 3);
        assert!(delivered.values().all(|count| *count == 1));
    }
    ready(&channel, &taken, 0).await;
    for queue in [&taken, &full] {
        channel.queue_delete(QueueDelete::new(queue)).await.unwrap();
    }
    let stats = connection.stats();
    assert_eq!((stats.unacked, stats.unconfirmed, stats.open_calls), (0, 0, 0));
    connection.close().await;
}
