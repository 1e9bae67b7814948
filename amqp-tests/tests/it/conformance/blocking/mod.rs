//! The suite on threads, and what only threads can show.

mod api;
mod dispatching;
#[path = "../suite/mod.rs"]
mod suite;
mod threads;
