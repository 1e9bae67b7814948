//! The table for docs/PERFORMANCE.md: W1 to W7, a client in a column.

use std::collections::BTreeMap;

use super::{Figure, Row, best_peer, row_of, short};
use crate::clients::Client;

/// What it shows.
const SHOWN: [&str; 21] = [
    "w1",
    "w1-1k",
    "w1-64k",
    "w1-10m",
    "w2",
    "w3",
    "w4",
    "w4-1k",
    "w4-64k",
    "w5",
    "w6",
    "w7",
    "w1-tls",
    "w1-64k-tls",
    "w2-tls",
    "w4-tls",
    "w5-tls",
    "w2r",
    "w2u",
    "w3r",
    "w5r",
];

/// Medians of every client, and the better of ours by the best peer.
pub(crate) fn table(
    results: &[Vec<Row>],
    clients: &[Client],
    versions: &BTreeMap<&'static str, String>,
) -> String {
    let is_shown =
        |rows: &&Vec<Row>| rows.first().is_some_and(|row| SHOWN.contains(&row.workload.name));
    let results: Vec<_> = results.iter().filter(is_shown).collect();
    let shown = |client: &&Client| results.iter().any(|rows| row_of(rows, **client).is_some());
    let clients: Vec<_> = clients.iter().filter(shown).copied().collect();
    let names: Vec<_> = clients.iter().map(|client| client.name()).collect();
    let mut out = format!("| workload | {} | to the best peer |\n", names.join(" | "));
    out.push_str(&format!("|{}\n", " --- |".repeat(clients.len() + 2)));
    for rows in results {
        let Some(first) = rows.first() else { continue };
        let cells: Vec<_> = clients.iter().map(|client| cell(rows, *client)).collect();
        let workload = first.workload;
        let unit = Figure::of(workload.task).unit();
        let name = workload.name.to_uppercase();
        let title = workload.title;
        let ratio = ratio(rows);
        out.push_str(&format!("| {name} {title}, {unit} | {} | {ratio} |\n", cells.join(" | ")));
    }
    let versions: Vec<_> =
        versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    out.push_str(&format!("\nMedians. {}.\n", versions.join(", ")));
    out
}

fn cell(rows: &[Row], client: Client) -> String {
    row_of(rows, client).and_then(Row::figure).map_or_else(|| "-".to_owned(), short)
}

/// Both that are compared, in the order of the columns.
fn ratio(rows: &[Row]) -> String {
    let Some(best) = best_peer(rows) else { return "-".to_owned() };
    let ours = rows.iter().filter(|row| row.client.is_compared());
    let ratios: Vec<_> =
        ours.filter_map(|row| row.ratio_to(best).map(|ratio| format!("{ratio:.1}x"))).collect();
    format!("{} {}", ratios.join(" / "), best.client.name())
}

#[cfg(test)]
mod tests {
    use super::super::tests::rows;
    use super::table;
    use crate::clients::Client;

    #[test]
    fn only_what_the_readme_shows_is_in_it() {
        let clients = [Client::TokioMt, Client::TokioCt, Client::Lapin];
        let figures: Vec<(Client, &[f64])> =
            vec![(clients[0], &[4e6]), (clients[1], &[8e6]), (clients[2], &[2e4])];
        let results = ["w1", "w9", "w7"].map(|workload| rows(workload, &figures)).to_vec();
        let text = table(&results, &clients, &[("rustc", "1.95.0".to_owned())].into());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "| workload | tokio-mt | tokio-ct | lapin | to the best peer |");
        assert_eq!(lines[1], "| --- | --- | --- | --- | --- |");
        let first =
            "| W1 publish 16 B, messages/s | 4.00 M | 8.00 M | 20.0 k | 200.0x / 400.0x lapin |";
        assert_eq!(lines[2], first);
        assert!(lines[3].starts_with("| W7 basic.qos"), "{text}");
        assert_eq!(lines[5], "Medians. rustc 1.95.0.");
    }
}
