//! What the load shares with the tests.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Longer than any recovery takes, also of a node that is started again.
const PATIENCE: Duration = Duration::from_secs(120);

/// A name that nothing else uses.
pub(crate) fn unique(name: &str) -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

pub(crate) async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Ends the process with a panic if `future` takes longer than anything should.
pub(crate) async fn within<F: IntoFuture>(what: &str, future: F) -> F::Output {
    let output = tokio::time::timeout(PATIENCE, future).await;
    output.unwrap_or_else(|_| panic!("{what}: nothing within {PATIENCE:?}"))
}
