//! Attempts after delays: on RabbitMQ in real time, on the model broker in virtual time.

use std::time::Instant;

use amqp_app::prelude::*;
use amqp_app::testing::Test;

use crate::at::{
    At, Log, Make, beside, header, number, on_model, on_tokio_multi_thread, text, unique, until,
};

on_model! {
    a_policy_of_minutes_takes_milliseconds_on_a_clock_that_the_test_advances
    a_failure_may_ask_for_a_longer_delay
}

async fn a_policy_of_minutes_takes_milliseconds_on_a_clock_that_the_test_advances<P: Make>(
    _: At<P>,
) {
    for declare in [QueueDeclare::classic, QueueDeclare::quorum] {
        let test = Test::start(|uri| Ok::<_, Error>(P::to(uri))).await;
        let handler = async |Attempt(attempt): Attempt, Text(text): Text| {
            if text == "third" && attempt == 3 { Ok(()) } else { Err("down") }
        };
        test.run(App::new(test.platform()).consume(declare("orders"), handler)).await;
        for body in ["never", "third"] {
            test.send_message(Message::new(body).to_queue("orders")).await;
        }
        let waiting = |delay: &str| test.broker().ready(&format!("orders.retry.{delay}")).unwrap();
        test.all_handled().await;
        assert_eq!((waiting("1s"), waiting("10s")), (2, 0));
        test.advance(Duration::from_millis(999)).await;
        assert_eq!(waiting("1s"), 2);
        test.advance(Duration::from_millis(1)).await;
        assert_eq!((waiting("1s"), waiting("10s")), (0, 2));
        test.advance(Duration::from_secs(10)).await;
        assert_eq!((waiting("10s"), waiting("1m")), (0, 1));
        test.advance(Duration::from_secs(60)).await;
        test.advance(Duration::from_secs(600)).await;
        let parked = test.expect_delivery("orders.parked").await;
        assert_eq!((text(&parked), number(&parked, "retry-attempt")), ("never".into(), Some(5)));
        parked.ack().unwrap();
        let Report { handled, failed, retried, parked, .. } = test.stop().await;
        assert_eq!((handled, failed, retried, parked), (1, 7, 6, 1));
    }
}

async fn a_failure_may_ask_for_a_longer_delay<P: Make>(_: At<P>) {
    let test = Test::start(|uri| Ok::<_, Error>(P::to(uri))).await;
    let handler = async |Attempt(attempt): Attempt| match attempt {
        1 => Err(Failure::retry_after(Duration::from_secs(20), "busy for a while")),
        _ => Ok(()),
    };
    test.run(App::new(test.platform()).consume(QueueDeclare::classic("orders"), handler)).await;
    test.send_message(Message::new("1").to_queue("orders")).await;
    test.all_handled().await;
    assert_eq!(test.broker().ready("orders.retry.1m"), Some(1));
    test.advance(Duration::from_secs(60)).await;
    assert_eq!(test.stop().await.handled, 1);
}

/// A policy of ten minutes on the model, and the same with short delays on RabbitMQ: what handlers see, and what is parked.
#[test]
fn a_policy_leaves_the_same_trace_on_the_model_and_on_rabbitmq() {
    on_tokio_multi_thread(async {
        let names = [unique("traced"), unique("traced")];
        let kinds = [QueueDeclare::classic, QueueDeclare::quorum];
        for (declare, name) in kinds.into_iter().zip(&names) {
            let minutes = [1, 10, 60, 600].map(Duration::from_secs);
            let model = trace_on_the_model(declare("traced"), minutes).await;
            let moments = [50, 100, 150, 200].map(Duration::from_millis);
            let at = At::<amqp_tokio::Connector>::rabbitmq();
            let rabbitmq = trace_on_rabbitmq(at, declare(name), moments).await;
            assert_eq!(model, rabbitmq);
            let attempts = model.iter().filter(|line| line.starts_with("attempt"));
            assert_eq!(attempts.count(), 6 + 1 + 3, "{model:#?}");
        }
    });
}

/// An application that retries in place once, then after the delays.
fn traced<P: Make>(app: App<P, Log>, queue: QueueDeclare, delays: [Duration; 4]) -> App<P, Log> {
    let policy = Retry::now(1).pause(Duration::from_millis(1)).and_after(delays);
    let consume = Consume::new(queue).concurrency(1).on_failure(policy);
    app.consume(consume, async |State(log): State<Log>, context: Context<Log>| {
        let body = String::from_utf8_lossy(context.body()).into_owned();
        let (attempt, key) = (context.attempt(), context.routing_key());
        let properties = context.properties().unwrap();
        log.add(format!("attempt {attempt} of {body} by {key}: {:?}", properties.message_id));
        match (body.as_str(), attempt) {
            ("permanent", _) => Err(Failure::permanent("never")),
            ("third", 3) => Ok(()),
            _ => Err(Failure::retry("down")),
        }
    })
}

const TRACED: [&str; 3] = ["always", "third", "permanent"];

fn traced_message(body: &str, queue: &str) -> Message {
    Message::new(body.to_owned()).message_id(body).header("own", 7).to_queue(queue)
}

