//! Connections and processes that are lost at one point of the protocol, to the frame: between a confirm and the
//! acknowledgement that follows it, and before each of the two. Each time the ledger is closed: nothing is lost, and duplicates
//! have the same id.

use std::process::{Child, Command, Stdio};

use amqp_app::prelude::*;
use amqp_testkit::{Direction, Fault, Proxy};

use crate::at::{At, Client, Log, Make, beside, on_model, on_rabbitmq, source, unique, until};

on_model! {
    u_1_a_reply_that_is_not_confirmed_is_sent_again
    u_3_a_copy_that_is_not_confirmed_is_sent_again
    u_3_a_message_whose_copy_is_confirmed_may_come_again
    u_8_a_message_whose_ack_is_lost_on_its_way_is_handled_again
    u_8_an_outcome_whose_connection_is_lost_behind_its_replies_is_recognised
    u_8_an_outcome_that_is_not_remembered_is_handled_again
    u_8_a_message_whose_process_dies_before_the_ack_is_handled_again
}

on_rabbitmq! {
    u_1_a_reply_that_is_not_confirmed_is_sent_again
    u_3_a_copy_that_is_not_confirmed_is_sent_again
    u_3_a_message_whose_copy_is_confirmed_may_come_again
    u_8_a_message_whose_ack_is_lost_on_its_way_is_handled_again
    u_8_an_outcome_whose_connection_is_lost_behind_its_replies_is_recognised
    u_8_an_outcome_that_is_not_remembered_is_handled_again
    u_8_a_message_whose_process_dies_before_the_ack_is_handled_again
}

/// What became of one message, `m`.
struct Ledger {
    report: Report,
    /// Whether each delivery was a redelivery.
    deliveries: Vec<String>,
    /// The ids of what is in the queue of answers, or of copies.
    ids: Vec<String>,
}

/// Sends one message to an application that answers it, and loses a connection before a frame. Ends when there are this many
/// answers.
async fn answered<P: Make>(
    at: &At<P>,
    (direction, method): (Direction, &str),
    answers: u32,
) -> Ledger {
    let client = at.client().await;
    let [queue, to] = [client.queue("requests").await, client.queue("answers").await];
    client.publish(Message::new("1").message_id("m").to_queue(&queue)).await;
    let proxy = Proxy::start(at.port()).unwrap();
    proxy.before(direction, method, 1, Fault::Cut);
    let app = at.app_at(&proxy.uri()).consume(source(queue.as_str()), answering(&to));
    let report = beside(app, async |_| {
        until("the fault", async || proxy.faulted().len() == 1).await;
        until("the answers", async || client.ready(&to).await == answers).await;
        at.log.reach(report_lines(direction, method)).await;
    })
    .await;
    close(at, &client, report, &queue, &to).await
}

/// The number of times that the message is delivered, if a connection is lost before this frame.
fn report_lines(direction: Direction, method: &str) -> usize {
    if (direction, method) == (Direction::ToBroker, "basic.ack") { 2 } else { 1 }
}

/// Closes the ledger: the message is not in its queue any more.
async fn close<P: Make>(
    at: &At<P>,
    client: &Client,
    report: Report,
    queue: &str,
    to: &str,
) -> Ledger {
    until("an empty queue", async || client.ready(queue).await == 0).await;
    Ledger { report, deliveries: at.log.take(), ids: ids(client, to).await }
}

/// Takes all messages of a queue. Returns their ids.
async fn ids(client: &Client, queue: &str) -> Vec<String> {
    let mut ids = Vec::new();
    while let Some(delivery) = client.channel.basic_get(queue).await.unwrap() {
        ids.push(delivery.properties().unwrap().message_id.unwrap());
        delivery.ack().unwrap();
    }
    ids
}

