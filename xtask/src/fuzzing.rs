//! Fuzzing, with the nightly toolchain and `cargo fuzz`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run_command;

#[path = "../../fuzz/src/corpus.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets' replay reads corpora too")]
mod corpus;

/// Explores from the committed corpus on. What it finds stays in the target folder.
pub(crate) fn fuzz(target: &str, seconds: &str) -> Result<(), String> {
    let inputs = unpacked(target)?;
    let time = format!("-max_total_time={seconds}");
    cargo_fuzz("run", target, &inputs, &["-dict=fuzz/amqp.dict", "-max_len=2048", &time])
}

/// Commits what was found, without the inputs that reach nothing new.
pub(crate) fn minimise(target: &str) -> Result<(), String> {
    let inputs = unpacked(target)?;
    cargo_fuzz("cmin", target, &inputs, &[])?;
    corpus::pack(&inputs, &committed(target)).map_err(|error| format!("cannot pack: {error}"))
}

fn committed(target: &str) -> PathBuf {
    Path::new("fuzz/corpus").join(format!("{target}.hex"))
}

/// The folder of found inputs, with the committed ones.
fn unpacked(target: &str) -> Result<PathBuf, String> {
    let inputs = Path::new("target/fuzz").join(target);
    let unpacked = corpus::unpack(&committed(target), &inputs);
    unpacked.map_err(|error| format!("cannot unpack the corpus of {target}: {error}"))?;
    Ok(inputs)
}

fn cargo_fuzz(verb: &str, target: &str, inputs: &Path, options: &[&str]) -> Result<(), String> {
    let mut command = Command::new("cargo");
    command.args(["+nightly", "fuzz", verb, "--features", "libfuzzer", target]);
    command.arg(inputs).arg("--").args(options);
    // Linking releases as one loses the marks that tell the fuzzer where it has been.
    command.env("CARGO_PROFILE_RELEASE_LTO", "off");
    run_command(&mut command).map_err(|error| {
        format!("{error}\n(needs `cargo install cargo-fuzz` and a nightly toolchain)")
    })
}
