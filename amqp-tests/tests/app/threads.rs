//! Applications on threads: handlers are plain functions.

use std::convert::Infallible;
use std::task::{Context as TaskContext, Poll};
use std::thread;

use amqp_app::prelude::*;
use amqp_app::{Route, RouteFuture};
use amqp_blocking::{BasicConsume, Connector};
use amqp_testkit::ModelBroker;
use tower_layer::Layer;
use tower_service::Service;

use crate::at::{Log, rabbitmq, source, unique};

#[test]
fn gr_8_workers_are_threads_on_the_model() {
    workers_are_threads(&ModelBroker::start().unwrap().uri());
}

#[test]
fn gr_8_workers_are_threads_on_rabbitmq() {
    workers_are_threads(&rabbitmq().uri());
}

fn thank(
    Text(body): Text,
    State(log): State<Log>,
    Attempt(attempt): Attempt,
) -> Result<Vec<Message>, Failure> {
    thread::sleep(Duration::from_millis(20));
    log.add(format!("{:?}", thread::current().id()));
    match body.as_str() {
        "panic" => panic!("of the handler"),
        "twice" if attempt == 1 => Err("once more".into()),
        _ => Ok(vec![
            Message::new(format!("thank you for {body}")).to("amq.topic", "thank.messages"),
        ]),
    }
}

fn workers_are_threads(uri: &str) {
    let connector = Connector::new(uri).unwrap();
    let connection = connector.connect().unwrap();
    let channel = connection.open_channel().unwrap();
    let [queue, answers] = [unique("threads"), unique("thanks")];
    channel.queue_declare(QueueDeclare::classic(&queue)).unwrap();
    channel.queue_declare(QueueDeclare::classic(&answers)).unwrap();
    channel.queue_bind(QueueBind::new(&answers, "amq.topic", "thank.#")).unwrap();
    let publisher = connection.publisher().unwrap();
    for body in ["1", "2", "3", "4", "5", "6", "twice", "panic"] {
        publisher.publish(&Message::new(body).message_id(body).to_queue(&queue)).unwrap();
    }

    let log = Log::default();
    let (stopper, shutdown) = Shutdown::manual();
    let policy = Retry::now(1).pause(Duration::from_millis(1));
    let consume = source(queue.as_str()).concurrency(4).on_failure(policy);
    let app = App::with_state(connector.clone(), log.clone()).consume(consume, thank);
    let running = thread::spawn(move || app.run(shutdown).unwrap());

    let mut thanks = Vec::new();
    for delivery in connection.consume(BasicConsume::new(&answers).prefetch(8)).unwrap() {
        let delivery = delivery.unwrap();
        let references = delivery.header("references").unwrap().unwrap();
        thanks.push((
            String::from_utf8(delivery.body().to_vec()).unwrap(),
            references.as_str().unwrap().to_owned(),
        ));
        delivery.ack().unwrap();
        if thanks.len() == 7 {
            break;
        }
    }
    thanks.sort();
    assert_eq!(thanks[0], ("thank you for 1".into(), "1".into()));
    assert_eq!(thanks[6], ("thank you for twice".into(), "twice".into()));
    let parking = format!("{queue}.parked");
    let parked = loop {
        if let Some(parked) = channel.basic_get(parking.as_str()).unwrap() {
            break parked;
        }
        thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(parked.body(), b"panic");
    stopper.stop();
    let report = running.join().unwrap();
    assert_eq!((report.handled, report.parked, report.panicked, report.retried), (7, 1, 2, 2));
    let mut threads = log.lines();
    threads.sort();
    threads.dedup();
    assert!((2..=4).contains(&threads.len()), "{threads:?}");
    connection.close();
}

/// A thread cannot be interrupted: its message goes back, and its result is ignored.
#[test]
fn u_7_a_handler_that_does_not_end_gives_its_message_back() {
    let broker = ModelBroker::start().unwrap();
    let connector = Connector::new(&broker.uri()).unwrap();
    let connection = connector.connect().unwrap();
    let channel = connection.open_channel().unwrap();
    let queue = unique("endless");
    channel.queue_declare(QueueDeclare::classic(&queue)).unwrap();
    let publisher = connection.publisher().unwrap();
    publisher.publish(&Message::new("1").to_queue(&queue)).unwrap();
    let log = Log::default();
    let begun = log.clone();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = std::sync::Arc::new(std::sync::Mutex::new(ended));
    let handler = move || {
        begun.add("begun");
        // Until the test ends.
        let _ = ended.lock().unwrap().recv();
    };
    let seen = log.clone();
    let shutdown = Shutdown::when(async move { drop(seen.reach(1).await) });
    let app = App::new(connector).consume(source(queue.as_str()), handler);
    let report = app.run(shutdown.within(Duration::from_millis(50))).unwrap();
    assert_eq!((report.abandoned, report.given_back, report.handled), (1, 1, 0));
    let again = channel.basic_get(queue.as_str()).unwrap().unwrap();
    assert!(again.redelivered());
    again.ack().unwrap();
    drop(end);
    connection.close();
}

#[derive(Clone)]
struct Principal(String);

/// A layer of tower that is not ready at the first poll, so that it has to be waited for within a wrapped call.
#[derive(Clone)]
struct Slow<T>(T, bool);

impl<T> Layer<T> for Slow<()> {
    type Service = Slow<T>;

    fn layer(&self, inner: T) -> Slow<T> {
        Slow(inner, false)
    }
}

impl Service<Context<Log>> for Slow<Route<Log>> {
    type Response = Outcome;
    type Error = Infallible;
    type Future = RouteFuture;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        if std::mem::replace(&mut self.1, true) {
            return self.0.poll_ready(cx);
        }
        let waker = cx.waker().clone();
        thread::spawn(move || waker.wake());
        Poll::Pending
    }

    fn call(&mut self, context: Context<Log>) -> RouteFuture {
        context.state().add("layer");
        self.0.call(context)
    }
}

