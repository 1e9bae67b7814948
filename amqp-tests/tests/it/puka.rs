//! What programs on puka rely on, on tokio: on the model broker and on RabbitMQ. Puka's promises are futures here.

use std::time::Duration;

use amqp_async::{Heartbeat, PublishError};
use amqp_tokio::{BasicConsume, Connection, Connector, Message, QueueDeclare};

use crate::support::{code, rabbitmq, unique};

/// Turns each `async fn name(connection: Connection)` into a test on the model and one on RabbitMQ.
macro_rules! tests {
    ($($name:ident)*) => {
        mod on_model {
            $(
                #[test]
                fn $name() {
                    super::run(&crate::support::model().uri(), super::$name);
                }
            )*
        }
        mod on_rabbitmq {
            $(
                #[test]
                fn $name() {
                    super::run(&crate::support::rabbitmq().uri(), super::$name);
                }
            )*
        }
    };
}

tests! {
    pu_2_each_call_has_a_result_of_its_own
    pu_3_a_wait_may_have_a_timeout
    pu_6_a_publish_waits_for_its_own_confirm_and_the_next_one_works
    pu_13_an_acknowledgement_that_the_broker_does_not_want_is_not_sent
    pu_14_an_error_has_the_code_and_the_method_of_the_broker
    pu_15_a_close_ends_everything_that_waits
    pu_19_what_is_published_without_waiting_is_not_lost
}

fn run(uri: &str, test: impl AsyncFnOnce(Connection)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { test(Connector::new(uri).unwrap().connect().await.unwrap()).await });
}

/// A queue with these messages.
async fn filled(connection: &Connection, name: &str, bodies: &[&str]) -> String {
    let queue = unique(name);
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare(QueueDeclare::new(&queue)).await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    for body in bodies {
        publisher.publish(&Message::new(body.to_string()).to("", &queue)).await.unwrap();
    }
    queue
}

#[test]
fn pu_1_a_client_says_what_it_is() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connector = Connector::new(&rabbitmq().uri()).unwrap();
        let name = unique("of-puka");
        let connector = connector.client_property("custom", name.as_str());
        let connection = connector.heartbeat(Heartbeat::Seconds(7)).connect().await.unwrap();
        assert_eq!(connection.tuning().heartbeat, 7);
        let listed = rabbitmq().ctl(&["list_connections", "client_properties"]).unwrap();
        let line = listed.lines().find(|line| line.contains(&name)).unwrap();
        assert!(line.contains("publisher_confirms") && line.contains("product"), "{line}");
        connection.close().await;
    });
}

async fn pu_2_each_call_has_a_result_of_its_own(connection: Connection) {
    let queue = filled(&connection, "own", &["1", "2", "3", "4"]).await;
    let channel = connection.open_channel().await.unwrap();
    let get = || channel.basic_get(queue.as_str());
    let (one, two, three, four) = tokio::join!(get(), get(), get(), get());
    let mut bodies = Vec::new();
    // They may be acknowledged in any order.
    for delivery in [four, two, one, three] {
        let delivery = delivery.unwrap().unwrap();
        bodies.push(delivery.body().to_vec());
        delivery.ack().unwrap();
    }
    assert_eq!(bodies, [b"4", b"2", b"1", b"3"]);
    assert!(get().await.unwrap().is_none());
    connection.close().await;
}

async fn pu_3_a_wait_may_have_a_timeout(connection: Connection) {
    let queue = filled(&connection, "empty", &[]).await;
    let channel = connection.open_channel().await.unwrap();
    let mut consumer = channel.basic_consume(BasicConsume::new(&queue)).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(20), consumer.next()).await;
    assert!(waited.is_err(), "there is no message");
    // Waiting again takes what came meanwhile.
    let publisher = connection.publisher().await.unwrap();
    publisher.publish(&Message::new("late").to("", &queue)).await.unwrap();
    let delivery = consumer.next().await.unwrap().unwrap();
    assert_eq!(delivery.body(), b"late");
    delivery.ack().unwrap();
    connection.close().await;
}

