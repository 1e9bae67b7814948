//! Names that no other process has, for messages and for files.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "files")]
use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the id of a message: a random number of this process, and a counter.
pub(crate) fn unique() -> String {
    let ([high, low], count) = next();
    format!("{high:016x}{low:016x}.{count}")
}

/// Returns a part of a file's name: these microseconds, half of that number, and the counter. It has no dot, which would begin
/// an extension.
#[cfg(feature = "files")]
pub(crate) fn unique_at(micros: u128) -> String {
    let ([high, _], count) = next();
    format!("{micros}-{high:016x}-{count}")
}

/// Returns a part of a file's name at this time.
#[cfg(feature = "files")]
pub(crate) fn unique_now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    unique_at(since.as_micros())
}

fn next() -> ([u64; 2], u64) {
    static PROCESS: LazyLock<[u64; 2]> =
        LazyLock::new(|| [0_u8, 1].map(|half| RandomState::new().hash_one(half)));
    static COUNTER: AtomicU64 = AtomicU64::new(1);
    (*PROCESS, COUNTER.fetch_add(1, Ordering::Relaxed))
}
