//! What is seen of applications from outside: metrics and spans. Recorders are of the process, so the tests run one at a time.

mod metrics;
mod recorder;
mod spans;
