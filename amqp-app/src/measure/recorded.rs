//! The metrics, with the feature `metrics`.
//!
//! Each value goes to the recorder that is installed at that moment, by a key that is made once for each source. Handles of
//! metrics are not kept: a recorder that is installed later would get nothing, and an exporter that forgets metrics after a
//! while without a change would lose what their old handles count.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use metrics::{Key, Label, Level, Metadata, Recorder, SharedString, Unit, with_recorder};

use crate::app::report::Counters;
use crate::app::sender::Unsent;
use crate::limits::READY_SAMPLED;
use crate::outcome::Outcome;
use crate::runner::Runner;

const PROCESS_DURATION: &str = "messaging.process.duration";
const OPERATION_DURATION: &str = "messaging.client.operation.duration";
const CONSUMED: &str = "messaging.client.consumed.messages";
const SENT: &str = "messaging.client.sent.messages";
const IN_FLIGHT: &str = "amqp_app.in_flight";
const WAITING: &str = "amqp_app.waiting_by_key";
const READY: &str = "amqp_app.ready";

const DESTINATION: &str = "messaging.destination.name";
const OPERATION_NAME: &str = "messaging.operation.name";
const OPERATION_TYPE: &str = "messaging.operation.type";
const ERROR_TYPE: &str = "error.type";

const SYSTEM: Label = Label::from_static_parts("messaging.system", "rabbitmq");

/// What a call of a handler, or a publish, is called that was dropped before it ended.
const ABANDONED: &str = "abandoned";

const METADATA: Metadata<'static> =
    Metadata::new("amqp_app", Level::INFO, Some("amqp_app::measure"));

/// Describes all metrics to the recorder.
pub(crate) fn describe() {
    let histograms = [
        (PROCESS_DURATION, "Duration of calls of handlers"),
        (OPERATION_DURATION, "Duration of publishes, until they are confirmed"),
    ];
    let counters = [
        (CONSUMED, "Messages that were delivered to the application"),
        (SENT, "Messages that the application has sent"),
    ];
    let gauges = [
        (IN_FLIGHT, "Messages that are being handled"),
        (WAITING, "Messages that wait for another one with the same key"),
        (READY, "1 while messages of the queue are handled, otherwise 0"),
    ];
    recording(|recorder| {
        for (name, text) in histograms {
            recorder.describe_histogram(name.into(), Some(Unit::Seconds), text.into());
        }
        for (name, text) in counters.iter().chain(Counters::METRICS) {
            recorder.describe_counter((*name).into(), Some(Unit::Count), (*text).into());
        }
        for (name, text) in gauges {
            recorder.describe_gauge(name.into(), Some(Unit::Count), text.into());
        }
    });
}

/// Uses the recorder. A panic in it must cost no worker; the panic hook reports it.
fn recording(record: impl FnOnce(&dyn Recorder)) {
    drop(catch_unwind(AssertUnwindSafe(|| with_recorder(record))));
}

fn increment(key: &Key, count: u64) {
    recording(|recorder| recorder.register_counter(key, &METADATA).increment(count));
}

fn set(key: &Key, value: f64) {
    recording(|recorder| recorder.register_gauge(key, &METADATA).set(value));
}

fn add(key: &Key, value: f64) {
    recording(|recorder| recorder.register_gauge(key, &METADATA).increment(value));
}

fn record(key: &Key, seconds: f64) {
    recording(|recorder| recorder.register_histogram(key, &METADATA).record(seconds));
}

/// A key with what all metrics have: the queue or the exchange, and the operation if there is one.
fn key(
    name: &'static str,
    destination: impl Into<SharedString>,
    operation: &[(&'static str, &'static str)],
) -> Key {
    let mut labels = vec![SYSTEM, Label::new(DESTINATION, destination)];
    labels.extend(operation.iter().map(|(name, value)| Label::from_static_parts(name, value)));
    Key::from_parts(name, labels)
}

fn failed(key: &Key, error: &'static str) -> Key {
    key.with_extra_labels(vec![Label::from_static_parts(ERROR_TYPE, error)])
}

/// The metrics of a source.
pub(crate) struct Measures {
    process: Arc<Key>,
    in_flight: Arc<Key>,
    consumed: Key,
    ready: Key,
    /// One for each counter of a report.
    counters: Vec<Key>,
}

