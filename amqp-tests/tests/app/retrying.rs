//! What becomes of messages whose handlers fail.

use std::time::Instant;

use amqp_app::prelude::*;
use amqp_async::Overflow;

use crate::at::{
    At, Log, Make, beside, header, number, on_model, on_rabbitmq, source, text, unique, until,
};

on_model! {
    u_3_errors_panics_and_timeouts_are_tried_again_in_place_then_parked
    gr_6_what_is_given_back_comes_again_and_counts_as_no_attempt
    gr_18_the_last_resort_is_what_the_policy_says
    a_handler_may_stop_the_application
    what_cannot_be_parked_is_given_back
    a_condition_decides_what_is_retried
}

on_rabbitmq! {
    u_3_errors_panics_and_timeouts_are_tried_again_in_place_then_parked
    gr_6_what_is_given_back_comes_again_and_counts_as_no_attempt
    gr_18_the_last_resort_is_what_the_policy_says
    what_cannot_be_parked_is_given_back
}

/// Fails as the text says.
async fn fail(
    Text(text): Text,
    State(log): State<Log>,
    Attempt(attempt): Attempt,
) -> Result<(), Failure> {
    log.add(format!("{text} {attempt}"));
    match text.as_str() {
        "error" => Err("down".into()),
        "panic" => panic!("of the handler"),
        "hang" => std::future::pending().await,
        "permanent" => Err(Failure::permanent("never")),
        "second" if attempt < 2 => Err("down".into()),
        _ => Ok(()),
    }
}

async fn u_3_errors_panics_and_timeouts_are_tried_again_in_place_then_parked<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("failing").await;
    let policy = Retry::now(1).pause(Duration::from_millis(1));
    let consume = source(queue.as_str()).timeout(Duration::from_millis(500)).on_failure(policy);
    let kinds = ["error", "panic", "hang", "permanent", "second", "fine"];
    let report = beside(at.app().consume(consume, fail), async |_| {
        for kind in kinds {
            let message = Message::new(kind).message_id(kind).header("x-death", 3);
            client.publish(message.to_queue(&queue)).await;
        }
        let parking = format!("{queue}.parked");
        for (kind, reason, attempts) in [
            ("error", "down", 2),
            ("panic", "panic: of the handler", 2),
            ("hang", "the handler took longer than 0.5 s", 2),
            ("permanent", "never", 1),
        ] {
            let parked = client.expect(&parking).await;
            assert_eq!(text(&parked), kind);
            assert_eq!(header(&parked, "retry-error").as_deref(), Some(reason));
            assert_eq!(number(&parked, "retry-attempt"), Some(attempts));
            assert_eq!(header(&parked, "retry-queue").as_deref(), Some(queue.as_str()));
            assert_eq!(header(&parked, "retry-exchange").as_deref(), Some(""));
            assert_eq!(header(&parked, "retry-routing-key").as_deref(), Some(queue.as_str()));
            assert!(parked.header("retry-first-failed-at").unwrap().is_some());
            assert_eq!(parked.header("x-death").unwrap(), None);
            assert_eq!(parked.properties().unwrap().message_id.as_deref(), Some(kind));
            parked.ack().unwrap();
        }
        at.log.reach(10).await;
    })
    .await;
    let tries =
        ["error", "panic", "hang"].iter().flat_map(|it| [format!("{it} 1"), format!("{it} 2")]);
    let rest = ["permanent 1", "second 1", "second 2", "fine 1"].map(str::to_owned);
    assert_eq!(at.log.lines(), tries.chain(rest).collect::<Vec<_>>());
    let Report { handled, failed, retried, parked, panicked, timed_out, .. } = report;
    assert_eq!((handled, failed, retried, parked, panicked, timed_out), (2, 8, 4, 4, 2, 2));
    assert_eq!(client.ready(&queue).await, 0);
}

async fn gr_6_what_is_given_back_comes_again_and_counts_as_no_attempt<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("later").await;
    let begun = Instant::now();
    let handler = async |State(log): State<Log>,
                         Attempt(attempt): Attempt,
                         Redelivered(again): Redelivered| {
        log.add(format!("{attempt} {again}"));
        if again { Ok(()) } else { Err(Failure::give_back("not now")) }
    };
    let consume = source(queue.as_str()).on_failure(Retry::none());
    let report = beside(at.app().consume(consume, handler), async |_| {
        client.send(&queue, "it").await;
        at.log.reach(2).await;
    })
    .await;
    assert_eq!(at.log.lines(), ["1 false", "1 true"]);
    assert!(begun.elapsed() >= Duration::from_secs(1), "there is a pause");
    assert_eq!((report.handled, report.given_back, report.parked), (1, 1, 0));
}

