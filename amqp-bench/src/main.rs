//! Workloads against our own sink and source, on tokio's two runtimes.
//!
//! `cargo run --release -p amqp-bench` prints a table. `--once WORKLOAD` runs one workload a single
//! time on the current-thread runtime against a peer in another process, for a profiler or for
//! callgrind to look at.

mod alone;
mod ours;
mod peer;
mod workload;

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use clap::Parser;
use workload::{Outcome, Workload};

/// Measures this workspace's AMQP clients.
#[derive(Debug, Parser)]
struct Arguments {
    /// Fewer messages and one round.
    #[arg(long)]
    quick: bool,
    /// One workload alone: w1, w1-1k, w1-64k, w2, w4, w5, w7.
    #[arg(long)]
    once: Option<String>,
    /// Messages of `--once`.
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// Serves as the peer, and prints its port.
    #[arg(long, hide = true)]
    peer: Option<usize>,
}

const NAMES: [&str; 7] = ["w1", "w1-1k", "w1-64k", "w2", "w4", "w5", "w7"];

fn workload(name: &str, count: u64) -> Option<Workload> {
    Some(match name {
        "w1" => Workload::Publish { count, size: 16, confirm: None },
        "w1-1k" => Workload::Publish { count, size: 1 << 10, confirm: None },
        "w1-64k" => Workload::Publish { count, size: 64 << 10, confirm: None },
        "w2" => Workload::Publish { count, size: 16, confirm: Some(1_000) },
        "w4" => Workload::Consume { count, prefetch: None },
        "w5" => Workload::Consume { count, prefetch: Some(1_000) },
        "w7" => Workload::RoundTrip { count },
        _ => return None,
    })
}

/// How many messages make a run of about a second.
fn messages(name: &str, quick: bool) -> u64 {
    let count = match name {
        "w1-64k" | "w7" => 50_000,
        "w1-1k" => 1_000_000,
        _ => 4_000_000,
    };
    if quick { count / 10 } else { count }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    if let Some(size) = arguments.peer {
        println!("{}", peer::serve(size, arguments.count)?);
        // The peer ends with whoever started it.
        std::io::stdin().lines().for_each(drop);
        return Ok(());
    }
    if let Some(name) = arguments.once.as_deref().filter(|name| alone::NAMES.contains(name)) {
        return alone::run(name, arguments.count);
    }
    if let Some(name) = &arguments.once {
        let workload = workload(name, arguments.count).ok_or("no such workload")?;
        let outcome = once(&workload, false)?;
        println!("{name}: {:.0} a second", outcome.rate());
        return Ok(());
    }
    println!("{:8} {:>14} {:>14}   a second, medians", "", "multi-thread", "current-thread");
    for name in NAMES {
        let workload = workload(name, messages(name, arguments.quick)).ok_or("no such workload")?;
        let rounds = if arguments.quick { 1 } else { 5 };
        let (mut multi, mut current) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            multi.push(once(&workload, true)?.rate());
            current.push(once(&workload, false)?.rate());
        }
        println!("{name:8} {:>14.0} {:>14.0}", median(&mut multi), median(&mut current));
    }
    Ok(())
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Runs a workload against a peer of its own.
fn once(workload: &Workload, multi_thread: bool) -> Result<Outcome, Box<dyn Error>> {
    let (size, count) = match *workload {
        Workload::Consume { count, .. } => (16, count),
        _ => (0, 0),
    };
    let mut peer = Command::new(std::env::current_exe()?)
        .args(["--peer", &size.to_string(), "--count", &count.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut port = String::new();
    BufReader::new(peer.stdout.take().ok_or("no output")?).read_line(&mut port)?;
    let uri = format!("amqp://127.0.0.1:{}", port.trim());
    let mut builder = match multi_thread {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    let outcome = builder.enable_all().build()?.block_on(async {
        let running = ours::run(&uri, workload);
        running.await
    });
    drop(peer.stdin.take());
    peer.wait()?;
    Ok(outcome?)
}
