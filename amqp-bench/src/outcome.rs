//! What came of one run: the figures of a child process, one line of JSON.

use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The figures of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) client: String,
    pub(crate) workload: String,
    pub(crate) count: u64,
    /// From the end of the set-up to the end of the last message.
    pub(crate) seconds: f64,
    /// User and system time of the client's process over the same span.
    pub(crate) cpu_seconds: f64,
    /// The process's peak resident memory.
    pub(crate) peak_kib: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p50_us: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p99_us: Option<f64>,
    /// Growth of resident memory for each idle connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connection_kib: Option<f64>,
    /// Growth of resident memory for each idle channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) channel_kib: Option<f64>,
}

impl Outcome {
    /// Messages, calls or connections a second.
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.seconds
    }

    pub(crate) fn cpu_us_per_message(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.count as f64
    }
}

/// What a client measured of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    elapsed: Duration,
    cpu: Duration,
    latencies: Vec<Duration>,
    idle: Option<(f64, f64)>,
}

impl Measured {
    #[must_use]
    pub(crate) fn with_latencies(mut self, latencies: Vec<Duration>) -> Self {
        self.latencies = latencies;
        self
    }

    /// Adds KiB per connection and per channel.
    #[must_use]
    pub(crate) const fn with_idle(mut self, connection_kib: f64, channel_kib: f64) -> Self {
        self.idle = Some((connection_kib, channel_kib));
        self
    }

    /// The outcome of this process, of which this was the only run.
    pub(crate) fn outcome(
        mut self,
        client: &str,
        workload: &str,
        count: u64,
    ) -> io::Result<Outcome> {
        self.latencies.sort_unstable();
        let percentile = |of| percentile(&self.latencies, of).map(|it| it.as_secs_f64() * 1e6);
        Ok(Outcome {
            client: client.to_owned(),
            workload: workload.to_owned(),
            count,
            seconds: self.elapsed.as_secs_f64(),
            cpu_seconds: self.cpu.as_secs_f64(),
            peak_kib: memory_kib("VmHWM:")?,
            p50_us: percentile(50),
            p99_us: percentile(99),
            connection_kib: self.idle.map(|idle| idle.0),
            channel_kib: self.idle.map(|idle| idle.1),
        })
    }
}

/// Wall clock and the process's CPU clock, from the end of the set-up on.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    begun: Instant,
    cpu: Duration,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        let cpu = cpu_time();
        Self { begun: Instant::now(), cpu }
    }

    pub(crate) fn stop(&self) -> Measured {
        let elapsed = self.begun.elapsed();
        Measured { elapsed, cpu: cpu_time() - self.cpu, ..Measured::default() }
    }
}

/// Resident memory of this process at the moment.
pub(crate) fn resident_kib() -> io::Result<u64> {
    memory_kib("VmRSS:")
}

/// The middle one of sorted or unsorted figures; of an even number, the upper of the two.
pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// The smallest of sorted figures that so many per cent do not exceed.
fn percentile(sorted: &[Duration], of: usize) -> Option<Duration> {
    let rank = (sorted.len() * of).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn memory_kib(field: &str) -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let figure = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    figure.ok_or_else(|| io::Error::other(format!("/proc/self/status has no {field}")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Outcome, Stopwatch, median, percentile};

    #[test]
    fn the_median_is_in_the_middle_of_unsorted_figures() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 5.0, 7.0]), Some(7.0));
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<_> = (1..=200).map(Duration::from_nanos).collect();
        assert_eq!(percentile(&sorted, 50), Some(Duration::from_nanos(100)));
        assert_eq!(percentile(&sorted, 99), Some(Duration::from_nanos(198)));
        assert_eq!(percentile(&sorted[..1], 99), Some(Duration::from_nanos(1)));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn an_outcome_survives_its_line_of_json() -> Result<(), Box<dyn std::error::Error>> {
        let watch = Stopwatch::start();
        let latencies = vec![Duration::from_micros(3), Duration::from_micros(1)];
        let outcome = watch.stop().with_latencies(latencies).outcome("c", "w", 2)?;
        assert_eq!((outcome.p50_us, outcome.p99_us), (Some(1.0), Some(3.0)));
        assert!(outcome.peak_kib > 0);
        let line = serde_json::to_string(&outcome)?;
        assert!(!line.contains('\n') && !line.contains("channel_kib"));
        assert_eq!(serde_json::from_str::<Outcome>(&line)?, outcome);
        Ok(())
    }
}
