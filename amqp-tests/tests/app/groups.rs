//! Sources of several queues, which are consumed as one group.

use amqp_app::prelude::*;

use crate::at::{At, Client, Log, Make, beside, on_model, on_rabbitmq, source, until, within};

on_model! {
    pu_10_queues_are_consumed_as_one_group
    pu_10_a_message_that_fails_stays_with_its_queue
    pu_11_a_group_has_a_prefetch_and_one_cancel_ends_all_of_its_consumers
    pu_12_a_group_ends_with_one_of_its_consumers_and_is_started_again
    a_group_needs_queues
}

on_rabbitmq! {
    pu_10_queues_are_consumed_as_one_group
    pu_10_a_message_that_fails_stays_with_its_queue
    pu_11_a_group_has_a_prefetch_and_one_cancel_ends_all_of_its_consumers
    pu_12_a_group_ends_with_one_of_its_consumers_and_is_started_again
}

async fn queues(client: &Client) -> [String; 3] {
    [client.queue("first").await, client.queue("second").await, client.queue("third").await]
}

/// The number of messages that are ready in each queue, and of its consumers.
async fn counts(client: &Client, queues: &[String]) -> Vec<(u32, u32)> {
    let mut counts = Vec::new();
    for queue in queues {
        let declared = client.channel.queue_declare(QueueDeclare::passive(queue)).await.unwrap();
        counts.push((declared.message_count, declared.consumer_count));
    }
    counts
}

async fn pu_10_queues_are_consumed_as_one_group<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queues = queues(&client).await;
    for queue in &queues {
        for _ in 0..4 {
            client.send(queue, "m").await;
        }
    }
    let (release, released) = async_channel();
    let handler = move |QueueName(queue): QueueName, State(log): State<Log>| {
        let released = released.clone();
        async move {
            log.add(format!("begun {queue}"));
            released.recv().await.unwrap_err();
            log.add(queue);
        }
    };
    let consume = Consume::many(queues.iter().map(String::as_str)).concurrency(2).prefetch(5);
    let app = at.app().consume(consume.on_failure(Retry::none()), handler);
    let health = app.health();
    let report = beside(app, async |_| {
        at.log.reach(2).await;
        // Five of twelve are with the application: two of each of the first queues, one of the third.
        until("the prefetch", async || counts(&client, &queues).await == [(2, 1), (2, 1), (3, 1)])
            .await;
        let begun = at.log.lines();
        let sources = health.report().unwrap().sources;
        let of = |it: &amqp_app::SourceHealth| (it.queue.clone(), it.consuming, it.in_work);
        let in_work = |queue: &String| {
            let begun = begun.iter().filter(|it| **it == format!("begun {queue}"));
            (queue.clone(), true, begun.count())
        };
        let expected: Vec<_> = queues.iter().map(in_work).collect();
        assert_eq!(sources.iter().map(of).collect::<Vec<_>>(), expected);
        drop(release);
        at.log.reach(24).await;
    })
    .await;
    assert_eq!((report.handled, report.given_back), (12, 0));
    for queue in &queues {
        assert_eq!(at.log.lines().iter().filter(|it| *it == queue).count(), 4);
    }
    assert_eq!(counts(&client, &queues).await, [(0, 0); 3]);
}

async fn pu_10_a_message_that_fails_stays_with_its_queue<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queues = queues(&client).await;
    let handler = async |Text(text): Text, attempt: Attempt, State(log): State<Log>| {
        log.add(format!("{text} {}", attempt.0));
        Err::<(), _>("it fails")
    };
    let policy = Retry::after([Duration::from_millis(100)]);
    let consume = Consume::many(queues.iter().map(String::as_str)).on_failure(policy);
    let report = beside(at.app().consume(consume, handler), async |_| {
        for queue in &queues {
            client.declared(&format!("{queue}.retry.100ms")).await;
            client.send(queue, queue.as_str()).await;
        }
        for queue in &queues {
            assert_eq!(client.bodies(&format!("{queue}.parked"), 1).await, [queue.as_str()]);
        }
    })
    .await;
    assert_eq!((report.failed, report.retried, report.parked), (6, 3, 3));
    for line in queues.iter().flat_map(|it| [format!("{it} 1"), format!("{it} 2")]) {
        assert!(at.log.lines().contains(&line), "{line}");
    }
}

