//! Pools in virtual time. Borrowers come and go, and the faults of a seed hit them at any point.

use std::cell::Cell;

use amqp_app::Pool;
use amqp_app::prelude::*;
use amqp_async::Recovery;
use amqp_tests::world::World;

use super::{all, play, recovering, until};

/// The promises about pools. L1: never more connections than the pool has places, with those that are being opened. L2: a
/// connection that has ended is never lent. L3 and L4: a borrower that gives up, at any point, costs no place. L5: while the
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
                2 => closes(world, &pool).await,
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
        };
        let patience = world.sleep(Duration::from_millis(world.below(10_000) as u64));
        smol::future::or(using, patience).await;
        assert!(world.elapsed() - before <= Duration::from_secs(10));
    }
}