#[test]
fn gr_29_a_plain_function_around_every_handler_sees_and_changes_what_passes_on_the_model() {
    functions_around_every_handler(&ModelBroker::start().unwrap().uri());
}

#[test]
fn gr_29_a_plain_function_around_every_handler_sees_and_changes_what_passes_on_rabbitmq() {
    functions_around_every_handler(&rabbitmq().uri());
}

fn functions_around_every_handler(uri: &str) {
    let connector = Connector::new(uri).unwrap();
    let connection = connector.connect().unwrap();
    let channel = connection.open_channel().unwrap();
    let queue = unique("wrapped");
    channel.queue_declare(QueueDeclare::classic(&queue)).unwrap();
    let publisher = connection.publisher().unwrap();
    publisher.publish(&Message::new("1").to_queue(&queue).header("user", "ada")).unwrap();
    for body in ["2", "panic", "refused"] {
        publisher.publish(&Message::new(body).to_queue(&queue)).unwrap();
    }

    let log = Log::default();
    let handler = |Extension(Principal(name)): Extension<Principal>, State(log): State<Log>| {
        if name == "nobody" {
            return Err(Failure::permanent("who?"));
        }
        log.add(format!("handled for {name}"));
        Ok(())
    };
    let app = App::with_state(connector, log.clone()).consume(source(queue.as_str()), handler);
    let app = app.layer(Slow((), false)).wrap(|context, next| {
        if context.body() == b"refused" {
            return Outcome::failure("not today");
        }
        let user = context.headers().and_then(|headers| headers.get("user")?.as_str());
        context.insert(Principal(user.unwrap_or("nobody").to_owned()));
        next.run(context)
    });
    let app = app.wrap(|context: Context<Log>, next: ThreadNext<Log>| {
        assert_ne!(context.body(), b"panic");
        let (log, before) = (context.state().clone(), thread::current().id());
        let outcome = next.run(context);
        assert_eq!(thread::current().id(), before);
        log.add(format!("success: {}", outcome.is_success()));
        outcome
    });
    let (stopper, shutdown) = Shutdown::manual();
    let health = app.health();
    let running = thread::spawn(move || app.run(shutdown).unwrap());
    // The parking queue is declared.
    while !health.is_ready() {
        assert!(!running.is_finished());
        thread::sleep(Duration::from_millis(2));
    }
    let parking = format!("{queue}.parked");
    let mut parked = Vec::new();
    while parked.len() < 3 {
        assert!(!running.is_finished());
        if let Some(delivery) = channel.basic_get(parking.as_str()).unwrap() {
            parked.push(String::from_utf8(delivery.body().to_vec()).unwrap());
            delivery.ack().unwrap();
        }
        thread::sleep(Duration::from_millis(2));
    }
    stopper.stop();
    let report = running.join().unwrap();
    assert_eq!(parked, ["2", "panic", "refused"]);
    let expected =
        ["layer", "handled for ada", "success: true", "layer", "success: false", "success: false"];
    assert_eq!(log.lines(), expected);
    assert_eq!((report.handled, report.parked, report.panicked), (1, 3, 1));
    connection.close();
}