async fn trace_on_the_model(queue: QueueDeclare, delays: [Duration; 4]) -> Vec<String> {
    let test = Test::start(amqp_tokio::Connector::new).await;
    let (log, name) = (Log::default(), queue.queue.clone());
    test.run(traced(App::with_state(test.platform(), log.clone()), queue, delays)).await;
    for body in TRACED {
        test.send_message(traced_message(body, &name)).await;
    }
    for delay in delays {
        test.advance(delay).await;
    }
    for _ in 0..2 {
        let parked = test.expect_delivery(&format!("{name}.parked")).await;
        log.add(parked_line(&parked));
        parked.ack().unwrap();
    }
    assert_eq!(test.stop().await.parked, 2);
    sorted(&log, &name)
}

async fn trace_on_rabbitmq(
    at: At<amqp_tokio::Connector>,
    queue: QueueDeclare,
    delays: [Duration; 4],
) -> Vec<String> {
    let (client, name) = (at.client().await, queue.queue.clone());
    client.channel.queue_declare(queue.clone()).await.unwrap();
    for body in TRACED {
        client.publish(traced_message(body, &name)).await;
    }
    beside(traced(at.app(), queue, delays), async |_| {
        for _ in 0..2 {
            let parked = client.expect(&format!("{name}.parked")).await;
            at.log.add(parked_line(&parked));
            parked.ack().unwrap();
        }
        at.log.reach(12).await;
    })
    .await;
    sorted(&at.log, &name)
}

fn parked_line(parked: &Delivery) -> String {
    let headers = parked.headers().unwrap();
    let mut headers: Vec<String> = headers
        .iter()
        // The time, and the count of a quorum queue that is itself a parking queue.
        .filter(|(name, _)| *name != "retry-first-failed-at" && *name != "x-delivery-count")
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    headers.sort();
    let properties = parked.properties().unwrap();
    format!("parked {} {:?}: {}", text(parked), properties.message_id, headers.join(", "))
}

/// The lines with one name for the queue. Those of different messages may come in any order.
fn sorted(log: &Log, queue: &str) -> Vec<String> {
    let mut lines: Vec<_> =
        log.lines().iter().map(|line| line.replace(queue, "the queue")).collect();
    lines.sort();
    lines
}

#[test]
fn a_message_waits_beside_its_queue_and_comes_back_then_is_parked() {
    on_tokio_multi_thread(async {
        for declare in [QueueDeclare::classic, QueueDeclare::quorum] {
            waits(At::<amqp_tokio::Connector>::rabbitmq(), declare(unique("delayed"))).await;
        }
    });
}

async fn waits<P: Make>(at: At<P>, queue: QueueDeclare) {
    let client = at.client().await;
    let exchange = unique("events");
    client.channel.exchange_declare(ExchangeDeclare::direct(&exchange)).await.unwrap();
    let name = queue.queue.clone();
    let delays = [200, 200, 500].map(Duration::from_millis);
    let policy = Retry::now(1).and_after(delays).then_park();
    let consume = Consume::new(queue).bind(&exchange, "created").on_failure(policy);
    let begun = Instant::now();
    let handler = move |State(log): State<Log>, context: Context<Log>| {
        let (exchange, key) = (context.exchange().to_owned(), context.routing_key().to_owned());
        let elapsed = begun.elapsed().as_millis();
        log.add(format!("{} {exchange} {key} {elapsed}", context.attempt()));
        std::future::ready(Failure::retry("down"))
    };
    let report = beside(at.app().consume(consume, handler), async |_| {
        until("the binding", async || {
            let message = Message::new("body").to(&exchange, "created").message_id("m");
            client.publisher.publish(&message.header("x-death", 1)).await.is_ok()
        })
        .await;
        let parked = client.expect(&format!("{name}.parked")).await;
        assert_eq!((text(&parked), number(&parked, "retry-attempt")), ("body".into(), Some(5)));
        assert_eq!(header(&parked, "retry-exchange"), Some(exchange.clone()));
        assert_eq!(header(&parked, "retry-routing-key").as_deref(), Some("created"));
        assert_eq!(parked.properties().unwrap().message_id.as_deref(), Some("m"));
        let headers = parked.headers().unwrap();
        // A quorum queue adds its own count.
        let dead = |name: &str| name.starts_with("x-") && name != "x-delivery-count";
        assert!(!headers.iter().any(|(name, _)| dead(name)), "{headers:?}");
        parked.ack().unwrap();
    })
    .await;
    let lines: Vec<Vec<String>> =
        at.log.lines().iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect();
    let attempts: Vec<&str> = lines.iter().map(|line| line[0].as_str()).collect();
    assert_eq!(attempts, ["1", "2", "3", "4", "5"]);
    assert!(lines.iter().all(|line| line[1] == exchange && line[2] == "created"), "{lines:?}");
    let times: Vec<u64> = lines.iter().map(|line| line[3].parse().unwrap()).collect();
    for (pair, least) in times.windows(2).zip([50, 200, 200, 500]) {
        assert!(pair[1] - pair[0] >= least - 2, "{times:?}");
    }
    assert_eq!((report.failed, report.retried, report.parked, report.handled), (5, 4, 1, 0));
}
