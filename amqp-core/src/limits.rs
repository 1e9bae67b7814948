//! Limits of the core: the number, its unit in the name, and why. Crates above have files of their own for theirs.
//!
//! What an application may change has its default here and its setter on [`crate::Config`].

use std::time::Duration;

/// The longest that any time-out may be: more is as good as none, and the sum with a clock's reading
/// must not overflow.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// All of resolving, dialling and the handshake: the caller of `connect` waits no longer.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// One address, so that a host that swallows packets leaves time for the next.
pub const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// The answer to a call: a broker that takes longer is ill, and the caller must be able to act.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A graceful close: a blocked broker answers none at all.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Unacknowledged deliveries a consumer may hold: deep enough to hide a round trip, shallow enough
/// to share a queue among consumers.
pub const PREFETCH: u16 = 256;

/// Tags of consumers that are not there and that the broker delivered to, remembered for each channel: more
/// than a broker may have on its way, few enough to be looked through.
pub const STRAY_TAGS_MAX: usize = 64;

/// Bytes waiting to be written at which publishers begin to wait: milliseconds of a fast network. Just
/// under 1 MiB, so that with the last publish the buffer is no larger than that.
pub const OUTBOUND_HIGH_BYTES: usize = (1 << 20) - (8 << 10);

/// Bytes waiting to be written below which waiting publishers go on: few enough that each wake-up
/// lets many in, enough that the socket does not run dry.
pub const OUTBOUND_LOW_BYTES: usize = 256 << 10;

/// Bytes waiting to be written at which reading pauses: answers to a peer that talks and does not
/// listen. Half as much again as publishes may fill.
pub const OUTBOUND_HARD_BYTES: usize = 3 << 19;

/// What a large buffer grows by for frames other than publishes: beyond half of
/// [`OUTBOUND_HIGH_BYTES`] it does not double.
pub const OUTBOUND_STEP_BYTES: usize = 128 << 10;

/// Bytes of unread deliveries that no prefetch bounds, at which reading pauses unless something else
/// is awaited. Deep enough to keep a fast consumer busy.
pub const INBOUND_HIGH_BYTES: usize = 8 << 20;

/// Bytes of those at which a pause counts as over for those who listen. Half the mark, so that the
/// flow control of a flood is reported once.
pub const INBOUND_LOW_BYTES: usize = 4 << 20;

/// Bytes of those at which reading pauses whatever is awaited. The bound of what a connection holds
/// for consumers without acknowledgement or without prefetch.
pub const INBOUND_HARD_BYTES: usize = 64 << 20;

/// Bytes read at intervals during a pause below the hard mark. Enough that the window of a socket with
/// large buffers opens, so that the broker can write.
pub const TRICKLE_BYTES: usize = 1 << 20;

/// Bytes of contents half received on all channels together. Room for one message of the largest size
/// and for some beside it. RabbitMQ sends each message whole, so that one is under way at a time.
pub const INCOMPLETE_BYTES: usize = 192 << 20;

/// The largest method frame that is accepted, and the largest header frame that is kept: RabbitMQ
/// lets headers grow beyond `frame_max` when a message is dead-lettered.
pub const HEADER_FRAME_BYTES: u32 = 1 << 20;

/// The largest header frame that is read past, at the cost of its message alone: as large as a whole
/// message may be.
pub const SKIPPED_HEADER_FRAME_BYTES: u32 = 128 << 20;

/// The largest message that is accepted: RabbitMQ's own default limit.
pub const MESSAGE_BYTES: u64 = 128 << 20;

/// Calls of one channel, or updates of one connection's secret, that the broker has not answered:
/// beyond, further ones are refused. Many more than anybody awaits, few enough to be forgotten.
pub const CALLS_MAX: usize = 16_384;

/// Publishes of one channel between the oldest unconfirmed and the newest: bounds what is kept for
/// them.
pub const UNCONFIRMED_SPAN: u64 = 65_536;

/// The frame size offered: RabbitMQ's default.
pub const FRAME_MAX_BYTES: u32 = 131_072;

/// The channels offered: RabbitMQ's default.
pub const CHANNEL_MAX: u16 = 2047;

/// Bytes of input handled in one call, so that a lock around the core is held for microseconds.
pub const INPUT_BUDGET_BYTES: usize = 16 << 10;

/// Bodies below this are copied, next to their frames; larger ones are passed by reference.
pub const COPIED_BODY_BYTES: usize = 4 << 10;

/// One chunk of memory that small deliveries of a consumer share. Many deliveries to an allocation, and
/// little memory held when one of them is.
pub const ARENA_CHUNK_BYTES: usize = 16 << 10;

/// The first chunk of a consumer, and what a consumer keeps whose reader finds nothing.
pub const ARENA_FIRST_BYTES: usize = 2 << 10;

/// Chunks of a connection that wait for their messages to go, and are then used again.
pub const ARENA_CHUNKS_MAX: usize = 32;

/// Inputs in a row without need of another chunk, after which a waiting one is forgotten.
pub const ARENA_IDLE_INPUTS_MAX: u8 = 8;

/// A buffer for reading bodies that stay in it: room for two of 64 KiB, or for one frame of a default
/// connection, with what lies around them.
pub const READ_BUFFER_BYTES: usize = 136 << 10;

/// What a large body may lack of half its buffer, and still be taken from it without copying. So it is
/// for a body of 64 KiB, which does not fill half of a buffer for two.
pub const READ_BUFFER_SLACK_BYTES: usize = READ_BUFFER_BYTES - 2 * READ_MAX_BYTES;

/// Input that is copied for small deliveries at one go: enough that the copy is cheap for each, little
/// enough to be no waste where other frames lie between them.
pub const ARENA_RUN_BYTES: usize = 2 << 10;

/// Bytes of large bodies cut into frames for one write.
pub const DEAL_BYTES: usize = 256 << 10;

/// Staging buffers kept for contents to come: as many channels as are likely to interleave.
pub const STAGING_BUFFERS_MAX: usize = 4;

/// Capacity beyond which a staging buffer is not kept.
pub const STAGING_BUFFER_BYTES: usize = 16 << 10;

/// The largest read: half the frame size of a default connection, so that its frames fit two reads.
pub const READ_MAX_BYTES: usize = 64 << 10;

/// Memory of the deliveries that a consumer's handle takes under one lock, and one delivery.
pub const PULLED_BYTES: usize = 1 << 20;

/// Deliveries for whose queue a consumer keeps memory when its reader finds nothing. What reads of the
/// largest size bring at once.
pub const IDLE_UNREAD_MAX: usize = 8 << 10;

/// Capacity that an idle buffer keeps.
pub const IDLE_BUFFER_BYTES: usize = 4 << 10;

/// How often there may be no output, and little in between, before its buffers count as idle: giving
/// their memory back and taking it again costs a busy connection more than its writes do.
pub const IDLE_POLLS_MAX: u8 = 8;

/// Returned messages of unconfirmed publishes kept per channel; beyond, the oldest go.
pub const RETURNED_MESSAGES: usize = 256;

/// Bytes of returned messages kept per channel, the newest message whatever its size; beyond, the
/// oldest go.
pub const RETURNED_BYTES: usize = 1 << 20;

/// Bytes of returned messages of a channel whose acks have not come; beyond, a message loses its
/// properties and its body. RabbitMQ sends the ack soon after the message, with few others between.
pub const RETURNED_UNCLAIMED_BYTES: usize = 8 << 20;

/// Text of the peer that is kept in errors.
pub const PEER_TEXT_BYTES: usize = 1024;
