//! Instructions and allocations a message, counted by valgrind: they repeat, whatever else the machine
//! does, so that a change which makes the client slower is seen before anybody times it.
//!
//! Each program runs twice, with different numbers of messages, and the difference is divided: what
//! starting and setting up cost goes out of it. `amqp-bench/counts.txt` holds what was counted last,
//! and what may be counted at most.

use std::fmt::Write;
use std::process::Command;

use crate::run;

const FILE: &str = "amqp-bench/counts.txt";
/// Messages of the two runs.
const MESSAGES: (u64, u64) = (20_000, 60_000);

/// What reads and writes of a socket may add, for they fall differently each time.
const TOLERANCE: f64 = 1.03;

struct Counted {
    name: &'static str,
    /// What the benchmark calls it.
    program: &'static [&'static str],
    /// The most instructions and allocations it may take, if that was promised.
    at_most: Option<(f64, f64)>,
}

const COUNTED: [Counted; 8] = [
    Counted { name: "encode-publish", program: &["alone", "encode-publish"], at_most: None },
    Counted { name: "decode-delivery", program: &["alone", "decode-delivery"], at_most: None },
    Counted {
        name: "core-publish-confirm",
        program: &["alone", "core-publish-confirm"],
        at_most: None,
    },
    Counted { name: "core-deliver-ack", program: &["alone", "core-deliver-ack"], at_most: None },
    Counted { name: "publish", program: &["once", "tokio-ct", "w1"], at_most: Some((520.0, 0.01)) },
    Counted {
        name: "publish-confirm",
        program: &["once", "tokio-ct", "w2"],
        at_most: Some((780.0, 0.01)),
    },
    Counted { name: "receive", program: &["once", "tokio-ct", "w4"], at_most: Some((720.0, 0.02)) },
    Counted {
        name: "receive-ack",
        program: &["once", "tokio-ct", "w5"],
        at_most: Some((950.0, 0.02)),
    },
];

/// Counts, and compares with the file; or writes it.
pub(crate) fn counts(write: bool) -> Result<(), String> {
    run("cargo", &["build", "--release", "--package", "amqp-bench", "--locked"])?;
    let recorded = std::fs::read_to_string(FILE).unwrap_or_default();
    let compiler = compiler()?;
    // Another compiler makes other code of the same source.
    let comparable = recorded.lines().next() == Some(&*format!("# {compiler}"));
    let mut table = format!("# {compiler}\n# a message: instructions (at most), allocations\n");
    let mut faults = Vec::new();
    for Counted { name, program, at_most } in COUNTED {
        let instructions = difference("callgrind", program)?;
        let allocations = difference("memcheck", program)?;
        let most = at_most.map_or_else(|| "-".to_owned(), |(most, _)| most.to_string());
        let row = format!("{name:22} {instructions:>8.1} {most:>6} {allocations:>8.4}");
        println!("{row}");
        let _ = writeln!(table, "{row}");
        if let Some((most_instructions, most_allocations)) = at_most {
            if instructions > most_instructions {
                faults.push(format!("{name}: {instructions:.1} instructions, {most} at most"));
            }
            if allocations > most_allocations {
                let most = most_allocations;
                faults.push(format!("{name}: {allocations:.4} allocations, {most} at most"));
            }
        }
        let before = recorded.lines().filter_map(parse).find(|(other, _)| *other == name);
        match before {
            Some((_, before)) if comparable && !write && instructions > before * TOLERANCE => {
                faults.push(format!("{name}: {instructions:.1} instructions, {before} before"));
            }
            None if !write => faults.push(format!("{name} is not in {FILE}")),
            _ => {}
        }
    }
    if write {
        std::fs::write(FILE, table).map_err(|error| format!("cannot write {FILE}: {error}"))?;
    }
    if !comparable && !write {
        println!("{FILE} is of another compiler: only the limits were checked");
    }
    match faults.as_slice() {
        [] => Ok(()),
        faults => Err(format!(
            "{}\n(`cargo xtask counts --write` records a rise; its commit says why)",
            faults.join("\n")
        )),
    }
}

/// A row's name and instructions.
fn parse(row: &str) -> Option<(&str, f64)> {
    let mut columns = row.split_whitespace();
    Some((columns.next()?, columns.next()?.parse().ok()?))
}

fn compiler() -> Result<String, String> {
    let output = Command::new("rustc").arg("--version").output();
    let output = output.map_err(|error| format!("cannot run rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What a message costs by one of valgrind's tools.
fn difference(tool: &str, program: &[&str]) -> Result<f64, String> {
    let (fewer, more) = MESSAGES;
    let cost = count(tool, program, more)? - count(tool, program, fewer)?;
    Ok(cost / (more - fewer) as f64)
}

fn count(tool: &str, program: &[&str], messages: u64) -> Result<f64, String> {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let mut valgrind = Command::new("valgrind");
    valgrind.arg(format!("--tool={tool}"));
    if tool == "callgrind" {
        valgrind.arg("--callgrind-out-file=/dev/null");
    }
    let output = valgrind
        .arg(format!("{target}/release/amqp-bench"))
        .args(program)
        .args(["--count", &messages.to_string()])
        .output()
        .map_err(|error| format!("cannot run valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // "Collected : 1234", or "total heap usage: 1,234 allocs, ...".
    let marker = if tool == "callgrind" { "Collected :" } else { "total heap usage:" };
    let number = said.lines().find_map(|line| line.split_once(marker)).map(|(_, rest)| rest.trim());
    let number = number.and_then(|rest| rest.split(' ').next()).map(|it| it.replace(',', ""));
    match number.and_then(|number| number.parse().ok()) {
        Some(number) if output.status.success() => Ok(number),
        _ => Err(format!("{} under {tool} failed:\n{said}", program.join(" "))),
    }
}
