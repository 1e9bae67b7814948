//! Packaging: every published package, and a program that uses them as an application would.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{run, run_command};

/// The published packages, each behind those that it depends on.
pub(crate) const PUBLISHED: [&str; 10] = [
    "amqp-proto",
    "amqp-testkit",
    "amqp-core",
    "amqp-async",
    "amqp-tls",
    "amqp-tokio",
    "amqp-smol",
    "amqp-async-std",
    "amqp-blocking",
    "amqp-app",
];

/// Packages all of them in one call, builds each from its package, and builds the README's example in a
/// project that knows the packages alone.
pub(crate) fn package() -> Result<(), String> {
    forget_unpacked()?;
    let mut arguments = vec!["package", "--locked", "--allow-dirty"];
    arguments.extend(selected());
    run("cargo", &arguments)?;
    build_readme()
}

/// Removes what an earlier call left unpacked in Cargo's home.
///
/// Cargo verifies packages that depend on each other through a local registry below the target folder. It
/// unpacks a name and version once for each such registry and never looks whether the package has changed,
/// so that a second call would build against the first call's sources. The folder of a local registry has
/// no host name, and therefore starts with a dash.
fn forget_unpacked() -> Result<(), String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let Some(Ok(registries)) = home.map(|home| fs::read_dir(home.join("registry/src"))) else {
        return Ok(());
    };
    let registries = registries.flatten().map(|entry| entry.path());
    let local = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"-"))
    };
    for registry in registries.filter(local) {
        for name in PUBLISHED {
            let unpacked = registry.join(format!("{name}-{}", env!("CARGO_PKG_VERSION")));
            match fs::remove_dir_all(&unpacked) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(format!("cannot remove {}: {error}", unpacked.display()));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// `--package NAME` for each published package.
pub(crate) fn selected() -> impl Iterator<Item = &'static str> {
    PUBLISHED.into_iter().flat_map(|name| ["--package", name])
}

/// Builds the README's example against the packages, in a project outside of the workspace.
fn build_readme() -> Result<(), String> {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let packages = Path::new(&target).join("package");
    let packages = packages.canonicalize().map_err(|error| format!("no packages: {error}"))?;
    let project = packages.join("readme-example");
    let _ = fs::remove_dir_all(&project);
    let source = project.join("src");
    let written = fs::create_dir_all(&source)
        .and_then(|()| fs::write(project.join("Cargo.toml"), manifest(&packages)))
        .and_then(|()| fs::write(source.join("main.rs"), program()?));
    written.map_err(|error| format!("cannot write {}: {error}", project.display()))?;
    let mut build = Command::new("cargo");
    build.args(["build", "--quiet"]).current_dir(&project);
    run_command(&mut build)
}

fn manifest(packages: &Path) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut manifest = format!(
        "[package]\nname = \"readme-example\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\namqp-tokio = \"{version}\"\n\
         tokio = {{ version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }}\n\n\
         [patch.crates-io]\n"
    );
    for name in PUBLISHED {
        let folder = packages.join(format!("{name}-{version}"));
        manifest += &format!("{name} = {{ path = {folder:?} }}\n");
    }
    manifest + "\n[workspace]\n"
}

/// The README's first example, which is a program.
fn program() -> std::io::Result<String> {
    let readme = fs::read_to_string("README.md")?;
    let example = readme.split("```rust,no_run\n").nth(1).and_then(|rest| rest.split("```").next());
    let example = example.ok_or_else(|| std::io::Error::other("README.md has no example"))?;
    Ok(example.to_owned())
}