/// One task waits for whichever of two connections has something first.
#[test]
fn pu_4_one_task_serves_several_connections() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let uris = [crate::support::model().uri(), rabbitmq().uri()];
        let mut both = Vec::new();
        for (index, uri) in uris.iter().enumerate() {
            let connection = Connector::new(uri).unwrap().connect().await.unwrap();
            let queue = filled(&connection, "served", &[&index.to_string()]).await;
            let channel = connection.open_channel().await.unwrap();
            let consume = BasicConsume::new(&queue).no_ack();
            both.push((connection, channel.basic_consume(consume).await.unwrap()));
        }
        let [(_, first), (_, second)] = &mut both[..] else { unreachable!() };
        let mut bodies = Vec::new();
        while bodies.len() < 2 {
            tokio::select! {
                delivery = first.next() => bodies.push(delivery.unwrap().unwrap().body().to_vec()),
                delivery = second.next() => bodies.push(delivery.unwrap().unwrap().body().to_vec()),
            }
        }
        bodies.sort();
        assert_eq!(bodies, [b"0", b"1"]);
        for (connection, _) in both {
            connection.close().await;
        }
    });
}

async fn pu_6_a_publish_waits_for_its_own_confirm_and_the_next_one_works(connection: Connection) {
    let queue = filled(&connection, "confirmed", &[]).await;
    let publisher = connection.publisher().await.unwrap();
    let lost = Message::new("lost").to("", unique("missing")).mandatory();
    match publisher.publish(&lost).await.unwrap_err() {
        PublishError::Returned(returned) => assert_eq!(returned.code.code(), 312),
        other => panic!("{other:?}"),
    }
    publisher.publish(&Message::new("next").to("", &queue).mandatory()).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let delivery = channel.basic_get(queue.as_str()).await.unwrap().unwrap();
    assert_eq!(delivery.body(), b"next");
    assert!(delivery.headers().unwrap().is_empty(), "no header is added");
    delivery.ack().unwrap();
    connection.close().await;
}

/// A second acknowledgement does not compile, because the first one takes the delivery.
async fn pu_13_an_acknowledgement_that_the_broker_does_not_want_is_not_sent(
    connection: Connection,
) {
    let queue = filled(&connection, "settled", &["1"]).await;
    let channel = connection.open_channel().await.unwrap();
    let consume = BasicConsume::new(&queue).no_ack();
    let mut consumer = channel.basic_consume(consume).await.unwrap();
    let delivery = consumer.next().await.unwrap().unwrap();
    drop(delivery.ack());
    // The broker would close the channel for an unknown delivery tag.
    channel.queue_declare(QueueDeclare::passive(&queue)).await.unwrap();
    connection.close().await;
}

async fn pu_14_an_error_has_the_code_and_the_method_of_the_broker(connection: Connection) {
    let channel = connection.open_channel().await.unwrap();
    let error = channel.queue_declare(QueueDeclare::passive(unique("missing"))).await.unwrap_err();
    assert_eq!(code(&error), 404);
    assert!(error.is_channel() && !error.is_connection());
    let text = error.to_string();
    assert!(text.contains("NOT_FOUND") && text.contains("queue.declare"), "{text}");
    connection.close().await;
}

async fn pu_15_a_close_ends_everything_that_waits(connection: Connection) {
    let queue = filled(&connection, "waiting", &[]).await;
    let channel = connection.open_channel().await.unwrap();
    let mut consumer = channel.basic_consume(BasicConsume::new(&queue)).await.unwrap();
    let waiting = tokio::spawn(async move { consumer.next().await.map(|it| it.map(drop)) });
    tokio::task::yield_now().await;
    connection.close().await;
    let ended = waiting.await.unwrap();
    assert!(ended.is_none_or(|it| it.is_err()));
    assert!(channel.basic_get(queue.as_str()).await.is_err());
}

async fn pu_19_what_is_published_without_waiting_is_not_lost(connection: Connection) {
    let queue = filled(&connection, "flushed", &[]).await;
    let publisher = connection.publisher().await.unwrap();
    for number in 0..42 {
        drop(publisher.send(&Message::new(number.to_string()).to("", &queue)).await.unwrap());
    }
    publisher.all_confirmed().await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let declared = channel.queue_declare(QueueDeclare::passive(&queue)).await.unwrap();
    assert_eq!(declared.message_count, 42);
    connection.close().await;
}
