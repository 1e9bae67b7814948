//! Tests of the whole.

mod live;
