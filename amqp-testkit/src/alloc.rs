//! A counting allocator, for tests of memory limits.
//!
//! ```
//! use amqp_testkit::alloc::{Counting, counting, live_bytes};
//! #[global_allocator]
//! static ALLOCATOR: &Counting = counting();
//!
//! let before = live_bytes(ALLOCATOR);
//! let kept = vec![0_u8; 1000];
//! assert_eq!(live_bytes(ALLOCATOR) - before, 1000);
//! # drop(kept);
//! ```

use std::alloc::System;

pub use stats_alloc::{Region, Stats};

/// The system's allocator with counters.
pub type Counting = stats_alloc::StatsAlloc<System>;

/// Returns the only instance, to be the global allocator of a test binary.
pub const fn counting() -> &'static Counting {
    &stats_alloc::INSTRUMENTED_SYSTEM
}

/// Returns the number of bytes that are allocated and not freed.
pub fn live_bytes(allocator: &Counting) -> isize {
    let stats = allocator.stats();
    // A reallocation counts its growth as allocated, and its shrinking as freed.
    stats.bytes_allocated as isize - stats.bytes_deallocated as isize
}
