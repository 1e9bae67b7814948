//! Async handles and futures over the sans-IO core `amqp-core`, for any runtime.
//!
//! Applications use an adapter crate, such as `amqp-tokio`. It adds the sockets and timers of its runtime,
//! and returns the handles defined here: [`Connection`], [`Channel`], [`Publisher`], [`Consumer`],
//! [`Delivery`]. Authors of adapters implement [`Runtime`] and [`Transport`], and poll a [`Driver`], or call
//! a [`Pump`] from their own loop. The [`futures`] that methods return are in a module.
//!
//! The [`guide`] has pages on errors, cancellation, backpressure and graceful shutdown, among others.
//!
//! All handles are thread-safe. This crate starts no thread, reads no clock and does not block: its only lock
//! is held for microseconds, never during I/O, and never while code of the application runs, except for
//! cloning a waker.

mod authentication;
mod budget;
mod buffer_space;
mod call;
mod channel;
mod connection;
mod connector;
mod consumer;
mod delivery;
mod dialling;
mod driver;
mod events;
mod executor;
mod exports;
#[cfg(feature = "futures-io")]
mod futures_io;
mod get;
pub mod guide;
mod holders;
mod hooks;
pub mod limits;
mod listeners;
mod over_stream;
mod pipelined;
mod plain_calls;
mod provider;
mod publisher;
mod pump;
mod runtime;
mod secure;
mod settings;
mod shared;
mod tcp;
mod trace;
mod transport;
mod tx;
mod unconfirmed;
mod wakers;

pub use amqp_core as core;

pub use amqp_core::{Target, errors, requests, types};
pub use channel::Channel;
pub use connection::Connection;
pub use connector::{Connector, ConnectorOver, connect, connect_with};
pub use consumer::{Canceller, Consumer, TryRecvError};
pub use delivery::{AnswerError, Delivery};
pub use driver::Driver;
pub use events::Events;
pub use executor::{Clock, Executor, Timer};
#[doc(no_inline)]
pub use exports::values::*;
pub use exports::{futures, handles, values};
#[cfg(feature = "futures-io")]
pub use futures_io::FuturesIo;
pub use hooks::Hooks;
pub use listeners::ConnectionEvent;
pub use over_stream::{DriverOver, Over, OverTransport};
pub use provider::{CredentialsProvider, Fetching, Plugins};
pub use publisher::{Confirm, Publisher, TrySendError};
pub use pump::{Pump, Turn};
pub use runtime::Runtime;
pub use secure::{Secure, Securing};
pub use tcp::dial_tcp;
pub use trace::{FRAME_LOG_TARGET, LOG_TARGET};
pub use transport::Transport;
pub use tx::Tx;
