//! Sources that deduplicate: a store of the application says which messages were handled.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use amqp_app::prelude::*;
use amqp_app::{Begun, BoxError, Seen, SeenId};
use amqp_testkit::{Direction, Fault, Proxy};

use crate::at::{At, Log, Make, beside, on_model, on_rabbitmq, source, text, until, within};

on_model! {
    a_duplicate_gets_the_same_replies_and_its_handler_is_not_called
    a_message_is_known_by_its_queue_and_by_a_key
    what_is_being_handled_elsewhere_waits_and_counts_as_no_attempt
    an_attempt_that_fails_removes_its_mark
    an_application_that_stops_removes_its_marks
    a_store_that_fails_loses_nothing
    a_connection_that_is_lost_parts_no_replies_from_a_message_that_is_done
    participants_commit_before_a_message_is_done
    a_handler_that_takes_the_delivery_cannot_be_deduplicated
    a_source_with_batches_cannot_deduplicate
}

on_rabbitmq! {
    a_duplicate_gets_the_same_replies_and_its_handler_is_not_called
    what_is_being_handled_elsewhere_waits_and_counts_as_no_attempt
    an_application_that_stops_removes_its_marks
    a_store_that_fails_loses_nothing
    a_connection_that_is_lost_parts_no_replies_from_a_message_that_is_done
    participants_commit_before_a_message_is_done
}

/// A table in memory, which reports its calls.
#[derive(Clone, Default)]
pub(crate) struct Table {
    pub(crate) rows: Arc<Mutex<BTreeMap<SeenId, Option<Vec<Message>>>>>,
    log: Log,
    calls: Arc<AtomicUsize>,
    /// Whether each third call is an error, and each seventh panics.
    fails: bool,
    /// Whether no outcome is ever stored, and nothing says so.
    hangs: bool,
}

impl Table {
    pub(crate) fn new(log: &Log) -> Self {
        Self { log: log.clone(), ..Self::default() }
    }

    pub(crate) fn hanging(log: &Log) -> Self {
        Self { hangs: true, ..Self::new(log) }
    }

    fn call(&self, name: &str, id: &SeenId) -> Result<(), BoxError> {
        self.log.add(format!("{name} {}", id.id()));
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if self.fails && call.is_multiple_of(7) {
            panic!("of the store");
        }
        if self.fails && call.is_multiple_of(3) {
            Err("the store is locked".into())
        } else {
            Ok(())
        }
    }

    fn set(&self, queue: &str, id: &str, replies: Option<Vec<Message>>) {
        self.rows.lock().unwrap().insert(SeenId::new(queue, id), replies);
    }

    /// What is still marked as being handled.
    pub(crate) fn running(&self) -> usize {
        self.rows.lock().unwrap().values().filter(|replies| replies.is_none()).count()
    }
}

impl Seen for Table {
    async fn begin(&self, id: &SeenId) -> Result<Begun, BoxError> {
        self.call("begin", id)?;
        let mut rows = self.rows.lock().unwrap();
        Ok(match rows.get(id) {
            Some(Some(replies)) => Begun::Done(replies.clone()),
            Some(None) => Begun::Running,
            None => {
                rows.insert(id.clone(), None);
                Begun::New
            }
        })
    }

    async fn done(&self, id: &SeenId, replies: &[Message]) -> Result<(), BoxError> {
        if self.hangs {
            self.call("done", id)?;
            return std::future::pending().await;
        }
        // Stored, although the caller may not know it.
        self.rows.lock().unwrap().insert(id.clone(), Some(replies.to_vec()));
        self.call("done", id)
    }

    async fn failed(&self, id: &SeenId) -> Result<(), BoxError> {
        let mut rows = self.rows.lock().unwrap();
        if let Some(None) = rows.get(id) {
            rows.remove(id);
        }
        drop(rows);
        self.call("failed", id)
    }
}

/// Both ways in which a message is acknowledged.
pub(crate) fn both(queue: &str) -> [Consume; 2] {
    [source(queue), source(queue).transactional()]
}

pub(crate) fn identified(id: &str, queue: &str) -> Message {
    Message::new(id.to_owned()).message_id(id).to_queue(queue)
}

fn id_of(delivery: &Delivery) -> String {
    delivery.properties().unwrap().message_id.unwrap()
}

