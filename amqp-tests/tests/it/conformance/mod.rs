//! What a client sees of a broker, once for every adapter.
//!
//! The suite is written against `api`, and compiled twice: over the handles that all asynchronous adapters
//! share, and over the blocking ones, whose calls are wrapped so that they can be awaited. Every test runs
//! against RabbitMQ on every adapter, and against the model broker, so that neither broker can drift from
//! the other.

mod asynchronous;
mod blocking;
mod executors;
