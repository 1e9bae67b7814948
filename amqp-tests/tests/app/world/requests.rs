//! Requests in virtual time: many at once, with deadlines of any length, and faults at any point.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use amqp_app::limits::REQUESTS_MAX;
use amqp_app::prelude::*;
use amqp_app::{Blame, Pool, RequestError};
use amqp_async::{Connector, Executor, Heartbeat, Recovery};
use amqp_tests::world::World;

use super::{all, connect, play, recovering, until};

/// The responder's side: what it has executed.
#[derive(Clone, Default)]
struct Executed(Arc<Mutex<BTreeSet<String>>>);

impl Executed {
    fn has(&self, body: &str) -> bool {
        self.0.lock().unwrap().contains(body)
    }
}

/// An application that echoes each request after a while, and its end.
async fn beside_an_echo(
    world: &World,
    queue: QueueDeclare,
    executed: &Executed,
    script: impl AsyncFnOnce(),
) -> Report {
    let clock = world.clone();
    let handler = move |Text(body): Text, State(executed): State<Executed>| {
        let clock = clock.clone();
        async move {
            executed.0.lock().unwrap().insert(body.clone());
            // Some take longer than any requester waits.
            let most = if clock.below(50) == 0 { 20_000 } else { 200 };
            clock.sleep(Duration::from_millis(clock.below(most) as u64)).await;
            Reply(body)
        }
    };
    let consume = Consume::new(queue).concurrency(64).on_failure(Retry::none());
    let connector = world.connector().recovery(recovering()).heartbeat(HEARTBEAT);
    let app = App::with_state(connector, executed.clone()).consume(consume, handler);
    let health = app.health();
    let (stopper, shutdown) = Shutdown::manual();
    let script = async {
        until(world, "the start", || health.is_ready()).await;
        script().await;
        stopper.stop();
    };
    let (report, ()) = smol::future::zip(app.run(shutdown), script).await;
    report.unwrap()
}

const HEARTBEAT: Heartbeat = Heartbeat::Seconds(10);

async fn pool(world: &World, recovery: Recovery) -> Pool<Connector<World>> {
    let connector = world.connector().recovery(recovery).heartbeat(HEARTBEAT);
    Pool::new(connector, 2).connect().await.unwrap()
}

/// What has become of the requests of a test.
#[derive(Debug, Default)]
struct Outcomes {
    answered: Cell<usize>,
    late: Cell<usize>,
    lost: Cell<usize>,
    unavailable: Cell<usize>,
    dropped: Cell<usize>,
}

impl Outcomes {
    fn total(&self) -> usize {
        let all = [&self.answered, &self.late, &self.lost, &self.unavailable, &self.dropped];
        all.iter().map(|it| it.get()).sum()
    }
}

fn count(counter: &Cell<usize>) {
    counter.set(counter.get() + 1);
}

/// Each resolves once, to its own reply or to an error that is true: what was not executed by its word is not executed.
async fn ask(
    world: &World,
    requester: &Requester<Connector<World>>,
    executed: &Executed,
    outcomes: &Outcomes,
    number: usize,
) {
    let body = number.to_string();
    let request = Message::new(body.clone()).to_queue("echo");
    let within = Duration::from_millis(1 + world.below(3_000) as u64);
    let begun = world.elapsed();
    let asking = async { Some(requester.request(request, within).await) };
    // One in twenty is dropped, at any time.
    let patience = world.below(2_000) as u64 + if world.below(20) == 0 { 0 } else { 1_000_000 };
    let dropping = async {
        world.sleep(Duration::from_millis(patience)).await;
        None
    };
    let Some(result) = smol::future::or(asking, dropping).await else {
        return count(&outcomes.dropped);
    };
    assert!(world.elapsed() - begun <= within, "longer than its deadline");
    let error = match result {
        Ok(response) => {
            assert_eq!(response.text().unwrap(), body, "the reply of another request");
            assert!(executed.has(&body));
            return count(&outcomes.answered);
        }
        Err(error) => error,
    };
    count(match &error {
        RequestError::Lost(_) => &outcomes.lost,
        RequestError::TimedOut { .. } => &outcomes.late,
        RequestError::Unavailable(_) => &outcomes.unavailable,
        other => panic!("{number}: {other:?}"),
    });
    if !error.may_have_been_executed() {
        assert!(!executed.has(&body), "{number}: {error} and it was executed");
    }
}

/// 10,000 requests on a connection that recovers, and through 60 faults.
#[test]
fn ten_thousand_requests_resolve_once_with_their_own_replies() {
    play(0..1, &async |world| keeps_apart(world, recovering(), 10_000, 60).await);
}

/// The same for other seeds, with fewer requests; every other pool has connections that end.
#[test]
fn requests_resolve_once_at_random_faults() {
    play(1..41, &async |world| {
        let recovery = if world.below(2) == 0 { recovering() } else { Recovery::never() };
        keeps_apart(world, recovery, 400, 20).await;
    });
}

