//! Child processes: a client's run, which has a deadline, and a peer, which ends with its parent.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::clients::Client;
use crate::outcome::Failure;
use crate::peer::{Deliveries, Totals};

/// Between two looks at a child that runs.
const POLL: Duration = Duration::from_millis(20);
/// Of what a failed child said.
const LINES_SHOWN: usize = 8;

/// The program that runs a client once against a peer that is there.
pub(crate) fn once(
    client: Client,
    workload: &str,
    count: u64,
    uri: &str,
) -> Result<Vec<String>, Failure> {
    let program = match client {
        Client::RabbitmqC => c_program().ok_or("built without the feature `peers`")?,
        _ => std::env::current_exe()?,
    };
    let program = program.to_str().ok_or("this program's path is not UTF-8")?;
    let count = count.to_string();
    let words = [program, "once", client.name(), workload, "--count", count.as_str(), "--uri", uri];
    Ok(words.map(str::to_owned).to_vec())
}

/// The C client that was built along with this program.
pub(crate) fn c_program() -> Option<PathBuf> {
    option_env!("BENCH_RABBITMQ_C").map(PathBuf::from)
}

/// What a child printed.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// Runs a command to its end, which must be a good one and in time.
pub(crate) fn run(words: &[String], limit: Duration) -> Result<Printed, Failure> {
    let (program, arguments) = words.split_first().ok_or("no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    let output = read_all(child.stdout.take());
    let errors = read_all(child.stderr.take());
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(POLL);
    };
    let printed = Printed {
        output: output.join().unwrap_or_default(),
        errors: errors.join().unwrap_or_default(),
    };
    match status {
        Some(status) if status.success() => Ok(printed),
        Some(status) => Err(format!("{status}: {}", end_of(&printed.errors)).into()),
        None => Err(format!("not done in {} s", limit.as_secs()).into()),
    }
}

/// The last lines: a tool may say a lot before.
pub(crate) fn end_of(errors: &str) -> String {
    let lines: Vec<_> = errors.trim().lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}

fn read_all(from: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // What was read before a failure is still worth showing.
            let _ = from.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A sink and source in a process of its own.
#[derive(Debug)]
pub(crate) struct PeerProcess {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStdout>,
    pub(crate) uri: String,
}

impl PeerProcess {
    pub(crate) fn start(deliveries: Deliveries, tls: bool) -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("peer")
            .args(["--size", &deliveries.size.to_string()])
            .args(["--count", &deliveries.count.to_string()])
            .args(tls.then_some("--tls"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take();
        let mut output = BufReader::new(process.stdout.take().ok_or("no output")?);
        let mut uri = String::new();
        if output.read_line(&mut uri)? == 0 {
            return Err("the peer did not start".into());
        }
        let uri = uri.trim().to_owned();
        Ok(Self { process, input, output, uri })
    }

    /// Ends the peer, which then says what it counted.
    pub(crate) fn finish(mut self) -> Result<Totals, Failure> {
        drop(self.input.take());
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        // It ends when its standard input does.
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::run;

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_child_has_to_end_well_and_in_time() -> Result<(), Box<dyn std::error::Error>> {
        let limit = Duration::from_secs(10);
        let printed = run(&shell("echo out; echo err >&2"), limit).map_err(|it| it.to_string())?;
        assert_eq!((printed.output.as_str(), printed.errors.as_str()), ("out\n", "err\n"));
        let failed = run(&shell("echo why >&2; exit 3"), limit).map(drop);
        assert!(failed.is_err_and(|it| it.to_string().contains("3: why")));
        let late = run(&shell("exec sleep 60"), Duration::from_millis(50)).map(drop);
        assert!(late.is_err_and(|it| it.to_string().contains("not done")));
        Ok(())
    }
}
