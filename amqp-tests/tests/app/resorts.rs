//! What bounds attempts beside the policy's own count, and last resorts that cannot be carried out.

use amqp_app::prelude::*;
use amqp_async::Overflow;

use crate::at::{
    At, Log, Make, beside, header, number, on_model, on_rabbitmq, rabbitmq, source, text, unique,
    until,
};

on_model! {
    u_3_a_message_that_was_delivered_too_often_is_parked_as_the_policy_says
    u_3_a_redelivery_counts_as_an_attempt_if_the_policy_says_so
    u_3_a_message_whose_reply_is_refused_is_tried_again
    u_3_a_message_outlives_a_parking_queue_that_is_gone
    gr_18_a_message_is_kept_until_its_report_can_be_sent
    gr_18_a_message_of_a_quorum_queue_is_kept_until_its_report_can_be_sent
    gr_18_a_message_that_is_given_back_is_not_reported
}

on_rabbitmq! {
    u_3_a_message_that_was_delivered_too_often_is_parked_as_the_policy_says
    u_3_a_redelivery_counts_as_an_attempt_if_the_policy_says_so
    u_3_a_message_whose_reply_is_refused_is_tried_again
    u_3_a_message_outlives_a_parking_queue_that_is_gone
    u_3_a_message_outlives_a_full_delay_queue
    gr_18_a_message_is_kept_until_its_report_can_be_sent
    gr_18_a_message_of_a_quorum_queue_is_kept_until_its_report_can_be_sent
    gr_18_a_message_that_is_given_back_is_not_reported
}

async fn u_3_a_message_that_was_delivered_too_often_is_parked_as_the_policy_says<P: Make>(
    at: At<P>,
) {
    let client = at.client().await;
    let queue = unique("deliveries");
    client.channel.queue_declare(QueueDeclare::quorum(&queue)).await.unwrap();
    for (body, deliveries) in [("killer", 2), ("survivor", 1)] {
        client.send(&queue, body).await;
        for _ in 0..deliveries {
            let delivery = client.expect(&queue).await;
            assert_eq!(text(&delivery), body);
            delivery.reject(true).unwrap();
        }
        let consume = source(QueueDeclare::quorum(&queue));
        let consume = consume.on_failure(Retry::none().max_deliveries(2));
        let handler =
            async |Text(text): Text, Attempt(attempt): Attempt, State(log): State<Log>| {
                log.add(format!("{text} {attempt}"));
            };
        let report = beside(at.app().consume(consume, handler), async |_| {
            if body == "survivor" {
                at.log.reach(1).await;
                return;
            }
            let parked = client.expect(&format!("{queue}.parked")).await;
            let reason = header(&parked, "retry-error").unwrap();
            assert_eq!(reason, "delivered 2 times before without an outcome");
            parked.ack().unwrap();
        })
        .await;
        assert_eq!(report.handled + report.parked, 1, "{body}: {report:?}");
    }
    assert_eq!(at.log.lines(), ["survivor 2"]);
}

async fn u_3_a_redelivery_counts_as_an_attempt_if_the_policy_says_so<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("redelivered").await;
    client.send(&queue, "again").await;
    client.expect(&queue).await.reject(true).unwrap();
    client.send(&queue, "new").await;
    let policy = Retry::now(1).pause(Duration::from_millis(1)).redelivered_is_attempt();
    let consume = source(queue.as_str()).on_failure(policy);
    let handler = async |Text(text): Text, Attempt(attempt): Attempt, State(log): State<Log>| {
        log.add(format!("{text} {attempt}"));
        Err::<(), _>("down")
    };
    beside(at.app().consume(consume, handler), async |_| {
        for body in ["again", "new"] {
            let parked = client.expect(&format!("{queue}.parked")).await;
            assert_eq!((text(&parked).as_str(), number(&parked, "retry-attempt")), (body, Some(2)));
            parked.ack().unwrap();
        }
    })
    .await;
    assert_eq!(at.log.lines(), ["again 2", "new 1", "new 2"]);
}

