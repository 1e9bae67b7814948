//! Applications in virtual time. The faults of a seed hit them at any point.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use amqp_app::prelude::*;
use amqp_tests::world::World;

use super::{connect, play, recovering, until};

/// Of 100 messages, 5 are nonsense, 5 fail for ever, 5 panic, 5 hang, and 10 fail at first. They wait for minutes. All end
/// handled or parked, and no place of the prefetch is lost.
#[test]
fn u_6_ten_thousand_messages_end_handled_or_parked_in_virtual_time() {
    play(0..1, &ten_thousand);
}

async fn ten_thousand(world: &World) {
    const MESSAGES: usize = 10_000;
    const WORKERS: usize = 16;
    let connection = connect(world).await;
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare(QueueDeclare::quorum("many")).await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    for number in 0..MESSAGES {
        let body = if number % 100 < 5 { "nonsense".to_owned() } else { number.to_string() };
        let message = Message::new(body).message_id(number.to_string()).to_queue("many");
        drop(publisher.send(&message).await.unwrap());
    }
    publisher.all_confirmed().await.unwrap();

    let (held, is_held) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, open, clock) = (Arc::clone(&held), Arc::clone(&is_held), world.clone());
    let handler = move |Json(number): Json<usize>, Attempt(attempt): Attempt| {
        let (count, open, clock) = (Arc::clone(&count), Arc::clone(&open), clock.clone());
        async move {
            match number % 100 {
                _ if number >= MESSAGES => {
                    count.fetch_add(1, Ordering::Relaxed);
                    while open.load(Ordering::Relaxed) == 0 {
                        clock.sleep(Duration::from_secs(1)).await;
                    }
                    Ok(())
                }
                5..10 => Err(Failure::retry("always")),
                10..15 => panic!("of the handler"),
                15..20 => std::future::pending().await,
                20..30 if attempt == 1 => Err(Failure::retry("once more")),
                _ => Ok(()),
            }
        }
    };
    let delays = [1, 10, 60, 600].map(Duration::from_secs);
    let consume = Consume::new("many").concurrency(WORKERS as u16).timeout(Duration::from_secs(5));
    let consume = consume.on_failure(Retry::after(delays));
    let (stopper, shutdown) = Shutdown::manual();
    let app = App::new(world.connector().recovery(recovering())).consume(consume, handler);
    let script = async {
        let parked = || world.broker(|broker| broker.ready("many.parked"));
        until(world, "2,000 that are parked", || parked() == Some(2_000)).await;
        // Each worker takes one more, and as many wait as before.
        for number in MESSAGES..MESSAGES + 3 * WORKERS {
            publisher.publish(&Message::new(number.to_string()).to_queue("many")).await.unwrap();
        }
        until(world, "a message for each worker", || held.load(Ordering::Relaxed) == WORKERS).await;
        assert_eq!(world.broker(|broker| broker.held().unacknowledged), 2 * WORKERS);
        is_held.store(1, Ordering::Relaxed);
        until(world, "the end", || held.load(Ordering::Relaxed) == 3 * WORKERS).await;
        stopper.stop();
    };
    let (report, ()) = smol::future::zip(app.run(shutdown), script).await;
    let report = report.unwrap();
    let handled = 8_000 + 3 * WORKERS as u64;
    assert_eq!((report.handled, report.parked), (handled, 2_000), "{report:?}");
    assert_eq!((report.panicked, report.timed_out), (5 * 500, 5 * 500), "{report:?}");
    assert_eq!((report.stale, report.unroutable, report.abandoned), (0, 0, 0), "{report:?}");
    assert!(world.elapsed() > Duration::from_secs(671), "{:?}", world.elapsed());
    let parked = world.broker(|broker| broker.messages("many.parked"));
    let ids: BTreeSet<usize> = parked.iter().map(|message| id(&message.properties)).collect();
    assert_eq!(ids, (0..MESSAGES).filter(|number| number % 100 < 20).collect());
    assert_eq!(parked.len(), ids.len(), "each once");
}

fn id(properties: &Properties) -> usize {
    let id = properties.message_id.as_ref().unwrap();
    id.split('#').next().unwrap().parse().unwrap()
}

/// Lines are cut and fall silent, and the broker crashes, while messages are answered, tried again and parked. Afterwards
/// each message is answered or parked, as its number says, and its duplicates have the ids of the first.
#[test]
fn u_8_nothing_is_lost_at_random_faults() {
    play(0..100, &anything_fails);
}

#[test]
fn u_8_nothing_is_lost_in_batches_at_random_faults() {
    play(0..100, &batches_fail);
}

async fn anything_fails(world: &World) {
    let clock = world.clone();
    let handler = move |Json(number): Json<usize>, Attempt(attempt): Attempt| {
        let clock = clock.clone();
        async move {
            clock.sleep(Duration::from_millis(clock.below(3_000) as u64)).await;
            one(number, attempt)
        }
    };
    let (workers, transactional) = (1 + world.below(8) as u16, world.below(2) == 0);
    let consume = |consume: Consume| {
        let consume = consume.concurrency(workers);
        if transactional { consume.transactional() } else { consume }
    };
    lose(world, |app, it| app.consume(consume(it), handler)).await;
}

