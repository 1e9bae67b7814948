//! Applications and pools on a virtual clock, with faults that a seed draws.

mod applications;
mod pools;
mod relays;
mod requests;

use std::ops::Range;
use std::task::Poll;

use amqp_app::prelude::*;
use amqp_async::{Backoff, Connection, Connector, Recovery};
use amqp_tests::world::World;

/// Fixed delays, so that a seed can be played again.
fn recovering() -> Recovery {
    Recovery::automatic().backoff(Backoff::fixed(Duration::from_millis(500)))
}

/// Plays a test for each of these seeds, and names the one that fails.
fn play(seeds: Range<u64>, test: &impl AsyncFn(&World)) {
    for seed in seeds {
        let world = World::new(seed);
        let named = Named(seed);
        world.block_on(test(&world));
        drop(named);
    }
}

/// Prints the seed that was being played when the test failed.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {}", self.0);
        }
    }
}

#[test]
fn a_seed_plays_the_same_twice() {
    let times = || {
        let world = World::new(1);
        world.block_on(pools::keeps_promises(&world));
        world.elapsed()
    };
    assert_eq!(times(), times());
}

/// Waits until a condition holds, for an hour of the virtual clock at most.
async fn until(world: &World, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = world.elapsed() + Duration::from_secs(3_600);
    while !holds() {
        assert!(world.elapsed() < deadline, "{what}: not within an hour");
        world.sleep(Duration::from_millis(100)).await;
    }
}

async fn connect(world: &World) -> Connection {
    let connector: Connector<World> = world.connector();
    connector.recovery(recovering()).connect().await.unwrap()
}

/// Runs all futures at the same time, until all have ended.
async fn all<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
