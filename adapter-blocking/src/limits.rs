//! Limits of the threads, and those of the connections: the number, its unit in the name, and why.

#[doc(inline)]
pub use amqp_async::limits::*;

/// Closures that wait in a blocking dispatcher's inbox; further ones are refused. More than the largest
/// prefetch, so that each unacknowledged delivery of a consumer may have one.
pub const SUBMITTED_MAX: usize = 1 << 16;

/// Callbacks that a blocking dispatcher runs before it returns to its caller, however many more there are.
pub const DISPATCHED_MAX: usize = 1_000;

/// Threads of the process that look up names and run dial functions for blocking connections. A resolver or a
/// function that hangs keeps its thread for as long.
pub const CONNECT_THREADS_MAX: usize = 8;
