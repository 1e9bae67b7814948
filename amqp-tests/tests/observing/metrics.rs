//! The metrics of applications: names, attributes and values.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use amqp_app::Asynchronous;
use amqp_app::prelude::*;
use amqp_app::testing::Test;
use amqp_testkit::ModelBroker;
use metrics::Unit;

use crate::recorder::{PANICKING, Recorded};

const PROCESS: &str = "messaging.process.duration";
const OPERATION: &str = "messaging.client.operation.duration";
const SENT: &str = "messaging.client.sent.messages";

/// The attributes of a metric of a queue, or of an exchange.
fn at<'a>(destination: &'a str, others: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let first = [("messaging.destination.name", destination), ("messaging.system", "rabbitmq")];
    [&first, others].concat()
}

fn process<'a>(queue: &'a str, error: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    let process =
        [("messaging.operation.name", "process"), ("messaging.operation.type", "process")];
    let error = error.map(|error| ("error.type", error));
    at(queue, &process.into_iter().chain(error).collect::<Vec<_>>())
}

fn publish<'a>(exchange: &'a str, error: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    let error = error.map(|error| ("error.type", error));
    at(
        exchange,
        &[("messaging.operation.name", "publish")].into_iter().chain(error).collect::<Vec<_>>(),
    )
}

/// Fails as often as the body says, in place, after a delay, or in every attempt.
fn act(body: &str, attempt: u32) -> Result<Option<Message>, Failure> {
    match body {
        "reply" => Ok(Some(Message::new("thanks").to("amq.topic", "thanks"))),
        "nowhere" => Ok(Some(Message::new("thanks").to("amq.direct", "nowhere"))),
        "twice" if attempt < 2 => Err("once more".into()),
        "later" if attempt < 3 => Err("later".into()),
        "never" => Err(Failure::permanent("never")),
        "panic" => panic!("of the handler"),
        _ => Ok(None),
    }
}

const BODIES: [&str; 6] = ["reply", "nowhere", "twice", "later", "never", "panic"];

fn policy() -> Retry {
    Retry::now(1).pause(Duration::from_millis(1)).and_after([DELAY])
}

const DELAY: Duration = Duration::from_secs(10);

/// What `BODIES` leave behind. `panic` is tried three times, and parked.
fn check(recorded: &Recorded, queue: &str) {
    assert_eq!(recorded.values(PROCESS, &process(queue, None)).len(), 4);
    assert_eq!(recorded.values(PROCESS, &process(queue, Some("error"))).len(), 1 + 2 + 1);
    assert_eq!(recorded.values(PROCESS, &process(queue, Some("panic"))).len(), 3);
    let seconds = recorded.values(PROCESS, &process(queue, None));
    assert!(seconds.iter().all(|seconds| (0.0..60.0).contains(seconds)), "{seconds:?}");

    let consume = [("messaging.operation.name", "consume")];
    let consumed = recorded.last("messaging.client.consumed.messages", &at(queue, &consume));
    assert_eq!(consumed, 6.0 + 2.0, "two came again after their delay");
    let sent = |exchange, error| recorded.last(SENT, &publish(exchange, error));
    assert_eq!(sent("amq.topic", None), 1.0);
    assert_eq!(sent("amq.direct", Some("unroutable")), 1.0);
    let operation = [publish("amq.topic", None), vec![("messaging.operation.type", "send")]];
    assert_eq!(recorded.values(OPERATION, &operation.concat()).len(), 1);

    let in_flight = recorded.values("amqp_app.in_flight", &at(queue, &[]));
    assert!(in_flight.contains(&1.0) && in_flight.last() == Some(&0.0), "{in_flight:?}");
    let mut ready = recorded.values("amqp_app.ready", &at(queue, &[]));
    ready.dedup();
    assert_eq!(ready, [1.0, 0.0]);

    assert_eq!(recorded.unit(PROCESS), Some(Unit::Seconds));
    assert_eq!(recorded.unit(OPERATION), Some(Unit::Seconds));
    assert_eq!(recorded.unit("amqp_app.parked"), Some(Unit::Count));
}

