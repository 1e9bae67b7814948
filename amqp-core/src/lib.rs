//! An AMQP 0-9-1 client as a pure (sans-IO) state machine.
//!
//! [`Session`] implements the protocol: handshake, heartbeats, channels, calls and their replies, messages,
//! publisher confirms, returned messages, consumers, errors and limits. It opens no socket, reads no clock,
//! takes no lock and depends on no async runtime. A driver passes it bytes and the time, and carries out the
//! actions that it returns:
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use std::sync::Arc;
//! use std::time::Instant;
//! use amqp_core::{Action, Config, Event, Session, Transmit};
//!
//! let config = Arc::new(Config::from_uri("amqp://localhost")?);
//! let mut session = Session::new(config, Instant::now(), 0)?;
//! let mut input = bytes::BytesMut::new();
//! let mut out = Transmit::new();
//! let mut socket: Option<std::net::TcpStream> = None;
//! loop {
//!     while let Some(action) = session.poll_action() {
//!         match action {
//!             Action::Resolve { attempt, host, port } => {
//!                 let addresses = std::net::ToSocketAddrs::to_socket_addrs(&(&*host, port));
//!                 let addresses = addresses.map(Iterator::collect).map_err(Into::into);
//!                 session.handle_resolved(Instant::now(), attempt, addresses);
//!             }
//!             Action::Dial { attempt, target } => {
//!                 // A driver that may fail here reports `handle_disconnected`.
//!                 let address = target.address.expect("this session resolves names");
//!                 socket = Some(std::net::TcpStream::connect(address)?);
//!                 session.handle_connected(Instant::now(), attempt);
//!             }
//!             _ => return Ok(()),
//!         }
//!     }
//!     while let Some(event) = session.poll_event() {
//!         if event == Event::Opened {
//!             session.close(Instant::now());
//!         }
//!     }
//!     let Some(stream) = &mut socket else { continue };
//!     while session.poll_transmit(Instant::now(), &mut out) {
//!         let bytes = out.to_vec();
//!         stream.write_all(&bytes)?;
//!         out.advance(bytes.len());
//!     }
//!     // A real loop reads no longer than until `poll_timeout`, then calls `handle_timeout`.
//!     let mut buffer = [0; 4096];
//!     let read = stream.read(&mut buffer)?;
//!     input.extend_from_slice(&buffer[..read]);
//!     while session.handle_input(Instant::now(), &mut input) {}
//! }
//! # #[allow(unreachable_code)] Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To publish, consume and make calls, see [`Channel`]. Every limit is defined in [`limits`].
//! What programs seldom name is in modules: what [`errors`] hold, rare [`requests`] and [`types`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

#[cfg(test)]
extern crate self as amqp_core;

mod arena;
mod buffer_pool;
mod channel;
mod config;
mod connection;
pub mod costs;
mod error;
mod event;
mod ids;
pub mod limits;
mod machine;
mod message;
mod request;
mod session;
mod slab;
mod timers;
mod topology;
mod transmit;
mod uri;

pub use amqp_proto as proto;
pub use amqp_proto::{DeliveryMode, FieldTable, FieldValue, Properties, ReplyCode};

pub use buffer_pool::BufferPool;
pub use channel::{Confirmation, Unconfirmed};
pub use config::{
    Backoff, Config, Credentials, Endpoint, Heartbeat, HostOrder, ProvidedCredentials, Recovery,
    TcpOptions, TlsSettings,
};
pub use connection::{Channel, Connection, End, PublishRefused};
pub use error::{
    AckError, BrokerError, ChannelCause, CloseCause, ConnectError, Error, PublishError,
};
pub use event::{
    Action, CancelledConsumer, Event, LostConsumer, RecoveryReport, RenamedQueue, Retrying, Target,
    TimeoutReason,
};
pub use ids::{Attempt, Call, CallKey, ChannelId, ConsumerKey, DeliveryTag, Epoch, PublishSeq};
pub use message::{Body, Delivery, Fault, Message, Publish, ReceivedMessage, ReturnedMessage};
pub use request::{
    BasicConsume, BasicGet, BasicQos, ExchangeBind, ExchangeDeclare, ExchangeDelete, ExchangeType,
    Overflow, QueueBind, QueueDeclare, QueueDeclareOk, QueueDelete, QueuePurge, StreamOffset,
};
pub use session::Session;
pub use transmit::Transmit;
pub use uri::AmqpUri;

/// What errors hold: the step of connecting that failed, the argument that was refused, and so on.
///
/// The errors that calls return, such as [`Error`], are at the root of the crate.
pub mod errors {
    pub use crate::error::{
        ConnectFailure, ConnectStep, FailedAttempt, InvalidArgument, InvalidReason, Misuse,
        ProtocolDetail, ProtocolError, TlsError, TlsErrorKind, TransportError,
    };
    pub use crate::uri::{SettingError, UriError, UriErrorKind};
    pub use amqp_proto::Malformed;
}

/// Requests and replies that programs seldom name, and the traits of requests.
///
/// The other requests, such as [`QueueDeclare`], are at the root of the crate.
pub mod requests {
    pub use crate::request::{
        BasicRecover, ChannelFlow, ConfirmSelect, ConsumeOk, ExchangeUnbind, FromReply, Got,
        MessageCount, NoWait, QueueUnbind, Rpc, TxCommit, TxRollback, TxSelect,
    };
}

/// Types of arguments and results that programs seldom name.
pub mod types {
    pub use crate::config::{AuthExchange, AuthMechanism, Challenge, RecoveryMode, Secret};
    pub use crate::connection::{Stats, Tuning};
    pub use crate::topology::{FailedEntity, TopologyEntity};
    pub use crate::uri::UriMechanism;
    pub use amqp_proto::{Decimal, PropertiesRef, RawProperties, RawTable, ShortStr};
}

/// Returns the name and the text of each state machine as a Mermaid diagram, generated from the transition
/// tables.
pub fn state_diagrams() -> [(&'static str, String); 5] {
    [
        ("Session", session::diagram()),
        ("Connection", connection::link_diagram()),
        ("Handshake", connection::handshake_diagram()),
        ("Channel", channel::diagram()),
        ("Consumer", channel::consumer_diagram()),
    ]
}
