//! `Health`: whether an application is live, and whether it is ready.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::engine::Engine;
use crate::sync::lock;

/// Whether an application is live, and whether it is ready, for the probes of an orchestrator: see
/// [`App::health`](crate::App::health). Clones are handles to the same application.
///
/// Nothing here asks the broker: a broker that is down makes no process restart.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    engine: Option<Arc<Engine>>,
    sources: Vec<Arc<dyn Watch>>,
    has_ended: bool,
    #[cfg(feature = "http")]
    metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
}

/// A source, without the type of the state.
pub(crate) trait Watch: Send + Sync {
    /// The state of each of its queues.
    fn health(&self) -> Vec<SourceHealth>;
}

/// The state of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthReport {
    /// Whether both connections are open. They are not while they are being recovered.
    pub connected: bool,
    /// The broker's reason while it blocks what the application publishes.
    pub blocked: Option<String>,
    /// Whether a shutdown has begun.
    pub stopping: bool,
    /// The sources: the state of each queue.
    pub sources: Vec<SourceHealth>,
}

/// The state of a source: of its queue, or of one of the queues of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceHealth {
    /// The queue.
    pub queue: String,
    /// Whether its consumer is started. It is not after the broker has cancelled it, until it is started again.
    pub consuming: bool,
    /// Messages that are being handled.
    pub in_work: usize,
    /// Handlers that run on although their timeout has expired: they block, and cannot be interrupted.
    pub overdue: usize,
    /// The number of times in a row that a copy could not be parked, or put into a queue for retries, or that a confirm did not
    /// come within 30 s.
    pub unstored: u32,
    /// Why the consumer has ended, or could not be started again, while it is not started.
    pub last_error: Option<String>,
}

impl Health {
    /// Returns whether the application has not ended. `true` before its start.
    pub fn is_live(&self) -> bool {
        !lock(&self.0).has_ended
    }

    /// Returns whether the application does its work: it is connected, all consumers are started, the broker does not block
    /// it, no handler is overdue, copies of failed messages can be stored, and no shutdown has begun.
    pub fn is_ready(&self) -> bool {
        let Some(report) = self.report() else { return false };
        report.is_working() && report.sources.iter().all(SourceHealth::is_ready)
    }

    /// Returns the state of the application. `None` before its start and after its end.
    pub fn report(&self) -> Option<HealthReport> {
        let watched = lock(&self.0);
        let engine = watched.engine.as_ref()?;
        let publishing = engine.sender.connection();
        let mut sources: Vec<SourceHealth> = Vec::new();
        for health in watched.sources.iter().flat_map(|source| source.health()) {
            match sources.iter_mut().find(|present| present.queue == health.queue) {
                Some(present) => present.add(health),
                None => sources.push(health),
            }
        }
        Some(HealthReport {
            connected: engine.consuming.is_open() && publishing.is_open(),
            blocked: publishing.blocked().map(|reason| reason.to_string()),
            stopping: engine.is_stopping(),
            sources,
        })
    }

    pub(crate) fn begin(&self, engine: &Arc<Engine>, sources: Vec<Arc<dyn Watch>>) {
        let mut watched = lock(&self.0);
        watched.engine = Some(Arc::clone(engine));
        watched.sources = sources;
    }

    pub(crate) fn end(&self) {
        let mut watched = lock(&self.0);
        watched.has_ended = true;
        watched.engine = None;
        watched.sources.clear();
    }

    /// Sets the function whose text the path `/metrics` returns, such as one of the exporter that the program has installed.
    /// It is called for each request, on a thread of the server.
    #[cfg(feature = "http")]
    pub fn set_metrics(&self, render: impl Fn() -> String + Send + Sync + 'static) {
        lock(&self.0).metrics = Some(Arc::new(render));
    }

    #[cfg(feature = "http")]
    pub(crate) fn metrics(&self) -> Option<Arc<dyn Fn() -> String + Send + Sync>> {
        lock(&self.0).metrics.clone()
    }
}

impl HealthReport {
    /// Whether the application as a whole does its work.
    pub(crate) const fn is_working(&self) -> bool {
        self.connected && self.blocked.is_none() && !self.stopping
    }

    /// Whether the source of a queue does its work.
    pub(crate) fn is_ready(&self, queue: &str) -> bool {
        self.sources.iter().any(|it| it.queue == queue && it.is_ready())
    }
}

impl SourceHealth {
    /// Adds the state of another channel of the same queue.
    fn add(&mut self, other: Self) {
        self.consuming &= other.consuming;
        self.in_work += other.in_work;
        self.overdue += other.overdue;
        self.unstored = self.unstored.max(other.unstored);
        self.last_error = self.last_error.take().or(other.last_error);
    }

    pub(crate) const fn is_ready(&self) -> bool {
        self.consuming && self.overdue == 0 && self.unstored < 3
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}
