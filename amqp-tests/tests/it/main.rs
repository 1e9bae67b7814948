//! Tests of the whole.

mod brokers;
mod conformance;
mod invariants;
mod live;
mod support;
mod sweep;
