//! Kills the connections, the process and the node of an application, for as long as is asked for, and keeps a ledger of its
//! messages: `app_soak [--seed S] [--faults N]`. A seed repeats the choice of the faults.
//!
//! A producer publishes with confirms, and publishes again what was not confirmed. The application is a process of its own:
//! this program with `--worker URI QUEUE ANSWERS`. At the end everything is drained. Each message that was confirmed must have
//! been answered or parked, as its number says, and each duplicate must have the same id.

mod faults;
mod ledger;
mod process;
mod producer;
mod soak;
mod worker;

use std::fmt::Display;
use std::process::ExitCode;
use std::time::SystemTime;

const USAGE: &str = "usage: app_soak [--seed S] [--faults N] | --worker URI QUEUE ANSWERS";
/// The number of faults, if no other is asked for.
const FAULTS: usize = 200;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, uri, queue, answers] = arguments.as_slice()
        && mode == "--worker"
    {
        return exit(worker::run(uri, queue, answers).await.map(drop), "");
    }
    let Some((seed, faults)) = numbers(&arguments) else {
        return exit(Err(USAGE), "");
    };
    println!("seed {seed}");
    exit(soak::run(seed, faults).await, &format!("; --seed {seed} --faults {faults}"))
}

fn numbers(arguments: &[String]) -> Option<(u64, usize)> {
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64);
    let (mut seed, mut faults) = (now, FAULTS);
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--seed" => seed = value.parse().ok()?,
            "--faults" => faults = value.parse().ok()?,
            _ => return None,
        }
    }
    Some((seed, faults))
}

fn exit<E: Display>(result: Result<(), E>, hint: &str) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}{hint}");
            ExitCode::FAILURE
        }
    }
}
