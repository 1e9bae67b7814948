//! What helps to test applications: `Test` on the model broker, and `Vhost` on RabbitMQ.

use std::convert::Infallible;

use amqp_app::prelude::*;
use amqp_app::testing::{Test, Vhost};

use crate::at::{At, Make, on_model, on_rabbitmq, rabbitmq};

on_model! {
    gr_28_an_application_is_tested_on_a_model_broker_of_its_own
}

on_rabbitmq! {
    gr_28_an_application_is_tested_in_a_virtual_host_of_its_own
}

#[allow(clippy::unnecessary_wraps, reason = "as connectors do")]
fn connector<P: Make>(uri: &str) -> Result<P, Infallible> {
    Ok(P::to(uri))
}

async fn double(Json(number): Json<u32>) -> Result<Message, Failure> {
    match number {
        0 => Err(Failure::permanent("nothing")),
        number => Ok(Message::json(&(2 * number))?.to("amq.topic", "doubled")),
    }
}

async fn gr_28_an_application_is_tested_on_a_model_broker_of_its_own<P: Make>(_: At<P>) {
    let test = Test::<P>::start(connector).await;
    for queue in ["numbers", "doubled"] {
        test.queue(queue).await;
    }
    test.bind("doubled", "amq.topic", "doubled").await;
    test.run(App::new(test.platform()).consume("numbers", double)).await;
    test.send("numbers", &7).await;
    assert_eq!(test.expect::<u32>("doubled").await, 14);
    test.send_message(Message::new("no number").to_queue("numbers")).await;
    assert_eq!(test.expect_delivery("numbers.parked").await.body(), b"no number");
    let report = test.stop().await;
    assert_eq!((report.handled, report.parked), (1, 1));
}

async fn gr_28_an_application_is_tested_in_a_virtual_host_of_its_own<P: Make>(_: At<P>) {
    let node = rabbitmq();
    let hosts = || node.ctl(&["list_vhosts", "name"]).unwrap();
    let vhost = Vhost::<P>::create(node, connector).await;
    let other = Vhost::<P>::create(node, connector).await;
    for vhost in [&vhost, &other] {
        for queue in ["numbers", "doubled"] {
            vhost.queue(queue).await;
        }
        vhost.bind("doubled", "amq.topic", "doubled").await;
    }
    vhost.run(App::new(vhost.platform()).consume("numbers", double)).await;
    for vhost in [&vhost, &other] {
        vhost.send("numbers", &7).await;
    }
    assert_eq!(vhost.expect::<u32>("doubled").await, 14);
    assert_eq!(other.expect::<u32>("numbers").await, 7, "nothing reaches the other one");
    vhost.send("numbers", &0).await;
    assert_eq!(vhost.expect::<u32>("numbers.parked").await, 0);
    let connection = P::to(&vhost.uri()).connect().await.unwrap();
    assert!(connection.is_open());
    let report = vhost.stop().await;
    assert_eq!((report.handled, report.parked), (1, 1));

    let name = vhost.name().to_owned();
    let exists = || hosts().lines().any(|line| line == name);
    assert!(exists());
    drop(vhost);
    assert!(!exists() && hosts().lines().any(|line| line == other.name()));
}
