//! The application layer of an AMQP 0-9-1 client for RabbitMQ: message handlers, retries, graceful shutdown.
//!
//! An application uses it with an adapter: `amqp-tokio`, `amqp-smol` or `amqp-async-std`; with the feature `threads`,
//! `amqp-blocking`. Their connectors are [`Platform`]s.
//!
//! ```no_run
//! use amqp_app::prelude::*;
//! use amqp_tokio::Connector;
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Error> {
//!     App::new(Connector::new("amqp://localhost")?)
//!         .consume("orders", async |Text(order): Text| println!("{order}"))
//!         .run(Shutdown::never())
//!         .await?;
//!     Ok(())
//! }
//! ```
//!
//! This checks that the queue `orders` exists, and declares four queues for retries and `orders.parked`. Each order is
//! acknowledged when it is printed. One that is not text is parked at once, with the reason in its headers.
//!
//! * An [`App`] has sources ([`Consume`]) with a handler each, and runs until a [`Shutdown`].
//! * A [`Handler`] is a function from extractors ([`FromContext`]) to an outcome ([`IntoOutcome`]).
//! * A [`Retry`] policy decides what follows a [`Failure`].
//! * [`testing`] helps to test handlers.
//! * A [`Requester`] sends requests, and waits for their replies.
//! * [`Pools`] share connections among tasks or threads.
//! * A file configures applications and pools (feature `config`): see [`guide::configuration`].
//!
//! The [`guide`] says what is promised when something fails, and how to choose a policy.

#[cfg(all(doctest, feature = "signals"))]
#[doc = include_str!("../README.md")]
mod readme {}

mod app;
#[cfg(feature = "config")]
pub mod config;
mod connections;
mod consume;
mod context;
mod copy;
mod decide;
mod delay;
mod error;
mod exchanges;
mod extract;
mod failure;
#[cfg(feature = "files")]
pub mod files;
mod formats;
pub mod guide;
mod handler;
#[cfg(feature = "http")]
mod http;
mod ids;
mod late;
pub mod limits;
mod measure;
mod message;
mod middleware;
#[cfg(feature = "opentelemetry")]
pub mod otel;
mod outbox;
mod outcome;
mod participants;
mod platform;
mod pool;
pub mod prelude;
mod remember;
mod reply;
mod request;
mod retry;
mod runner;
mod seen;
mod sync;
pub mod testing;
mod trace;

pub use app::App;
pub use app::health::{Health, HealthReport, SourceHealth};
pub use app::report::Report;
pub use app::shutdown::{Shutdown, Stopper};
#[cfg(feature = "config")]
pub use config::{Config, Settings};
pub use consume::Consume;
pub use context::Context;
pub use delay::{DelayError, Delays};
pub use error::Error;
pub use extract::{
    Attempt, Batch, Body, Deadline, Exchange, Extension, FromContext, Headers, Json, MessageId,
    Outgoing, Payload, QueueName, Redelivered, RoutingKey, Scope, State, Text,
};
pub use failure::{BoxError, Failure, FailureCause};
#[cfg(any(feature = "cbor", feature = "msgpack"))]
pub use formats::EncodeError;
pub use handler::{Blocking, Handler, ThreadHandler, blocking};
#[cfg(feature = "http")]
pub use http::HealthServer;
pub use message::Message;
#[cfg(feature = "threads")]
pub use middleware::ThreadNext;
pub use middleware::{Next, Route, RouteFuture};
pub use outbox::{Outbox, Relay, RelayReport};
pub use outcome::{IntoOutcome, IntoReply, Outcome, Outcomes, Reply};
pub use participants::{Participant, Participants};
pub use platform::{Asynchronous, Platform};
pub use pool::{Listening, Member, Pool, PoolStatus, Pools};
#[cfg(feature = "transaction-pool")]
pub use pool::{Transaction, TransactionError};
pub use request::{Blame, RequestError, Requester, RequesterStats, Response};
pub use retry::Retry;
pub use seen::{Begun, Seen, SeenId};