impl Measures {
    pub(crate) fn of(queue: &Arc<str>) -> Self {
        let process = [(OPERATION_NAME, "process"), (OPERATION_TYPE, "process")];
        let of_queue = |name, operation| key(name, Arc::clone(queue), operation);
        let counters = Counters::METRICS.iter().map(|(name, _)| of_queue(name, &[]));
        Self {
            process: Arc::new(of_queue(PROCESS_DURATION, &process)),
            in_flight: Arc::new(of_queue(IN_FLIGHT, &[])),
            consumed: of_queue(CONSUMED, &[(OPERATION_NAME, "consume")]),
            ready: of_queue(READY, &[]),
            counters: counters.collect(),
        }
    }

    /// A worker has taken a message, which is in flight until the result is dropped.
    pub(crate) fn taken(&self) -> InFlight {
        increment(&self.consumed, 1);
        add(&self.in_flight, 1.0);
        InFlight(Arc::clone(&self.in_flight))
    }

    /// A handler is called.
    pub(crate) fn call(&self, runner: &Runner) -> Call {
        let (key, runner) = (Arc::clone(&self.process), runner.clone());
        Call { key, begun: runner.now(), runner, end: Some(ABANDONED) }
    }

    /// Counts what the counter of a report with this number counts.
    pub(crate) fn count(&self, counter: usize, count: u64) {
        increment(&self.counters[counter], count);
    }

    pub(crate) fn ready(&self, is_ready: impl FnOnce() -> bool) {
        set(&self.ready, f64::from(u8::from(is_ready())));
    }
}

/// An application whose future is dropped ends without a shutdown.
impl Drop for Measures {
    fn drop(&mut self) {
        self.ready(|| false);
    }
}

/// A message in work. A task that is dropped has none any more.
pub(crate) struct InFlight(Arc<Key>);

impl Drop for InFlight {
    fn drop(&mut self) {
        add(&self.0, -1.0);
    }
}

/// A call of a handler. It is recorded when this is dropped: the call may be dropped at the end of a shutdown.
pub(crate) struct Call {
    key: Arc<Key>,
    begun: Instant,
    runner: Runner,
    /// The attribute `error.type`.
    end: Option<&'static str>,
}

impl Call {
    pub(crate) fn end(mut self, outcome: &Outcome) {
        self.end = outcome.as_result().err().map(|failure| failure.cause().as_str());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let seconds = self.runner.now().saturating_duration_since(self.begun).as_secs_f64();
        match self.end {
            Some(error) => record(&failed(&self.key, error), seconds),
            None => record(&self.key, seconds),
        }
    }
}

/// The number of messages of a source that wait for their key.
pub(crate) struct Waiting(Option<Key>);

impl Waiting {
    /// Of one queue, or of a group by the names of its queues.
    pub(crate) fn of(queues: &Arc<str>) -> Self {
        Self(Some(key(WAITING, Arc::clone(queues), &[])))
    }

    #[cfg(test)]
    pub(crate) const fn unmeasured() -> Self {
        Self(None)
    }

    pub(crate) fn change(&self, before: usize, after: usize) {
        if let Some(key) = self.0.as_ref().filter(|_| before != after) {
            add(key, after as f64 - before as f64);
        }
    }
}

/// Messages that are being published together.
pub(crate) struct Sending<'a> {
    runner: &'a Runner,
    begun: Instant,
    /// Those whose result is not known.
    left: &'a [amqp_async::Message],
}

impl<'a> Sending<'a> {
    pub(crate) fn begin(runner: &'a Runner, messages: &'a [amqp_async::Message]) -> Self {
        Self { runner, begun: runner.now(), left: messages }
    }

    /// The next message has a result.
    pub(crate) fn done(&mut self, result: &Result<(), Unsent>) {
        self.end(result.as_ref().err().map(Unsent::as_str));
    }

    fn end(&mut self, error: Option<&'static str>) {
        let Some((message, left)) = self.left.split_first() else { return };
        self.left = left;
        // Without the routing key: the number of keys has no limit, and each would be a series of its own.
        let exchange = match message.exchange.as_str() {
            "" => SharedString::const_str("amq.default"),
            exchange => SharedString::from_owned(exchange.to_owned()),
        };
        let operation = [(OPERATION_NAME, "publish"), (OPERATION_TYPE, "send")];
        let with_error = |key: Key| match error {
            Some(error) => failed(&key, error),
            None => key,
        };
        increment(&with_error(key(SENT, exchange.clone(), &operation[..1])), 1);
        let seconds = self.runner.now().saturating_duration_since(self.begun).as_secs_f64();
        record(&with_error(key(OPERATION_DURATION, exchange, &operation)), seconds);
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        while !self.left.is_empty() {
            self.end(Some(ABANDONED));
        }
    }
}

/// Takes a sample again and again.
pub(crate) async fn sampled(runner: &Runner, mut sample: impl FnMut()) {
    loop {
        runner.sleep(READY_SAMPLED).await;
        sample();
    }
}
