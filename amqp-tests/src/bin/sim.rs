//! Plays seeds of the [simulation](amqp_tests::sim): `sim --seeds N [--first S]`, or one seed with everything that happens
//! in it: `sim --seed S`.

use std::process::ExitCode;
use std::time::Instant;

use amqp_tests::sim;

const USAGE: &str = "usage: sim --seeds N [--first S] | --seed S";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--seed", seed] => seed.parse().map(replay),
        ["--seeds", count] => count.parse().map(|count| run(0, count)),
        ["--seeds", count, "--first", first] => {
            first.parse().and_then(|first| count.parse().map(|count| run(first, count)))
        }
        _ => return usage(),
    }
    .map_or_else(|_| usage(), |()| ExitCode::SUCCESS)
}

fn replay(seed: u64) {
    println!("{}", sim::replay(seed));
}

fn run(first: u64, count: u64) {
    let begun = Instant::now();
    let totals = sim::run(first, count);
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    println!("{totals}\n{rate:.0} seeds/s");
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::FAILURE
}
