//! The life of an application: start, wait, shut down.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use amqp_async::CloseCause;

use super::App;
use super::engine::{Engine, NOW, STOPPING};
use super::health::{Health, HealthReport, Watch};
use super::hooks::{Hooks, Stage};
use super::report::{Counters, Report};
use super::sender::Sender;
use super::setup;
use super::shutdown::Shutdown;
use super::source::Source;
use crate::connections::Lease;
use crate::error::Error;
#[cfg(all(feature = "config", feature = "http"))]
use crate::http::HealthServer;
use crate::limits::ABANDONED_WAIT;
use crate::measure;
#[cfg(feature = "config")]
use crate::middleware;
use crate::platform::Platform;
use crate::runner::{BoxFuture, join_all};
use crate::sync::{Either, Level, race};
use crate::trace;

impl<P: Platform, S: Clone + Send + Sync + 'static> App<P, S> {
    pub(crate) async fn run_to_the_end(mut self, mut shutdown: Shutdown) -> Result<Report, Error> {
        let stop = shutdown.stop.clone();
        // The end of this future, for any reason, ends the tasks too.
        let guard = Guard(stop.clone(), self.health.clone());
        self.apply_config(&mut shutdown)?;
        self.check()?;
        #[cfg(all(feature = "config", feature = "http"))]
        let _probes = self.serve_probes()?;
        if let Some(error) = shutdown.error.take() {
            return Err(Error::Signals(error));
        }
        measure::describe();
        let runner = self.runner.clone();
        if let Some(mut when) = shutdown.when.take() {
            let stop = stop.clone();
            runner.spawn(async move {
                race(&mut when, &mut stop.reached(STOPPING)).await;
                stop.raise(STOPPING);
            });
        }
        let leases = {
            let mut leasing = pin!(async {
                Ok::<_, Error>([self.connections.lease().await?, self.connections.lease().await?])
            });
            race(&mut leasing, &mut stop.reached(STOPPING)).await
        };
        let [consuming, publishing]: [Lease; 2] = match leases {
            Either::First(leases) => leases?,
            Either::Second(()) => return Ok(Counters::default().report(shutdown.signal())),
        };
        let sender = Sender::new(runner.clone(), publishing.connection.clone());
        let engine = Arc::new(Engine::new(runner, consuming.connection.clone(), sender, stop));
        let health = self.health.clone();
        let borrows = !consuming.owned && !publishing.owned;
        let app = Running { engine: Arc::clone(&engine), sources: Vec::new(), health, borrows };
        let result = app.run(self, shutdown).await;
        for Lease { connection, owned } in [publishing, consuming] {
            if owned {
                connection.close().await;
            }
        }
        // The close has ended commits that were under way, and participants see to that.
        if engine.commits_late() {
            let last = engine.runner.now().checked_add(ABANDONED_WAIT);
            engine.runner.until(last, engine.idle()).await;
        }
        drop(guard);
        result.map(|report| engine.counters.report(report.signal))
    }

    /// Changes what a configuration changes.
    #[cfg(feature = "config")]
    fn apply_config(&mut self, shutdown: &mut Shutdown) -> Result<(), Error> {
        let Some(config) = &self.config else { return Ok(()) };
        config.change(&mut self.sources)?;
        shutdown.within = Some(shutdown.within_or(config.within()));
        let settings = config.settings().clone();
        self.around.push(Box::new(move |inner| {
            let settings = settings.clone();
            middleware::before(inner, move |context| context.insert(settings.clone()))
        }));
        Ok(())
    }

    #[cfg(not(feature = "config"))]
    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "as with the feature")]
    const fn apply_config(&mut self, _: &mut Shutdown) -> Result<(), Error> {
        Ok(())
    }

    /// Answers probes, if a configuration says so, until the returned value is dropped.
    #[cfg(all(feature = "config", feature = "http"))]
    fn serve_probes(&self) -> Result<Option<Probes>, Error> {
        let Some(address) = self.config.as_ref().and_then(|it| it.health_address()) else {
            return Ok(None);
        };
        let served = self.health.serve(address);
        served.map(|it| Some(Probes(it))).map_err(|error| Error::Health { address, error })
    }

    fn check(&self) -> Result<(), Error> {
        let mut queues = HashSet::new();
        for (consume, route) in &self.sources {
            if consume.queues.is_empty() {
                return Err(Error::Invalid("a group of queues is empty".into()));
            }
            if consume.transactional && consume.key.is_some() {
                let text = "a transactional source cannot keep the order of keys: its workers have channels of their own";
                return Err(Error::Invalid(text.into()));
            }
            if consume.channels() > 1 && consume.exclusive {
                let text = "an exclusive consumer is one, and a transactional source has one for each worker";
                return Err(Error::Invalid(text.into()));
            }
            if consume.batching.is_some() && !route.takes_batches() {
                let text = "the handler of a source with batches takes its messages as a Batch, and no other argument of it \
                            reads a message";
                return Err(Error::Invalid(text.into()));
            }
            if consume.batching.is_some() && consume.deduplication.is_some() {
                let text = "a source with batches cannot deduplicate: a batch has one outcome, and each message has its own mark";
                return Err(Error::Invalid(text.into()));
            }
            if consume.in_work_max() > usize::from(u16::MAX) {
                let text = "a source has more than 65,535 messages in work: the size of its batches, times its concurrency";
                return Err(Error::Invalid(text.into()));
            }
            for queue in consume.names() {
                if queue.is_empty() {
                    let text = "a queue needs a name, so that its retry queues have one";
                    return Err(Error::Invalid(text.into()));
                }
                if !queues.insert(queue) {
                    let text = format!("two handlers consume from queue {queue:?}");
                    return Err(Error::Invalid(text));
                }
            }
        }
        Ok(())
    }
}