async fn pu_11_a_group_has_a_prefetch_and_one_cancel_ends_all_of_its_consumers<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queues = queues(&client).await;
    for queue in queues.iter().flat_map(|queue| [queue; 3]) {
        client.send(queue, "m").await;
    }
    let ready = |counts: &[(u32, u32)]| counts.iter().map(|(ready, _)| ready).sum::<u32>();
    let consumers = |counts: &[(u32, u32)]| [counts[0].1, counts[1].1, counts[2].1];
    let pool = Pool::new(at.platform.clone(), 1).connect().await.unwrap();
    let member = pool.connection().await.unwrap();
    let (release, released) = async_channel();
    let log = at.log.clone();
    let handler = move |_: Text| {
        let (log, released) = (log.clone(), released.clone());
        async move {
            log.add("begun");
            released.recv().await.unwrap_err();
        }
    };
    let consume = Consume::many(queues.iter().map(String::as_str)).prefetch(4);
    let listening = member.consume_with(consume, handler).await.unwrap();
    at.log.reach(1).await;
    until("the prefetch", async || ready(&counts(&client, &queues).await) == 5).await;
    assert_eq!(consumers(&counts(&client, &queues).await), [1; 3]);
    let script = async {
        until("the end of all consumers", async || {
            consumers(&counts(&client, &queues).await) == [0; 3]
        })
        .await;
        drop(release);
    };
    let both = smol::future::zip(listening.cancel(), script);
    let report = within("the cancel", both).await.0.unwrap();
    // The message in work is finished. Those behind it are given back.
    assert_eq!((report.handled, report.given_back, at.log.lines().len()), (1, 3, 1));
    until("the others", async || ready(&counts(&client, &queues).await) == 8).await;
    assert_eq!(pool.status().open, 1, "the connection stays open");
    pool.close().await;
}

async fn pu_12_a_group_ends_with_one_of_its_consumers_and_is_started_again<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queues = queues(&client).await;
    let (release, released) = async_channel();
    let handler = move |Text(text): Text, State(log): State<Log>| {
        let released = released.clone();
        async move {
            log.add(text.clone());
            if text == "slow" {
                released.recv().await.unwrap_err();
            }
        }
    };
    let consume = Consume::many(queues.iter().map(String::as_str)).concurrency(2);
    let app = at.app().consume(consume.on_failure(Retry::none()), handler);
    let health = app.health();
    let report = beside(app, async |_| {
        until("the start", async || health.is_ready()).await;
        client.send(&queues[0], "slow").await;
        at.log.reach(1).await;
        client.channel.queue_delete(QueueDelete::new(&queues[1])).await.unwrap();
        let others = [queues[0].clone(), queues[2].clone()];
        until("the end of the others", async || counts(&client, &others).await == [(0, 0), (0, 0)])
            .await;
        until("the reason", async || {
            let sources = health.report().unwrap().sources;
            sources.iter().all(|it| !it.consuming && it.last_error.is_some())
        })
        .await;
        client.channel.queue_declare(QueueDeclare::classic(&queues[1])).await.unwrap();
        until("the new start", async || health.is_ready()).await;
        drop(release);
        for queue in &queues {
            client.send(queue, queue.as_str()).await;
        }
        at.log.reach(4).await;
    })
    .await;
    // What was in work when the group ended was handled once.
    assert_eq!((report.handled, report.stale, report.failed), (4, 0, 0));
    assert_eq!(counts(&client, &queues).await, [(0, 0); 3]);
}

async fn a_group_needs_queues<P: Make>(at: At<P>) {
    let empty: [&str; 0] = [];
    let app = at.app().consume(Consume::many(empty), async || {});
    let error = app.run(Shutdown::never()).await.unwrap_err().to_string();
    assert!(error.contains("a group of queues is empty"), "{error}");
    let twice = at.app().consume(source(Consume::many(["q", "q"])), async || {});
    let error = twice.run(Shutdown::never()).await.unwrap_err().to_string();
    assert!(error.contains("queue \"q\""), "{error}");
}

fn async_channel() -> (smol::channel::Sender<()>, smol::channel::Receiver<()>) {
    smol::channel::bounded(1)
}
