//! The repository's chores. `cargo xtask test` runs every test and ends with a summary of what failed; it
//! installs RabbitMQ from the distribution when it is missing. `cargo xtask counts [--write]` counts
//! instructions and allocations a message. `cargo xtask sim --seeds N [--first S]` plays seeds of the simulation in a
//! release build, and `sim --seed S` replays one with everything that happens in it. `cargo xtask soak` loses the
//! connections of a load on a private RabbitMQ 200 times, or `--faults N` times; `--seed S` repeats the faults, and `--cluster`
//! kills nodes of three. `cargo xtask soak --app` kills the connections, the process and the node of an application, and with `--transactional`
//! the process between the steps of its transactions. `features`, `oldest-rust`, `deny`
//! and `package` check what is published. `cargo xtask fuzz TARGET [SECONDS]` looks for inputs that break the codec or the state machine,
//! and `minimise TARGET` commits those that reach new code.

mod checks;
mod counts;
mod fuzzing;
mod package;
mod testing;

use std::path::Path;
use std::process::{Command, ExitCode};

const USAGE: &str =
    "usage: cargo xtask test | counts [--write] | features | oldest-rust | deny | package
     | sim --seeds N [--first S] | sim --seed S | soak [--app [--transactional] | --cluster] [--faults N] [--seed S]
     | fuzz TARGET [SECONDS] | minimise TARGET
targets: connection_bytes frame method properties table uri";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["test"] => test(),
        ["counts"] => counts(false),
        ["counts", "--write"] => counts(true),
        ["features"] => checks::features(),
        ["oldest-rust"] => checks::oldest_rust(),
        ["deny"] => checks::deny(),
        ["package"] => package::package(),
        ["sim", arguments @ ..] => sim(arguments),
        ["soak", arguments @ ..] => soak(arguments),
        ["fuzz", target] => fuzzing::fuzz(target, "0"),
        ["fuzz", target, seconds] => fuzzing::fuzz(target, seconds),
        ["minimise", target] => fuzzing::minimise(target),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn test() -> Result<(), String> {
    install_rabbitmq()?;
    testing::test()
}

fn counts(write: bool) -> Result<(), String> {
    if !is_installed("valgrind") {
        install("valgrind")?;
    }
    counts::counts(write)
}

fn sim(arguments: &[&str]) -> Result<(), String> {
    let sim =
        ["run", "--release", "--quiet", "--locked", "--package", "amqp-tests", "--bin", "sim"];
    run("cargo", &[&sim[..], &["--"], arguments].concat())
}

fn soak(arguments: &[&str]) -> Result<(), String> {
    install_rabbitmq()?;
    // With the assertions of a debug build. The broker takes most of the time.
    let (program, arguments) = match arguments {
        ["--app", arguments @ ..] => (["--bin", "app_soak"], arguments),
        arguments => (["--example", "soak"], arguments),
    };
    let soak = ["run", "--quiet", "--locked", "--package", "amqp-tests"];
    run("cargo", &[&soak[..], &program, &["--"], arguments].concat())
}

fn install_rabbitmq() -> Result<(), String> {
    if is_installed("rabbitmq-server") { Ok(()) } else { install("rabbitmq-server") }
}

fn is_installed(program: &str) -> bool {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian keeps RabbitMQ's programs.
    let folders = std::env::split_paths(&on_path).chain(["/usr/lib/rabbitmq/bin".into()]);
    folders.map(|folder| folder.join(program)).any(|program| program.is_file())
}

/// Installs Debian's package, as root or through sudo. Nothing is started by that.
fn install(package: &str) -> Result<(), String> {
    if !Path::new("/usr/bin/apt-get").is_file() {
        return Err(format!("{package} is missing; install it (RabbitMQ: 3.10 or later)"));
    }
    let install = format!(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q && apt-get \
         -o DPkg::Lock::Timeout=600 install -qy --no-install-recommends {package}"
    );
    let as_root = "if [ \"$(id -u)\" = 0 ]; then sh -c \"$1\"; else sudo sh -c \"$1\"; fi";
    let install = || run("sh", &["-c", as_root, "install", &install]);
    // Another update at the same time breaks an install; the second try finds it done.
    install().or_else(|_| install())
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    run_command(Command::new(program).args(arguments))
}

fn run_command(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}
