//! This client and its peers, side by side on the same workloads.
//!
//! `cargo run --release -p amqp-bench --features peers` runs everything and prints tables. Every run is
//! a process of its own, `amqp-bench once CLIENT WORKLOAD`, which a profiler may look at too: without
//! `--uri` it starts its peer in another process.

mod alone;
mod child;
mod clients;
mod costs;
mod once;
mod outcome;
mod peer;
mod plan;
mod report;
mod socket;
mod stage;
mod tags;
#[cfg_attr(not(feature = "tls"), path = "tls/absent.rs")]
mod tls;
mod versions;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use amqp_testkit::RabbitMq;
use clap::{Args, Parser, Subcommand};

use clients::Client;
use outcome::Failure;
use peer::{Deliveries, Peer};
use plan::Plan;
use report::{Row, json, markdown, plot, table};
use workload::Workload;

/// Measures this workspace's AMQP client beside its peers.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Hidden>,
    #[command(flatten)]
    full: Full,
}

#[derive(Debug, Args)]
struct Full {
    /// One round of fewer messages, and no costs.
    #[arg(long)]
    quick: bool,
    /// These workloads alone.
    #[arg(long, value_delimiter = ',', value_parser = workload_named)]
    only: Vec<&'static Workload>,
    /// These clients alone.
    #[arg(long, value_delimiter = ',', value_parser = client_named)]
    clients: Vec<Client>,
    /// How often each client runs each workload; 5 unless it is quick.
    #[arg(long)]
    rounds: Option<usize>,
    /// Counts instructions, allocations and system calls, even if it is quick.
    #[arg(long)]
    costs: bool,
    /// Leaves RabbitMQ out.
    #[arg(long)]
    no_rabbitmq: bool,
    /// Writes everything, with every round's values.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws the rates as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Writes the table for the README.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// Runs a client once and prints its figures as a line of JSON.
    #[command(hide = true)]
    Once {
        #[arg(value_parser = client_named)]
        client: Client,
        #[arg(value_parser = workload_named)]
        workload: &'static Workload,
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        /// A peer that is there; without, one is started.
        #[arg(long)]
        uri: Option<String>,
    },
    /// Codec or core by itself.
    #[command(hide = true)]
    Alone {
        #[arg(value_parser = alone::NAMES)]
        name: String,
        #[arg(long, default_value_t = 1_000_000)]
        count: u64,
    },
    /// Serves as sink and source, and prints its URI; at the end of its input, what it counted.
    #[command(hide = true)]
    Peer {
        #[arg(long, default_value_t = workload::SMALL)]
        size: usize,
        #[arg(long, default_value_t = workload::ENDLESS)]
        count: u64,
        #[arg(long)]
        tls: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        None => full(&arguments.full),
        Some(Hidden::Once { client, workload, count, uri }) => {
            run_once(client, workload, count, uri.as_deref())
        }
        Some(Hidden::Alone { name, count }) => alone::run(&name, count),
        Some(Hidden::Peer { size, count, tls }) => serve(Deliveries { size, count }, tls),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("amqp-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run_once(
    client: Client,
    workload: &Workload,
    count: Option<u64>,
    uri: Option<&str>,
) -> Result<(), Failure> {
    let count = count.unwrap_or_else(|| workload.count(client.pace(workload.task), false));
    let outcome = once::once(client, workload, count, uri)?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

fn serve(deliveries: Deliveries, tls: bool) -> Result<(), Failure> {
    let peer = Peer::serve(deliveries, tls)?;
    println!("{}", peer.uri);
    // The peer ends with whoever started it.
    std::io::stdin().lines().for_each(drop);
    println!("{}", serde_json::to_string(&peer.totals())?);
    Ok(())
}

/// Everything that was asked for.
fn full(full: &Full) -> Result<(), Failure> {
    let workloads = full.workloads();
    let mut notes = Vec::new();
    let rabbitmq = workloads.iter().any(|workload| workload.needs_rabbitmq());
    let node = if rabbitmq { Some(RabbitMq::start()?) } else { None };
    let plan = Plan {
        clients: if full.clients.is_empty() {
            Client::built().collect()
        } else {
            full.clients.clone()
        },
        workloads,
        rounds: full.rounds.unwrap_or(if full.quick { 1 } else { 5 }).max(1),
        quick: full.quick,
    };
    let versions = versions::all(node.as_ref())?;
    let mut results: Vec<Vec<Row>> = Vec::new();
    for workload in &plan.workloads {
        let rows = plan.run(workload, node.as_ref());
        println!("{}", table::workload(&rows));
        results.push(rows);
    }
    // The broker would compete with what is counted next.
    drop(node);
    let errors = results.iter().flatten().filter_map(|row| row.error.clone());
    let mut failures: Vec<_> = errors.collect();
    let costs = if full.costs || !full.quick && full.only.is_empty() {
        let only = |name: &str| plan.workloads.iter().any(|workload| workload.name == name);
        costs::count(&plan.clients, only, &mut notes, &mut failures)
    } else {
        Vec::new()
    };
    if !costs.is_empty() {
        println!("{}", table::costs(&costs));
    }
    let report = json::Report {
        versions: &versions,
        cores: std::thread::available_parallelism()?.get(),
        rounds: plan.rounds,
        quick: plan.quick,
        results: results.iter().flatten().map(json::Entry::new).collect(),
        costs: &costs,
        notes: &notes,
        failures: &failures,
    };
    write(full.json.as_ref(), || Ok(report.text()?))?;
    write(full.plot.as_ref(), || plot::svg(&results))?;
    write(full.markdown.as_ref(), || Ok(markdown::table(&results, &plan.clients, &versions)))?;
    for (name, version) in &versions {
        println!("{name} {version}");
    }
    notes.iter().for_each(|note| println!("{note}"));
    match &failures[..] {
        [] => Ok(()),
        failures => Err(format!("failed:\n{}", failures.join("\n")).into()),
    }
}

impl Full {
    fn workloads(&self) -> Vec<&'static Workload> {
        let asked = |workload: &&Workload| {
            self.only.is_empty() || self.only.iter().any(|only| only.name == workload.name)
        };
        let possible = |workload: &&Workload| !(self.no_rabbitmq && workload.needs_rabbitmq());
        Workload::built().filter(asked).filter(possible).collect()
    }
}

fn write(
    file: Option<&PathBuf>,
    text: impl FnOnce() -> Result<String, Failure>,
) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let written = std::fs::write(file, text()?);
    written.map_err(|error| format!("cannot write {}: {error}", file.display()).into())
}

fn workload_named(name: &str) -> Result<&'static Workload, String> {
    workload::named(name).filter(|workload| workload.is_built()).ok_or_else(|| {
        let names: Vec<_> = Workload::built().map(|workload| workload.name).collect();
        let more = if cfg!(feature = "tls") { "" } else { "; more with the feature `tls`" };
        format!("there are {}{more}", names.join(", "))
    })
}

fn client_named(name: &str) -> Result<Client, String> {
    Client::named(name).filter(|client| Client::built().any(|built| built == *client)).ok_or_else(
        || {
            let names: Vec<_> = Client::built().map(Client::name).collect();
            let more = if cfg!(feature = "peers") { "" } else { "; more with the feature `peers`" };
            format!("there are {}{more}", names.join(", "))
        },
    )
}