/// Answers each message, and notes whether it was delivered before.
fn answering(
    to: &str,
) -> impl Fn(Text, Redelivered, State<Log>) -> std::future::Ready<Message> + Clone + Send + Sync + 'static
{
    let to = to.to_owned();
    move |Text(text), Redelivered(again), State(log)| {
        log.add(format!("redelivered: {again}"));
        std::future::ready(Message::new(text).to_queue(&to))
    }
}

async fn u_1_a_reply_that_is_not_confirmed_is_sent_again<P: Make>(at: At<P>) {
    for (point, answers) in
        [((Direction::ToBroker, "basic.publish"), 1), ((Direction::ToClient, "basic.ack"), 2)]
    {
        let Ledger { report, deliveries, ids } = answered(&at, point, answers).await;
        assert_eq!(deliveries, ["redelivered: false"], "{point:?}: the handler is called once");
        assert_eq!((report.handled, report.stale, report.given_back), (1, 0, 0));
        assert_eq!(ids, vec!["m#0"; answers as usize], "{point:?}");
    }
}

/// The client has sent the ack, so only the broker knows that it is lost.
async fn u_8_a_message_whose_ack_is_lost_on_its_way_is_handled_again<P: Make>(at: At<P>) {
    let Ledger { deliveries, ids, .. } = answered(&at, (Direction::ToBroker, "basic.ack"), 2).await;
    assert_eq!(deliveries, ["redelivered: false", "redelivered: true"]);
    assert_eq!(ids, ["m#0", "m#0"]);
}

/// The handler has ended and its reply is stored. Before the confirm arrives, the connection that consumes is lost.
async fn lose_behind_the_replies<P: Make>(at: &At<P>, forgets: bool) -> Ledger {
    let client = at.client().await;
    let [queue, to] = [client.queue("requests").await, client.queue("answers").await];
    client.publish(Message::new("1").message_id("m").to_queue(&queue)).await;
    let proxy = Proxy::start(at.port()).unwrap();
    proxy.before(Direction::ToClient, "basic.ack", 1, Fault::Pause);
    let consume = source(queue.as_str());
    let consume = if forgets { consume.forget() } else { consume };
    let app = at.app_at(&proxy.uri()).consume(consume, answering(&to));
    let report = beside(app, async |_| {
        until("the confirm", async || !proxy.faulted().is_empty()).await;
        assert_eq!((proxy.accepted(), client.ready(&to).await), (2, 1));
        let consuming = 1 - proxy.faulted()[0];
        proxy.inject_on(consuming, Direction::ToClient, Fault::Cut);
        // The client has seen it.
        until("the next connection", async || proxy.accepted() >= 3).await;
        proxy.resume();
        until("the second reply", async || client.ready(&to).await == 2).await;
    })
    .await;
    close(at, &client, report, &queue, &to).await
}

async fn u_8_an_outcome_whose_connection_is_lost_behind_its_replies_is_recognised<P: Make>(
    at: At<P>,
) {
    let Ledger { report, deliveries, ids } = lose_behind_the_replies(&at, false).await;
    assert_eq!(deliveries, ["redelivered: false"], "the handler is called once");
    assert_eq!((report.handled, report.stale), (1, 1));
    assert_eq!(ids, ["m#0", "m#0"]);
}

async fn u_8_an_outcome_that_is_not_remembered_is_handled_again<P: Make>(at: At<P>) {
    let Ledger { report, deliveries, ids } = lose_behind_the_replies(&at, true).await;
    assert_eq!(deliveries, ["redelivered: false", "redelivered: true"]);
    assert_eq!((report.handled, report.stale), (1, 1));
    assert_eq!(ids, ["m#0", "m#0"]);
}

