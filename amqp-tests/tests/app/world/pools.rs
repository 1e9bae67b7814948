//! Pools in virtual time. Borrowers come and go, and the faults of a seed hit them at any point.

use std::cell::Cell;

use amqp_app::Pool;
use amqp_app::prelude::*;
use amqp_async::Recovery;
use amqp_tests::world::World;

use super::{all, play, recovering, until};

/// The promises about pools. L1: never more connections than the pool has places, with those that are being opened. L2: a
/// connection that has ended is never lent. L3 and L4: a borrower that is dropped, at any point, costs no place. L5: while the
/// broker is down, borrowers get errors; later the pool fills again. L6: a close ends, and wakes every borrower.
#[test]
fn pools_keep_their_promises_at_random_faults() {
    play(0..300, &keeps_promises);
}

pub(super) async fn keeps_promises(world: &World) {
    let size = 1 + world.below(4);
    let recovers = world.below(2) == 0;
    let recovery = if recovers { recovering() } else { Recovery::never() };
    let pool = Pool::new(world.connector().recovery(recovery), size).connect().await.unwrap();
    assert_eq!(world.lines(), size);
    let ends = Cell::new(false);
    let borrowing = all((0..6).map(|_| borrow(world, &pool, &ends)));
    let failing = async {
        for _ in 0..12 {
            world.sleep(Duration::from_millis(world.below(4_000) as u64)).await;
            match world.below(5) {
                0 => world.silence(),
                1 => world.crash(Duration::from_millis(world.below(5_000) as u64)),
                2 if world.below(2) == 0 => closes(world, &pool).await,
                // A close that is dropped goes on in the background.
                2 => {
                    let moment = world.sleep(Duration::from_micros(world.below(3_000) as u64));
                    smol::future::or(pool.close(), moment).await;
                }
                _ => world.cut(),
            }
        }
        // Nothing fails any more: the pool is full again, because it is used.
        until(world, "a full pool", || pool.status().open == size).await;
        ends.set(true);
    };
    smol::future::zip(borrowing, failing).await;
    assert!(world.lines_max() <= size, "{} connections of {size}", world.lines_max());
    closes(world, &pool).await;
    assert_eq!(world.lines(), 0);
    let held = || world.broker(|broker| broker.held().connections);
    until(world, "the end of silent connections", || held() == 0).await;
}

/// Closes the pool, which resolves within the time for confirms and for the answer of the broker.
async fn closes(world: &World, pool: &Pool<amqp_async::Connector<World>>) {
    let before = world.elapsed();
    pool.close().await;
    let taken = world.elapsed() - before;
    assert!(taken <= Duration::from_secs(30), "a close took {taken:?}");
}

/// Borrows connections and uses them, until the end.
async fn borrow(world: &World, pool: &Pool<amqp_async::Connector<World>>, ends: &Cell<bool>) {
    while !ends.get() {
        world.sleep(Duration::from_millis(world.below(1_000) as u64)).await;
        let before = world.elapsed();
        let using = async {
            // An error is what L5 promises.
            let Ok(member) = pool.connection().await else { return };
            assert_eq!(member.close_cause().map(|cause| cause.to_string()), None);
            let _ = member.publish(&Message::new("m").to("amq.fanout", "").optional()).await;
            world.sleep(Duration::from_millis(world.below(3_000) as u64)).await;
        };
        let patience = world.sleep(Duration::from_millis(world.below(10_000) as u64));
        smol::future::or(using, patience).await;
        assert!(world.elapsed() - before <= Duration::from_secs(10));
    }
}

/// Also in the pause after an attempt that has failed.
#[test]
fn np_4_a_pool_that_is_connected_has_all_of_its_connections() {
    play(0..1, &is_connected);
}

async fn is_connected(world: &World) {
    world.crash(Duration::from_millis(500));
    let connector = world.connector().recovery(Recovery::never());
    let pool = Pool::new(connector, 3);
    pool.connection().await.map(drop).unwrap_err();
    world.sleep(Duration::from_millis(600)).await;
    let pool = pool.connect().await.unwrap();
    assert_eq!(pool.status().open, 3);
    // It waits for a close that has begun.
    let ((), connected) = smol::future::zip(pool.close(), pool.clone().connect()).await;
    assert_eq!(connected.unwrap().status().open, 3);
    // A close that begins later is an error.
    let reopened = Pool::new(world.connector().recovery(Recovery::never()), 3);
    let closing = async {
        world.sleep(Duration::from_millis(1)).await;
        reopened.close().await;
    };
    let (connected, ()) = smol::future::zip(reopened.clone().connect(), closing).await;
    assert!(matches!(connected.map(drop), Err(Error::PoolClosed)));
    pool.close().await;
}

