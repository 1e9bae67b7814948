//! The suite on tokio (both flavours), smol and async-std, and what only futures can show.

mod api;
mod futures;
mod runtimes;
#[path = "../suite/mod.rs"]
mod suite;
