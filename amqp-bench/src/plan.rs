//! Which runs there are, in which order, and what came of each.

use std::time::Duration;

use amqp_testkit::RabbitMq;

use crate::child;
use crate::clients::Client;
use crate::outcome::{Failure, Outcome};
use crate::report::Row;
use crate::stage::Stage;
use crate::workload::Workload;

/// No run takes nearly as long.
const RUN_LIMIT: Duration = Duration::from_secs(180);

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) clients: Vec<Client>,
    pub(crate) workloads: Vec<&'static Workload>,
    pub(crate) rounds: usize,
    pub(crate) quick: bool,
}

impl Plan {
    /// Runs every client once in every round of a workload, each in a process of its own.
    pub(crate) fn run(&self, workload: &'static Workload, node: Option<&RabbitMq>) -> Vec<Row> {
        let clients = self.clients.iter().filter(|client| client.is_shown(workload.task));
        let mut rows: Vec<_> = clients.map(|client| Row::new(*client, workload)).collect();
        for round in 1..=self.rounds {
            for row in rows.iter_mut().filter(|row| row.may_run()) {
                let count = workload.count(row.client.pace(workload.task), self.quick);
                eprintln!(
                    "{} {}, round {round} of {}",
                    workload.name,
                    row.client.name(),
                    self.rounds
                );
                match measure(row.client, workload, count, node) {
                    Ok(outcome) => row.runs.push(outcome),
                    Err(failure) => row.error = Some(failure.to_string()),
                }
            }
        }
        rows
    }
}

/// One run of a client in a process of its own.
///
/// # Errors
/// Any failure of the client, and any count that is not what it should be.
fn measure(
    client: Client,
    workload: &Workload,
    count: u64,
    node: Option<&RabbitMq>,
) -> Result<Outcome, Failure> {
    let work = || {
        let stage = Stage::set(workload, count, node)?;
        let words = child::once(client, workload.name, count, &stage.uri())?;
        let outcome = child::run(&words, RUN_LIMIT).and_then(|printed| {
            serde_json::from_str::<Outcome>(&printed.output)
                .map_err(|error| format!("{error} in {:?}", printed.output).into())
        });
        // What the peer has to say of a failed client is the better explanation.
        if let Err(failure) = outcome {
            let said = stage.check(workload, count).err().map(|it| format!("; {it}"));
            return Err(format!("{failure}{}", said.unwrap_or_default()).into());
        }
        stage.check(workload, count)?;
        outcome
    };
    work().map_err(|failure: Failure| {
        format!("{} {}: {failure}", client.name(), workload.name).into()
    })
}