/// One of two replies goes to a queue that is full. The other one is sent with each attempt, each time with the same id.
async fn u_3_a_message_whose_reply_is_refused_is_tried_again<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, answers] = [client.queue("requests").await, client.queue("answers").await];
    let full = unique("full");
    let declare = QueueDeclare::classic(&full).max_length(1).overflow(Overflow::RejectPublish);
    client.channel.queue_declare(declare).await.unwrap();
    client.send(&full, "in the way").await;
    client.publish(Message::new("1").message_id("m").to_queue(&queue)).await;
    let to = [answers.clone(), full];
    let handler = move |Text(text): Text| {
        std::future::ready(to.clone().map(|to| Message::new(text.clone()).to_queue(to)))
    };
    let consume = source(queue.as_str()).on_failure(Retry::now(1));
    let report = beside(at.app().consume(consume, handler), async |_| {
        let parked = client.expect(&format!("{queue}.parked")).await;
        let reason = header(&parked, "retry-error").unwrap();
        assert!(reason.contains("a queue is full"), "{reason}");
        assert_eq!(parked.properties().unwrap().message_id.as_deref(), Some("m"));
        parked.ack().unwrap();
        for _ in 0..2 {
            let answer = client.expect(&answers).await;
            assert_eq!(answer.properties().unwrap().message_id.as_deref(), Some("m#0"));
            answer.ack().unwrap();
        }
    })
    .await;
    assert_eq!((report.failed, report.retried, report.parked), (2, 1, 1));
    assert_eq!(client.ready(&answers).await, 0);
}

async fn u_3_a_message_outlives_a_parking_queue_that_is_gone<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("parking").await;
    let parking = format!("{queue}.parked");
    let app = at.app().consume(source(queue.as_str()), async |_: Text| Failure::permanent("no"));
    let health = app.health();
    let report = beside(app, async |_| {
        until("the start", async || health.is_ready()).await;
        client.channel.queue_delete(QueueDelete::new(&parking)).await.unwrap();
        client.publish(Message::new("kept").message_id("m").to_queue(&queue)).await;
        until("a copy that reaches no queue", async || {
            health.report().is_some_and(|it| it.sources[0].unstored > 0)
        })
        .await;
        client.channel.queue_declare(QueueDeclare::classic(&parking)).await.unwrap();
        let parked = client.expect(&parking).await;
        assert_eq!(parked.properties().unwrap().message_id.as_deref(), Some("m"));
        parked.ack().unwrap();
    })
    .await;
    assert!(report.given_back >= 1, "{report:?}");
    assert_eq!((report.parked, client.ready(&queue).await), (1, 0));
}

/// An operator has limited the queue by a policy of the broker.
async fn u_3_a_message_outlives_a_full_delay_queue<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("limited").await;
    let waiting = format!("{queue}.retry.10m");
    let limit = r#"{"max-length":1,"overflow":"reject-publish"}"#;
    let pattern = format!("^{waiting}$");
    let set = ["set_policy", "--apply-to", "queues", waiting.as_str(), pattern.as_str(), limit];
    rabbitmq().ctl(&set).unwrap();
    let policy = Retry::after([Duration::from_secs(600)]);
    let app = at
        .app()
        .consume(source(queue.as_str()).on_failure(policy), async |_: Text| Failure::retry("no"));
    let health = app.health();
    let report = beside(app, async |_| {
        for body in ["first", "second"] {
            client.send(&queue, body).await;
        }
        until("a copy that is refused", async || {
            health.report().is_some_and(|it| it.sources[0].unstored > 0)
        })
        .await;
        assert_eq!(client.bodies(&waiting, 2).await, ["first", "second"]);
    })
    .await;
    rabbitmq().ctl(&["clear_policy", &waiting]).unwrap();
    assert!(report.given_back >= 1, "{report:?}");
    assert_eq!((report.retried, client.ready(&queue).await), (2, 0));
}

