//! The limits and default times of applications.

use std::time::Duration;

/// How long a message that is given back waits before its `basic.nack`, so that a handler that cannot work now is not
/// called in a loop.
pub const GIVE_BACK_PAUSE: Duration = Duration::from_secs(1);
