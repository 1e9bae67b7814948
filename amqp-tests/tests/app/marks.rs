//! Marks of messages in a store, when the handler or the store takes longer than its timeout.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use amqp_app::prelude::*;
use amqp_testkit::ModelBroker;
use amqp_tests::world::World;

use crate::at::{At, Log, beside, on_tokio_multi_thread, sleep, source, within};
use crate::seeing::{Resource, Table, both, identified};

/// In virtual time.
#[test]
fn an_attempt_that_takes_too_long_removes_its_mark() {
    let world = World::new(1);
    world.block_on(async {
        let channel = world.connector().connect().await.unwrap().open_channel().await.unwrap();
        for queue in ["requests", "requests.parked"] {
            channel.queue_declare(QueueDeclare::classic(queue)).await.unwrap();
        }
        for consume in both("requests") {
            let log = Log::default();
            let table = Table::new(&log);
            let handler = async |State(log): State<Log>| {
                log.add("called");
                std::future::pending::<()>().await;
            };
            let policy = Retry::now(1).pause(Duration::from_millis(1));
            let consume = consume.on_failure(policy).timeout(Duration::from_millis(50));
            let consume = consume.deduplicate(table.clone());
            let app = App::with_state(world.connector(), log.clone()).consume(consume, handler);
            let (stopper, shutdown) = Shutdown::manual();
            let script = async {
                channel.basic_publish(&identified("r", "requests")).await.unwrap();
                let late = world.elapsed() + Duration::from_secs(600);
                let parked = loop {
                    assert!(world.elapsed() < late, "{:?}", log.lines());
                    world.sleep(Duration::from_secs(1)).await;
                    if let Some(parked) = channel.basic_get("requests.parked").await.unwrap() {
                        break parked;
                    }
                };
                parked.ack().unwrap();
                stopper.stop();
            };
            let (report, ()) = smol::future::zip(app.run(shutdown), script).await;
            let attempt = ["begin r", "called", "failed r"];
            assert_eq!(log.take(), [attempt, attempt].concat());
            let report = report.unwrap();
            assert_eq!((report.failed, report.parked), (2, 1), "{report:?}");
            assert_eq!((report.panicked, report.timed_out), (0, 2), "{report:?}");
            assert!(table.rows.lock().unwrap().is_empty());
        }
    });
}

/// In virtual time. The message is sent then, and its worker handles the next one.
#[test]
fn a_store_that_hangs_after_participants_have_committed_holds_no_worker() {
    let world = World::new(1);
    world.block_on(async {
        let channel = world.connector().connect().await.unwrap().open_channel().await.unwrap();
        channel.queue_declare(QueueDeclare::classic("requests")).await.unwrap();
        for consume in both("requests") {
            let log = Log::default();
            let table = Table::hanging(&log);
            let handler = async |participants: Participants, State(log): State<Log>| {
                participants.join(Resource(log, true));
            };
            let consume = consume.concurrency(1).deduplicate(table.clone());
            let app = App::with_state(world.connector(), log.clone()).consume(consume, handler);
            let (stopper, shutdown) = Shutdown::manual();
            let script = async {
                for id in ["a", "b"] {
                    channel.basic_publish(&identified(id, "requests")).await.unwrap();
                }
                let late = world.elapsed() + Duration::from_secs(600);
                while log.lines().len() < 10 {
                    assert!(world.elapsed() < late, "{:?}", log.lines());
                    world.sleep(Duration::from_secs(1)).await;
                }
                stopper.stop();
            };
            let (report, ()) = smol::future::zip(app.run(shutdown), script).await;
            let lines = ["a", "b"].map(|id| {
                let (begin, done, failed) =
                    (format!("begin {id}"), format!("done {id}"), format!("failed {id}"));
                [begin, "votes".into(), "finishes".into(), done, failed]
            });
            assert_eq!(log.take(), lines.concat());
            let report = report.unwrap();
            assert_eq!((report.handled, report.failed), (2, 0), "{report:?}");
            assert!(table.rows.lock().unwrap().is_empty());
            assert_eq!(world.broker(|broker| broker.messages("requests").len()), 0);
        }
    });
}