async fn keeps_apart(world: &World, recovery: Recovery, requests: usize, faults: usize) {
    let pool = pool(world, recovery).await;
    let requester = Requester::on(&pool);
    let (executed, outcomes) = (Executed::default(), Outcomes::default());
    let next = Cell::new(0);
    let report = beside_an_echo(world, QueueDeclare::quorum("echo"), &executed, async || {
        let asking = all((0..200).map(|_| async {
            while next.get() < requests {
                let number = next.replace(next.get() + 1);
                world.sleep(Duration::from_millis(world.below(1_500) as u64)).await;
                ask(world, &requester.clone(), &executed, &outcomes, number).await;
            }
        }));
        let failing = async {
            for _ in 0..faults {
                world.sleep(Duration::from_millis(world.below(6_000) as u64)).await;
                match world.below(6) {
                    0 => world.silence(),
                    1 => world.crash(Duration::from_millis(world.below(1_000) as u64)),
                    _ => world.cut(),
                }
            }
        };
        smol::future::zip(asking, failing).await;
    })
    .await;
    assert_eq!(outcomes.total(), next.get(), "{outcomes:?}");
    assert!(next.get() >= requests && outcomes.answered.get() > requests / 10, "{outcomes:?}");
    assert!(report.handled > 0);
    let stats = requester.stats();
    assert_eq!(stats.waiting, 0, "an entry is left behind");
    assert!(stats.late > 0, "no reply was late: {outcomes:?}");
    drop(requester);
    pool.close().await;
}

/// Requests on a line that is lost end with it, and not at their deadlines an hour later. Those that come meanwhile are sent
/// after the recovery.
#[test]
fn requests_in_flight_at_a_loss_end_with_it() {
    play(0..20, &in_flight);
}

async fn in_flight(world: &World) {
    let pool = pool(world, recovering()).await;
    let member = pool.connection().await.unwrap();
    let channel = member.open_channel().await.unwrap();
    channel.queue_declare(QueueDeclare::quorum("slow")).await.unwrap();
    let requester = Requester::new(&member);
    let hour = Duration::from_secs(3_600);
    let request = || Message::new("r").to_queue("slow");
    let results = RefCell::new(Vec::new());
    let asking = all((0..20).map(|_| async {
        let result = requester.request(request(), hour).await;
        results.borrow_mut().push(result);
    }));
    let failing = async {
        let ready = || world.broker(|broker| broker.ready("slow"));
        until(world, "the requests", || ready() == Some(20)).await;
        // Long enough for every confirm.
        world.sleep(Duration::from_secs(1)).await;
        assert_eq!(requester.stats().waiting, 20);
        while world.lines() > 0 {
            world.cut();
        }
        until(world, "the errors", || requester.stats().waiting == 0).await;
    };
    smol::future::zip(asking, failing).await;
    assert!(world.elapsed() < Duration::from_secs(60), "{:?}", world.elapsed());
    for result in results.take() {
        let error = result.unwrap_err();
        assert!(matches!(error, RequestError::Lost(_)), "{error:?}");
        assert!(error.may_have_been_executed() && error.blame() == Blame::Connection);
    }
    // Replies that come to the address of before reach no one; this one is asked for again.
    let asking = async { requester.request(request(), hour).await.unwrap() };
    let answering = async {
        let ready = || world.broker(|broker| broker.ready("slow"));
        until(world, "the request", || ready() == Some(21)).await;
        let connection = connect(world).await;
        let consume = BasicConsume::new("slow").no_ack();
        let mut requests = connection.consume(consume).await.unwrap();
        for number in 0..21 {
            let request = requests.next().await.unwrap().unwrap();
            let answer = request.answer(number.to_string()).unwrap();
            requests.channel().basic_publish(answer).await.unwrap();
        }
        // Before the connection closes.
        world.sleep(Duration::from_secs(1)).await;
    };
    let (response, ()) = smol::future::zip(asking, answering).await;
    assert_eq!(response.text(), Ok("20"));
    assert_eq!((requester.stats().waiting, requester.stats().late), (0, 0));
}

/// Replies that come until the deadline, if there are fewer than were wanted.
#[test]
fn replies_of_several_responders_are_collected_until_the_deadline() {
    play(0..5, &collected);
}