async fn a_duplicate_gets_the_same_replies_and_its_handler_is_not_called<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (queue, answers) = (client.queue("requests").await, client.queue("answers").await);
    for (round, consume) in both(&queue).into_iter().enumerate() {
        let (table, calls) = (Table::default(), Arc::new(AtomicUsize::new(0)));
        let (to, count) = (answers.clone(), Arc::clone(&calls));
        // The second reply goes to the requester.
        let handler = move |outgoing: Outgoing| {
            let call = count.fetch_add(1, Ordering::Relaxed) + 1;
            outgoing.send(Message::new(format!("reply {call}")).reply());
            std::future::ready(Message::new(format!("call {call}")).to_queue(&to))
        };
        let app = at.app().consume(consume.deduplicate(table.clone()), handler);
        let id = format!("r{round}");
        let request = || identified(&id, &queue).reply_to(&answers);
        let report = beside(app, async |_| {
            for _ in 0..3 {
                client.publish(request()).await;
                let mut received = BTreeMap::new();
                for _ in 0..2 {
                    let answer = client.expect(&answers).await;
                    received.insert(id_of(&answer), text(&answer));
                    answer.ack().unwrap();
                }
                let expected = [("call 1", 0), ("reply 1", 1)];
                let expected = expected.map(|(body, index)| (format!("{id}#{index}"), body.into()));
                assert_eq!(received, BTreeMap::from(expected));
            }
            // A requester that is gone gets nothing, and nothing is parked.
            client.publish(identified(&id, &queue).reply_to("gone")).await;
            client.bodies(&answers, 1).await;
            // Without an id, both are handled.
            for call in [2, 3] {
                client.publish(Message::new("1").to_queue(&queue).reply_to(&answers)).await;
                let mut bodies = client.bodies(&answers, 2).await;
                bodies.sort();
                assert_eq!(bodies, [format!("call {call}"), format!("reply {call}")]);
            }
        })
        .await;
        assert_eq!((report.handled, report.failed, report.parked), (6, 0, 0), "{report:?}");
        assert_eq!((calls.load(Ordering::Relaxed), client.ready(&queue).await), (3, 0));
        assert_eq!((table.running(), table.rows.lock().unwrap().len()), (0, 1));
    }
}

async fn a_message_is_known_by_its_queue_and_by_a_key<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queues = [client.queue("one").await, client.queue("two").await];
    let table = Table::default();
    let key = |message: &amqp_async::ReceivedMessage| match message.body() {
        b"panic" => panic!("of the key"),
        body => Some(String::from_utf8_lossy(body).into_owned()),
    };
    let consume = Consume::many(queues.each_ref().map(String::as_str)).on_failure(Retry::none());
    let handler = async |QueueName(queue): QueueName, Text(text): Text, State(log): State<Log>| {
        log.add(format!("{queue} {text}"));
    };
    let app = at.app().consume(consume.deduplicate_by(table.clone(), key), handler);
    let report = beside(app, async |_| {
        for body in ["a", "a", "b", "panic", "panic"] {
            for queue in &queues {
                client.send(queue, body).await;
            }
        }
        at.log.reach(8).await;
        let handled = || table.log.lines().iter().filter(|it| it.starts_with("begin")).count();
        until("all duplicates", async || handled() == 6).await;
    })
    .await;
    assert_eq!((report.handled, at.log.lines().len()), (10, 8), "{report:?}");
    let rows = table.rows.lock().unwrap();
    assert_eq!(rows.len(), 4);
    let first = rows.keys().next().unwrap();
    assert_eq!(first.to_string(), format!("{}/a", first.queue()));
}

async fn what_is_being_handled_elsewhere_waits_and_counts_as_no_attempt<P: Make>(at: At<P>) {
    let client = at.client().await;
    let answers = client.queue("answers").await;
    // A quorum queue of RabbitMQ before 4.3 counts what it gets back: there the message stays with its worker.
    for is_quorum in [false, true] {
        let queue = crate::at::unique("requests");
        let declare =
            if is_quorum { QueueDeclare::quorum(&queue) } else { QueueDeclare::classic(&queue) };
        let table = Table::default();
        table.set(&queue, "r", None);
        let consume = source(declare).deduplicate(table.clone());
        let handler = async |State(log): State<Log>| log.add("handled");
        let app = at.app().consume(consume, handler);
        let health = app.health();
        let report = beside(app, async |_| {
            // RabbitMQ knows a quorum queue before that can store messages, and nacks them until then.
            until("the consumer", async || health.is_ready()).await;
            client.publish(identified("r", &queue)).await;
            table.log.reach(2).await;
            table.set(&queue, "r", Some(vec![Message::new("done").to_queue(&answers)]));
            assert_eq!(client.bodies(&answers, 1).await, ["done"]);
        })
        .await;
        assert_eq!((report.handled, report.failed, report.parked), (1, 0, 0), "{report:?}");
        assert_eq!(report.given_back == 0, is_quorum, "{report:?}");
        assert!(at.log.lines().is_empty());
    }
}

