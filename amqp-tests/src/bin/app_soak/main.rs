//! Kills the connections, the process and the node of an application, for as long as is asked for, and keeps a ledger of its
//! messages: `app_soak [--transactional] [--seed S] [--faults N]`. A seed repeats the choice of the
//! faults.
//!
//! A producer publishes with confirms, and publishes again what was not confirmed. The application is a process of its own:
//! this program with `--worker URI QUEUE ANSWERS [--transactional]`. At the end everything is drained. Each message that was confirmed must have
//! been answered or parked, as its number says, and each duplicate must have the same id.
//!
//! With `--transactional`, a message and its three replies are one transaction, the replies go to a classic queue, and the process
//! alone is killed: of a transaction over several queues, a node that is killed may keep a part. All replies of a message must be there, or none.

mod faults;
mod ledger;
mod process;
mod producer;
mod soak;
mod worker;

use std::fmt::Display;
use std::process::ExitCode;
use std::time::SystemTime;

use crate::worker::Mode;

const USAGE: &str = "usage: app_soak [--transactional] [--seed S] [--faults N]
     | --worker URI QUEUE ANSWERS [--transactional]";
const TRANSACTIONAL: &str = "--transactional";
/// The number of faults, if no other is asked for.
const FAULTS: usize = 200;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let before = arguments.len();
    arguments.retain(|argument| argument != TRANSACTIONAL);
    let mode = if arguments.len() < before { Mode::Transactions } else { Mode::Confirms };
    if let [role, uri, queue, answers] = arguments.as_slice()
        && role == "--worker"
    {
        return exit(worker::run(uri, queue, answers, mode).await.map(drop), "");
    }
    let Some((seed, faults)) = numbers(&arguments) else {
        return exit(Err(USAGE), "");
    };
    println!("seed {seed}");
    exit(
        soak::run(mode, seed, faults).await,
        &format!("; {mode:?}, --seed {seed} --faults {faults}"),
    )
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
