//! What was measured with.

use std::collections::BTreeMap;

use amqp_testkit::RabbitMq;

use crate::outcome::Failure;
use crate::{child, stage};

/// The compiler, the clients and the broker, each with its version.
pub(crate) fn all(node: Option<&RabbitMq>) -> Result<BTreeMap<&'static str, String>, Failure> {
    let mut versions = BTreeMap::from([
        ("amqp-tokio", env!("CARGO_PKG_VERSION").to_owned()),
        ("async-std", env!("BENCH_ASYNC_STD").to_owned()),
        ("rustc", env!("BENCH_RUSTC").to_owned()),
        ("smol", env!("BENCH_SMOL").to_owned()),
        ("tokio", env!("BENCH_TOKIO").to_owned()),
    ]);
    if cfg!(feature = "peers") {
        versions.insert("amqprs", env!("BENCH_AMQPRS").to_owned());
        versions.insert("lapin", env!("BENCH_LAPIN").to_owned());
    }
    if let Some(program) = child::c_program() {
        let program = program.to_str().ok_or("the C client's path is not UTF-8")?.to_owned();
        let limit = std::time::Duration::from_secs(10);
        let printed = child::run(&[program, "--version".to_owned()], limit)?;
        versions.insert("rabbitmq-c", printed.output.trim().to_owned());
    }
    if let Some(node) = node {
        versions.insert("RabbitMQ", stage::broker_version(&node.uri())?);
    }
    Ok(versions)
}
