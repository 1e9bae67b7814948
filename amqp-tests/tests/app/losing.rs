//! Connections that are lost at the worst moment. For each message id, what was sent is handled, parked or in a queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use amqp_app::prelude::*;
use amqp_testkit::{Direction, Fault, Proxy};

use crate::at::{At, Log, Make, beside, on_model, on_rabbitmq, sleep, source, until};

on_model! {
    u_8_a_result_is_dropped_when_its_connection_is_lost
    u_8_an_outcome_whose_ack_is_lost_is_recognised
    gr_12_nothing_is_lost_while_connections_are_lost
}

on_rabbitmq! {
    u_8_a_result_is_dropped_when_its_connection_is_lost
    u_8_an_outcome_whose_ack_is_lost_is_recognised
    gr_12_nothing_is_lost_while_connections_are_lost
}

/// Cuts both connections of an application, and waits until it has seen that: it connects again.
async fn lose(proxy: &Proxy) {
    let before = proxy.accepted();
    proxy.inject(Direction::ToClient, Fault::Cut);
    while proxy.accepted() < before + 2 {
        sleep(Duration::from_millis(5)).await;
    }
}

async fn u_8_a_result_is_dropped_when_its_connection_is_lost<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("stale").await;
    let proxy = Arc::new(Proxy::start(at.port()).unwrap());
    let cut = Arc::clone(&proxy);
    let handler = move |State(log): State<Log>, Redelivered(again): Redelivered| {
        let cut = Arc::clone(&cut);
        async move {
            log.add(format!("redelivered: {again}"));
            if !again {
                lose(&cut).await;
            }
        }
    };
    client.send(&queue, "1").await;
    let report =
        beside(at.app_at(&proxy.uri()).consume(source(queue.as_str()), handler), async |_| {
            at.log.reach(2).await;
            until("the end", async || client.ready(&queue).await == 0).await;
        })
        .await;
    assert_eq!(at.log.lines(), ["redelivered: false", "redelivered: true"]);
    assert_eq!((report.handled, report.stale, report.failed), (1, 1, 0));
}

/// The handler succeeds, its reply is confirmed, and the connection that consumes is lost before the ack.
async fn u_8_an_outcome_whose_ack_is_lost_is_recognised<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = [client.queue("recognised").await, client.queue("answers").await];
    let proxy = Arc::new(Proxy::start(at.port()).unwrap());
    let (cut, to) = (Arc::clone(&proxy), answers.clone());
    let handler = move |Text(text): Text, State(log): State<Log>| {
        let (cut, to) = (Arc::clone(&cut), to.clone());
        async move {
            log.add(text.as_str());
            if log.lines().len() == 1 {
                lose(&cut).await;
            }
            Message::new(text).to_queue(to)
        }
    };
    client.publish(Message::new("1").message_id("m").to_queue(&queue)).await;
    let report =
        beside(at.app_at(&proxy.uri()).consume(source(queue.as_str()), handler), async |_| {
            until("both replies", async || client.ready(&answers).await == 2).await;
            until("the ack", async || client.ready(&queue).await == 0).await;
        })
        .await;
    assert_eq!(at.log.lines(), ["1"], "the handler is called once");
    assert_eq!((report.handled, report.stale), (1, 1));
    let ids = [client.expect(&answers).await, client.expect(&answers).await]
        .map(|delivery| delivery.properties().unwrap().message_id.unwrap());
    assert_eq!(ids, ["m#0", "m#0"], "a duplicate has the same id");
}

/// Both connections are cut again and again, while messages are handled, answered, retried and parked.
async fn gr_12_nothing_is_lost_while_connections_are_lost<P: Make>(at: At<P>) {
    const MESSAGES: usize = 150;
    let client = at.client().await;
    let queue = client.queue("work").await;
    let answers = client.queue("answers").await;
    let ids: BTreeSet<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    for id in &ids {
        client.publish(Message::new(id.clone()).message_id(id).to_queue(&queue)).await;
    }
    let proxy = Arc::new(Proxy::start(at.port()).unwrap());
    let (cut, to, handled) = (Arc::clone(&proxy), answers.clone(), AtomicUsize::new(0));
    let handled = Arc::new(handled);
    let handler = move |Text(text): Text| {
        let number: usize = text.parse().unwrap();
        let count = handled.fetch_add(1, Ordering::Relaxed);
        let faults = [Fault::Cut, Fault::Reset];
        // At this very point: the handler is done, and its message is neither answered nor acknowledged.
        if count % 12 == 5 && count < 12 * 12 {
            cut.inject(
                [Direction::ToClient, Direction::ToBroker][count / 12 % 2],
                faults[count / 24 % 2],
            );
        }
        std::future::ready(match number % 5 {
            0 => Err(Failure::permanent("never")),
            1 => Err(Failure::retry("for ever")),
            _ => Ok(Message::new(text).to_queue(&to)),
        })
    };
    let policy = Retry::now(1).pause(Duration::from_millis(1));
    let consume = source(queue.as_str()).concurrency(4).on_failure(policy);
    let parking = format!("{queue}.parked");
    let report = beside(at.app_at(&proxy.uri()).consume(consume, handler), async |_| {
        until("the end", async || {
            let quiet = client.ready(&queue).await == 0;
            let count = client.ready(&answers).await + client.ready(&parking).await;
            quiet && count as usize >= MESSAGES
        })
        .await;
    })
    .await;
    assert!(proxy.accepted() > 6, "{} connections", proxy.accepted());
    assert_eq!(report.abandoned, 0, "{report:?}");

    // The ledger: each id is answered or parked, as its number says, or is back in its queue. Duplicates have the same ids.
    let mut ledger: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    // What was in work at the end goes back a moment later, if duplicates have ended it early.
    until("every id", async || {
        for (place, name) in [(&queue, "ready"), (&answers, "answered"), (&parking, "parked")] {
            while let Some(delivery) = client.channel.basic_get(place.as_str()).await.unwrap() {
                let id = delivery.properties().unwrap().message_id.unwrap();
                let id = id.split('#').next().unwrap().to_owned();
                ledger.entry(id).or_default().insert(name);
                delivery.ack().unwrap();
            }
        }
        ledger.len() >= MESSAGES
    })
    .await;
    assert_eq!(ledger.keys().cloned().collect::<BTreeSet<_>>(), ids, "nothing is lost");
    for (id, places) in ledger {
        let number: usize = id.parse().unwrap();
        let expected = if number % 5 < 2 { "parked" } else { "answered" };
        let others: Vec<_> =
            places.iter().filter(|it| **it != expected && **it != "ready").collect();
        assert!(others.is_empty(), "{id}: {places:?}");
    }
}
