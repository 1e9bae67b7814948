//! The clients that are measured.

pub(crate) mod app;
pub(crate) mod blocking;
pub(crate) mod bound;
pub(crate) mod ours;
pub(crate) mod recovery;

#[cfg(feature = "peers")]
pub(crate) mod amqprs;
#[cfg(feature = "peers")]
pub(crate) mod lapin;

use std::future::Future;
use std::time::{Duration, Instant};

use amqp_async::Runtime;
use amqp_async_std::runtime::AsyncStd;
use amqp_smol::runtime::Smol;
use amqp_tokio::runtime::Tokio;
use tokio::sync::oneshot;

use crate::outcome::{Failure, Measured, Stopwatch};
use crate::workload::{CHANNELS_PER_CONNECTION, Pace, Task, Workload};

/// A client under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// One blocking thread with hand-laid bytes: a mark, not a client.
    Bound,
    /// The same thread, which makes one call at a time, as the Java client does when it recovers.
    OneByOne,
    TokioMt,
    TokioCt,
    Smol,
    AsyncStd,
    Blocking,
    /// `amqp-app` on tokio's current-thread runtime, with one worker.
    App1,
    /// The same with 16 workers.
    App16,
    /// One worker that commits each message in a transaction.
    AppTx1,
    /// The same with 16 workers.
    AppTx16,
    /// One worker that handles 100 messages at once.
    AppBatch,
    /// The same, which commits them in a transaction.
    AppTxBatch,
    /// lapin as in its examples.
    Lapin,
    /// lapin with 256 futures in flight.
    LapinP256,
    AmqprsMt,
    AmqprsCt,
    /// librabbitmq.
    RabbitmqC,
}

/// What the runtime of a Rust client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    MultiThread,
    CurrentThread,
}

const NAMES: [(Client, &str); 18] = [
    (Client::TokioMt, "tokio-mt"),
    (Client::TokioCt, "tokio-ct"),
    (Client::Smol, "smol"),
    (Client::AsyncStd, "async-std"),
    (Client::Blocking, "blocking"),
    (Client::App1, "app-1"),
    (Client::App16, "app-16"),
    (Client::AppTx1, "app-tx-1"),
    (Client::AppTx16, "app-tx-16"),
    (Client::AppBatch, "app-batch"),
    (Client::AppTxBatch, "app-tx-batch"),
    (Client::Bound, "bound"),
    (Client::OneByOne, "one-by-one"),
    (Client::Lapin, "lapin"),
    (Client::LapinP256, "lapin-p256"),
    (Client::AmqprsMt, "amqprs-mt"),
    (Client::AmqprsCt, "amqprs-ct"),
    (Client::RabbitmqC, "rabbitmq-c"),
];

impl Client {
    /// The clients of this build, in the order in which they are run and shown.
    pub(crate) fn built() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|it| it.0).filter(|client| cfg!(feature = "peers") || !client.is_peer())
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|it| it.1 == name).map(|it| it.0)
    }

    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|it| it.0 == self).map_or("", |it| it.1)
    }

    pub(crate) const fn is_ours(self) -> bool {
        matches!(self, Self::TokioMt | Self::TokioCt | Self::Smol | Self::AsyncStd | Self::Blocking)
    }

    /// Whether the others are compared with it.
    pub(crate) const fn is_compared(self) -> bool {
        matches!(self, Self::TokioMt | Self::TokioCt)
    }

    /// Whether somebody else wrote it.
    pub(crate) const fn is_peer(self) -> bool {
        !self.is_ours() && !self.is_app() && !matches!(self, Self::Bound | Self::OneByOne)
    }

    /// The rules of an application, which only consumes with acknowledgements, and answers.
    const fn app(self) -> Option<app::Rules> {
        let (workers, transactional, batches) = match self {
            Self::App1 => (1, false, false),
            Self::App16 => (16, false, false),
            Self::AppTx1 => (1, true, false),
            Self::AppTx16 => (16, true, false),
            Self::AppBatch => (1, false, true),
            Self::AppTxBatch => (1, true, true),
            _ => return None,
        };
        Some(app::Rules { workers, transactional, batches })
    }

    const fn is_app(self) -> bool {
        self.app().is_some()
    }

    /// Whether it is shown with this task.
    pub(crate) const fn is_shown(self, task: Task) -> bool {
        match self {
            Self::OneByOne => task.is_recovery(),
            Self::App1 | Self::App16 => {
                matches!(task, Task::Consume { prefetch: Some(_), .. } | Task::Answer)
            }
            _ => self.is_app() == matches!(task, Task::Answer),
        }
    }

    /// Why it cannot do this, if it cannot.
    pub(crate) const fn refuses(self, workload: &Workload) -> Option<&'static str> {
        match (self, workload.task) {
            (Self::AmqprsMt | Self::AmqprsCt | Self::RabbitmqC, _) if workload.is_over_tls() => {
                Some("built without TLS")
            }
            (Self::Bound | Self::RabbitmqC, Task::Publish { channels: 2.., .. }) => {
                Some("one thread")
            }
            (Self::Bound | Self::RabbitmqC, Task::PublishInFlood) => Some("one thread"),
            (Self::Bound, Task::Idle) => Some("keeps nothing"),
            (Self::OneByOne, task) if !task.is_recovery() => Some("recovers only"),
            (it, task) if it.is_app() && !it.is_shown(task) => Some("acknowledges only"),
            (it, Task::Answer) if !it.is_app() => Some("no application"),
            (Self::AmqprsMt | Self::AmqprsCt | Self::RabbitmqC, Task::Recover(_)) => {
                Some("does not recover")
            }
            // It would be the same again.
            (Self::LapinP256, Task::Recover(_)) => Some("as lapin"),
            _ => None,
        }
    }

    pub(crate) const fn pace(self, task: Task) -> Pace {
        match (self, task) {
            (it, _) if it.is_ours() || it.is_app() || matches!(it, Self::Bound) => Pace::Millions,
            (Self::RabbitmqC, Task::Consume { prefetch: None, .. }) => Pace::Millions,
            (Self::Lapin, _) => Pace::Tens,
            _ => Pace::Thousands,
        }
    }

    /// Does the workload's task, in this process.
    pub(crate) fn run(
        self,
        uri: &str,
        workload: &Workload,
        count: u64,
    ) -> Result<Measured, Failure> {
        if let Some(reason) = self.refuses(workload) {
            return Err(reason.into());
        }
        let task = workload.task;
        if let Some(rules) = self.app() {
            return Flavour::CurrentThread.block_on(app::run(uri.to_owned(), task, count, rules));
        }
        match self {
            Self::Bound => bound::run(uri, task, count),
            Self::OneByOne => bound::run_one_by_one(uri, task, count),
            Self::TokioMt => {
                Flavour::MultiThread.block_on(ours::run::<Tokio>(uri.to_owned(), task, count))
            }
            Self::TokioCt => {
                Flavour::CurrentThread.block_on(ours::run::<Tokio>(uri.to_owned(), task, count))
            }
            Self::Smol => {
                let work = smol::spawn(ours::run::<Smol>(uri.to_owned(), task, count));
                smol::block_on(work)
            }
            Self::AsyncStd => {
                let work =
                    async_std::task::spawn(ours::run::<AsyncStd>(uri.to_owned(), task, count));
                async_std::task::block_on(work)
            }
            Self::Blocking => blocking::run(uri, task, count),
            #[cfg(feature = "peers")]
            Self::Lapin => {
                Flavour::MultiThread.block_on(lapin::run(uri.to_owned(), task, count, 1))
            }
            #[cfg(feature = "peers")]
            Self::LapinP256 => {
                Flavour::MultiThread.block_on(lapin::run(uri.to_owned(), task, count, 256))
            }
            #[cfg(feature = "peers")]
            Self::AmqprsMt => {
                Flavour::MultiThread.block_on(amqprs::run(uri.to_owned(), task, count))
            }
            #[cfg(feature = "peers")]
            Self::AmqprsCt => {
                Flavour::CurrentThread.block_on(amqprs::run(uri.to_owned(), task, count))
            }
            _ => Err("it is not part of this program; see the feature `peers`".into()),
        }
    }
}