/// The queue of reports, and the exchange, are declared after the report was refused this many times.
async fn reports_late<P: Make>(at: &At<P>, queue: QueueDeclare, refusals: u32) -> [Report; 2] {
    let client = at.client().await;
    client.channel.queue_declare(queue.clone()).await.unwrap();
    let mut ends = Vec::new();
    for exchange in [String::new(), unique("errors")] {
        let reports = unique("reports");
        let policy = Retry::none().then_report(&exchange, &reports);
        let consume = Consume::new(queue.clone()).on_failure(policy);
        let app = at.app().consume(consume, async |_: Text| Failure::retry("no"));
        let health = app.health();
        client.publish(Message::new("kept").message_id("m").to_queue(&queue.queue)).await;
        let report = beside(app, async |_| {
            until("the refusals", async || {
                health.report().is_some_and(|it| it.sources[0].unstored >= refusals)
            })
            .await;
            client.channel.queue_declare(QueueDeclare::classic(&reports)).await.unwrap();
            if !exchange.is_empty() {
                let declare = ExchangeDeclare::direct(&exchange);
                client.channel.exchange_declare(declare).await.unwrap();
                let bind = QueueBind::new(&reports, &exchange, &reports);
                client.channel.queue_bind(bind).await.unwrap();
            }
            let told = client.expect(&reports).await;
            let properties = told.properties().unwrap();
            assert_eq!(
                (text(&told).as_str(), properties.correlation_id.as_deref()),
                ("no", Some("m"))
            );
            told.ack().unwrap();
        })
        .await;
        assert_eq!((report.discarded, client.ready(&queue.queue).await), (1, 0));
        ends.push(report);
    }
    ends.try_into().unwrap()
}

/// The report reaches no queue, or its exchange is missing.
async fn gr_18_a_message_is_kept_until_its_report_can_be_sent<P: Make>(at: At<P>) {
    for report in reports_late(&at, QueueDeclare::classic(unique("reporting")), 1).await {
        assert!(report.given_back >= 1, "{report:?}");
    }
}

/// The queue would drop a message that is given back more often than its limit says.
async fn gr_18_a_message_of_a_quorum_queue_is_kept_until_its_report_can_be_sent<P: Make>(
    at: At<P>,
) {
    let queue = QueueDeclare::quorum(unique("reporting")).delivery_limit(1);
    for report in reports_late(&at, queue, 3).await {
        assert_eq!(report.given_back, 0);
    }
}

/// As with an error that `error_reraise` of gocept.amqprun lists.
async fn gr_18_a_message_that_is_given_back_is_not_reported<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, reports] = [client.queue("requests").await, client.queue("reports").await];
    for consume in [source(queue.as_str()), source(queue.as_str()).transactional()] {
        let handler = |Text(text): Text, Attempt(attempt): Attempt, State(log): State<Log>| {
            log.add(format!("{text} {attempt}"));
            let times = log.lines().iter().filter(|it| it.starts_with("later")).count();
            std::future::ready(match text.as_str() {
                "bad" => Err(Failure::retry("it is bad")),
                "later" if times < 2 => Err(Failure::give_back("not now")),
                _ => Ok(()),
            })
        };
        let consume = consume.on_failure(Retry::none().then_report("", &reports));
        let report = beside(at.app().consume(consume, handler), async |_| {
            client.publish(Message::new("later").message_id("l").to_queue(&queue)).await;
            at.log.reach(2).await;
            client.publish(Message::new("bad").message_id("b").to_queue(&queue)).await;
            // It is the only one, and the text of the error alone.
            let report = client.expect(&reports).await;
            assert_eq!(text(&report), "it is bad");
            assert_eq!(report.properties().unwrap().correlation_id.as_deref(), Some("b"));
            report.ack().unwrap();
        })
        .await;
        assert_eq!(at.log.take(), ["later 1", "later 1", "bad 1"]);
        assert_eq!((report.handled, report.given_back, report.discarded), (1, 1, 1));
        assert_eq!((client.ready(&queue).await, client.ready(&reports).await), (0, 0));
    }
}