/// Each number of the report is a metric.
fn check_report(recorded: &Recorded, report: &Report, queues: &[&str]) {
    let Report {
        handled,
        failed,
        retried,
        parked,
        rejected,
        discarded,
        panicked,
        timed_out,
        stale,
        ..
    } = report.clone();
    let Report { given_back, unroutable, abandoned, .. } = report.clone();
    for (name, expected) in [
        ("handled", handled),
        ("failed", failed),
        ("retried", retried),
        ("parked", parked),
        ("rejected", rejected),
        ("discarded", discarded),
        ("panicked", panicked),
        ("timed_out", timed_out),
        ("stale", stale),
        ("given_back", given_back),
        ("unroutable", unroutable),
        ("abandoned", abandoned),
    ] {
        let name = format!("amqp_app.{name}");
        let sum: f64 = queues.iter().map(|queue| recorded.last(&name, &at(queue, &[]))).sum();
        assert_eq!(sum, expected as f64, "{name}: {:#?}", recorded.series());
    }
}

async fn an_application_is_measured<P: Asynchronous>(test: Test<P>) {
    let recorded = Recorded::begin();
    for queue in ["orders", "slow", "thanks"] {
        test.queue(queue).await;
    }
    test.bind("thanks", "amq.topic", "thanks").await;
    let orders = Consume::new("orders").on_failure(policy());
    let handler = async |Text(body): Text, Attempt(attempt): Attempt| act(&body, attempt);
    // Another queue, so that only this one has a short timeout.
    let slow = Consume::new("slow").on_failure(Retry::none()).timeout(Duration::from_millis(5));
    let app = App::new(test.platform()).consume(orders, handler);
    test.run(app.consume(slow, async || pending::<()>().await)).await;
    assert_eq!(recorded.last("amqp_app.ready", &at("orders", &[])), 1.0);
    for body in BODIES {
        test.send_message(Message::new(body).to_queue("orders")).await;
    }
    test.send_message(Message::new("slow").to_queue("slow")).await;
    test.advance(DELAY).await;
    let report = test.stop().await;
    check(&recorded, "orders");
    assert_eq!(recorded.values(PROCESS, &process("slow", Some("timed_out"))).len(), 1);
    // Two copies that waited, and those of the four messages that were parked: never, panic, nowhere and slow.
    assert_eq!(recorded.last(SENT, &publish("amq.default", None)), 2.0 + 4.0);
    assert_eq!((report.handled, report.failed, report.retried), (3, 4 + 3 + 1 + 1, 2 + 1 + 2));
    assert_eq!((report.parked, report.timed_out, report.panicked), (4, 1, 3));
    check_report(&recorded, &report, &["orders", "slow"]);
}

#[test]
fn an_application_is_measured_on_tokio() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(async {
        an_application_is_measured(Test::start(amqp_tokio::Connector::new).await).await;
    });
}

#[test]
fn an_application_is_measured_on_smol() {
    smol::block_on(async {
        an_application_is_measured(Test::start(amqp_smol::Connector::new).await).await;
    });
}

/// Waits until a condition holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..30_000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("{what}: not within 60 s");
}

#[test]
fn an_application_is_measured_on_threads() {
    let recorded = Recorded::begin();
    let broker = ModelBroker::start_with_stopped_clock().unwrap();
    let connector = amqp_blocking::Connector::new(&broker.uri()).unwrap();
    let connection = connector.connect().unwrap();
    let channel = connection.open_channel().unwrap();
    for queue in ["orders", "thanks"] {
        channel.queue_declare(QueueDeclare::classic(queue)).unwrap();
    }
    channel.queue_bind(QueueBind::new("thanks", "amq.topic", "thanks")).unwrap();
    let publisher = connection.publisher().unwrap();
    for body in BODIES {
        publisher.publish(&Message::new(body).to_queue("orders")).unwrap();
    }
    let orders = Consume::new("orders").on_failure(policy()).concurrency(2);
    let handler = |Text(body): Text, Attempt(attempt): Attempt| act(&body, attempt);
    let (stopper, shutdown) = Shutdown::manual();
    let app = App::new(connector).consume(orders, handler);
    let running = thread::spawn(move || app.run(shutdown).unwrap());
    let all_handled = || until("the work", || broker.messages("orders").is_empty());
    all_handled();
    broker.advance(DELAY);
    all_handled();
    stopper.stop();
    let report = running.join().unwrap();
    check(&recorded, "orders");
    assert_eq!(recorded.last(SENT, &publish("amq.default", None)), 2.0 + 3.0);
    assert_eq!((report.handled, report.failed, report.parked), (3, 4 + 3 + 1, 3));
    check_report(&recorded, &report, &["orders"]);
    connection.close();
}

