//! What is told of all runs: medians, and ratios of ours to the others.

pub(crate) mod json;
pub(crate) mod markdown;
pub(crate) mod plot;
pub(crate) mod table;

use crate::clients::Client;
use crate::outcome::{Outcome, median};
use crate::workload::{Task, Workload};

/// All runs of a client on a workload.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) client: Client,
    pub(crate) workload: &'static Workload,
    pub(crate) runs: Vec<Outcome>,
    /// Why it was not, or not again, run.
    pub(crate) error: Option<String>,
}

/// What makes the figure of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    Rate,
    P50,
    P99,
    PeakMemory,
    ConnectionMemory,
}

impl Row {
    pub(crate) const fn new(client: Client, workload: &'static Workload) -> Self {
        Self { client, workload, runs: Vec::new(), error: None }
    }

    pub(crate) const fn may_run(&self) -> bool {
        self.error.is_none() && self.client.refuses(self.workload).is_none()
    }

    /// The median of a figure of all runs; none after a failure.
    pub(crate) fn median(&self, figure: impl Fn(&Outcome) -> Option<f64>) -> Option<f64> {
        if self.error.is_some() {
            return None;
        }
        median(&self.runs.iter().filter_map(figure).collect::<Vec<_>>())
    }

    /// The median of what the workload is about.
    pub(crate) fn figure(&self) -> Option<f64> {
        match Figure::of(self.workload.task) {
            Figure::Rate => self.median(|run| Some(run.rate())),
            Figure::P50 => self.median(|run| run.p50_us),
            Figure::P99 => self.median(|run| run.p99_us),
            Figure::PeakMemory => self.median(|run| Some(run.peak_kib as f64 / 1024.0)),
            Figure::ConnectionMemory => self.median(|run| run.connection_kib),
        }
    }

    /// Its figure by that of another client on the same workload.
    pub(crate) fn ratio_to(&self, other: &Self) -> Option<f64> {
        Some(self.figure()? / other.figure()?).filter(|ratio| ratio.is_finite())
    }
}

impl Figure {
    pub(crate) const fn of(task: Task) -> Self {
        match task {
            Task::Publish { .. } | Task::Answer | Task::Consume { pauses: false, .. } => Self::Rate,
            Task::PublishAndWait | Task::RoundTrip | Task::Connect | Task::Recover(_) => Self::P50,
            Task::PublishInFlood => Self::P99,
            Task::Consume { pauses: true, .. } => Self::PeakMemory,
            Task::Idle => Self::ConnectionMemory,
        }
    }

    pub(crate) const fn less_is_better(self) -> bool {
        !matches!(self, Self::Rate)
    }

    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Rate => "messages/s",
            Self::P50 => "p50 us",
            Self::P99 => "p99 us",
            Self::PeakMemory => "peak MiB",
            Self::ConnectionMemory => "KiB/connection",
        }
    }
}

/// The row of a client among those of a workload.
pub(crate) fn row_of(rows: &[Row], client: Client) -> Option<&Row> {
    rows.iter().find(|row| row.client == client)
}

/// The row with the best figure of those that somebody else wrote.
pub(crate) fn best_peer(rows: &[Row]) -> Option<&Row> {
    let peers = rows.iter().filter(|row| row.client.is_peer() && row.figure().is_some());
    peers.reduce(|best, row| {
        let less = row.figure() < best.figure();
        if less == Figure::of(row.workload.task).less_is_better() { row } else { best }
    })
}

/// A figure for people: three digits, and a unit of thousands.
pub(crate) fn short(figure: f64) -> String {
    let (scaled, unit) = match figure {
        _ if figure >= 1e6 => (figure / 1e6, " M"),
        _ if figure >= 1e4 => (figure / 1e3, " k"),
        _ => (figure, ""),
    };
    let decimals = match scaled {
        _ if scaled >= 100.0 || scaled == 0.0 => 0,
        _ if scaled >= 10.0 => 1,
        _ if scaled >= 0.1 => 2,
        _ => 4,
    };
    format!("{scaled:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::{Row, best_peer, short};
    use crate::clients::Client;
    use crate::outcome::{Outcome, Stopwatch};
    use crate::workload::{WORKLOADS, named};

    pub(super) fn rows(workload: &str, figures: &[(Client, &[f64])]) -> Vec<Row> {
        let workload = named(workload).unwrap_or(&WORKLOADS[0]);
        let row = |&(client, figures): &(Client, &[f64])| {
            let outcome = |figure: &f64| -> Outcome {
                let outcome = Stopwatch::start().stop().outcome(client.name(), workload.name, 1);
                let outcome = outcome.expect("/proc is there");
                Outcome { seconds: 1.0 / figure, p50_us: Some(*figure), ..outcome }
            };
            Row { runs: figures.iter().map(outcome).collect(), ..Row::new(client, workload) }
        };
        figures.iter().map(row).collect()
    }

    #[test]
    fn the_best_peer_is_the_fastest_whether_it_is_a_rate_or_a_time() {
        let figures: &[(Client, &[f64])] = &[
            (Client::TokioCt, &[90.0]),
            (Client::Bound, &[1.0]),
            (Client::Lapin, &[5.0, 7.0, 1.0]),
            (Client::AmqprsCt, &[30.0]),
            (Client::RabbitmqC, &[20.0]),
        ];
        for (workload, best, ratio) in [("w1", Client::AmqprsCt, 3.0), ("w3", Client::Lapin, 18.0)]
        {
            let rows = rows(workload, figures);
            let found = best_peer(&rows).expect("there are peers");
            assert_eq!(found.client, best);
            let ours = rows[0].ratio_to(found).expect("both have figures");
            assert!((ours - ratio).abs() < 1e-6, "{ours}");
        }
    }

    #[test]
    fn a_failure_leaves_no_figure() {
        let mut rows = rows("w1", &[(Client::Lapin, &[5.0])]);
        rows[0].error = Some("the sink counted otherwise".into());
        assert_eq!(rows[0].figure(), None);
        assert!(best_peer(&rows).is_none() && !rows[0].may_run());
    }

    #[test]
    fn figures_have_three_digits() {
        let pairs = [(12_345_678.0, "12.3 M"), (123_456.0, "123 k"), (9_876.0, "9876")];
        for (figure, text) in
            pairs.into_iter().chain([(0.5, "0.50"), (0.0061, "0.0061"), (0.0, "0")])
        {
            assert_eq!(short(figure), text);
        }
    }
}
