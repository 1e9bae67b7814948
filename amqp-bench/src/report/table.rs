//! The tables on standard output: one for each workload, one of costs.

use super::{Figure, Row, row_of, short};
use crate::clients::Client;
use crate::costs::Costs;
use crate::workload::Task;

/// A workload's clients, one in a line.
pub(crate) fn workload(rows: &[Row]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let (task, name) = (first.workload.task, first.workload.name);
    let figure = Figure::of(task);
    let mut out = format!("{name}: {}", first.workload.title);
    if figure.less_is_better() {
        out.push_str(&format!("; ratios of {}, less is better", figure.unit()));
    }
    out.push('\n');
    let mut table = vec![header(task)];
    for row in rows {
        let mut cells = vec![row.client.name().to_owned()];
        match (row.client.refuses(row.workload), &row.error) {
            (Some(reason), _) => cells.push(format!("cannot: {reason}")),
            (None, Some(_)) => cells.push("FAILED, see below".into()),
            (None, None) => cells.extend(figures(row, rows)),
        }
        table.push(cells);
    }
    out.push_str(&aligned(&table));
    out
}

/// What a message costs, one client and workload in a line.
pub(crate) fn costs(all: &[Costs]) -> String {
    let titles = ["per message", "", "instructions", "allocations", "allocated B", "system calls"];
    let mut table = vec![titles.map(str::to_owned).to_vec()];
    for costs in all {
        let figures =
            [costs.instructions, costs.allocations, costs.allocated_bytes, costs.system_calls];
        let mut cells = vec![costs.workload.to_owned(), costs.client.to_owned()];
        cells.extend(figures.map(cell));
        table.push(cells);
    }
    aligned(&table)
}

/// The titles of the columns, of which the ratios are about the workload's figure.
fn header(task: Task) -> Vec<String> {
    let mut titles = vec![""];
    titles.extend_from_slice(match Figure::of(task) {
        Figure::Rate => &["messages/s", "MB/s", "CPU us/message", "peak MiB"],
        Figure::P50 | Figure::P99 => &["p50 us", "p99 us", "CPU us each", "peak MiB"],
        Figure::PeakMemory => &["peak MiB", "messages/s", "MB/s", "CPU us/message"],
        Figure::ConnectionMemory => &["KiB/connection", "KiB/channel"],
    });
    titles.extend(["tokio-mt is", "tokio-ct is"]);
    titles.into_iter().map(str::to_owned).collect()
}

fn figures(row: &Row, rows: &[Row]) -> Vec<String> {
    let task = row.workload.task;
    let rate = row.median(|run| Some(run.rate()));
    let bytes = rate.map(|rate| rate * task.body_size() as f64 / 1e6);
    let cpu = row.median(|run| Some(run.cpu_us_per_message()));
    let peak = row.median(|run| Some(run.peak_kib as f64 / 1024.0));
    let (p50, p99) = (row.median(|run| run.p50_us), row.median(|run| run.p99_us));
    let mut cells: Vec<_> = match Figure::of(task) {
        Figure::Rate => [rate, bytes, cpu, peak].map(cell).to_vec(),
        Figure::P50 | Figure::P99 => [p50, p99, cpu, peak].map(cell).to_vec(),
        Figure::PeakMemory => [peak, rate, bytes, cpu].map(cell).to_vec(),
        Figure::ConnectionMemory => {
            let channel = row.median(|run| run.channel_kib);
            [row.figure(), channel].map(cell).to_vec()
        }
    };
    for ours in [Client::TokioMt, Client::TokioCt] {
        let ratio = row_of(rows, ours).filter(|_| row.client != ours);
        let ratio = ratio.and_then(|ours| ours.ratio_to(row));
        cells.push(ratio.map_or_else(String::new, |ratio| format!("{}x", short(ratio))));
    }
    cells
}

fn cell(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), short)
}

/// The first column to the left, all others to the right.
fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    // A cell that stands for a whole line may be as long as it likes.
    let full = |cells: &&Vec<String>| cells.len() == columns;
    let width = |column: usize| {
        table.iter().filter(full).map(|cells| cells[column].len()).max().unwrap_or(0)
    };
    let first = table.iter().filter_map(|cells| cells.first()).map(String::len).max();
    let mut out = String::new();
    for cells in table {
        for (column, text) in cells.iter().enumerate() {
            match column {
                0 => out.push_str(&format!("  {text:<width$}", width = first.unwrap_or(0))),
                _ if cells.len() < columns => out.push_str(&format!("  {text}")),
                _ => out.push_str(&format!("  {text:>width$}", width = width(column))),
            }
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::rows;
    use super::{costs, workload};
    use crate::clients::Client;
    use crate::costs::Costs;

    #[test]
    fn a_table_has_figures_ratios_refusals_and_failures() {
        let mut rows = rows(
            "w1",
            &[(Client::TokioMt, &[4e6]), (Client::Lapin, &[2e4]), (Client::AmqprsMt, &[])],
        );
        rows[2].error = Some("lost".into());
        let table = workload(&rows);
        assert!(table.starts_with("w1: publish 16 B\n"), "{table}");
        assert!(table.contains("4.00 M") && table.contains("200x"), "{table}");
        assert!(table.contains("amqprs-mt  FAILED"), "{table}");
        let refused = super::super::tests::rows("w9", &[(Client::Bound, &[])]);
        assert!(workload(&refused).contains("bound  cannot: keeps nothing"));
    }

    #[test]
    fn costs_that_were_not_counted_are_dashes() {
        let one = Costs {
            client: "bound",
            workload: "w1",
            instructions: Some(315.2),
            ..Costs::default()
        };
        let table = costs(&[one]);
        assert!(
            table.lines().nth(1).is_some_and(|line| line.contains("315") && line.ends_with('-'))
        );
    }
}
