//! Limits of the handles and the driver, each with its unit in the name and the reason for its value. Also
//! re-exports those of the core.

use std::time::Duration;

#[doc(inline)]
pub use amqp_core::limits::*;

/// The size of the first read. It doubles while reads fill their buffer.
pub const READ_MIN_BYTES: usize = 4 << 10;

/// The maximum number of used read buffers that are kept for reuse once their bodies are dropped.
pub const READ_BUFFERS_MAX: usize = 4;

/// The maximum number of slices in one vectored write.
pub const WRITE_SLICES_MAX: usize = 64;

/// The maximum number of rounds of reading and writing in one poll of a driver, before other tasks run. The
/// data of four large reads is still in the processor's cache when the consumers handle it.
pub const DRIVER_ROUNDS_MAX: usize = 4;

/// The number of publishes without waiting after which a task yields once to the other tasks of its thread.
pub const TURN_PUBLISHES_MAX: u32 = 1_024;

/// The number of buffered deliveries after which a task yields once. It is lower than for publishes, because
/// the application handles each delivery.
pub const TURN_DELIVERIES_MAX: u32 = 128;

/// The number of bytes of deliveries above which a handle reports immediately that it has read all of them.
/// Smaller amounts are reported when it asks for more.
pub const PULLED_REPORTED_BYTES: usize = 4 << 10;

/// How long a connection that has ended may take to write its last bytes, or to read what is left if writing
/// has failed.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of events that wait for one listener. Beyond it, the oldest are dropped, and their
/// number is reported.
pub const EVENTS_MAX: usize = 256;
