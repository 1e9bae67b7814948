//! What the fuzzer calls, as plain functions: each takes any bytes and panics where a promise is
//! broken. `tests/replay.rs` runs them over the corpora on the stable toolchain.

mod broker;
mod codec;
mod connection;
pub mod corpus;
mod ops;

pub use codec::{frame, method, properties, table, uri};
pub use connection::connection_bytes;

/// A fuzz target.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also the name of its corpus: see [`corpus`].
pub const TARGETS: [(&str, Target); 6] = [
    ("connection_bytes", connection_bytes),
    ("frame", frame),
    ("method", method),
    ("properties", properties),
    ("table", table),
    ("uri", uri),
];
