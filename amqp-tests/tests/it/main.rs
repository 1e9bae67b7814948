//! Tests of the whole.

mod behaviour;
mod live;
mod memory;
mod support;
