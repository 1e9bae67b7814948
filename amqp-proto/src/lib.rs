//! The wire format of AMQP 0-9-1 with RabbitMQ's extensions, in both directions.
//!
//! This crate encodes and decodes frames ([`frame`]), methods ([`method`]), content headers, the fourteen
//! message properties ([`properties`]) and field tables ([`FieldTable`]). It has no state, no clock and no
//! sockets, and is `no_std`. Applications use it through an adapter such as `amqp-tokio`.
//!
//! * Decoding borrows: a decoded method points into the input.
//! * Tables and properties stay encoded ([`RawTable`], [`RawProperties`]) until they are read. So a message
//!   with malformed headers can still be received, acknowledged or rejected.
//! * Every length is checked before it is used. A length that a peer announces allocates nothing before the
//!   bytes have arrived.
//! * Encoding appends to a `Vec<u8>`. A value that cannot be encoded is an [`EncodeError`].
//!
//! The feature `serde` implements `Serialize` and `Deserialize` for [`FieldTable`], [`FieldValue`] and
//! [`Properties`].
//!
//! ```
//! use amqp_proto::frame::{self, FrameKind, FrameLimits, Peek};
//! use amqp_proto::method::{Method, basic};
//!
//! let mut wire = Vec::new();
//! frame::write_method(&mut wire, 1, &basic::Ack { delivery_tag: 100, multiple: false });
//!
//! let Peek::Complete(frame) = frame::peek(&wire, FrameLimits::default())? else {
//!     unreachable!("the whole frame is there");
//! };
//! assert_eq!((frame.kind, frame.channel), (FrameKind::Method, 1));
//! let Method::BasicAck(ack) = Method::decode(frame.payload)? else { unreachable!() };
//! assert_eq!(ack.delivery_tag, 100);
//! # Ok::<(), amqp_proto::Malformed>(())
//! ```
#![no_std]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

extern crate alloc;

mod error;
mod field_table;
pub mod frame;
mod macros;
pub mod method;
pub mod properties;
mod publish;
mod reply_code;
mod short_str;
#[cfg(feature = "serde")]
pub mod text_or_bytes;
mod wire;

pub use error::{EncodeError, Malformed};
pub use field_table::{Decimal, FieldTable, FieldValue, RawField, RawTable};
pub use properties::{ContentHeader, DeliveryMode, Properties, PropertiesRef, RawProperties};
pub use reply_code::ReplyCode;
pub use short_str::ShortStr;

/// The maximum depth of nested tables and arrays, by default.
///
/// RabbitMQ relays header tables as they are, even tens of thousands of levels deep. Decoding those by
/// recursion would overflow the stack.
pub const TABLE_DEPTH_MAX: usize = 32;

/// The first eight bytes of every connection: `AMQP` 0-0-9-1 (AMQP 0-9-1, 4.2.2).
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\0\0\x09\x01";