async fn gr_18_the_last_resort_is_what_the_policy_says<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [dead, reports, archive] =
        [client.queue("dead").await, client.queue("reports").await, client.queue("archive").await];
    let mut app = at.app();
    let mut queues = Vec::new();
    for (name, policy) in [
        ("dead-letter", Retry::none().then_dead_letter()),
        ("discard", Retry::none().then_discard()),
        ("report", Retry::none().then_report("", &reports)),
        ("archive", Retry::none().then_park_in(&archive)),
        ("requeue", Retry::none().then_requeue(Duration::from_millis(60))),
    ] {
        let queue = QueueDeclare::classic(unique(name)).dead_letter_exchange("");
        let queue = queue.dead_letter_routing_key(&dead);
        queues.push(queue.queue.clone());
        app = app.consume(
            Consume::new(queue).on_failure(policy),
            async |Redelivered(again): Redelivered, State(log): State<Log>| {
                if !again {
                    return Err("no\0w");
                }
                log.add("again");
                Ok(())
            },
        );
    }
    let report = beside(app, async |_| {
        for queue in &queues {
            until("the queue", async || {
                client
                    .publisher
                    .publish(&Message::new(queue.clone()).to_queue(queue).message_id("m"))
                    .await
                    .is_ok()
            })
            .await;
        }
        assert_eq!(client.bodies(&dead, 1).await, [queues[0].clone()]);
        let told = client.expect(&reports).await;
        assert_eq!(text(&told), "now", "without NUL");
        assert_eq!(told.properties().unwrap().correlation_id.as_deref(), Some("m"));
        assert_eq!(client.bodies(&archive, 1).await, [queues[3].clone()]);
        at.log.find("again").await;
        for queue in &queues {
            until("nothing", async || client.ready(queue).await == 0).await;
        }
    })
    .await;
    assert_eq!((report.failed, report.parked, report.handled), (5, 1, 1));
    for queue in &queues {
        assert_eq!(client.ready(queue).await, 0);
    }
}

async fn a_handler_may_stop_the_application<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("fatal").await;
    client.send(&queue, "last").await;
    let app = at.app().consume(source(queue.as_str()), async || Failure::stop("the disk is full"));
    let error = crate::at::within("the end", app.run(Shutdown::never())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("stopped by the handler of queue {queue:?}: the disk is full")
    );
    assert_eq!(client.bodies(&queue, 1).await, ["last"]);
    client.send(&queue, "policy").await;
    let consume = source(queue.as_str()).on_failure(Retry::none().then_stop());
    let app = at.app().consume(consume, async || Err::<(), _>("no"));
    crate::at::within("the end", app.run(Shutdown::never())).await.unwrap_err();
    assert_eq!(client.bodies(&queue, 1).await, ["policy"]);
}

/// The parking queue is full. Nothing is lost, and the message is not handled in a loop.
async fn what_cannot_be_parked_is_given_back<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, parking] = [unique("kept"), unique("full")];
    client.channel.queue_declare(QueueDeclare::classic(&queue)).await.unwrap();
    let full = QueueDeclare::classic(&parking).max_length(1).overflow(Overflow::RejectPublish);
    client.channel.queue_declare(full).await.unwrap();
    client.send(&parking, "in the way").await;
    client.send(&queue, "kept").await;
    let consume = source(queue.as_str()).on_failure(Retry::none().then_park_in(&parking));
    let app = at.app().consume(consume, async |State(log): State<Log>| {
        log.add("tried");
        Err::<(), _>("no")
    });
    let report = beside(app, async |_| {
        at.log.reach(2).await;
        client.bodies(&parking, 1).await;
        assert_eq!(client.bodies(&parking, 1).await, ["kept"]);
    })
    .await;
    assert!(report.given_back >= 1 && report.parked == 1, "{report:?}");
    assert_eq!(client.ready(&queue).await, 0);
}

async fn a_condition_decides_what_is_retried<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("condition").await;
    let policy = Retry::now(3).if_error(|failure| failure.to_string().contains("busy"));
    let consume = source(queue.as_str()).on_failure(policy);
    let handler = async |Text(text): Text, State(log): State<Log>| -> Result<(), Failure> {
        log.add(&text);
        Err(text.into())
    };
    let report = beside(at.app().consume(consume, handler), async |_| {
        client.send(&queue, "busy").await;
        client.send(&queue, "broken").await;
        assert_eq!(client.bodies(&format!("{queue}.parked"), 2).await, ["busy", "broken"]);
    })
    .await;
    assert_eq!(at.log.lines(), ["busy", "busy", "busy", "busy", "broken"]);
    assert_eq!((report.failed, report.retried), (5, 3));
}
