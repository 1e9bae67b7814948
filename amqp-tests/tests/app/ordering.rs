//! The order of messages.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use amqp_app::prelude::*;

use crate::at::{At, Log, Make, beside, on_model, on_rabbitmq, sleep, source};

on_model! {
    messages_with_the_same_key_are_handled_in_order
    one_worker_keeps_the_order_through_attempts_in_place
}

on_rabbitmq! {
    messages_with_the_same_key_are_handled_in_order
}

async fn messages_with_the_same_key_are_handled_in_order<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("keyed").await;
    for number in 0..200 {
        let key = format!("tenant-{}", number % 5);
        let message = Message::new(number.to_string()).header("tenant", key.as_str());
        client.publish(message.to_queue(&queue)).await;
    }
    let [present, most] = [0, 0].map(|it| Arc::new(AtomicUsize::new(it)));
    let (at_work, peak) = (Arc::clone(&present), Arc::clone(&most));
    let handler = move |Text(text): Text, State(log): State<Log>, Attempt(attempt): Attempt| {
        let (at_work, peak) = (Arc::clone(&at_work), Arc::clone(&peak));
        async move {
            let number: usize = text.parse().unwrap();
            let now = at_work.fetch_add(1, Ordering::SeqCst) + 1;
            peak.fetch_max(now, Ordering::SeqCst);
            sleep(Duration::from_millis(number as u64 % 3)).await;
            at_work.fetch_sub(1, Ordering::SeqCst);
            if number.is_multiple_of(7) && attempt == 1 {
                return Err("once more");
            }
            log.add(text);
            Ok(())
        }
    };
    let policy = Retry::now(1).pause(Duration::from_millis(1));
    let consume = source(queue.as_str()).concurrency(8).prefetch(40).by_header("tenant");
    let report = beside(at.app().consume(consume.on_failure(policy), handler), async |_| {
        drop(at.log.reach(200).await);
    })
    .await;
    assert_eq!((report.handled, report.retried), (200, 29));
    let mut of_key: HashMap<usize, Vec<usize>> = HashMap::new();
    for line in at.log.lines() {
        let number: usize = line.parse().unwrap();
        of_key.entry(number % 5).or_default().push(number);
    }
    for (key, numbers) in of_key {
        assert!(numbers.is_sorted(), "key {key}: {numbers:?}");
    }
    let most = most.load(Ordering::SeqCst);
    assert!((2..=5).contains(&most), "{most} at once of five keys");
}

async fn one_worker_keeps_the_order_through_attempts_in_place<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("ordered").await;
    for number in 0..20 {
        client.send(&queue, number.to_string()).await;
    }
    let policy = Retry::now(2).pause(Duration::from_millis(1));
    let consume = source(queue.as_str()).on_failure(policy);
    let handler = async |Text(text): Text, Attempt(attempt): Attempt, State(log): State<Log>| {
        if text.ends_with('3') && attempt < 3 {
            return Err("again");
        }
        log.add(text);
        Ok(())
    };
    beside(at.app().consume(consume, handler), async |_| drop(at.log.reach(20).await)).await;
    assert_eq!(at.log.lines(), (0..20).map(|it: u32| it.to_string()).collect::<Vec<_>>());
}
