//! A recorder that keeps every value of every metric.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

#[derive(Default)]
struct Kept {
    /// By name and attributes: the values after each change, and for histograms the samples.
    values: BTreeMap<String, Vec<f64>>,
    units: BTreeMap<String, Option<Unit>>,
}

/// The metrics of the process, for one test at a time.
pub(crate) struct Recorded(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Recorded {
    /// Waits for other tests, and begins without values.
    pub(crate) fn begin() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        *kept() = Kept::default();
        Self(guard)
    }

    /// The values of a metric, by its name and its attributes in the order of their names.
    pub(crate) fn values(&self, name: &str, attributes: &[(&str, &str)]) -> Vec<f64> {
        let labels = attributes.iter().map(|(name, value)| format!("{name}={value}"));
        kept().values.get(&series(name, labels)).cloned().unwrap_or_default()
    }

    pub(crate) fn last(&self, name: &str, attributes: &[(&str, &str)]) -> f64 {
        self.values(name, attributes).last().copied().unwrap_or_default()
    }

    /// Everything that was recorded: name and attributes.
    pub(crate) fn series(&self) -> Vec<String> {
        kept().values.keys().cloned().collect()
    }

    pub(crate) fn unit(&self, name: &str) -> Option<Unit> {
        kept().units.get(name).copied().flatten()
    }
}

fn series(name: &str, labels: impl Iterator<Item = String>) -> String {
    let mut labels: Vec<_> = labels.collect();
    labels.sort();
    format!("{name} {}", labels.join(" "))
}

fn kept() -> MutexGuard<'static, Kept> {
    static KEPT: OnceLock<Mutex<Kept>> = OnceLock::new();
    let kept = KEPT.get_or_init(|| {
        metrics::set_global_recorder(Keeping).unwrap();
        Mutex::default()
    });
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Keeping;

impl Recorder for Keeping {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        kept().units.insert(name.as_str().to_owned(), unit);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        kept().units.insert(name.as_str().to_owned(), unit);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        kept().units.insert(name.as_str().to_owned(), unit);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Series::of(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Series::of(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Series::of(key))
    }
}

struct Series(String);

/// The recorder panics at a metric of a queue with this name.
pub(crate) const PANICKING: &str = "panicking";

impl Series {
    fn of(key: &Key) -> Arc<Self> {
        assert!(key.labels().all(|label| label.value() != PANICKING), "of the recorder");
        let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value()));
        Arc::new(Self(series(key.name(), labels)))
    }

    fn push(&self, next: impl FnOnce(f64) -> f64) {
        let mut kept = kept();
        let values = kept.values.entry(self.0.clone()).or_default();
        let last = values.last().copied().unwrap_or_default();
        values.push(next(last));
    }
}

impl CounterFn for Series {
    fn increment(&self, count: u64) {
        self.push(|last| last + count as f64);
    }

    fn absolute(&self, count: u64) {
        self.push(|_| count as f64);
    }
}

impl GaugeFn for Series {
    fn increment(&self, value: f64) {
        self.push(|last| last + value);
    }

    fn decrement(&self, value: f64) {
        self.push(|last| last - value);
    }

    fn set(&self, value: f64) {
        self.push(|_| value);
    }
}

impl HistogramFn for Series {
    fn record(&self, value: f64) {
        self.push(|_| value);
    }
}
