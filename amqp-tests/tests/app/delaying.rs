//! Messages that arrive later: in virtual time on the model broker, with short delays on RabbitMQ.

use amqp_app::prelude::*;
use amqp_app::testing::Test;
use amqp_app::{DelayError, Pool};
use amqp_testkit::ModelBroker;

use crate::at::{
    At, Log, Make, beside, header, on_model, on_rabbitmq, rabbitmq, source, text, unique,
};

on_model! {
    delays_of_hours_end_on_time
    a_message_may_be_delayed_again_and_again
    delays_for_queues_and_delays_that_are_not_declared
}

on_rabbitmq! {
    a_message_may_be_delayed_again_and_again
    delays_for_queues_and_delays_that_are_not_declared
}

/// The quorum queues of delays, and the classic ones.
fn both(exchange: &str, delays: impl IntoIterator<Item = Duration> + Clone) -> [Delays; 2] {
    [Delays::to(exchange, delays.clone()), Delays::to(exchange, delays).classic()]
}

async fn delays_of_hours_end_on_time<P: Make>(_: At<P>) {
    for delays in both("amq.topic", [1, 60, 3_600].map(Duration::from_secs)) {
        let test = Test::start(|uri| Ok::<_, Error>(P::to(uri))).await;
        test.queue("arrived").await;
        test.bind("arrived", "amq.topic", "some.#").await;
        let pool = Pool::new(test.platform(), 1).connect().await.unwrap();
        let member = pool.connection().await.unwrap();
        let connection = test.platform().connect().await.unwrap();
        // A second time changes nothing.
        for _ in 0..2 {
            delays.declare(&connection.open_channel().await.unwrap()).await.unwrap();
        }
        for (body, seconds) in
            [("hour", 3_600), ("two", 2), ("second", 1), ("minute", 60), ("now", 0)]
        {
            let message = Message::new(body).to("amq.topic", "some.key").message_id(body);
            delays.publish(&member, message, Duration::from_secs(seconds)).await.unwrap();
        }
        let ready = |queue: &str| test.broker().ready(queue).unwrap();
        let waiting = || ["1s", "1m", "1h"].map(|delay| ready(&format!("delay.amq.topic.{delay}")));
        assert_eq!((waiting(), ready("arrived")), ([1, 2, 1], 1));
        for (milliseconds, then) in [
            (999, ([1, 2, 1], 1)),
            (1, ([0, 2, 1], 2)),
            (58_999, ([0, 2, 1], 2)),
            (1, ([0, 0, 1], 4)),
            (3_539_999, ([0, 0, 1], 4)),
            (1, ([0, 0, 0], 5)),
        ] {
            test.advance(Duration::from_millis(milliseconds)).await;
            assert_eq!((waiting(), ready("arrived")), then, "{milliseconds} ms later");
        }
        for body in ["now", "second", "two", "minute", "hour"] {
            let delivery = test.expect_delivery("arrived").await;
            let key = delivery.routing_key().as_str().unwrap().to_owned();
            assert_eq!((text(&delivery).as_str(), key.as_str()), (body, "some.key"));
            assert_eq!(delivery.exchange().as_str().unwrap(), "amq.topic");
            assert_eq!(delivery.properties().unwrap().message_id.as_deref(), Some(body));
            delivery.ack().unwrap();
        }
        pool.close().await;
    }
}

