//! Everything, for machines.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Row;
use crate::costs::Costs;
use crate::outcome::Outcome;

/// All that was measured, and what was measured with.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    pub(crate) versions: &'a BTreeMap<&'static str, String>,
    pub(crate) cores: usize,
    pub(crate) rounds: usize,
    pub(crate) quick: bool,
    pub(crate) results: Vec<Entry<'a>>,
    pub(crate) costs: &'a [Costs],
    pub(crate) notes: &'a [String],
    pub(crate) failures: &'a [String],
}

/// A client on a workload: medians, and every round's own values.
#[derive(Debug, Serialize)]
pub(crate) struct Entry<'a> {
    workload: &'static str,
    title: &'static str,
    client: &'static str,
    cannot: Option<&'static str>,
    error: Option<&'a str>,
    rate: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    cpu_us_per_message: Option<f64>,
    peak_kib: Option<f64>,
    /// By resident memory.
    connection_kib: Option<f64>,
    /// By resident memory.
    channel_kib: Option<f64>,
    rounds: &'a [Outcome],
}

impl<'a> Entry<'a> {
    pub(crate) fn new(row: &'a Row) -> Self {
        Self {
            workload: row.workload.name,
            title: row.workload.title,
            client: row.client.name(),
            cannot: row.client.refuses(row.workload),
            error: row.error.as_deref(),
            rate: row.median(|run| Some(run.rate())),
            p50_us: row.median(|run| run.p50_us),
            p99_us: row.median(|run| run.p99_us),
            cpu_us_per_message: row.median(|run| Some(run.cpu_us_per_message())),
            peak_kib: row.median(|run| Some(run.peak_kib as f64)),
            connection_kib: row.median(|run| run.connection_kib),
            channel_kib: row.median(|run| run.channel_kib),
            rounds: &row.runs,
        }
    }
}

impl Report<'_> {
    pub(crate) fn text(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}