async fn collected(world: &World) {
    let connection = connect(world).await;
    let channel = connection.open_channel().await.unwrap();
    let mut app = App::new(world.connector().recovery(recovering()));
    for number in 0..4 {
        let queue = format!("survey-{number}");
        let clock = world.clone();
        let handler = move |Text(body): Text| {
            let clock = clock.clone();
            async move {
                // The last one is too slow.
                let seconds = if number == 3 { 100 } else { number };
                clock.sleep(Duration::from_secs(seconds)).await;
                Reply(format!("{body} {number}"))
            }
        };
        let consume = Consume::new(QueueDeclare::classic(&queue)).bind("amq.fanout", "");
        app = app.consume(consume.on_failure(Retry::none()), handler);
    }
    let health = app.health();
    let (stopper, shutdown) = Shutdown::manual();
    let script = async {
        until(world, "the start", || health.is_ready()).await;
        let pool = pool(world, recovering()).await;
        let requester = Requester::on(&pool);
        let begun = world.elapsed();
        let ask = async |wanted, seconds| {
            let request = Message::new("q").to("amq.fanout", "");
            let replies = requester.request_many(request, wanted, Duration::from_secs(seconds));
            replies.await.map(|replies| {
                let texts = replies.iter().map(|it| it.text().unwrap().to_owned());
                texts.collect::<Vec<_>>()
            })
        };
        assert_eq!(ask(3, 60).await.unwrap(), ["q 0", "q 1", "q 2"]);
        assert!(world.elapsed() - begun < Duration::from_secs(5));
        assert_eq!(ask(2, 60).await.unwrap(), ["q 0", "q 1"]);
        let begun = world.elapsed();
        let mut some = ask(100, 20).await.unwrap();
        assert_eq!(world.elapsed() - begun, Duration::from_secs(20));
        some.sort_unstable();
        assert_eq!(some, ["q 0", "q 1", "q 2"]);
        channel.exchange_declare(ExchangeDeclare::fanout("nowhere")).await.unwrap();
        let nowhere = Message::new("q").to("nowhere", "");
        let error = requester.request_many(nowhere, 3, Duration::from_secs(20)).await.unwrap_err();
        assert!(matches!(error, RequestError::Unroutable { .. }), "{error:?}");
        // A queue without a responder: the request is there, and a reply does not come.
        channel.queue_declare(QueueDeclare::classic("alone")).await.unwrap();
        let alone = || Message::new("q").to_queue("alone");
        let none = requester.request_many(alone(), 3, Duration::from_secs(20)).await.unwrap();
        assert!(none.is_empty());
        let error = requester.request(alone(), Duration::from_secs(20)).await.unwrap_err();
        let in_time = RequestError::TimedOut { is_sent: true, is_confirmed: true };
        assert_eq!((error.to_string(), error.blame()), (in_time.to_string(), Blame::Responder));
        // The broker drops requests whose deadlines have expired.
        world.sleep(Duration::from_secs(1)).await;
        assert_eq!(world.broker(|broker| broker.ready("alone")), Some(0));
        // The slow one replies to all, in the end.
        until(world, "the late replies", || requester.stats().late >= 2).await;
        assert_eq!(requester.stats().waiting, 0);
        stopper.stop();
    };
    let (report, ()) = smol::future::zip(app.run(shutdown), script).await;
    report.unwrap();
}

/// One more than may wait is an error at once, and so is a broker that takes nothing.
#[test]
fn the_number_of_requests_that_wait_is_limited() {
    play(0..1, &limited);
}

async fn limited(world: &World) {
    let pool = pool(world, recovering()).await;
    let member = pool.connection().await.unwrap();
    let channel = member.open_channel().await.unwrap();
    channel.queue_declare(QueueDeclare::classic("alone")).await.unwrap();
    let requester = Requester::new(&member);
    let request = || Message::new("q").to_queue("alone");
    let wait = Duration::from_secs(60);
    let late = Arc::new(Mutex::new(0));
    for _ in 0..REQUESTS_MAX {
        let (requester, request, late) = (requester.clone(), request(), Arc::clone(&late));
        world.spawn(async move {
            let error = requester.request(request, wait).await.unwrap_err();
            assert!(matches!(error, RequestError::TimedOut { .. }), "{error:?}");
            *late.lock().unwrap() += 1;
        });
    }
    until(world, "all of them", || requester.stats().waiting == REQUESTS_MAX).await;
    let error = requester.request(request(), wait).await.unwrap_err();
    assert!(matches!(error, RequestError::TooMany), "{error:?}");
    assert!(!error.may_have_been_executed());
    until(world, "the deadlines", || requester.stats().waiting == 0).await;
    assert_eq!(*late.lock().unwrap(), REQUESTS_MAX);
    // A broker that blocks publishes: the deadline holds, also while the request waits for buffer space.
    world.broker(|broker| broker.set_alarm(Some("memory")));
    let body = vec![0; 3 << 20];
    let begun = world.elapsed();
    for number in 0..3 {
        let request = Message::new(body.clone()).to_queue("alone");
        let error = requester.request(request, Duration::from_secs(5)).await.unwrap_err();
        // The broker takes one publish more before it stops reading.
        let first = number == 0;
        let RequestError::TimedOut { is_confirmed, .. } = error else { panic!("{error:?}") };
        assert_eq!(is_confirmed, first, "{error}");
        assert_eq!(error.blame() == Blame::Connection, !first);
    }
    assert_eq!(world.elapsed() - begun, Duration::from_secs(15));
    world.broker(|broker| broker.set_alarm(None));
    assert_eq!(requester.stats().waiting, 0);
}
