//! Handles and futures over the state machine of `amqp-core`, for any runtime.
//!
//! Applications use an adapter crate, such as `amqp-tokio`, which brings its runtime's sockets
//! and timers and hands out the handles defined here: [`Connection`], [`Channel`], [`Publisher`],
//! [`Consumer`], [`Delivery`]. Authors of adapters implement [`Runtime`] and [`Transport`] and drive
//! a [`Driver`], or a [`Pump`] from a loop of their own.
//!
//! The [`guide`] says what goes wrong and how it is told, what dropping does, and who waits for whom.
//!
//! Every handle may be used from any thread. Nothing here starts a thread, reads a clock or blocks:
//! one lock is held for microseconds, never across I/O and never while code of the user's runs, but for
//! the cloning of a waker.

mod budget;
mod calling;
mod channel;
mod connection;
mod connector;
mod consumer;
mod delivery;
mod driver;
mod events;
mod exports;
#[cfg(feature = "futures-io")]
mod futures_io;
pub mod guide;
mod publisher;
mod pump;
mod runtime;
mod shared;
mod trace;
mod tx;
mod wakers;

pub use amqp_core as core;

pub use calling::Calling;
pub use channel::{
    BasicPublish, Channel, Consuming, Getting, NotAwaited, Returned, SelectingConfirms,
};
pub use connection::{
    Closed, Closing, Connecting, Connection, OpeningChannel, connect, connect_with,
};
pub use connector::{Connector, DriverOn, On};
pub use consumer::{Cancelling, Consumer, Next};
pub use delivery::Delivery;
pub use driver::Driver;
pub use events::{ConnectionEvent, Events, NextEvent};
#[doc(no_inline)]
pub use exports::values::*;
pub use exports::{handles, values};
#[cfg(feature = "futures-io")]
pub use futures_io::FuturesIo;
pub use publisher::{Confirm, PublishError, Publisher, Publishing, Sending};
pub use pump::{Pump, Turn};
pub use runtime::{Carries, Clock, Runtime, Timer, Transport, dial_tcp};
pub use tx::{SelectingTx, Tx};