async fn an_attempt_that_fails_removes_its_mark<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("requests").await;
    for (how, panicked) in [("fail", 0), ("panic", 2)] {
        for consume in both(&queue) {
            let table = Table::new(&at.log);
            let handler = async |Text(how): Text, State(log): State<Log>| {
                log.add("called");
                match how.as_str() {
                    "panic" => panic!("of the handler"),
                    _ => Err::<(), _>("it failed"),
                }
            };
            let policy = Retry::now(1).pause(Duration::from_millis(1));
            let consume = consume.on_failure(policy).deduplicate(table.clone());
            let report = beside(at.app().consume(consume, handler), async |_| {
                client.publish(identified(how, &queue)).await;
                client.expect(&format!("{queue}.parked")).await.ack().unwrap();
            })
            .await;
            let attempt = [format!("begin {how}"), "called".into(), format!("failed {how}")];
            assert_eq!(at.log.take(), [attempt.clone(), attempt].concat());
            assert_eq!(table.rows.lock().unwrap().len(), 0);
            assert_eq!((report.failed, report.parked), (2, 1), "{report:?}");
            assert_eq!((report.panicked, report.timed_out), (panicked, 0), "{report:?}");
        }
    }
}

async fn an_application_that_stops_removes_its_marks<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("requests").await;
    client.publish(identified("r", &queue)).await;
    for is_dropped in [false, true] {
        let table = Table::new(&at.log);
        let handler = async |State(log): State<Log>| {
            log.add("called");
            std::future::pending::<()>().await;
        };
        let app = at.app().consume(source(queue.as_str()).deduplicate(table.clone()), handler);
        if is_dropped {
            // The future of the application is dropped, and its connections with it.
            let called = async {
                within("the call", at.log.find("called")).await;
                Ok(Report::default())
            };
            smol::future::or(app.run(Shutdown::never()), called).await.unwrap();
        } else {
            let report = beside(app, async |stopper| {
                within("the call", at.log.find("called")).await;
                stopper.stop_now();
            })
            .await;
            assert_eq!(report.abandoned, 1, "{report:?}");
        }
        within("the mark", at.log.find("failed r")).await;
        assert_eq!(at.log.take(), ["begin r", "called", "failed r"]);
        assert_eq!(table.rows.lock().unwrap().len(), 0);
        until("the message", async || client.ready(&queue).await == 1).await;
    }
}

async fn a_store_that_fails_loses_nothing<P: Make>(at: At<P>) {
    const MESSAGES: usize = 20;
    let client = at.client().await;
    let (queue, answers) = (client.queue("requests").await, client.queue("answers").await);
    for (round, consume) in both(&queue).into_iter().enumerate() {
        let table = Table { fails: true, ..Table::default() };
        let to = answers.clone();
        let handler = move |Text(text): Text| std::future::ready(Message::new(text).to_queue(&to));
        let policy = Retry::now(50).pause(Duration::from_millis(1));
        let consume = consume.concurrency(2).on_failure(policy).deduplicate(table.clone());
        let report = beside(at.app().consume(consume, handler), async |_| {
            for number in 0..MESSAGES {
                client.publish(identified(&format!("{round} {number}"), &queue)).await;
            }
            let mut received = BTreeMap::<String, String>::new();
            while received.len() < MESSAGES {
                let answer = client.expect(&answers).await;
                let body = text(&answer);
                let id = id_of(&answer);
                answer.ack().unwrap();
                assert_eq!(id, format!("{body}#0"));
                received.insert(id, body);
                // The leases of a store without a clock.
                table.rows.lock().unwrap().retain(|_, replies| replies.is_some());
            }
        })
        .await;
        assert!(report.failed > 0 && report.parked == 0, "{report:?}");
        assert_eq!((report.handled, client.ready(&queue).await), (MESSAGES as u64, 0));
        assert_eq!(client.ready(&answers).await, 0, "each once");
    }
}

/// The frames at which the connection is lost when a message is done. Its outcome is not remembered.
const POINTS: [(Direction, &str); 4] = [
    (Direction::ToBroker, "basic.publish"),
    (Direction::ToBroker, "basic.ack"),
    (Direction::ToBroker, "tx.commit"),
    (Direction::ToClient, "tx.commit-ok"),
];

