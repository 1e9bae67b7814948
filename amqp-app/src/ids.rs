//! Message ids that no other process has.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Returns an id: a random number of this process, and a counter.
pub(crate) fn unique() -> String {
    static PROCESS: LazyLock<[u64; 2]> =
        LazyLock::new(|| [0_u8, 1].map(|half| RandomState::new().hash_one(half)));
    static COUNTER: AtomicU64 = AtomicU64::new(1);
    let [high, low] = *PROCESS;
    format!("{high:016x}{low:016x}.{}", COUNTER.fetch_add(1, Ordering::Relaxed))
}
