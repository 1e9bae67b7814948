//! What helps to test applications: `Test` on the model broker, and `Vhost` on RabbitMQ.

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

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

/// The failed messages of a program on threads, tried again a minute later on the clock of the test.
#[test]
fn gr_28_an_application_on_threads_is_tested_on_a_model_broker_of_its_own() {
    let test = Test::start_on_threads(amqp_blocking::Connector::new);
    for queue in ["numbers", "doubled"] {
        test.queue(queue);
    }
    test.bind("doubled", "amq.topic", "doubled");
    let consume = Consume::new("numbers").on_failure(Retry::after([Duration::from_secs(60)]));
    let handler = |Json(number): Json<u32>, Attempt(attempt): Attempt| match (number, attempt) {
        (8, 1) => Err(Failure::retry("not yet")),
        _ => Ok(Message::json(&(2 * number))?.to("amq.topic", "doubled")),
    };
    test.run(App::new(test.platform()).consume(consume, handler));
    for number in [7, 8] {
        test.send("numbers", &number);
    }
    test.all_handled();
    assert_eq!(test.expect::<u32>("doubled"), 14);
    assert_eq!(test.broker().ready("doubled"), Some(0));
    test.advance(Duration::from_secs(60));
    assert_eq!(test.expect::<u32>("doubled"), 16);
    test.send_message(Message::new("no number").to_queue("numbers"));
    let delivery: amqp_blocking::Delivery = test.expect_delivery("numbers.parked");
    assert_eq!(delivery.body(), b"no number");
    let report = test.stop();
    assert_eq!((report.handled, report.parked, report.retried), (2, 1, 1));
}

#[test]
fn gr_28_an_application_on_threads_is_tested_in_a_virtual_host_of_its_own() {
    let node = rabbitmq();
    let vhost = Vhost::create_on_threads(node, amqp_blocking::Connector::new);
    vhost.queue("numbers");
    let handler = |Json(number): Json<u32>| Message::json(&(2 * number)).map(Message::reply);
    vhost.run(App::new(vhost.platform()).consume("numbers", handler));
    vhost.queue("doubled");
    let request = Message::new("7").to_queue("numbers").reply_to("doubled");
    vhost.send_message(request);
    assert_eq!(vhost.expect::<u32>("doubled"), 14);
    assert_eq!(vhost.stop().handled, 1);
    let name = vhost.name().to_owned();
    drop(vhost);
    let hosts = node.ctl(&["list_vhosts", "name"]).unwrap();
    assert!(!hosts.lines().any(|line| line == name), "{hosts}");
}

/// With a user of its own, whose name has to be encoded in a URI.
#[test]
fn gr_28_variables_name_the_node_and_the_virtual_host() {
    const USER: &str = "me@home";
    const KEPT: &str = "kept/by its owner";
    let node = rabbitmq();
    node.ctl(&["add_user", USER, "p/w"]).unwrap();
    node.ctl(&["add_vhost", KEPT]).unwrap();
    node.ctl(&["set_permissions", "-p", KEPT, USER, ".*", ".*", ".*"]).unwrap();
    let exists = |name: &str| {
        let hosts = node.ctl(&["list_vhosts", "name"]).unwrap();
        hosts.lines().any(|line| line == name)
    };
    for (threads, kept) in [(None, None), (Some("--threads"), None), (None, Some(KEPT))] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_in_vhost"));
        program.args(threads).stdin(Stdio::piped()).stdout(Stdio::piped());
        program.env("AMQP_HOSTNAME", "127.0.0.1").env("AMQP_PORT", node.port().to_string());
        program.env("AMQP_USERNAME", USER).env("AMQP_PASSWORD", "p/w");
        program.env("AMQP_RABBITMQCTL", node.ctl_command());
        program.env_remove("AMQP_VIRTUALHOST").envs(kept.map(|it| ("AMQP_VIRTUALHOST", it)));
        let mut child = program.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let name = lines.next().unwrap();
        assert_eq!(lines.next().as_deref(), Some("14"));
        assert!(exists(&name) && kept.is_none_or(|it| it == name), "{name}");
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        assert_eq!(exists(&name), kept.is_some(), "{name}");
    }
}