async fn a_connection_that_is_lost_parts_no_replies_from_a_message_that_is_done<P: Make>(
    at: At<P>,
) {
    let client = at.client().await;
    let (queue, answers) = (client.queue("requests").await, client.queue("answers").await);
    let proxy = Proxy::start(at.port()).unwrap();
    for (is_transactional, consume) in [false, true].into_iter().zip(both(&queue)) {
        let (table, to) = (Table::default(), answers.clone());
        let handler = move |Text(text): Text, State(log): State<Log>| {
            log.add(text);
            std::future::ready([0, 1].map(|it| Message::new(it.to_string()).to_queue(&to)))
        };
        let consume = consume.forget().deduplicate(table);
        let app = at.app_at(&proxy.uri()).consume(consume, handler);
        let health = app.health();
        let points = if is_transactional { &POINTS[..] } else { &POINTS[..2] };
        let report = beside(app, async |_| {
            for (number, (direction, method)) in points.iter().enumerate() {
                until("the consumer", async || health.is_ready()).await;
                let faulted = proxy.faulted().len();
                proxy.before(*direction, method, 1, Fault::Cut);
                let id = format!("{is_transactional} {number}");
                client.publish(identified(&id, &queue)).await;
                until("the fault", async || proxy.faulted().len() > faulted).await;
                let mut counts = BTreeMap::<String, usize>::new();
                while counts.len() < 2 {
                    let answer = client.expect(&answers).await;
                    let of = id_of(&answer);
                    answer.ack().unwrap();
                    // Without transactions, a duplicate for the message before may come late.
                    if is_transactional || of.starts_with(&format!("{id}#")) {
                        *counts.entry(of).or_default() += 1;
                    }
                }
                until("the acknowledgement", async || client.ready(&queue).await == 0).await;
                let expected = [0, 1].map(|it| format!("{id}#{it}"));
                assert!(counts.keys().eq(expected.iter()), "{counts:?}");
                assert!(!is_transactional || counts.values().all(|it| *it == 1), "{counts:?}");
            }
        })
        .await;
        assert_eq!((report.failed, report.parked), (0, 0), "{report:?}");
        let mut handled = at.log.take();
        handled.sort();
        let each = (0..points.len()).map(|number| format!("{is_transactional} {number}"));
        assert_eq!(handled, each.collect::<Vec<_>>(), "each once, {report:?}");
        until("the rest", async || {
            while let Some(rest) = client.channel.basic_get(&answers).await.unwrap() {
                assert!(!is_transactional, "{rest:?}");
                rest.ack().unwrap();
            }
            client.ready(&queue).await == 0
        })
        .await;
    }
}

pub(crate) struct Resource(pub(crate) Log, pub(crate) bool);

impl Participant for Resource {
    async fn vote(&mut self) -> Result<(), Failure> {
        self.0.add("votes");
        if self.1 { Ok(()) } else { Err("it cannot".into()) }
    }

    async fn finish(&mut self) {
        self.0.add("finishes");
    }

    async fn abort(&mut self) {
        self.0.add("aborts");
    }
}

async fn participants_commit_before_a_message_is_done<P: Make>(at: At<P>) {
    let client = at.client().await;
    let (queue, answers) = (client.queue("requests").await, client.queue("answers").await);
    for consume in both(&queue) {
        let (table, to) = (Table::new(&at.log), answers.clone());
        let handler =
            move |Text(text): Text, participants: Participants, State(log): State<Log>| {
                participants.join(Resource(log, text != "no"));
                std::future::ready(Message::new(text).to_queue(&to))
            };
        let app = at.app().consume(consume.deduplicate(table.clone()), handler);
        beside(app, async |_| {
            client.publish(identified("yes", &queue)).await;
            at.log.reach(4).await;
            assert_eq!(at.log.take(), ["begin yes", "votes", "finishes", "done yes"]);
            client.publish(identified("yes", &queue)).await;
            assert_eq!(client.bodies(&answers, 2).await, ["yes", "yes"]);
            client.publish(identified("no", &queue)).await;
            client.expect(&format!("{queue}.parked")).await.ack().unwrap();
            let lines = ["begin yes", "begin no", "votes", "aborts", "failed no"];
            assert_eq!(at.log.take(), lines);
        })
        .await;
        assert_eq!((table.running(), table.rows.lock().unwrap().len()), (0, 1));
    }
}

async fn a_handler_that_takes_the_delivery_cannot_be_deduplicated<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("requests").await;
    client.publish(identified("r", &queue)).await;
    let table = Table::default();
    let consume = source(queue.as_str()).deduplicate(table.clone());
    let app = at.app().consume(consume, async |delivery: Delivery| drop(delivery.ack()));
    let error = within("the end", app.run(Shutdown::never())).await.unwrap_err();
    assert!(matches!(&error, Error::Stopped { .. }), "{error}");
    assert!(error.to_string().contains("cannot take the delivery"), "{error}");
    assert_eq!((table.running(), client.ready(&queue).await), (0, 1));
}

async fn a_source_with_batches_cannot_deduplicate<P: Make>(at: At<P>) {
    let consume = source("q").batches(10, Duration::from_millis(1)).deduplicate(Table::default());
    let app = at.app().consume(consume, async |texts: Batch<Text>| drop(texts));
    let error = app.run(Shutdown::never()).await.unwrap_err();
    assert!(error.to_string().contains("cannot deduplicate"), "{error}");
}
