//! Checks beside the tests: every feature, the oldest supported Rust, licences.

use std::process::Command;

use crate::package::selected;
use crate::{is_installed, run, run_command};

/// The features of `amqp-app`, each of which must compile without the others.
const ALONE: [&str; 16] = [
    "",
    "cbor",
    "compat",
    "config",
    "files",
    "http",
    "metrics",
    "msgpack",
    "opentelemetry",
    "serde",
    "signals",
    "systemd",
    "testing",
    "threads",
    "tracing",
    "transaction-pool",
];

/// Lints and documents the published packages with every feature, and lints `amqp-app` with each of its features alone.
pub(crate) fn features() -> Result<(), String> {
    for feature in ALONE {
        let clippy = ["clippy", "--package", "amqp-app", "--lib", "--tests", "--locked"];
        let alone = ["--no-default-features", "--features", feature, "--", "-D", "warnings"];
        run("cargo", &[&clippy[..], &alone].concat())?;
    }
    let mut clippy = vec!["clippy", "--all-targets", "--all-features", "--locked"];
    clippy.extend(selected());
    clippy.extend(["--", "-D", "warnings"]);
    run("cargo", &clippy)?;
    let mut doc = Command::new("cargo");
    doc.args(["doc", "--no-deps", "--all-features", "--locked"]).args(selected());
    run_command(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Checks the published packages with the oldest supported Rust, if that toolchain is installed.
pub(crate) fn oldest_rust() -> Result<(), String> {
    let version = env!("CARGO_PKG_RUST_VERSION");
    let toolchain = format!("+{version}");
    let probe = Command::new("cargo").args([&toolchain, "--version"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        println!(
            "Rust {version} is not installed: not checked (`rustup toolchain install {version}`)"
        );
        return Ok(());
    }
    let mut check = Command::new("cargo");
    // Its own folder: two compilers would build each other's artifacts anew.
    check.args([
        &toolchain,
        "check",
        "--all-features",
        "--locked",
        "--target-dir",
        "target/oldest",
    ]);
    run_command(check.args(selected()))
}

/// Checks licences, bans and sources of all dependencies, and installs cargo-deny when it is missing.
pub(crate) fn deny() -> Result<(), String> {
    let installed = Command::new("cargo").args(["deny", "--version"]).output();
    if !is_installed("cargo-deny") && !installed.is_ok_and(|it| it.status.success()) {
        run("cargo", &["install", "--locked", "cargo-deny"])?;
    }
    run("cargo", &["deny", "check", "licenses", "bans", "sources"])
}
