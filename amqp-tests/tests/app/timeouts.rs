//! Handlers that take longer than the broker waits for an acknowledgement.

use amqp_app::prelude::*;
use amqp_testkit::RabbitMq;

use crate::at::{At, Log, Make, beside, on_tokio_multi_thread, sleep, source, until};

#[test]
fn u_9_a_source_is_started_again_after_the_brokers_consumer_timeout() {
    let node = RabbitMq::start().unwrap();
    let fast = "application:set_env(rabbit, consumer_timeout, 500), \
                application:set_env(rabbit, channel_tick_interval, 200).";
    node.ctl(&["eval", fast]).unwrap();
    on_tokio_multi_thread(slow(At::<amqp_tokio::Connector>::broker(node.uri())));
}

#[test]
fn u_9_a_source_is_started_again_after_the_models_consumer_timeout() {
    let at = At::<amqp_smol::Connector>::model();
    at.model.as_ref().unwrap().set_consumer_timeout(Some(Duration::from_millis(500)));
    smol::block_on(slow(at));
}

#[test]
fn u_9_a_transactional_source_is_started_again_after_the_models_consumer_timeout() {
    let at = At::<amqp_smol::Connector>::model();
    at.model.as_ref().unwrap().set_consumer_timeout(Some(Duration::from_millis(500)));
    smol::block_on(slow_with(at, |queue| source(queue).transactional()));
}

async fn slow<P: Make>(at: At<P>) {
    slow_with(at, |queue| source(queue)).await;
}

/// The broker closes the channel with 406, and delivers the message again.
async fn slow_with<P: Make>(at: At<P>, consume: impl FnOnce(&str) -> Consume) {
    let client = at.client().await;
    let queue = client.queue("slow").await;
    let app = at.app();
    let health = app.health();
    let handler =
        move |State(log): State<Log>, Text(text): Text, Redelivered(again): Redelivered| {
            let health = health.clone();
            async move {
                log.add(format!("redelivered: {again}"));
                if again || text != "1" {
                    return;
                }
                // Until the broker has closed the channel.
                while health.report().is_none_or(|report| report.sources[0].consuming) {
                    sleep(Duration::from_millis(5)).await;
                }
            }
        };
    client.send(&queue, "1").await;
    let report = beside(app.consume(consume(&queue), handler), async |_| {
        at.log.reach(2).await;
        client.send(&queue, "2").await;
        until("the end", async || client.ready(&queue).await == 0).await;
        at.log.reach(3).await;
    })
    .await;
    // The late result of the first attempt is dropped. On a busy machine, others may be late too.
    assert!(report.stale >= 1 && report.handled >= 1 && report.failed == 0, "{report:?}");
    let lines = at.log.lines();
    assert_eq!(lines[0], "redelivered: false");
    assert!(lines[1..].iter().any(|line| line == "redelivered: true"), "{lines:?}");
}