/// L6: borrowers that come after it do not hold it up, although the broker does not answer them.
#[test]
fn l6_a_close_ends_while_others_wait_for_a_broker_that_does_not_answer() {
    play(0..20, &ends_beside_borrowers);
}

async fn ends_beside_borrowers(world: &World) {
    let connector = world.connector().recovery(Recovery::never());
    let pool = Pool::new(connector, 3).connect().await.unwrap();
    world.do_not_answer(Duration::from_secs(3_600));
    // One connection takes a while to close.
    world.silence();
    let ends = Cell::new(false);
    let borrowing = all((0..6).map(|_| async {
        while !ends.get() {
            let _ = pool.connection().await;
            world.sleep(Duration::from_millis(world.below(1_000) as u64)).await;
        }
    }));
    let closing = async {
        closes(world, &pool).await;
        ends.set(true);
    };
    smol::future::zip(borrowing, closing).await;
}

/// Also the line that is being dialled to recover a connection.
#[test]
fn l6_a_close_ends_a_recovery_that_dials() {
    play(0..50, &ends_a_recovery);
}

async fn ends_a_recovery(world: &World) {
    let pool = Pool::new(world.connector().recovery(recovering()), 1).connect().await.unwrap();
    world.do_not_answer(Duration::from_secs(3_600));
    world.cut();
    until(world, "a recovery", || pool.status().recovering == 1 && world.lines() == 1).await;
    closes(world, &pool).await;
    assert_eq!(world.lines(), 0);
}

/// U7: also if its connection has ended before its listeners see the end of their consumers. Here the worker is busy, and has
/// acknowledged its message.
#[test]
fn u_7_listeners_of_a_pool_that_closes_end_without_an_error() {
    play(0..50, &ends_listeners);
}

async fn ends_listeners(world: &World) {
    let pool = Pool::new(world.connector(), 1).connect().await.unwrap();
    let member = pool.connection().await.unwrap();
    member.open_channel().await.unwrap().queue_declare(QueueDeclare::classic("q")).await.unwrap();
    for _ in 0..3 {
        member.publish(&Message::new("m").to_queue("q")).await.unwrap();
    }
    let (began, begun) = smol::channel::bounded(1);
    let clock = world.clone();
    let handler = move |delivery: Delivery| {
        let (began, clock) = (began.clone(), clock.clone());
        async move {
            delivery.ack()?;
            began.send(()).await?;
            clock.sleep(Duration::from_secs(1)).await;
            Ok::<_, Failure>(())
        }
    };
    let listening = member.consume_with("q", handler).await.unwrap();
    begun.recv().await.unwrap();
    closes(world, &pool).await;
    let report = listening.ended().await.unwrap();
    // One more may have been delivered before the close.
    let left = world.broker(|broker| broker.ready("q")).unwrap() as u64;
    assert_eq!((report.handled + left, report.abandoned, report.stale), (3, 0, 0));
    assert!(left > 0);
}

/// One connection consumes, and the other one publishes. It has nothing to drain, and is closed first.
#[test]
fn u_7_an_application_whose_pool_closes_ends_without_an_error() {
    play(0..50, &ends_an_application);
}

async fn ends_an_application(world: &World) {
    let pool = Pool::new(world.connector(), 2).connect().await.unwrap();
    let member = pool.connection().await.unwrap();
    let channel = member.open_channel().await.unwrap();
    for queue in ["q", "replies"] {
        channel.queue_declare(QueueDeclare::new(queue).durable()).await.unwrap();
    }
    for _ in 0..3 {
        member.publish(&Message::new("m").to_queue("q")).await.unwrap();
    }
    let (began, begun) = smol::channel::unbounded();
    let clock = world.clone();
    let handler = move |_: Text| {
        let (began, clock) = (began.clone(), clock.clone());
        async move {
            began.try_send(()).unwrap();
            clock.sleep(Duration::from_secs(1)).await;
            Message::new("reply").to_queue("replies")
        }
    };
    let app = App::on(pool.clone()).consume(Consume::new("q"), handler);
    let closing = async {
        begun.recv().await.unwrap();
        closes(world, &pool).await;
    };
    let (report, ()) = smol::future::zip(app.run(Shutdown::never()), closing).await;
    let report = report.unwrap();
    let ready = |queue| world.broker(|broker| broker.ready(queue)).unwrap() as u64;
    until(world, "the rest", || ready("q") + report.handled == 3).await;
    assert!(ready("replies") >= report.handled, "{report:?}");
}
