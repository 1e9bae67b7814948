//! Runs every test, whatever fails, and ends with a summary of what failed.
//!
//! Each step is one call of `cargo test`. Its output passes through line by line, and is read on the
//! way: the test runner lists the failed tests of a binary, and then cargo names the binary.

use std::fmt::{self, Display, Formatter};
use std::io::{self, BufRead, BufReader, Write};
use std::process::Command;

const STEPS: [&[&str]; 5] = [
    &["test", "--workspace", "--all-targets", "--locked", "--no-fail-fast"],
    &["test", "--workspace", "--doc", "--locked", "--no-fail-fast"],
    &["test", "--package", "amqp-tokio", "--features", "tracing", "--locked", "--no-fail-fast"],
    &[
        "test",
        "--package",
        "amqp-blocking",
        "--features",
        "tracing",
        "--test",
        "tracing",
        "--locked",
    ],
    &[
        "test",
        "--package",
        "amqp-app",
        "--features",
        "config,tracing",
        "--test",
        "secrets",
        "--locked",
    ],
];

/// Runs all steps.
///
/// # Errors
/// A summary of the steps, binaries and tests that failed.
pub(crate) fn test() -> Result<(), String> {
    let mut summary = String::new();
    let mut failed = 0;
    for arguments in STEPS {
        let step = format!("cargo {}", arguments.join(" "));
        match run(arguments) {
            Ok(None) => {}
            Ok(Some(failures)) => {
                failed += 1;
                summary += &format!("{step}\n{failures}");
            }
            Err(error) => {
                failed += 1;
                summary += &format!("{step}\n    {error}\n");
            }
        }
    }
    if failed == 0 {
        return Ok(());
    }
    Err(format!("\n{failed} of {} steps failed:\n{}", STEPS.len(), summary.trim_end()))
}

/// Runs cargo; returns what failed, if something did.
fn run(arguments: &[&str]) -> io::Result<Option<Failures>> {
    // One pipe for both, so that what cargo and the tests print stays in order.
    let (output, input) = io::pipe()?;
    let mut command = Command::new("cargo");
    command.args(arguments).stdout(input.try_clone()?).stderr(input);
    let mut cargo = command.spawn()?;
    // The command holds this side's ends of the pipe.
    drop(command);
    let mut failures = Failures::default();
    let (mut output, mut line) = (BufReader::new(output), Vec::new());
    while output.read_until(b'\n', &mut line)? > 0 {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&line)?;
        stdout.flush()?;
        failures.read(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    Ok((!cargo.wait()?.success()).then_some(failures))
}

/// What failed in one step, by its output.
#[derive(Debug, Default)]
struct Failures {
    /// The binaries, as cargo names them, each with its failed tests.
    binaries: Vec<(String, Vec<String>)>,
    /// The lines behind the last `failures:`.
    listed: Vec<String>,
    /// Failed tests of a binary that cargo has not named yet.
    tests: Vec<String>,
}

impl Failures {
    fn read(&mut self, line: &str) {
        if line == "failures:" {
            // The runner prints this twice: before the outputs, and before the names.
            self.listed.clear();
        } else if line.starts_with("test result: FAILED") {
            self.tests = std::mem::take(&mut self.listed);
        } else if let Some(name) = line.strip_prefix("    ") {
            self.listed.push(name.to_owned());
        } else if let Some((_, rest)) = line.split_once("failed, to rerun pass `")
            && let Some((binary, _)) = rest.split_once('`')
        {
            self.binaries.push((binary.to_owned(), std::mem::take(&mut self.tests)));
        }
    }
}

impl Display for Failures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.binaries.is_empty() {
            writeln!(f, "    no test failed: see the errors above")?;
        }
        for (binary, tests) in &self.binaries {
            writeln!(f, "    {binary}")?;
            if tests.is_empty() {
                writeln!(f, "        the binary ended before its tests did")?;
            }
            for test in tests {
                writeln!(f, "        {test}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Failures;

    fn summary(output: &str) -> String {
        let mut failures = Failures::default();
        output.lines().for_each(|line| failures.read(line));
        failures.to_string()
    }

    #[test]
    fn failed_tests_stand_below_their_binary() {
        let output = "\
     Running unittests src/lib.rs (target/debug/deps/one-0123)

running 1 test
test good ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/it/main.rs (target/debug/deps/it-0123)

running 3 tests
test a::bad ... FAILED
test a::good ... ok
test worse ... FAILED

failures:

---- a::bad stdout ----
assertion failed
    of four spaces

---- worse stdout ----
assertion failed

failures:
    a::bad
    worse

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

error: test failed, to rerun pass `-p one --test it`
   Doc-tests one
test src/lib.rs - (line 3) ... FAILED

failures:

---- src/lib.rs - (line 3) stdout ----
assertion failed

failures:
    src/lib.rs - (line 3)

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

error: doctest failed, to rerun pass `-p one --doc`
error: 2 targets failed:
    `-p one --test it`
    `-p one --doc`
";
        let expected = "    -p one --test it\n        a::bad\n        worse\n    -p one --doc\n        \
                        src/lib.rs - (line 3)\n";
        assert_eq!(summary(output), expected);
    }

    #[test]
    fn a_binary_that_dies_and_a_build_that_fails_are_named() {
        let died = "\
running 2 tests
test good ... ok
error: test failed, to rerun pass `-p one --test memory`

Caused by:
  process didn't exit successfully: `memory-0123` (signal: 6, SIGABRT: process abort signal)
";
        let expected = "    -p one --test memory\n        the binary ended before its tests did\n";
        assert_eq!(summary(died), expected);
        let unbuilt = "error[E0425]: cannot find value `x`\nerror: could not compile `one`\n";
        assert_eq!(summary(unbuilt), "    no test failed: see the errors above\n");
    }
}
