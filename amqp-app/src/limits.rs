//! The limits and default times of applications.

use std::time::Duration;

/// How long a message that is given back waits before its `basic.nack`, so that a handler that cannot work now is not
/// called in a loop.
pub const GIVE_BACK_PAUSE: Duration = Duration::from_secs(1);
/// How long a pool that closes waits for confirms, as long as most applications have until they are killed.
pub const POOL_DRAIN: Duration = Duration::from_secs(10);
/// How long a pool waits after an attempt that failed before it opens a connection in the same place, so that a broker that
/// is down is not asked in a loop.
pub const REOPEN_PAUSE: Duration = Duration::from_secs(1);
