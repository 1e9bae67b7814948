//! Sources that hold what has failed, and consume on a new channel from time to time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use amqp_app::Health;
use amqp_app::prelude::*;
use amqp_testkit::{Direction, Fault, Proxy};

use crate::at::{At, Log, Make, beside, on_model, on_rabbitmq, sleep, source, until};

on_model! {
    gr_6_a_message_that_is_held_comes_again_on_the_next_channel
    gr_6_what_is_held_leaves_places_for_the_workers
    gr_9_gr_10_messages_are_acknowledged_on_their_own_channel
    gr_9_the_order_of_a_key_outlasts_its_channel
}

on_rabbitmq! {
    gr_6_a_message_that_is_held_comes_again_on_the_next_channel
    gr_6_what_is_held_leaves_places_for_the_workers
    gr_9_gr_10_messages_are_acknowledged_on_their_own_channel
    gr_9_the_order_of_a_key_outlasts_its_channel
}

fn both(queue: &str) -> [Consume; 2] {
    [source(queue), source(queue).transactional()]
}

async fn gr_6_a_message_that_is_held_comes_again_on_the_next_channel<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("held").await;
    for consume in both(&queue) {
        let handler =
            async |Text(text): Text, Redelivered(again): Redelivered, State(log): State<Log>| {
                log.add(format!("{text} {again}"));
                match text.as_str() {
                    "bad" if !again => Err("not now"),
                    _ => Ok(()),
                }
            };
        let policy = Retry::none().then_hold();
        let consume = consume.on_failure(policy).rotate_every(Duration::from_millis(400));
        let report = beside(at.app().consume(consume, handler), async |_| {
            client.send(&queue, "bad").await;
            at.log.reach(1).await;
            client.send(&queue, "good").await;
            at.log.reach(3).await;
            until("the acknowledgement", async || client.ready(&queue).await == 0).await;
        })
        .await;
        // The next message passes the one that is held.
        let lines = at.log.take();
        assert_eq!(lines[0], "bad false");
        assert!(lines[1..].contains(&"bad true".into()), "{lines:?}");
        assert!(lines[1..].iter().any(|it| it.starts_with("good")), "{lines:?}");
        assert_eq!((report.failed, report.handled, report.stale), (1, 2, 0));
        assert_eq!((report.given_back >= 1, client.ready(&queue).await), (true, 0));
    }
}

async fn gr_6_what_is_held_leaves_places_for_the_workers<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("held").await;
    let handler =
        async |Text(text): Text, Redelivered(again): Redelivered, State(log): State<Log>| {
            log.add(format!("{text} {again}"));
            if again { Ok(()) } else { Err("not now") }
        };
    let policy = Retry::none().then_hold();
    let consume = source(queue.as_str()).on_failure(policy).prefetch(3);
    for number in 0..3 {
        client.send(&queue, number.to_string()).await;
    }
    let report = beside(at.app().consume(consume, handler), async |_| {
        // Two are held. The third goes back, and comes again on the same channel.
        assert_eq!(at.log.reach(4).await, ["0 false", "1 false", "2 false", "2 true"]);
    })
    .await;
    assert_eq!((report.handled, report.failed, report.given_back), (1, 3, 3));
    assert_eq!(client.bodies(&queue, 2).await, ["0", "1"]);
}

/// Starts a proxy at which a fault happens, which changes nothing, when consumers have been started this many times.
fn counting(broker: u16, times: usize) -> Arc<Proxy> {
    let proxy = Proxy::start(broker).unwrap();
    let nothing = Fault::Dribble { size: usize::MAX, pause: Duration::ZERO };
    proxy.before(Direction::ToBroker, "basic.consume", times, nothing);
    Arc::new(proxy)
}

/// Waits until channels have been replaced this often.
async fn rotated(proxy: &Proxy) {
    while proxy.faulted().is_empty() {
        sleep(Duration::from_millis(2)).await;
    }
}

async fn gr_9_gr_10_messages_are_acknowledged_on_their_own_channel<P: Make>(at: At<P>) {
    const MESSAGES: usize = 200;
    let client = at.client().await;
    let (queue, answers) = (client.queue("rotating").await, client.queue("answers").await);
    // The third consumer, in transactions the third of one of four workers.
    for (consume, third) in both(&queue).into_iter().zip([3, 9]) {
        let proxy = counting(at.port(), third);
        let (to, replaced) = (answers.clone(), Arc::clone(&proxy));
        let handler = move |Text(text): Text, State(log): State<Log>| {
            let (to, replaced) = (to.clone(), Arc::clone(&replaced));
            async move {
                // All workers have a message while channels are replaced, and acknowledge it after that.
                if log.lines().len() < 50 {
                    rotated(&replaced).await;
                }
                sleep(Duration::from_millis(5)).await;
                log.add(&text);
                Message::new(text).to_queue(to)
            }
        };
        let consume = consume.concurrency(4).rotate_every(Duration::from_millis(30));
        let app = at.app_at(&proxy.uri()).consume(consume, handler);
        let report = beside(app, async |_| {
            for number in 0..MESSAGES {
                client.send(&queue, number.to_string()).await;
            }
            at.log.reach(MESSAGES).await;
            until("the answers", async || client.ready(&answers).await == MESSAGES as u32).await;
        })
        .await;
        let mut counts = BTreeMap::<String, usize>::new();
        for body in client.bodies(&answers, MESSAGES).await {
            *counts.entry(body).or_default() += 1;
        }
        assert_eq!(counts.len(), MESSAGES, "each of them once");
        // An acknowledgement on another channel would have closed that, with 406.
        assert_eq!((report.handled, report.stale, report.failed), (MESSAGES as u64, 0, 0));
        at.log.take();
    }
}

/// One message of the key is in work, one waits for it, and the others are with the consumer, or behind.
async fn gr_9_the_order_of_a_key_outlasts_its_channel<P: Make>(at: At<P>) {
    const MESSAGES: usize = 12;
    let client = at.client().await;
    let queue = client.queue("ordered").await;
    let health = Arc::new(Mutex::new(None::<Health>));
    let in_work = Arc::clone(&health);
    let proxy = counting(at.port(), 3);
    let replaced = Arc::clone(&proxy);
    let handler = move |Text(text): Text, State(log): State<Log>| {
        let in_work = in_work.lock().unwrap().clone();
        let replaced = Arc::clone(&replaced);
        async move {
            // Longer than a channel is used.
            rotated(&replaced).await;
            sleep(Duration::from_millis(60)).await;
            let sources = in_work.unwrap().report().unwrap().sources;
            log.add(format!("{text} {}", sources[0].in_work));
        }
    };
    let consume = source(queue.as_str()).concurrency(2).prefetch(3).by_key(|_| Some("one".into()));
    let consume = consume.rotate_every(Duration::from_millis(40));
    let app = at.app_at(&proxy.uri()).consume(consume, handler);
    *health.lock().unwrap() = Some(app.health());
    let report = beside(app, async |_| {
        for number in 0..MESSAGES {
            client.send(&queue, number.to_string()).await;
        }
        at.log.reach(MESSAGES).await;
    })
    .await;
    let expected: Vec<_> = (0..MESSAGES).map(|it| format!("{it} 1")).collect();
    assert_eq!(at.log.lines(), expected, "in order, and one at a time");
    assert_eq!((report.handled, report.stale), (MESSAGES as u64, 0));
}
