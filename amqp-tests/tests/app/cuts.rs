//! Connections that are lost at each frame around a commit, again and again. Each request has all of its replies the same number
//! of times, and more than once only if it was delivered more than once.

use std::collections::BTreeMap;

use amqp_app::prelude::*;
use amqp_testkit::{Direction, Fault, Proxy};

use crate::at::{At, Log, Make, beside, on_model, on_rabbitmq, source, until, within};

on_model! {
    gr_5_u_1_u_2_u_4_a_cut_at_a_commit_parts_no_replies_from_their_request
}

on_rabbitmq! {
    gr_5_u_1_u_2_u_4_a_cut_at_a_commit_parts_no_replies_from_their_request
}

/// The rounds on each of five runtimes.
const ROUNDS: usize = 100;
const REPLIES: usize = 3;

/// The frames of a transaction, all of them, before which the connection is lost.
const POINTS: [(Direction, &str, usize); 15] = [
    (Direction::ToClient, "basic.deliver", 1),
    (Direction::ToClient, "header", 1),
    (Direction::ToClient, "body", 1),
    (Direction::ToBroker, "basic.publish", 1),
    (Direction::ToBroker, "header", 1),
    (Direction::ToBroker, "body", 1),
    (Direction::ToBroker, "basic.publish", 2),
    (Direction::ToBroker, "header", 2),
    (Direction::ToBroker, "body", 2),
    (Direction::ToBroker, "basic.publish", 3),
    (Direction::ToBroker, "header", 3),
    (Direction::ToBroker, "body", 3),
    (Direction::ToBroker, "basic.ack", 1),
    (Direction::ToBroker, "tx.commit", 1),
    (Direction::ToClient, "tx.commit-ok", 1),
];
const FAULTS: [Fault; 2] = [Fault::Cut, Fault::Reset];

async fn gr_5_u_1_u_2_u_4_a_cut_at_a_commit_parts_no_replies_from_their_request<P: Make>(
    at: At<P>,
) {
    let client = at.client().await;
    let (queue, answers) = (client.queue("requests").await, client.queue("answers").await);
    let consume = BasicConsume::new(&answers).no_ack();
    let mut replies = client.channel.basic_consume(consume).await.unwrap();
    let proxy = Proxy::start(at.port()).unwrap();
    let to = answers.clone();
    let handler = move |Text(text): Text, State(log): State<Log>| {
        log.add(text);
        let reply = |it| Message::new(["a", "b", "c"][it]).to_queue(&to);
        std::future::ready([0, 1, 2].map(reply))
    };
    // Half of the requests are handled again when they come again: their outcome is not remembered.
    let (mut counts, mut deliveries) = (BTreeMap::<String, usize>::new(), 0);
    for forgets in [false, true] {
        let consume = source(queue.as_str()).transactional();
        let consume = if forgets { consume.forget() } else { consume };
        let app = at.app_at(&proxy.uri()).consume(consume, handler.clone());
        let health = app.health();
        let report = beside(app, async |_| {
            for round in 0..ROUNDS / 2 {
                until("the consumer", async || health.is_ready()).await;
                let (direction, method, number) = POINTS[round % POINTS.len()];
                let before = proxy.faulted().len();
                proxy.before(direction, method, number, FAULTS[round / POINTS.len() % 2]);
                let id = format!("{forgets} {round}");
                let request = Message::new(id.clone()).message_id(id.clone());
                client.publish(request.to_queue(&queue)).await;
                until("the fault", async || proxy.faulted().len() > before).await;
                // One whose commit the broker has got does not come again.
                within("the replies", async {
                    while (0..REPLIES).any(|it| !counts.contains_key(&format!("{id}#{it}"))) {
                        let reply = replies.next().await.unwrap().unwrap();
                        let id = reply.properties().unwrap().message_id.unwrap();
                        *counts.entry(id).or_default() += 1;
                    }
                })
                .await;
            }
            until("the last one", async || health.is_ready()).await;
        })
        .await;
        assert_eq!((report.failed, report.parked, report.unroutable), (0, 0, 0));
        deliveries += at.log.take().len();
    }
    while let Ok(reply) = replies.try_recv() {
        *counts.entry(reply.properties().unwrap().message_id.unwrap()).or_default() += 1;
    }
    assert_eq!((counts.len(), client.ready(&queue).await), (ROUNDS * REPLIES, 0));
    // Each of these commits was atomic, so nothing is duplicated: what comes again was not committed.
    let duplicates: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
    assert!(duplicates.is_empty(), "{duplicates:?}");
    assert!(deliveries > ROUNDS, "{deliveries}: none was handled again");
}
