//! `Shutdown`: when an application ends, and how much time its messages in work have.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use super::engine::{NOW, STOPPING};
use crate::limits::SHUTDOWN_TIMEOUT;
use crate::sync::Level;

/// When an application ends, and how much time its messages in work have then.
///
/// A graceful shutdown goes like this. The consumers are cancelled, and messages that no worker has begun go back into their
/// queues. Messages in work have [`within`](Self::within) to be finished. Then their handlers are dropped, and they go back
/// into their queues too. At last everything that was sent is confirmed, and the connections are closed.
///
/// ```
/// use amqp_app::Shutdown;
/// use std::time::Duration;
///
/// let (stopper, shutdown) = Shutdown::manual();
/// let shutdown = shutdown.within(Duration::from_secs(30));
/// // From any task or thread:
/// stopper.stop();
/// # drop(shutdown);
/// ```
#[must_use = "an application runs until its shutdown"]
pub struct Shutdown {
    pub(crate) stop: Level,
    pub(crate) when: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    pub(crate) within: Option<Duration>,
    pub(crate) signal: Arc<AtomicI32>,
    /// Why signals are not reported.
    pub(crate) error: Option<std::io::Error>,
}

impl Shutdown {
    /// Creates a shutdown that begins when [`Stopper::stop`] is called.
    pub fn manual() -> (Stopper, Self) {
        let shutdown = Self::new(Level::default(), None);
        (Stopper(shutdown.stop.clone()), shutdown)
    }

    /// Creates a shutdown that begins when this future resolves, such as one for the signals of your runtime.
    pub fn when(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::new(Level::default(), Some(Box::pin(future)))
    }

    /// Creates a shutdown that never begins: the application ends only with an error.
    pub fn never() -> Self {
        Self::new(Level::default(), None)
    }

    /// Sets how much time messages in work have, 10 s by default. On threads a handler cannot be interrupted: its message goes
    /// back into its queue, its result is ignored, and its thread ends with the process.
    pub const fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    fn new(stop: Level, when: Option<Pin<Box<dyn Future<Output = ()> + Send>>>) -> Self {
        Self { stop, when, within: None, signal: Arc::default(), error: None }
    }

    /// How much time messages in work have, unless `within` has set it.
    pub(crate) fn within_or(&self, otherwise: Option<Duration>) -> Duration {
        self.within.or(otherwise).unwrap_or(SHUTDOWN_TIMEOUT)
    }

    pub(crate) fn signal(&self) -> Option<i32> {
        Some(self.signal.load(Ordering::Acquire)).filter(|signal| *signal != 0)
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("within", &self.within).finish_non_exhaustive()
    }
}

/// Ends an application, from any task or thread: see [`Shutdown::manual`].
#[derive(Clone, Debug)]
pub struct Stopper(Level);

impl Stopper {
    /// Begins a graceful shutdown.
    pub fn stop(&self) {
        self.0.raise(STOPPING);
    }

    /// Ends the time of messages in work at once. They go back into their queues.
    pub fn stop_now(&self) {
        self.0.raise(NOW);
    }
}
