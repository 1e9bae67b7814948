//! The workloads: what each does, against whom, and how much of it makes a run of about a second.

use crate::clients::recovery::Restored;

/// A workload, as every client runs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) task: Task,
    pub(crate) against: Against,
    /// How often, by [`Pace`].
    counts: [u64; 3],
    /// The fewest of a quick run.
    least: u64,
}

/// What is done `count` times, where the count is given apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Publishes, spread over so many channels, with so many unconfirmed at most if they are confirmed
    /// at all.
    Publish { size: usize, window: Option<usize>, channels: u16 },
    /// Publishes, each confirmed before the next: a latency.
    PublishAndWait,
    /// As before, while deliveries without acknowledgement flood the same connection.
    PublishInFlood,
    /// Consumes, with an acknowledgement of each if there is a prefetch; a consumer that pauses sleeps
    /// 1 ms per 1,000 messages.
    Consume { size: usize, prefetch: Option<u16>, pauses: bool },
    /// Consumes requests, publishes a reply to each, and acknowledges it when the reply is confirmed, or committed with the
    /// acknowledgement. The replies reach no queue.
    Answer,
    /// `basic.qos`, one after another: a latency.
    RoundTrip,
    /// A connection and a channel, one after another: a latency.
    Connect,
    /// Connections that do nothing, then ten times as many channels of one connection.
    Idle,
    /// Loses the connection, and restores this: the time from the accepted connection on.
    Recover(Restored),
}

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// This crate's sink and source.
    Own,
    /// The same, over TLS.
    OwnTls,
    /// RabbitMQ, with an empty transient classic queue.
    RabbitMqQueue,
    /// RabbitMQ, without the queue that the routing key names.
    RabbitMqNoQueue,
    /// RabbitMQ, with as many messages in the queue as are consumed.
    RabbitMqFilled,
    /// RabbitMQ, with what the client declares.
    RabbitMqOwn,
}

/// How many messages a second a client is about good for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    Millions = 0,
    Thousands = 1,
    Tens = 2,
}

/// The queue, and the routing key, of every workload.
pub(crate) const QUEUE: &str = "bench";
/// What messages a source has without end, for the workloads that are not about deliveries.
pub(crate) const ENDLESS: u64 = u64::MAX;
/// A consumer that pauses does so after as many messages.
pub(crate) const PAUSE_EVERY: u64 = 1_000;
/// And for so long.
pub(crate) const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);
/// Channels of an idle connection, for each connection before.
pub(crate) const CHANNELS_PER_CONNECTION: u64 = 10;
/// The size of a small message, and of all whose size is not the point.
pub(crate) const SMALL: usize = 16;

const fn publish(size: usize) -> Task {
    Task::Publish { size, window: None, channels: 1 }
}

const fn consume(size: usize) -> Task {
    Task::Consume { size, prefetch: None, pauses: false }
}

const RECOVERY: Task = Task::Recover(Restored { queues: 1_000, channels: 100 });
const CONFIRMED: Task = Task::Publish { size: SMALL, window: Some(1_000), channels: 1 };
const ACKED: Task = Task::Consume { size: SMALL, prefetch: Some(1_000), pauses: false };

macro_rules! workloads {
    ($($name:literal $title:literal $task:expr, $against:ident, $counts:expr, $least:literal;)*) => {
        &[$(Workload {
            name: $name,
            title: $title,
            task: $task,
            against: Against::$against,
            counts: $counts,
            least: $least,
        }),*]
    };
}

