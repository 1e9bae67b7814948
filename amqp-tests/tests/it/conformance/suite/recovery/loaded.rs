//! Losses under load, on a quorum queue: no confirmed publish is lost, and every outcome that is reported is true.
//!
//! Two connections publish at the same time. One sends unconfirmed publishes again, the other reports them. Faults follow
//! from counts and from a seed, which is printed. `AMQP_LOAD_SEED` sets it.

use std::time::{Duration, SystemTime};

use amqp_testkit::{Direction, Fault, Proxy};

use super::super::load::Load;
use super::api::{At, Backoff, Recovery, on_rabbitmq, on_tokio};
use crate::support::fragile;

on_rabbitmq! {
    r13_every_outcome_is_true_after_forty_losses
}

on_tokio! {
    r13_every_outcome_is_true_after_ten_crashes
}

async fn r13_every_outcome_is_true_after_forty_losses(at: At) {
    let (seed, mut random) = seed();
    let mut loads = [Loaded::start(&at, true, seed).await, Loaded::start(&at, false, seed).await];
    for _ in 0..40 {
        for loaded in &mut loads {
            loaded.load.goes_on(random.u64(100..400)).await;
            loaded.holds_confirms_up().await;
            let direction = random.choice([Direction::ToBroker, Direction::ToClient]).unwrap();
            let fault = random.choice([Fault::Cut, Fault::Reset]).unwrap();
            loaded.proxy.inject(direction, fault);
        }
        for loaded in &mut loads {
            loaded.load.is_recovered().await;
        }
    }
    for loaded in loads {
        loaded.finish(&at, seed).await;
    }
}

/// Confirms that the node has sent before a crash arrive after it, or never.
async fn r13_every_outcome_is_true_after_ten_crashes(at: At) {
    let node = fragile();
    let at = at.to(node.uri());
    let (seed, mut random) = seed();
    let mut loads = [Loaded::start(&at, true, seed).await, Loaded::start(&at, false, seed).await];
    // Definitions reach the disk a while after they are answered, unlike confirmed messages.
    node.ctl(&["eval", "mnesia:dump_log()."]).unwrap();
    for _ in 0..10 {
        loads[0].load.goes_on(random.u64(3_000..4_000)).await;
        for loaded in &mut loads {
            loaded.holds_confirms_up().await;
        }
        node.kill().unwrap();
        for loaded in &loads {
            match random.bool() {
                true => loaded.proxy.resume(),
                false => loaded.proxy.inject(Direction::ToClient, Fault::Cut),
            }
        }
        node.launch().unwrap();
        for loaded in &mut loads {
            loaded.load.is_recovered().await;
        }
    }
    for loaded in loads {
        loaded.finish(&at, seed).await;
    }
}

/// A generator, and its seed.
fn seed() -> (u64, fastrand::Rng) {
    let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let set = std::env::var("AMQP_LOAD_SEED").ok();
    let seed = set.map_or_else(now, |seed| seed.parse().unwrap());
    println!("AMQP_LOAD_SEED={seed}");
    (seed, fastrand::Rng::with_seed(seed))
}

/// A load behind a proxy.
struct Loaded {
    proxy: Proxy,
    load: Load,
    republishes: bool,
}

impl Loaded {
    async fn start(at: &At, republishes: bool, seed: u64) -> Self {
        let proxy = Proxy::start(at.port()).unwrap();
        // Few enough attempts while a node starts that no event is missed.
        let backoff = Backoff::exponential(Duration::from_millis(10), Duration::from_millis(200));
        let recovery = Recovery::automatic().backoff(backoff).republish(republishes);
        let connecting = at.by_port(proxy.port());
        let connection = connecting.open(|config| config.recovery(recovery)).await.unwrap();
        let load = Load::start(at, connection, republishes, seed).await;
        Self { proxy, load, republishes }
    }

    /// Nothing passes from the broker from here on. Publishes that are unconfirmed are so when the fault comes.
    async fn holds_confirms_up(&mut self) {
        self.proxy.inject(Direction::ToClient, Fault::Pause);
        self.load.is_in_flight().await;
    }

    async fn finish(self, at: &At, seed: u64) {
        let in_flight = self.load.least_in_flight();
        let balance = self.load.finish(at).await.unwrap_or_else(|error| panic!("{error}, {seed}"));
        let republishes = self.republishes;
        println!("republishes: {republishes}, at least {in_flight} in flight: {balance}");
        assert!(balance.confirmed > 0 && (republishes || balance.unknown > 0), "{balance}");
    }
}
