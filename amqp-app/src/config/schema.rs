//! What a configuration says: reads a document, section by section.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::LogLevel;
use super::address::{self, Address};
use super::document::{Node, Table, Value};
use super::error::{ConfigError, Place};
use super::read::{Section, Shown, below, list, listed, meant, named, number, one_of, time, wrong};
use super::settings::{self, Setting};
use super::topology::{self, Topology};
use crate::consume::Batching;
use crate::limits::POOL_CONNECTIONS;
use crate::retry::LastResort;

/// The sections of a file.
pub(crate) const SECTIONS: [&str; 10] = [
    "connection",
    "consume",
    "environments",
    "health",
    "log",
    "pools",
    "settings",
    "shutdown",
    "topology",
    "worker",
];

/// The kinds of pools that every configuration has.
const POOLS: [&str; 2] = ["listen", "publish"];

/// What a configuration says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schema {
    pub(crate) connection: Address,
    pub(crate) pools: BTreeMap<String, PoolRules>,
    pub(crate) worker: WorkerRules,
    pub(crate) sources: BTreeMap<String, SourceRules>,
    pub(crate) topology: Topology,
    pub(crate) within: Option<Duration>,
    pub(crate) health: Option<(SocketAddr, Place)>,
    pub(crate) log: Option<LogLevel>,
    pub(crate) settings: BTreeMap<String, Setting>,
}

/// A pool: its broker, unless it is that of the connection, and its number of connections.
#[derive(Clone, Debug)]
pub(crate) struct PoolRules {
    pub(crate) address: Option<Address>,
    pub(crate) size: usize,
}

/// The defaults of all sources.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerRules {
    pub(crate) amount: Option<u16>,
    pub(crate) prefetch: Option<u16>,
    pub(crate) commit: Option<Commit>,
}

/// How what a handler returns, and the acknowledgement, are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    Confirm,
    Transaction,
}

/// What the file says of one source, in place of the code.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceRules {
    pub(crate) at: Place,
    pub(crate) concurrency: Option<u16>,
    pub(crate) prefetch: Option<u16>,
    pub(crate) batch: Option<Batching>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) now: Option<u32>,
    pub(crate) after: Option<Vec<Duration>>,
    pub(crate) then: Option<Then>,
}

/// The last resorts that a file can name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    Park,
    DeadLetter,
    Discard,
    Requeue,
    Stop,
}

impl Then {
    pub(crate) const fn last_resort(self) -> LastResort {
        match self {
            Self::Park => LastResort::Park(None),
            Self::DeadLetter => LastResort::DeadLetter,
            Self::Discard => LastResort::Discard,
            Self::Requeue => LastResort::Requeue(crate::limits::REQUEUE_PAUSE),
            Self::Stop => LastResort::Stop,
        }
    }
}

/// Where secrets come from.
#[derive(Clone, Copy)]
pub(crate) struct Secrets<'a> {
    /// The folder to which names of files are relative.
    pub(crate) folder: &'a Path,
    /// Whether they are read. Those of an environment that is not used need not exist.
    pub(crate) read: bool,
}

/// Reads a document without its environments.
pub(crate) fn read(mut root: Table, secrets: Secrets<'_>) -> Result<Schema, ConfigError> {
    check_sections(&root)?;
    let mut schema = Schema::default();
    if let Some(node) = root.remove("connection") {
        schema.connection = address::connection(node, secrets)?;
    }
    let default_pools = POOLS.map(|kind| (kind.to_owned(), pool_of(None, None)));
    schema.pools.extend(default_pools);
    if let Some(node) = root.remove("pools") {
        for (kind, node) in named("pools", node)? {
            let name = below("pools", &kind);
            let mut section = Section::open(&name, node, &["size", "url", "url_file"])?;
            let address = address::pool(&mut section, secrets)?;
            let size = section.read("size", number(1, u16::MAX))?;
            schema.pools.insert(kind, pool_of(address, size));
        }
    }
    if let Some(node) = root.remove("worker") {
        schema.worker = worker(node)?;
    }
    if let Some(node) = root.remove("consume") {
        for (queue, node) in named("consume", node)? {
            let rules = source(&below("consume", &queue), node)?;
            schema.sources.insert(queue, rules);
        }
    }
    if let Some(node) = root.remove("topology") {
        schema.topology = topology::read(node)?;
    }
    if let Some(node) = root.remove("shutdown") {
        let mut section = Section::open("shutdown", node, &["within"])?;
        schema.within = section.read("within", time(Duration::ZERO))?;
    }
    if let Some(node) = root.remove("health") {
        let mut section = Section::open("health", node, &["listen"])?;
        schema.health =
            section.read("listen", |node, key| Ok((socket(node, key)?, node.at.clone())))?;
    }
    if let Some(node) = root.remove("log") {
        let mut section = Section::open("log", node, &["level"])?;
        schema.log = section.read("level", one_of(&LogLevel::NAMES))?;
    }
    if let Some(node) = root.remove("settings") {
        schema.settings = settings::read(named("settings", node)?)?;
    }
    Ok(schema)
}

