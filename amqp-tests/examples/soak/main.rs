//! Faults for as long as is asked for, on a load of confirmed publishes to a private RabbitMQ:
//! `soak [--seed S] [--faults N] [--cluster]`.
//!
//! Two connections publish to a quorum queue each. One sends unconfirmed publishes again after a loss, the other reports
//! them. At the end the queues are drained, and every outcome must be true. With `--cluster` there are three nodes, and each
//! fault kills the one to which the first connection is connected.

mod api;
mod cluster;
mod faults;
#[path = "../../tests/it/conformance/suite/load.rs"]
mod load;
mod support;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use api::At;
use load::Load;

const USAGE: &str = "usage: soak [--seed S] [--faults N] [--cluster]";
/// The number of faults, if no other is asked for.
const FAULTS: u64 = 200;
const FAULTS_OF_CLUSTER: u64 = 20;

struct Arguments {
    seed: u64,
    faults: Option<u64>,
    cluster: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(Arguments { seed, faults, cluster }) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    println!("seed {seed}");
    let (mut report, begun) = (Report::default(), Instant::now());
    let balanced = match cluster {
        true => cluster::run(seed, faults.unwrap_or(FAULTS_OF_CLUSTER), &mut report).await,
        false => faults::run(seed, faults.unwrap_or(FAULTS), &mut report).await,
    };
    report.print();
    println!("{:.0} s", begun.elapsed().as_secs_f64());
    match balanced {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}; --seed {seed}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Option<Arguments> {
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64);
    let mut found = Arguments { seed: now, faults: None, cluster: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--cluster" => found.cluster = true,
            "--seed" => found.seed = arguments.next()?.parse().ok()?,
            "--faults" => found.faults = Some(arguments.next()?.parse().ok()?),
            _ => return None,
        }
    }
    Some(found)
}

/// The table at the end: the faults by kind, and what became of the publishes.
#[derive(Default)]
struct Report {
    recoveries: BTreeMap<&'static str, Vec<Duration>>,
    balances: Vec<String>,
}

impl Report {
    /// Adds the time from a fault of this kind to the end of the recovery.
    fn add(&mut self, fault: &'static str, time: Duration) {
        self.recoveries.entry(fault).or_default().push(time);
    }

    /// Ends the loads, of which the first one publishes again, and adds what became of their publishes. Their proxies serve
    /// them until then.
    async fn close<P>(&mut self, loads: [(Load, P); 2], at: &At) -> Result<(), String> {
        for (name, (load, _proxy)) in ["published again", "reported"].into_iter().zip(loads) {
            let in_flight = load.least_in_flight();
            let balance = load.finish(at).await.map_err(|error| format!("{name}: {error}"))?;
            let balance =
                format!("{name}: at least {in_flight} in flight at each fault: {balance}");
            self.balances.push(balance);
        }
        Ok(())
    }

    fn print(&mut self) {
        println!(
            "\n{:<30} {:>5} {:>9} {:>9} {:>9}",
            "recovered from", "times", "min", "median", "max"
        );
        for (fault, times) in &mut self.recoveries {
            times.sort_unstable();
            let seconds = |at: usize| format!("{:.3} s", times[at].as_secs_f64());
            let [min, median, max] = [0, times.len() / 2, times.len() - 1].map(seconds);
            println!("{fault:<30} {:>5} {min:>9} {median:>9} {max:>9}", times.len());
        }
        self.balances.iter().for_each(|balance| println!("{balance}"));
    }
}
