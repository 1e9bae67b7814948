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