fn check_sections(root: &Table) -> Result<(), ConfigError> {
    let unknown = root.iter().filter(|(name, _)| !SECTIONS.contains(&name.as_str()));
    let Some((name, node)) = unknown.min_by_key(|(_, node)| &node.key_at) else { return Ok(()) };
    let what = if matches!(node.value, Value::Table(_)) { "section" } else { "key" };
    let sections = listed(&SECTIONS, "and");
    let (shown, meant) = (Shown(name), meant(name, &SECTIONS));
    let text = format!("unknown {what}{shown}: {meant}a configuration has the sections {sections}");
    Err(ConfigError::new(&node.key_at, text))
}

fn pool_of(address: Option<Address>, size: Option<u16>) -> PoolRules {
    PoolRules { address, size: size.map_or(POOL_CONNECTIONS, usize::from) }
}

fn worker(node: Node) -> Result<WorkerRules, ConfigError> {
    let mut section = Section::open("worker", node, &["amount", "commit", "prefetch"])?;
    let commits = [("confirm", Commit::Confirm), ("transaction", Commit::Transaction)];
    Ok(WorkerRules {
        amount: section.read("amount", number(1, u16::MAX))?,
        prefetch: section.read("prefetch", number(1, u16::MAX))?,
        commit: section.read("commit", one_of(&commits))?,
    })
}

fn source(name: &str, node: Node) -> Result<SourceRules, ConfigError> {
    let keys = ["batch", "concurrency", "prefetch", "retry", "timeout"];
    let mut section = Section::open(name, node, &keys)?;
    let mut rules = SourceRules {
        at: section.at.clone(),
        concurrency: section.read("concurrency", number(1, u16::MAX))?,
        prefetch: section.read("prefetch", number(1, u16::MAX))?,
        timeout: section.read("timeout", time(Duration::from_millis(1)))?,
        ..SourceRules::default()
    };
    if let Some(batch) = section.take("batch") {
        rules.batch = Some(batching(&section.key("batch"), batch)?);
    }
    let Some(retry) = section.take("retry") else { return Ok(rules) };
    let mut retry = Section::open(&section.key("retry"), retry, &["after", "now", "then"])?;
    rules.now = retry.read("now", number(0, u32::MAX))?;
    rules.after = retry.read("after", |node, key| {
        let delays = list(node, key)?;
        delays.iter().map(|it| time(Duration::from_millis(1))(it, key)).collect()
    })?;
    let resorts = [
        ("park", Then::Park),
        ("dead_letter", Then::DeadLetter),
        ("discard", Then::Discard),
        ("requeue", Then::Requeue),
        ("stop", Then::Stop),
    ];
    rules.then = retry.read("then", one_of(&resorts))?;
    Ok(rules)
}

fn batching(name: &str, node: Node) -> Result<Batching, ConfigError> {
    let mut section = Section::open(name, node, &["size", "within"])?;
    let at = section.at.clone();
    let size = section.read("size", number(1, u16::MAX))?;
    let within = section.read("within", time(Duration::from_millis(1)))?;
    match (size, within) {
        (Some(size), Some(within)) => Ok(Batching { size, within }),
        _ => Err(ConfigError::new(&at, format!("[{name}] needs both \"size\" and \"within\""))),
    }
}

fn socket(node: &Node, key: &str) -> Result<SocketAddr, ConfigError> {
    let parsed = match &node.value {
        Value::Text(text) | Value::Word(text) => text.parse().ok(),
        _ => None,
    };
    parsed.ok_or_else(|| {
        wrong(node, key, "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"")
    })
}