/// Messages are handled in batches, with confirms or in transactions. Some calls fail as a whole.
async fn batches_fail(world: &World) {
    let clock = world.clone();
    let handler = move |Batch(messages): Batch<(Json<usize>, Attempt)>| {
        let clock = clock.clone();
        async move {
            clock.sleep(Duration::from_millis(clock.below(3_000) as u64)).await;
            if messages.len() > 1 && clock.below(4) == 0 {
                return Err(Failure::retry("the batch"));
            }
            let each = messages.into_iter().map(|(Json(number), Attempt(it))| one(number, it));
            Ok::<_, Failure>(amqp_app::Outcomes(each.collect()))
        }
    };
    let (size, workers) = (2 + world.below(8) as u16, 1 + world.below(3) as u16);
    let within = Duration::from_millis(world.below(2_000) as u64);
    let transactional = world.below(2) == 0;
    let consume = |consume: Consume| {
        let consume = consume.batches(size, within).concurrency(workers);
        if transactional { consume.transactional() } else { consume }
    };
    lose(world, |app, it| app.consume(consume(it), handler)).await;
}

/// What a handler makes of a message.
fn one(number: usize, attempt: u32) -> Result<Message, Failure> {
    match number % 5 {
        0 => Err(Failure::permanent("never")),
        1 => Err(Failure::retry("always")),
        2 if attempt < 3 => Err(Failure::retry("at first")),
        _ => Ok(Message::new(number.to_string()).to_queue("answers")),
    }
}

type Applied = App<amqp_async::Connector<World>>;

/// Loses connections while an application works, and looks for each message at its end.
async fn lose(world: &World, consume: impl FnOnce(Applied, Consume) -> Applied) {
    const MESSAGES: usize = 60;
    let connection = connect(world).await;
    let channel = connection.open_channel().await.unwrap();
    let declare = [QueueDeclare::quorum("work"), QueueDeclare::classic("work")];
    let declare = declare.into_iter().nth(world.below(2)).unwrap();
    channel.queue_declare(declare.clone()).await.unwrap();
    channel.queue_declare(QueueDeclare::classic("answers")).await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    for number in 0..MESSAGES {
        let message = Message::new(number.to_string()).message_id(number.to_string());
        publisher.publish(&message.to_queue("work")).await.unwrap();
    }
    connection.close().await;

    let policy = Retry::now(world.below(2) as u32).and_after([1, 5, 5].map(Duration::from_secs));
    let (stopper, shutdown) = Shutdown::manual();
    let connector =
        world.connector().recovery(recovering()).heartbeat(amqp_async::Heartbeat::Seconds(10));
    let app = consume(App::new(connector), Consume::new(declare).on_failure(policy));
    let health = app.health();
    let script = async {
        // A loss at the start would end it.
        until(world, "the start", || health.is_ready()).await;
        for _ in 0..10 {
            world.sleep(Duration::from_millis(world.below(5_000) as u64)).await;
            match world.below(4) {
                0 => world.silence(),
                1 => world.crash(Duration::from_millis(world.below(3_000) as u64)),
                _ => world.cut(),
            }
        }
        let queues = ["work", "work.retry.1s", "work.retry.5s"];
        let is_done =
            || world.broker(|broker| queues.iter().all(|queue| broker.messages(queue).is_empty()));
        until(world, "the end of all work", is_done).await;
        stopper.stop();
    };
    let (report, ()) = smol::future::zip(app.run(shutdown), script).await;
    let report = report.unwrap();
    assert_eq!(report.abandoned, 0, "{report:?}");

    let mut ledger = BTreeMap::<usize, BTreeSet<&str>>::new();
    for (queue, place) in [("answers", "answered"), ("work.parked", "parked")] {
        for message in world.broker(|broker| broker.messages(queue)) {
            let number = id(&message.properties);
            ledger.entry(number).or_default().insert(place);
            let expected =
                if place == "parked" { number.to_string() } else { format!("{number}#0") };
            assert_eq!(message.properties.message_id.unwrap(), *expected, "as every duplicate");
        }
    }
    let of = |number| if number % 5 < 2 { "parked" } else { "answered" };
    let expected = (0..MESSAGES).map(|number| (number, BTreeSet::from([of(number)])));
    assert_eq!(ledger, expected.collect(), "{report:?}");
}

/// A classic queue gets its message back. A message of a quorum queue is kept, because such queues count what they get back.
#[test]
fn a_reply_that_is_not_confirmed_makes_the_application_unready() {
    play(0..1, &async |world| is_not_confirmed(world, QueueDeclare::classic("held-up"), 3).await);
    play(0..1, &async |world| is_not_confirmed(world, QueueDeclare::quorum("held-up"), 0).await);
}

async fn is_not_confirmed(world: &World, queue: QueueDeclare, given_back: u64) {
    let connection = connect(world).await;
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare(queue.clone()).await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    for body in ["1", "2"] {
        publisher.publish(&Message::new(body).to_queue("held-up")).await.unwrap();
    }
    let handler = async || Message::new("reply").to("amq.fanout", "").optional();
    let app = App::new(world.connector()).consume(queue, handler);
    let health = app.health();
    let unstored = || health.report().map_or(0, |report| report.sources[0].unstored);
    let (stopper, shutdown) = Shutdown::manual();
    let script = async {
        // The broker takes one publish more, then does not read from the connection.
        world.broker(|broker| broker.set_alarm(Some("memory")));
        until(world, "three times without a confirm", || unstored() == 3).await;
        assert!(world.elapsed() >= Duration::from_secs(90), "{:?}", world.elapsed());
        assert!(!health.is_ready());
        world.broker(|broker| broker.set_alarm(None));
        until(world, "the confirm", || health.is_ready() && unstored() == 0).await;
        stopper.stop();
    };
    let (report, ()) = smol::future::zip(app.run(shutdown), script).await;
    let report = report.unwrap();
    assert_eq!((report.handled, report.given_back), (2, given_back), "{report:?}");
}
