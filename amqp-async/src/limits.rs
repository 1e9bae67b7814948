//! Limits of the handles and the driver, and those of the core: the number, its unit in the name, and why.

use std::time::Duration;

#[doc(inline)]
pub use amqp_core::limits::*;

/// The first read; it doubles while reads fill their buffer.
pub const READ_MIN_BYTES: usize = 4 << 10;

/// Buffers for reading that wait for their bodies to go, and are then used again.
pub const READ_BUFFERS_MAX: usize = 4;

/// Slices in one vectored write.
pub const WRITE_SLICES_MAX: usize = 64;

/// Rounds of reading and writing in one poll of a driver, before other tasks get their turn: what four
/// large reads bring is still in the processor's cache when its consumers look at it.
pub const DRIVER_ROUNDS_MAX: usize = 4;

/// Publishes that find buffer space after which a task yields once to the others of its thread.
pub const TURN_PUBLISHES_MAX: u32 = 1_024;

/// Buffered deliveries after which a task yields once: fewer than publishes, for each is handled.
pub const TURN_DELIVERIES_MAX: u32 = 128;

/// Memory of deliveries above which their reader reports at once that all are read. Fewer are reported
/// when it asks for more.
pub const PULLED_REPORTED_BYTES: usize = 4 << 10;

/// How long the last bytes of a connection that has ended may take to be written, or to be read where
/// writing has failed.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Events of a connection that wait for one listener; beyond, the oldest are dropped, and their number
/// is reported.
pub const EVENTS_MAX: usize = 256;
