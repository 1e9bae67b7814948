//! Seeds of the simulation. `cargo xtask sim --seeds N` plays more of them, faster.

use amqp_tests::sim;

/// The number of seeds.
const SEEDS: u64 = 2_000;

#[test]
fn every_seed_of_the_simulation_keeps_the_promises() {
    let totals = sim::run(0, SEEDS);
    println!("{totals}");
    for (what, count) in [
        ("connections lost", totals.losses),
        ("connections recovered", totals.recoveries),
        ("entities not restored", totals.lost_entities),
        ("consumers not restored", totals.lost_consumers),
        ("late acks", totals.stale),
        ("publishes lost without confirms", totals.lost_publishes),
        ("publishes confirmed", totals.confirmed),
        ("publishes returned", totals.returned),
        ("publishes not sent", totals.not_sent),
        ("publishes with an unknown outcome", totals.unknown),
        ("messages redelivered", totals.redelivered),
        ("attempts failed", totals.failed_attempts),
    ] {
        assert!(count > 0, "{count} {what} in {SEEDS} seeds");
    }
}