/// The same on tokio.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..30_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("{what}: not within 60 s");
}

/// What waits for its key is counted while the only worker that could take it waits too.
#[test]
fn messages_that_wait_for_their_key_are_measured() {
    let recorded = Recorded::begin();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(async {
        let test = Test::start(amqp_tokio::Connector::new).await;
        test.queue("keyed").await;
        let release = Arc::new(AtomicBool::new(false));
        let consume = Consume::new("keyed").concurrency(2).prefetch(4);
        let consume = consume.by_key(|_| Some("same".to_owned()));
        let handler = async |State(release): State<Arc<AtomicBool>>| {
            while !release.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let app = App::with_state(test.platform(), Arc::clone(&release));
        test.run(app.consume(consume, handler)).await;
        for _ in 0..3 {
            test.send("keyed", &0).await;
        }
        let waiting = || recorded.last("amqp_app.waiting_by_key", &at("keyed", &[]));
        eventually("two wait", || waiting() == 2.0).await;
        assert_eq!(recorded.last("amqp_app.in_flight", &at("keyed", &[])), 1.0);
        release.store(true, Ordering::Relaxed);
        test.all_handled().await;
        assert_eq!(waiting(), 0.0);
        // At the end, what waits goes back.
        release.store(false, Ordering::Relaxed);
        for _ in 0..3 {
            test.send("keyed", &0).await;
        }
        eventually("two wait", || waiting() == 2.0).await;
        let (stopped, ()) = tokio::join!(test.stop(), async {
            eventually("none waits", || waiting() == 0.0).await;
            release.store(true, Ordering::Relaxed);
        });
        assert_eq!((stopped.handled, stopped.given_back), (4, 2));
    });
}

#[test]
fn a_queue_that_is_gone_makes_its_source_unready_until_it_is_back() {
    let recorded = Recorded::begin();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(async {
        let test = Test::start(amqp_tokio::Connector::new).await;
        for queue in ["gone", "kept"] {
            test.queue(queue).await;
        }
        let app = App::new(test.platform());
        let app = app.consume("gone", async || ()).consume("kept", async || ());
        test.run(app).await;
        let ready = |queue| recorded.last("amqp_app.ready", &at(queue, &[]));
        let connection = test.platform().connect().await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        channel.queue_delete(QueueDelete::new("gone")).await.unwrap();
        eventually("unready", || ready("gone") == 0.0).await;
        assert_eq!(ready("kept"), 1.0);
        test.queue("gone").await;
        eventually("ready", || ready("gone") == 1.0).await;
        test.stop().await;
        assert_eq!((ready("gone"), ready("kept")), (0.0, 0.0));
    });
}

/// Messages of one key, so that its place is passed on each time.
#[test]
fn a_recorder_that_panics_costs_no_worker() {
    let recorded = Recorded::begin();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(async {
        let test = Test::start(amqp_tokio::Connector::new).await;
        test.queue(PANICKING).await;
        let consume = Consume::new(PANICKING).concurrency(2).by_routing_key();
        let consume = consume.on_failure(policy());
        let handler = async |Text(body): Text, Attempt(attempt): Attempt| act(&body, attempt);
        test.run(App::new(test.platform()).consume(consume, handler)).await;
        for body in ["fine", "twice", "panic", "fine"] {
            test.send_message(Message::new(body).to_queue(PANICKING)).await;
        }
        eventually("the end of all work", || test.broker().messages(PANICKING).is_empty()).await;
        let report = test.stop().await;
        assert_eq!((report.handled, report.retried, report.panicked), (3, 3, 2));
    });
    assert!(recorded.series().iter().all(|series| !series.contains(PANICKING)));
}
