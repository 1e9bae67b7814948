//! One run in this process, so that a profiler sees the client alone.

use std::time::Duration;

use amqp_testkit::RabbitMq;

use crate::child;
use crate::clients::Client;
use crate::outcome::{Failure, Outcome};
use crate::stage::Stage;
use crate::workload::Workload;

/// As long as a profiler may need.
const LIMIT: Duration = Duration::from_secs(3600);

/// Runs a client once, against the peer that is there or else against one of its own.
///
/// # Errors
/// Any failure, with the names of the client and the workload.
pub(crate) fn once(
    client: Client,
    workload: &Workload,
    count: u64,
    uri: Option<&str>,
) -> Result<Outcome, Failure> {
    let work = || match uri {
        Some(uri) => run(client, workload, count, uri),
        None => {
            let node = if workload.needs_rabbitmq() { Some(RabbitMq::start()?) } else { None };
            let stage = Stage::set(workload, count, node.as_ref())?;
            let outcome = run(client, workload, count, &stage.uri())?;
            stage.check(workload, count)?;
            Ok(outcome)
        }
    };
    work().map_err(|failure: Failure| {
        format!("{} {}: {failure}", client.name(), workload.name).into()
    })
}

fn run(client: Client, workload: &Workload, count: u64, uri: &str) -> Result<Outcome, Failure> {
    if client == Client::RabbitmqC {
        let printed = child::run(&child::once(client, workload.name, count, uri)?, LIMIT)?;
        return Ok(serde_json::from_str(&printed.output)?);
    }
    let measured = client.run(uri, workload, count)?;
    Ok(measured.outcome(client.name(), workload.name, count)?)
}

#[cfg(test)]
mod tests {
    use super::run;
    use crate::clients::Client;
    use crate::outcome::Failure;
    use crate::peer::{Deliveries, Peer};
    use crate::stage::compare;
    use crate::workload::{Task, Workload};

    /// Runs a client against a peer in this process, and checks what that counted.
    fn in_process(client: Client, workload: &Workload, count: u64) -> Result<(), Failure> {
        let (task, size) = (workload.task, workload.task.body_size());
        let deliveries = Deliveries { size, count: task.deliveries(count) };
        let peer = Peer::serve(deliveries, workload.is_over_tls())?;
        let outcome = run(client, workload, count, &peer.uri)?;
        assert_eq!((outcome.count, outcome.p50_us.is_some()), (count, task.is_latency()));
        assert_eq!(outcome.channel_kib.is_some(), task == Task::Idle);
        assert!(outcome.rate() > 0.0);
        compare(&peer.totals(), workload, count)
    }

    #[test]
    fn every_client_does_every_workload_that_it_does_not_refuse() {
        for workload in Workload::built().filter(|workload| !workload.needs_rabbitmq()) {
            for client in Client::built() {
                let count = match workload.task {
                    Task::Publish { size, .. } | Task::Consume { size, .. } if size > 1 << 20 => 2,
                    Task::Publish { .. } | Task::Consume { .. } => 3_200,
                    _ => 3,
                };
                let result = in_process(client, workload, count);
                let refused = client.refuses(workload).is_some();
                assert_eq!(
                    result.is_err(),
                    refused,
                    "{} {}: {result:?}",
                    client.name(),
                    workload.name
                );
            }
        }
    }
}
