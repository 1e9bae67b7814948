//! Limits of the threads, each with its unit in the name and the reason for its value. Also re-exports those
//! of the connections.

#[doc(inline)]
pub use amqp_async::limits::*;

/// The maximum number of closures that wait in a dispatcher's inbox. Further ones are refused. It is above
/// the maximum prefetch, so that there is one for each unacknowledged delivery of a consumer.
pub const SUBMITTED_MAX: usize = 1 << 16;

/// The maximum number of callbacks that a dispatcher runs before it returns to its caller.
pub const DISPATCHED_MAX: usize = 1_000;

/// The maximum number of threads of the process that look up names and run dial functions. A resolver or a
/// function that hangs blocks its thread.
pub const CONNECT_THREADS_MAX: usize = 8;
