//! Graceful shutdown: what is finished, and what goes back into its queue.

use std::time::Instant;

use amqp_app::prelude::*;
use amqp_testkit::{Direction, Fault, Proxy};

use crate::at::{At, Log, Make, beside, on_model, on_rabbitmq, source, until, within};

on_model! {
    u_7_messages_in_work_are_finished_and_others_go_back
    u_7_what_takes_too_long_goes_back_at_the_deadline
    u_7_a_second_stop_ends_at_once
    health_says_whether_an_application_lives_and_is_ready
    an_application_that_is_dropped_gives_everything_back
    gr_12_a_connection_that_is_not_recovered_ends_the_application
}

on_rabbitmq! {
    u_7_messages_in_work_are_finished_and_others_go_back
    u_7_what_takes_too_long_goes_back_at_the_deadline
    gr_12_a_connection_that_is_not_recovered_ends_the_application
}

/// Ends when the test says so.
async fn slow(Text(text): Text, State(log): State<Log>) {
    log.add(format!("begin {text}"));
    log.find("released").await;
    log.add(format!("end {text}"));
}

async fn u_7_messages_in_work_are_finished_and_others_go_back<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("graceful").await;
    for number in 0..50 {
        client.send(&queue, number.to_string()).await;
    }
    let consume = source(queue.as_str()).concurrency(4).prefetch(20);
    let report = beside(at.app().consume(consume, slow), async |stopper| {
        at.log.reach(4).await;
        stopper.stop();
        at.log.add("released");
    })
    .await;
    assert_eq!((report.handled, report.abandoned, report.failed), (4, 0, 0));
    // An ack that overtakes the cancel brings another message, which goes back too.
    assert!(report.given_back >= 16, "{report:?}");
    // Nothing is unacknowledged: all others are ready.
    until("the queue", async || client.ready(&queue).await == 46).await;
    assert_eq!(at.log.lines().len(), 9);
}

async fn u_7_what_takes_too_long_goes_back_at_the_deadline<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("deadline").await;
    for number in 0..50 {
        client.send(&queue, number.to_string()).await;
    }
    let consume = source(queue.as_str()).concurrency(4).prefetch(20);
    let app = at.app().consume(consume, async |State(log): State<Log>| {
        log.add("begin");
        std::future::pending::<()>().await;
    });
    let log = at.log.clone();
    let shutdown = Shutdown::when(async move { drop(log.reach(4).await) });
    let begun = Instant::now();
    let report = within("the end", app.run(shutdown.within(Duration::from_millis(100)))).await;
    let report = report.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(100));
    assert_eq!((report.handled, report.abandoned, report.given_back), (0, 4, 20));
    until("the queue", async || client.ready(&queue).await == 50).await;
}

async fn u_7_a_second_stop_ends_at_once<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("now").await;
    client.send(&queue, "hangs").await;
    let app = at.app().consume(source(queue.as_str()), async |State(log): State<Log>| {
        log.add("begin");
        std::future::pending::<()>().await;
    });
    let report = beside(app, async |stopper| {
        at.log.reach(1).await;
        stopper.stop();
        stopper.stop_now();
    })
    .await;
    assert_eq!((report.abandoned, report.given_back), (1, 1));
    until("the queue", async || client.ready(&queue).await == 1).await;
}

async fn an_application_that_is_dropped_gives_everything_back<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("dropped").await;
    for number in 0..5 {
        client.send(&queue, number.to_string()).await;
    }
    let app = at.app().consume(source(queue.as_str()), async |State(log): State<Log>| {
        log.add("begin");
        std::future::pending::<()>().await;
    });
    let begun = async {
        at.log.reach(1).await;
    };
    let running = async {
        app.run(Shutdown::never()).await.unwrap();
    };
    smol::future::or(running, begun).await;
    until("the queue", async || client.ready(&queue).await == 5).await;
    let model = at.model.as_ref().unwrap();
    until("the end of its connections", async || model.held().connections == 1).await;
}

async fn gr_12_a_connection_that_is_not_recovered_ends_the_application<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("lost").await;
    let proxy = Proxy::start(at.port()).unwrap();
    let uri = format!("{}?recovery=never", proxy.uri());
    let ends = async |lose: &dyn Fn()| {
        let app =
            at.app_at(&uri).consume(source(queue.as_str()), async |State(log): State<Log>| {
                log.add("begun");
                std::future::pending::<()>().await;
            });
        client.send(&queue, "1").await;
        let lose = async {
            at.log.reach(1).await;
            lose();
        };
        let both = smol::future::zip(app.run(Shutdown::never()), lose);
        let error = within("the end", both).await.0.unwrap_err();
        assert!(matches!(error, Error::ConnectionEnded(_)), "{error}");
        assert_eq!(at.log.take(), ["begun"]);
        // What was in work is with the broker.
        assert_eq!(client.bodies(&queue, 1).await, ["1"]);
        error.to_string()
    };
    let before = proxy.accepted();
    ends(&|| proxy.inject(Direction::ToClient, Fault::Cut)).await;
    assert_eq!(proxy.accepted() - before, 2, "the connections of the application, once");
    if let Some(model) = &at.model {
        let error = ends(&|| model.close_all("maintenance")).await;
        assert!(error.contains("maintenance"), "{error}");
    }
}

async fn health_says_whether_an_application_lives_and_is_ready<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("healthy").await;
    let app = at.app().consume(
        source(queue.as_str()),
        async |Text(text): Text, State(log): State<Log>| {
            log.add(text.as_str());
            if text == "slow" {
                log.find("go").await;
            }
            Message::new("reply").to("amq.topic", "nobody").optional()
        },
    );
    let health = app.health();
    assert!(health.is_live() && !health.is_ready() && health.report().is_none());
    let model = at.model.as_ref().unwrap();
    beside(app, async |stopper| {
        until("ready", async || health.is_ready()).await;
        client.send(&queue, "1").await;
        client.send(&queue, "2").await;
        at.log.reach(2).await;
        // The broker cancels the consumer: it is not ready until it is started again.
        client.channel.queue_delete(QueueDelete::new(&queue)).await.unwrap();
        until("not ready", async || !health.is_ready()).await;
        client.channel.queue_declare(QueueDeclare::classic(&queue)).await.unwrap();
        until("ready again", async || health.is_ready()).await;
        let report = health.report().unwrap();
        assert!(
            report.connected && report.sources[0].consuming && report.sources[0].queue == queue
        );

        client.send(&queue, "slow").await;
        at.log.reach(3).await;
        assert_eq!(health.report().unwrap().sources[0].in_work, 1);
        // A publisher is blocked when it publishes: here by the reply of the handler.
        model.set_alarm(Some("memory"));
        at.log.add("go");
        until("blocked", async || health.report().unwrap().blocked.is_some()).await;
        assert!(health.is_live() && !health.is_ready());
        model.set_alarm(None);
        until("unblocked", async || health.is_ready()).await;
        stopper.stop();
        assert!(health.is_live() && !health.is_ready());
    })
    .await;
    assert!(!health.is_live() && health.report().is_none());
}