impl Flavour {
    /// Runs the work as a task, as most of an application is: on several threads, what is not one runs
    /// on a thread of its own, away from all others.
    pub(crate) fn block_on<T: Send + 'static>(
        self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let mut builder = match self {
            Self::MultiThread => tokio::runtime::Builder::new_multi_thread(),
            Self::CurrentThread => tokio::runtime::Builder::new_current_thread(),
        };
        let runtime = builder.enable_all().build()?;
        runtime.block_on(runtime.spawn(work))?
    }
}

/// An error if the peer counted something else.
pub(crate) fn check(what: &str, counted: u64, count: u64) -> Result<(), Failure> {
    if counted == count {
        Ok(())
    } else {
        Err(format!("{what}: {counted} instead of {count}").into())
    }
}

/// The time of each of many things, one behind the other.
#[derive(Debug)]
pub(crate) struct Laps {
    watch: Stopwatch,
    latencies: Vec<Duration>,
    begun: Instant,
}

impl Laps {
    pub(crate) fn start(count: u64) -> Self {
        let latencies = Vec::with_capacity(count as usize);
        Self { watch: Stopwatch::start(), latencies, begun: Instant::now() }
    }

    /// One is done, and the next begins.
    pub(crate) fn lap(&mut self) {
        let now = Instant::now();
        self.latencies.push(now - std::mem::replace(&mut self.begun, now));
    }

    pub(crate) fn stop(self) -> Measured {
        self.watch.stop().with_latencies(self.latencies)
    }
}

/// Does the work on one channel, or on several at once, each in a task of its own.
pub(crate) async fn on_each<R, C, F>(
    mut channels: Vec<C>,
    work: impl Fn(C) -> F,
) -> Result<Measured, Failure>
where
    R: Runtime + Default,
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let watch = Stopwatch::start();
    if channels.len() == 1
        && let Some(channel) = channels.pop()
    {
        work(channel).await?;
    }
    let tasks: Vec<_> = channels.into_iter().map(|channel| spawn::<R, _>(work(channel))).collect();
    for task in tasks {
        task.await??;
    }
    Ok(watch.stop())
}

/// Runs it in a task of its own, whose outcome can be awaited.
pub(crate) fn spawn<R: Runtime + Default, T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> oneshot::Receiver<T> {
    let (done, outcome) = oneshot::channel();
    R::default().spawn(async move {
        // Nobody may want to know.
        let _ = done.send(work.await);
    });
    outcome
}

/// What so many idle connections, and then their share of channels, added to the resident memory.
pub(crate) fn idle_growth(watch: &Stopwatch, connections: u64, kib: [u64; 3]) -> Measured {
    let [before, connected, opened] = kib;
    let each = |from: u64, to: u64, count: u64| to.saturating_sub(from) as f64 / count as f64;
    let per_channel = each(connected, opened, connections * CHANNELS_PER_CONNECTION);
    watch.stop().with_idle(each(before, connected, connections), per_channel)
}
