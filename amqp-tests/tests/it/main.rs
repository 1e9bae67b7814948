//! Tests of the whole.
#![allow(clippy::duplicate_mod, reason = "one suite is compiled over two kinds of handles")]

mod brokers;
mod certificates;
mod conformance;
mod demo_mechanism;
mod invariants;
mod live;
mod pools;
mod puka;
mod simulation;
mod stopping_peers;
mod support;
mod sweep;
mod tls;
mod tls_server;