struct Guard(Level, Health);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.raise(NOW);
        self.1.end();
    }
}

/// A server for probes, which ends with the application.
#[cfg(all(feature = "config", feature = "http"))]
struct Probes(HealthServer);

#[cfg(all(feature = "config", feature = "http"))]
impl Drop for Probes {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct Running<S> {
    engine: Arc<Engine>,
    sources: Vec<Arc<Source<S>>>,
    health: Health,
    /// Whether its connections belong to a pool, which may close them.
    borrows: bool,
}

impl<S: Clone + Send + Sync + 'static> Running<S> {
    async fn run<P>(mut self, mut app: App<P, S>, shutdown: Shutdown) -> Result<Report, Error> {
        // One for this function, so that an application without sources is not idle before its shutdown.
        self.engine.add_tasks(1);
        let mut hooks = std::mem::take(&mut app.hooks);
        let (stop, systemd) = (self.engine.stop.clone(), app.systemd);
        let started = {
            let mut starting = pin!(self.start(app, &mut hooks));
            race(&mut starting, &mut stop.reached(STOPPING)).await
        };
        let started = match started {
            Either::First(started) => started,
            // It never was ready, so there is nothing for its hooks to end.
            Either::Second(()) => {
                hooks = Hooks::default();
                Ok(())
            }
        };
        match started {
            Ok(()) => {
                systemd.ready(&self.engine);
                self.wait().await;
            }
            Err(_) => hooks = Hooks::default(),
        }
        trace::stopping();
        systemd.stopping();
        self.engine.stop.raise(STOPPING);
        self.measure();
        let last: [BoxFuture<'_, ()>; 2] =
            [Box::pin(self.stop(hooks)), Box::pin(self.finish(shutdown.within_or(None)))];
        join_all(last.into_iter()).await;
        started?;
        let report = self.engine.counters.report(shutdown.signal());
        self.engine.take_error().map_or(Ok(report), Err)
    }

    async fn start<P>(&mut self, app: App<P, S>, hooks: &mut Hooks) -> Result<(), Error> {
        let connection = self.engine.sender.connection().clone();
        hooks.run(Stage::Initialise, &connection).await?;
        let channel = self.engine.sender.connection().open_channel().await?;
        #[cfg(feature = "config")]
        if let Some(config) = &app.config {
            setup::declare_topology(&channel, config.topology()).await?;
        }
        for (consume, _) in &app.sources {
            setup::declare_beside(&channel, consume).await?;
        }
        channel.close().await?;
        for (consume, handler) in app.sources {
            let route = app.around.iter().fold(handler, |inner, around| around(inner));
            for source in Source::all(&consume, &route, &app.state, &self.engine) {
                let source = Arc::new(source);
                source.start().await?;
                self.sources.push(source);
            }
        }
        let watched = self.sources.iter().map(|it| Arc::clone(it) as Arc<dyn Watch>);
        app.health.begin(&self.engine, watched.collect());
        self.measure();
        app.started.raise(1);
        hooks.run(Stage::Started, &connection).await
    }

    /// Runs the hooks of a shutdown, beside the last messages in work, and as long as these may take.
    async fn stop(&self, mut hooks: Hooks) {
        let connection = self.engine.sender.connection();
        let ran = {
            let mut running = pin!(hooks.run(Stage::Stopping, connection));
            race(&mut running, &mut self.engine.stop.reached(NOW)).await
        };
        if let Either::First(Err(error)) = ran {
            self.engine.fail(error);
        }
        self.engine.task_ended();
    }

    /// Waits until the shutdown begins, or a connection has ended and is not recovered.
    async fn wait(&self) {
        let engine = &self.engine;
        let (mut consuming, mut publishing) =
            (engine.consuming.closed(), engine.sender.connection().closed());
        let mut ended = pin!(async {
            match race(&mut consuming, &mut publishing).await {
                Either::First(cause) | Either::Second(cause) => cause,
            }
        });
        let mut stop = engine.stop.reached(STOPPING);
        let mut end = pin!(race(&mut stop, &mut ended));
        let mut measuring = pin!(measure::sampled(&engine.runner, || self.measure()));
        let Either::First(end) = race(&mut end, &mut measuring).await else { return };
        let end: Either<(), CloseCause> = end;
        match end {
            Either::First(()) => {}
            // A pool that closes drains its connections before, which is a shutdown: a source sees it late if its workers are busy.
            Either::Second(CloseCause::ByClient | CloseCause::ByClientForced) if self.borrows => {}
            Either::Second(cause) => engine.fail(Error::ConnectionEnded(cause)),
        }
    }

    /// Takes the metric `amqp_app.ready` of all sources.
    fn measure(&self) {
        let report = LazyCell::new(|| self.health.report().filter(HealthReport::is_working));
        for lane in self.sources.iter().flat_map(|source| &*source.lanes) {
            lane.measures.ready(|| report.as_ref().is_some_and(|it| it.is_ready(&lane.queue)));
        }
    }

    /// Waits for the messages in work, as long as they may take.
    async fn finish(&self, within: Duration) {
        let engine = &self.engine;
        let deadline = engine.runner.now().checked_add(within);
        {
            let mut idle = pin!(engine.runner.until(deadline, engine.idle()));
            race(&mut idle, &mut engine.stop.reached(NOW)).await;
        }
        engine.stop.raise(NOW);
        self.sources.iter().for_each(|source| source.abandon());
        // Tasks end at once now. A thread whose handler does not return cannot be waited for.
        let last = engine.runner.now().checked_add(ABANDONED_WAIT);
        engine.runner.until(last, engine.idle()).await;
    }
}