/// Sends one message to an application that always fails, and loses a connection before a frame. Ends when there are this
/// many copies.
async fn copied<P: Make>(
    at: &At<P>,
    (direction, method): (Direction, &str),
    (policy, beside_it): (Retry, &str),
    copies: u32,
) -> Ledger {
    let client = at.client().await;
    let queue = client.queue("failing").await;
    let to = format!("{queue}.{beside_it}");
    client.publish(Message::new("1").message_id("m").to_queue(&queue)).await;
    let proxy = Proxy::start(at.port()).unwrap();
    proxy.before(direction, method, 1, Fault::Cut);
    let handler = async |Redelivered(again): Redelivered, State(log): State<Log>| {
        log.add(format!("redelivered: {again}"));
        Err::<(), _>("down")
    };
    let consume = source(queue.as_str()).on_failure(policy);
    let report = beside(at.app_at(&proxy.uri()).consume(consume, handler), async |_| {
        until("the fault", async || proxy.faulted().len() == 1).await;
        until("the copies", async || client.ready(&to).await == copies).await;
        at.log.reach(report_lines(direction, method)).await;
    })
    .await;
    close(at, &client, report, &queue, &to).await
}

/// The two kinds of copies: one that waits, and one that is parked.
fn policies() -> [(Retry, &'static str); 2] {
    [(Retry::after([Duration::from_secs(600)]), "retry.10m"), (Retry::none(), "parked")]
}

async fn u_3_a_copy_that_is_not_confirmed_is_sent_again<P: Make>(at: At<P>) {
    for (point, copies) in
        [((Direction::ToBroker, "basic.publish"), 1), ((Direction::ToClient, "basic.ack"), 2)]
    {
        for policy in policies() {
            let Ledger { report, deliveries, ids } = copied(&at, point, policy, copies).await;
            assert_eq!(deliveries, ["redelivered: false"], "{point:?}");
            assert_eq!((report.failed, report.retried + report.parked), (1, 1), "{point:?}");
            assert_eq!(ids, vec!["m"; copies as usize], "{point:?}");
        }
    }
}

/// The copy is stored and confirmed, and the ack of the original is lost: the message is in both queues.
async fn u_3_a_message_whose_copy_is_confirmed_may_come_again<P: Make>(at: At<P>) {
    for policy in policies() {
        let point = (Direction::ToBroker, "basic.ack");
        let Ledger { report, deliveries, ids } = copied(&at, point, policy, 2).await;
        assert_eq!(deliveries, ["redelivered: false", "redelivered: true"]);
        assert_eq!((report.failed, ids), (2, vec!["m".to_owned(); 2]));
    }
}

/// An application in a process of its own.
struct Process(Child);

impl Process {
    fn start(uri: &str, queue: &str, answers: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_app_soak"));
        command.args(["--worker", uri, queue, answers]).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process is killed while its ack is under way: its reply is confirmed, and the broker never gets the ack.
async fn u_8_a_message_whose_process_dies_before_the_ack_is_handled_again<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [queue, to] = [unique("killed"), client.queue("answers").await];
    client.channel.queue_declare(QueueDeclare::quorum(&queue)).await.unwrap();
    client.publish(Message::new("3").message_id("m").to_queue(&queue)).await;
    let proxy = Proxy::start(at.port()).unwrap();
    proxy.before(Direction::ToBroker, "basic.ack", 1, Fault::Pause);
    let mut process = Process::start(&proxy.uri(), &queue, &to);
    until("the ack", async || !proxy.faulted().is_empty()).await;
    assert_eq!(client.ready(&to).await, 1, "the reply is stored");
    process.kill();
    // What is held up is lost with the process.
    proxy.inject(Direction::ToBroker, Fault::Cut);
    drop(process);

    let _process = Process::start(&at.uri, &queue, &to);
    for again in [false, true] {
        let answer = client.expect(&to).await;
        assert_eq!(answer.properties().unwrap().message_id.as_deref(), Some("m#0"));
        let redelivered = answer.header("redelivered").unwrap().unwrap();
        assert_eq!(redelivered.as_bool(), Some(again));
        answer.ack().unwrap();
    }
    until("the ack", async || client.ready(&queue).await == 0).await;
}