/// All of them, in the order in which they are run and shown. Beside a flood each confirm comes behind
/// megabytes of deliveries in the sockets' buffers, which is why there are few.
pub(crate) static WORKLOADS: &[Workload] = workloads! {
    "w1" "publish 16 B" publish(SMALL), Own, [5_000_000, 150_000, 20_000], 2_000;
    "w1-1k" "publish 1 KiB" publish(1 << 10), Own, [1_000_000, 150_000, 20_000], 2_000;
    "w1-64k" "publish 64 KiB" publish(64 << 10), Own, [40_000, 20_000, 10_000], 1_000;
    "w1-10m" "publish 10 MiB" publish(10 << 20), Own, [200, 100, 100], 20;
    "w2" "publish with confirms, 1,000 open" CONFIRMED, Own, [4_000_000, 150_000, 20_000], 2_000;
    "w3" "publish and wait" Task::PublishAndWait, Own, [10_000; 3], 1_000;
    "w4" "consume 16 B, no ack" consume(SMALL), Own, [8_000_000, 300_000, 200_000], 20_000;
    "w4-1k" "consume 1 KiB, no ack" consume(1 << 10), Own, [2_000_000, 200_000, 200_000], 20_000;
    "w4-64k" "consume 64 KiB, no ack" consume(64 << 10), Own, [40_000, 20_000, 20_000], 1_000;
    "w5" "consume 16 B, prefetch 1,000, ack each" ACKED, Own, [4_000_000, 150_000, 15_000], 2_000;
    "w6" "publish 16 B, 16 tasks on 16 channels" Task::Publish { size: SMALL, window: None, channels: 16 },
        Own, [5_000_000, 160_000, 80_000], 8_000;
    "w6b" "publish and wait beside a flood of deliveries" Task::PublishInFlood, Own, [100, 60, 20], 5;
    "w7" "basic.qos round trip" Task::RoundTrip, Own, [10_000; 3], 1_000;
    "w8" "connect and open a channel" Task::Connect, Own, [500, 500, 200], 50;
    "w9" "idle memory, resident" Task::Idle, Own, [200; 3], 50;
    "t11" "1 M x 16 B into a consumer that pauses"
        Task::Consume { size: SMALL, prefetch: None, pauses: true }, Own, [1_000_000; 3], 100_000;
    "t11-64k" "20 k x 64 KiB into a consumer that pauses"
        Task::Consume { size: 64 << 10, prefetch: None, pauses: true }, Own, [20_000; 3], 2_000;
    "w1-tls" "publish 16 B over TLS" publish(SMALL), OwnTls, [5_000_000, 150_000, 20_000], 2_000;
    "w1-64k-tls" "publish 64 KiB over TLS" publish(64 << 10), OwnTls, [20_000, 10_000, 5_000], 1_000;
    "w2-tls" "publish with confirms over TLS, 1,000 open" CONFIRMED, OwnTls, [4_000_000, 150_000, 20_000], 2_000;
    "w4-tls" "consume 16 B over TLS, no ack" consume(SMALL), OwnTls, [8_000_000, 300_000, 200_000], 20_000;
    "w5-tls" "consume 16 B over TLS, prefetch 1,000, ack each" ACKED, OwnTls, [4_000_000, 150_000, 15_000], 2_000;
    "w2r" "RabbitMQ, publish with confirms, routed" CONFIRMED, RabbitMqQueue, [200_000, 200_000, 40_000], 4_000;
    "w2u" "RabbitMQ, publish with confirms, unroutable" CONFIRMED, RabbitMqNoQueue,
        [300_000, 300_000, 40_000], 4_000;
    "w3r" "RabbitMQ, publish and wait" Task::PublishAndWait, RabbitMqQueue, [5_000; 3], 500;
    "w5r" "RabbitMQ, consume, prefetch 1,000, ack each" ACKED, RabbitMqFilled, [200_000, 200_000, 20_000], 4_000;
    "w11" "RabbitMQ, answer requests" Task::Answer, RabbitMqFilled, [40_000, 20_000, 20_000], 2_000;
    "w10" "RabbitMQ, recover 1,000 queues, 1,000 bindings, 100 channels, 100 consumers" RECOVERY, RabbitMqOwn, [5; 3], 2;
};

/// The workload of that name.
pub(crate) fn named(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}

impl Workload {
    /// How often it is done by a client of such a pace.
    pub(crate) fn count(&self, pace: Pace, quick: bool) -> u64 {
        let count = self.counts[pace as usize];
        if quick { (count / 20).max(self.least) } else { count }
    }

    /// Those of this build.
    pub(crate) fn built() -> impl Iterator<Item = &'static Self> {
        WORKLOADS.iter().filter(|workload| workload.is_built())
    }

    pub(crate) const fn is_built(&self) -> bool {
        cfg!(feature = "tls") || !self.is_over_tls()
    }

    pub(crate) const fn is_over_tls(&self) -> bool {
        matches!(self.against, Against::OwnTls)
    }

    pub(crate) const fn needs_rabbitmq(&self) -> bool {
        !matches!(self.against, Against::Own | Against::OwnTls)
    }
}

impl Task {
    /// Whether each one is timed.
    #[cfg(test)]
    pub(crate) const fn is_latency(self) -> bool {
        matches!(
            self,
            Self::PublishAndWait
                | Self::PublishInFlood
                | Self::RoundTrip
                | Self::Connect
                | Self::Recover(_)
        )
    }

    pub(crate) const fn is_recovery(self) -> bool {
        matches!(self, Self::Recover(_))
    }

    /// Bytes of each message's body.
    pub(crate) const fn body_size(self) -> usize {
        match self {
            Self::Publish { size, .. } | Self::Consume { size, .. } => size,
            _ => SMALL,
        }
    }

    /// How many messages are published if it is done `count` times.
    pub(crate) const fn published(self, count: u64) -> u64 {
        match self {
            Self::Publish { .. } | Self::PublishAndWait | Self::PublishInFlood | Self::Answer => {
                count
            }
            _ => 0,
        }
    }

    /// How many deliveries are acknowledged if it is done `count` times.
    pub(crate) const fn acked(self, count: u64) -> u64 {
        match self {
            Self::Consume { prefetch: Some(_), .. } | Self::Answer => count,
            _ => 0,
        }
    }

    /// How many messages its source has for each consumer.
    pub(crate) const fn deliveries(self, count: u64) -> u64 {
        match self {
            Self::Consume { .. } | Self::Answer => count,
            _ => ENDLESS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pace, Task, WORKLOADS, named};

    #[test]
    fn names_are_unique_and_counts_divide_among_channels() {
        for workload in WORKLOADS {
            let again = WORKLOADS.iter().filter(|other| other.name == workload.name).count();
            assert_eq!(again, 1, "{}", workload.name);
            assert!(std::ptr::eq(named(workload.name).unwrap_or(&WORKLOADS[0]), workload));
            let Task::Publish { channels, .. } = workload.task else { continue };
            for pace in [Pace::Millions, Pace::Thousands, Pace::Tens] {
                for quick in [false, true] {
                    assert_eq!(workload.count(pace, quick) % u64::from(channels), 0);
                }
            }
        }
    }
}
