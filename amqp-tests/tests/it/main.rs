//! Tests of the whole.

mod behaviour;
mod invariants;
mod live;
mod support;
mod sweep;
