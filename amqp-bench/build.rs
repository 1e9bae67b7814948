//! Notes the versions of what is measured, and compiles the client in C.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let rustc = Command::new(env::var("RUSTC")?).arg("--version").output()?;
    let rustc = String::from_utf8(rustc.stdout)?;
    println!("cargo::rustc-env=BENCH_RUSTC={}", rustc.split(' ').nth(1).unwrap_or("unknown"));
    let lock = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    println!("cargo::rerun-if-changed=build.rs");
    let lock = fs::read_to_string(lock)?;
    for package in ["amqprs", "async-std", "lapin", "smol", "tokio"] {
        let version = locked_version(&lock, package).unwrap_or("unknown");
        println!("cargo::rustc-env=BENCH_{}={version}", package.to_uppercase().replace('-', "_"));
    }
    #[cfg(feature = "peers")]
    compile_c_client()?;
    Ok(())
}

fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let mut lines = lock.lines().skip_while(|line| *line != format!("name = \"{package}\""));
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

/// A program of its own, because the workspace forbids the `unsafe` of calling C.
#[cfg(feature = "peers")]
fn compile_c_client() -> Result<(), Box<dyn Error>> {
    const SOURCE: &str = "c/rabbitmq.c";
    println!("cargo::rerun-if-changed={SOURCE}");
    let folder = env::var("OUT_DIR")?;
    let folder = Path::new(&folder);
    // The same optimisation in every profile: a debug build of the bench compares nothing.
    let compiler = cc::Build::new().opt_level(2).cargo_metadata(false).get_compiler();
    let compile = |source: &Path, program: &Path| {
        let mut command = compiler.to_command();
        command.args(["-std=gnu11", "-Wall", "-Wextra"]).arg(source).arg("-o").arg(program);
        command.arg("-lrabbitmq").output()
    };
    let probe = folder.join("probe.c");
    fs::write(&probe, "#include <amqp.h>\nint main(void) { return amqp_version()[0] == 0; }\n")?;
    if !compile(&probe, &folder.join("probe"))?.status.success() {
        return Err("librabbitmq is missing, which the feature `peers` measures: on Debian, \
             `apt-get install -y librabbitmq-dev`"
            .into());
    }
    let program = folder.join("rabbitmq-c");
    let output = compile(Path::new(SOURCE), &program)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{SOURCE} does not compile: {said}").into());
    }
    for line in said.lines() {
        println!("cargo::warning={line}");
    }
    println!("cargo::rustc-env=BENCH_RABBITMQ_C={}", program.display());
    Ok(())
}