/// A handler that sends what it got on, with its headers. RabbitMQ before 4.0 drops a message that expires in the same queue
/// for the second time, if it has the records of the first.
async fn a_message_may_be_delayed_again_and_again<P: Make>(at: At<P>) {
    for is_classic in [false, true] {
        let client = at.client().await;
        let exchange = unique("again");
        let queue = client.queue("again").await;
        client.channel.exchange_declare(ExchangeDeclare::topic(&exchange)).await.unwrap();
        client.channel.queue_bind(QueueBind::new(&queue, &exchange, "key.*")).await.unwrap();
        let delays =
            both(&exchange, [100, 300].map(Duration::from_millis))[usize::from(is_classic)].clone();
        delays.declare(&client.channel).await.unwrap();
        let to = (exchange.clone(), delays.clone());
        let handler = move |Text(body): Text,
                            Headers(headers): Headers,
                            key: RoutingKey,
                            State(log): State<Log>| {
            let (exchange, delays) = &to;
            log.add(format!("{body} {}", key.0));
            let round = body.parse::<u64>().unwrap() + 1;
            let next = Message::new(round.to_string()).headers(headers);
            let delay = Duration::from_millis(100 * round);
            let again =
                (round < 4).then(|| delays.delay(next.to(exchange, format!("key.{round}")), delay));
            std::future::ready(again.transpose().map_err(Failure::permanent))
        };
        let report = beside(at.app().consume(source(queue.as_str()), handler), async |_| {
            let message = Message::new("0").to(&exchange, "key.0").header("mine", "kept");
            client.publish(delays.delay(message, Duration::from_millis(1)).unwrap()).await;
            at.log.reach(4).await;
        })
        .await;
        assert_eq!((report.handled, report.parked), (4, 0));
        assert_eq!(at.log.take(), ["0 key.0", "1 key.1", "2 key.2", "3 key.3"]);
    }
}

async fn delays_for_queues_and_delays_that_are_not_declared<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("later").await;
    let pool = Pool::new(at.platform.clone(), 1).connect().await.unwrap();
    let member = pool.connection().await.unwrap();
    let delays = Delays::to("", [Duration::from_millis(50)]);
    delays.declare(&client.channel).await.unwrap();
    let message = || Message::new("m").to_queue(&queue).header("mine", "kept");
    delays.publish(&member, message(), Duration::from_millis(20)).await.unwrap();
    let delivery = client.expect(&queue).await;
    assert_eq!(delivery.routing_key().as_str().unwrap(), queue);
    assert_eq!(header(&delivery, "mine").as_deref(), Some("kept"));
    assert_eq!(delivery.properties().unwrap().expiration, None);
    delivery.ack().unwrap();

    let undeclared = Delays::to("", [Duration::from_millis(77)]);
    let error =
        undeclared.publish(&member, message(), Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, DelayError::Unconfirmed(_)), "{error:?}");
    let late = delays.publish(&member, message(), Duration::from_millis(51)).await.unwrap_err();
    assert!(matches!(late, DelayError::TooLong { .. }), "{late:?}");
    // It exists with another type.
    client.channel.exchange_declare(ExchangeDeclare::direct("delay.99ms")).await.unwrap();
    let other = Delays::to("", [Duration::from_millis(99)]);
    let error = other.declare(&client.connection.open_channel().await.unwrap()).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot set up the delay \"delay.99ms\""), "{error}");
    client.channel.exchange_delete(ExchangeDelete::new("delay.99ms")).await.unwrap();
    pool.close().await;
}

#[test]
fn delays_on_threads() {
    let model = ModelBroker::start().unwrap();
    for uri in [model.uri(), rabbitmq().uri()] {
        let pool = Pool::new(amqp_blocking::Connector::new(&uri).unwrap(), 1).connect().unwrap();
        let member = pool.connection().unwrap();
        let channel = member.open_channel().unwrap();
        let queue = unique("delayed");
        channel.queue_declare(QueueDeclare::classic(&queue)).unwrap();
        let delays = Delays::to("", [Duration::from_millis(60)]);
        delays.declare_blocking(&channel).unwrap();
        let message = Message::new("m").to_queue(&queue);
        delays.publish_blocking(&member, message, Duration::from_millis(1)).unwrap();
        let arrived = member.consume_one(&queue, Duration::from_secs(50)).unwrap().unwrap();
        assert_eq!(arrived.body(), b"m");
        arrived.ack().unwrap();
        pool.close();
    }
}