/// A handler that blocks until the test lets it go.
fn blocked(log: Log, open: Arc<AtomicBool>) -> impl Fn() -> Message + Clone + Send + Sync {
    move || {
        log.add("called");
        while !open.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(2));
        }
        log.add("returned");
        Message::new("reply").to_queue("answers")
    }
}

/// Lets handlers go, also when a test fails: a runtime waits for them.
struct Opened(Arc<AtomicBool>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Otherwise another process would handle it at the same time.
#[test]
fn a_handler_that_blocks_longer_than_its_timeout_keeps_its_mark_until_it_returns() {
    let at = At::<amqp_tokio::Connector>::model();
    on_tokio_multi_thread(async {
        let client = at.client().await;
        let queue = client.queue("requests").await;
        let (table, open) = (Table::new(&at.log), Arc::new(AtomicBool::new(false)));
        let _opened = Opened(Arc::clone(&open));
        let consume = source(queue.as_str()).timeout(Duration::from_secs(2));
        let handler = blocking(blocked(at.log.clone(), Arc::clone(&open)));
        let app = at.app().consume(consume.deduplicate(table.clone()), handler);
        beside(app, async |_| {
            client.publish(identified("r", &queue)).await;
            client.expect(&format!("{queue}.parked")).await.ack().unwrap();
            // Its thread may begin after the timeout.
            within("the call", at.log.find("called")).await;
            assert_eq!(
                (at.log.lines(), table.running()),
                (vec!["begin r".into(), "called".into()], 1)
            );
            open.store(true, Ordering::Relaxed);
            at.log.reach(4).await;
        })
        .await;
        assert_eq!(at.log.take(), ["begin r", "called", "returned", "failed r"]);
    });
}

/// A thread cannot be interrupted: its outcome is stored when it has returned, and the next delivery gets it.
#[test]
fn a_thread_that_returns_after_the_end_of_its_application_marks_its_message_as_done() {
    let model = ModelBroker::start().unwrap();
    let connector = amqp_blocking::Connector::new(&model.uri()).unwrap();
    let channel = connector.connect().unwrap().open_channel().unwrap();
    for queue in ["requests", "answers"] {
        channel.queue_declare(QueueDeclare::classic(queue)).unwrap();
    }
    channel.basic_publish(&identified("r", "requests")).unwrap();
    let (log, open) = (Log::default(), Arc::new(AtomicBool::new(false)));
    let table = Table::new(&log);
    let app = |handler| {
        let consume = source("requests").deduplicate(table.clone());
        App::new(connector.clone()).consume(consume, handler)
    };
    let (stopper, shutdown) = Shutdown::manual();
    let first = app(blocked(log.clone(), Arc::clone(&open)));
    let running = thread::spawn(move || first.run(shutdown).unwrap());
    smol::block_on(within("the call", log.find("called")));
    stopper.stop_now();
    assert_eq!(running.join().unwrap().abandoned, 1);
    assert_eq!(table.running(), 1);
    open.store(true, Ordering::Relaxed);
    smol::block_on(within("the mark", log.find("done r")));
    assert_eq!(log.take(), ["begin r", "called", "returned", "done r"]);

    let (stopper, shutdown) = Shutdown::manual();
    let second = app(blocked(log.clone(), open));
    let running = thread::spawn(move || second.run(shutdown).unwrap());
    let answer = smol::block_on(within("the reply", async {
        loop {
            if let Some(answer) = channel.basic_get("answers").unwrap() {
                break answer;
            }
            sleep(Duration::from_millis(2)).await;
        }
    }));
    assert_eq!(answer.properties().unwrap().message_id.as_deref(), Some("r#0"));
    stopper.stop();
    assert_eq!((running.join().unwrap().handled, log.take()), (1, vec!["begin r".to_owned()]));
}
