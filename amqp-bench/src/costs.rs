//! What a message costs whatever the weather: instructions, allocations, system calls.
//!
//! Each is counted for two numbers of messages, whose difference has no set-up in it.

use std::time::Duration;

use serde::Serialize;

use crate::child;
use crate::clients::Client;
use crate::outcome::Failure;
use crate::stage::Stage;
use crate::workload::{self, Pace, Workload};

/// What is counted on: publish, publish with confirm, deliver, deliver with acknowledgement.
pub(crate) const WORKLOADS: [&str; 4] = ["w1", "w2", "w4", "w5"];

/// A run under valgrind takes tens of times as long as it does without.
const LIMIT: Duration = Duration::from_secs(600);

/// What one message costs; what could not be counted is absent.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Costs {
    pub(crate) client: &'static str,
    pub(crate) workload: &'static str,
    pub(crate) instructions: Option<f64>,
    pub(crate) allocations: Option<f64>,
    pub(crate) allocated_bytes: Option<f64>,
    pub(crate) system_calls: Option<f64>,
}

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Callgrind,
    Memcheck,
    Strace,
}

const TOOLS: [Tool; 3] = [Tool::Callgrind, Tool::Memcheck, Tool::Strace];

/// Counts for every client that does the workload; a tool that is missing, or a run that failed, is
/// told in `notes` and `failures`.
pub(crate) fn count(
    clients: &[Client],
    only: impl Fn(&str) -> bool,
    notes: &mut Vec<String>,
    failures: &mut Vec<String>,
) -> Vec<Costs> {
    let mut all = Vec::new();
    let tools = installed(notes);
    for workload in WORKLOADS.iter().filter(|name| only(name)).filter_map(|it| workload::named(it))
    {
        for client in clients.iter().filter(|client| client.refuses(workload).is_none()) {
            let (client_name, workload_name) = (client.name(), workload.name);
            let mut costs =
                Costs { client: client_name, workload: workload_name, ..Costs::default() };
            for tool in &tools {
                eprintln!("{workload_name} {client_name}, {tool:?}");
                match tool.per_message(*client, workload) {
                    Ok(figures) => tool.note(figures, &mut costs),
                    Err(failure) => {
                        failures
                            .push(format!("{client_name} {workload_name}, {tool:?}: {failure}"));
                    }
                }
            }
            all.push(costs);
        }
    }
    all
}

fn installed(notes: &mut Vec<String>) -> Vec<Tool> {
    let mut found = TOOLS.to_vec();
    found.retain(|tool| {
        let program = tool.program();
        let asked = [program, "--version"].map(str::to_owned);
        let runs = child::run(&asked, Duration::from_secs(10)).is_ok();
        let note = format!("{program} is not installed: what it counts is left out");
        if !runs && !notes.contains(&note) {
            notes.push(note);
        }
        runs
    });
    found
}

impl Tool {
    const fn program(self) -> &'static str {
        match self {
            Self::Callgrind | Self::Memcheck => "valgrind",
            Self::Strace => "strace",
        }
    }

    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Callgrind => &["--tool=callgrind", "--callgrind-out-file=/dev/null"],
            Self::Memcheck => &["--tool=memcheck", "--leak-check=no", "--undef-value-errors=no"],
            Self::Strace => &["--follow-forks", "--summary-only", "--summary-columns=calls,name"],
        }
    }

    fn per_message(self, client: Client, workload: &Workload) -> Result<[f64; 2], Failure> {
        let (few, many) = match client.pace(workload.task) {
            Pace::Millions => (20_000, 220_000),
            Pace::Thousands | Pace::Tens => (2_000, 12_000),
        };
        let (from, to) =
            (self.totals(client, workload, few)?, self.totals(client, workload, many)?);
        let difference = |from: u64, to: u64| (to as f64 - from as f64) / (many - few) as f64;
        Ok([difference(from[0], to[0]), difference(from[1], to[1])])
    }

    fn totals(self, client: Client, workload: &Workload, count: u64) -> Result<[u64; 2], Failure> {
        let stage = Stage::set(workload, count, None)?;
        let mut words = vec![self.program().to_owned()];
        words.extend(self.arguments().iter().map(|it| (*it).to_owned()));
        words.extend(child::once(client, workload.name, count, &stage.uri())?);
        let printed = child::run(&words, LIMIT)?;
        stage.check(workload, count)?;
        let totals = self.parse(&printed.errors);
        totals.ok_or_else(|| format!("no totals in {}", child::end_of(&printed.errors)).into())
    }

    /// The totals in what the tool printed.
    fn parse(self, printed: &str) -> Option<[u64; 2]> {
        let figure = |text: &str| text.replace(',', "").parse().ok();
        let after = |mark: &str| printed.lines().rev().find_map(|line| line.split_once(mark));
        match self {
            Self::Callgrind => {
                Some([figure(after("Collected :")?.1.split_whitespace().next()?)?, 0])
            }
            Self::Memcheck => {
                let words: Vec<_> = after("total heap usage:")?.1.split_whitespace().collect();
                let before = |unit: &str| {
                    let at = words.iter().position(|word| word.starts_with(unit))?;
                    figure(words.get(at.checked_sub(1)?)?)
                };
                Some([before("allocs")?, before("bytes")?])
            }
            Self::Strace => {
                let total = printed.lines().rev().find_map(|line| {
                    let words: Vec<_> = line.split_whitespace().collect();
                    match words[..] {
                        [calls, "total"] => figure(calls),
                        _ => None,
                    }
                });
                Some([total?, 0])
            }
        }
    }

    const fn note(self, figures: [f64; 2], costs: &mut Costs) {
        match self {
            Self::Callgrind => costs.instructions = Some(figures[0]),
            Self::Memcheck => {
                costs.allocations = Some(figures[0]);
                costs.allocated_bytes = Some(figures[1]);
            }
            Self::Strace => costs.system_calls = Some(figures[0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tool;

    #[test]
    fn totals_are_found_in_what_the_tools_print() {
        let callgrind = "==7== Events    : Ir\n==7== Collected : 1274651\n==7==\n";
        assert_eq!(Tool::Callgrind.parse(callgrind), Some([1_274_651, 0]));
        let memcheck = "==7== HEAP SUMMARY:\n==7==     in use at exit: 5,120 bytes in 2 blocks\n\
            ==7==   total heap usage: 1,021 allocs, 1,019 frees, 2,157,318 bytes allocated\n";
        assert_eq!(Tool::Memcheck.parse(memcheck), Some([1_021, 2_157_318]));
        let strace = "    calls syscall\n--------- ----------------\n       12 write\n\
            \x20      34 read\n--------- ----------------\n       46 total\n";
        assert_eq!(Tool::Strace.parse(strace), Some([46, 0]));
        for tool in super::TOOLS {
            assert_eq!(tool.parse("the client failed\n"), None);
        }
    }
}
