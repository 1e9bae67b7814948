//! The recovery policy: which losses of a connection are recovered, how often it is tried, and what is restored.

use std::time::Duration;

use crate::error::{CloseCause, InvalidArgument, InvalidReason};
use crate::limits;

/// What happens when an open connection is lost: whether it reconnects, and what it restores.
///
/// Each constructor names the losses that are recovered. A connection that the application closes is not recovered.
/// Nor is one that never opened: connecting returns its error.
///
/// ```
/// use amqp_core::{Backoff, Config, Recovery};
/// use std::time::Duration;
///
/// let backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(60));
/// let recovery = Recovery::automatic().backoff(backoff).attempts(100);
/// let config = Config::default().recovery(recovery);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    pub(crate) mode: RecoveryMode,
    pub(crate) backoff: Backoff,
    /// The maximum number of failed passes over the hosts, if there is one.
    pub(crate) attempts: Option<u32>,
    /// Whether to try again when a broker has refused the login or the virtual host.
    pub(crate) retry_refused: bool,
    /// Whether a consumer that the broker has cancelled subscribes again.
    pub(crate) resubscribe: bool,
    /// How many bytes of unconfirmed publishes each channel keeps to send them again; 0 for none.
    pub(crate) republish_bytes: usize,
    /// Whether exchanges, queues and bindings are declared again.
    pub(crate) topology: bool,
    /// What the names of exchanges begin with that are not declared again.
    skipped_exchanges: Vec<String>,
    /// What the names of queues begin with that are not declared again.
    skipped_queues: Vec<String>,
}

impl Recovery {
    /// Recovers every loss, including a close by the broker.
    pub const fn automatic() -> Self {
        Self::new(RecoveryMode::Automatic)
    }

    /// Recovers nothing: the connection ends when it is lost.
    pub const fn never() -> Self {
        Self::new(RecoveryMode::Never)
    }

    /// Recovers every loss except a close by the broker (`connection.close`), which ends the connection. An operator who
    /// closes the connection stops the application in this way.
    pub const fn unless_closed_by_broker() -> Self {
        Self::new(RecoveryMode::UnlessClosedByBroker)
    }

    pub(crate) const fn new(mode: RecoveryMode) -> Self {
        Self {
            mode,
            backoff: Backoff::DEFAULT,
            attempts: None,
            retry_refused: false,
            resubscribe: false,
            republish_bytes: 0,
            topology: true,
            skipped_exchanges: Vec::new(),
            skipped_queues: Vec::new(),
        }
    }

    /// Sets the delays between attempts. By default they double from 500 ms to 30 s, with a jitter of 0.5.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the number of failed attempts after which the connection ends: 1 to 4,294,967,295. An attempt tries all hosts
    /// once. The count starts again when the connection is recovered. By default there is no limit.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts.max(1));
        self
    }

    /// Sets whether to try again when a broker refuses the login (403) or the virtual host (530). By default the
    /// connection ends: more attempts with the same password may lock the user out.
    #[must_use]
    pub const fn retry_refused(mut self, retry: bool) -> Self {
        self.retry_refused = retry;
        self
    }

    /// Sets whether a consumer that the broker cancels subscribes again. By default it ends with
    /// [`Error::ConsumerCancelled`](crate::Error::ConsumerCancelled).
    #[must_use]
    pub const fn resubscribe(mut self, resubscribe: bool) -> Self {
        self.resubscribe = resubscribe;
        self
    }

    /// Sends publishes again that were not confirmed when the connection was lost, before new ones and in their order.
    /// Their confirms stay open meanwhile. It applies to channels that are put in confirm mode afterwards.
    ///
    /// The broker may have taken some of them before the loss, so consumers may see them twice: at least once instead
    /// of an unknown outcome. Each channel keeps copies of up to 16 MiB of publishes. More of them wait for confirms, as
    /// they do for buffer space.
    #[must_use]
    pub const fn republish(self, republish: bool) -> Self {
        self.republish_bytes(if republish { limits::OUTBOX_BYTES } else { 0 })
    }

    /// Sets how many bytes of publishes each channel keeps to send them [again](Self::republish), plus one publish. 0
    /// keeps none.
    #[must_use]
    pub const fn republish_bytes(mut self, bytes: usize) -> Self {
        self.republish_bytes = bytes;
        self
    }

    /// Declares no exchange, queue or binding again. Channels and consumers are still restored.
    #[must_use]
    pub const fn without_topology(mut self) -> Self {
        self.topology = false;
        self
    }

    /// Skips the exchanges whose names begin with `prefix`: neither they nor their bindings are declared again. It
    /// may be called repeatedly.
    #[must_use]
    pub fn skip_exchanges_with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.skipped_exchanges.push(prefix.into());
        self
    }

    /// Skips the queues whose names begin with `prefix`: neither they nor their bindings are declared again. Their
    /// consumers are still restored. It may be called repeatedly.
    #[must_use]
    pub fn skip_queues_with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.skipped_queues.push(prefix.into());
        self
    }

    /// Whether any loss is recovered.
    pub(crate) const fn is_on(&self) -> bool {
        !matches!(self.mode, RecoveryMode::Never)
    }

    /// Whether a refused login or virtual host is tried again.
    pub(crate) const fn retries_refused(&self) -> bool {
        self.retry_refused
    }

    /// Whether a connection that was open and has ended for this reason is recovered.
    pub(crate) const fn recovers_from(&self, cause: &CloseCause) -> bool {
        match cause {
            CloseCause::ByBroker(_) => matches!(self.mode, RecoveryMode::Automatic),
            CloseCause::BlockedTimeout { .. }
            | CloseCause::HeartbeatTimeout { .. }
            | CloseCause::Protocol(_)
            | CloseCause::Transport(_)
            | CloseCause::WriteTimeout { .. } => !matches!(self.mode, RecoveryMode::Never),
            CloseCause::Aborted
            | CloseCause::ByClient
            | CloseCause::ByClientForced
            | CloseCause::Connect(_)
            | CloseCause::DriverGone
            | CloseCause::Panicked => false,
        }
    }

    pub(crate) fn skips_exchange(&self, name: &str) -> bool {
        self.skipped_exchanges.iter().any(|prefix| name.starts_with(prefix))
    }

    pub(crate) fn skips_queue(&self, name: &str) -> bool {
        self.skipped_queues.iter().any(|prefix| name.starts_with(prefix))
    }

    /// Returns an error if a delay or the jitter is out of range.
    pub(crate) fn check(&self) -> Result<(), InvalidArgument> {
        let Backoff { first, max, jitter } = self.backoff;
        let argument = match () {
            () if first < limits::RECOVERY_DELAY_MIN => "recovery_delay",
            () if max < first => "recovery_max_delay",
            () if !(0.0..=1.0).contains(&jitter) => "recovery_jitter",
            () => return Ok(()),
        };
        Err(InvalidArgument::new(argument, InvalidReason::OutOfRange))
    }
}

/// The losses that are recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryMode {
    /// Every loss: [`Recovery::automatic`].
    Automatic,
    /// None: [`Recovery::never`].
    Never,
    /// Every loss except a close by the broker: [`Recovery::unless_closed_by_broker`].
    UnlessClosedByBroker,
}

/// The delays before attempts to recover a connection.
///
/// A delay is 1 ms to 365 days. Connecting returns an error if a delay is shorter, or if the first one exceeds the
/// maximum. Longer ones are set to 365 days.
///
/// ```
/// use amqp_core::Backoff;
/// use std::time::Duration;
///
/// // 5 s, 10 s, 20 s, 20 s, ... without jitter.
/// let doubling = Backoff::exponential(Duration::from_secs(5), Duration::from_secs(20)).jitter(0.0);
/// // 4 s to 6 s before each attempt.
/// let fixed = Backoff::fixed(Duration::from_secs(5)).jitter(0.2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub(crate) first: Duration,
    pub(crate) max: Duration,
    pub(crate) jitter: f64,
}

impl Backoff {
    const DEFAULT: Self = Self {
        first: limits::RECOVERY_FIRST_DELAY,
        max: limits::RECOVERY_LONGEST_DELAY,
        jitter: limits::RECOVERY_JITTER_FRACTION,
    };

    /// Waits for the same time before each attempt.
    pub fn fixed(delay: Duration) -> Self {
        Self::exponential(delay, delay)
    }

    /// Waits for `first` before the first attempt, and for twice the last delay before each further one, up to `max`.
    pub fn exponential(first: Duration, max: Duration) -> Self {
        let (first, max) = (first.min(limits::TIMEOUT_MAX), max.min(limits::TIMEOUT_MAX));
        Self { first, max, ..Self::DEFAULT }
    }

    /// Sets the jitter, a fraction from 0 to 1: a random part of each delay, up to this fraction more or less. The
    /// default is 0.5: a delay of 10 s becomes 5 s to 15 s. Clients that lose their broker together do not return to it
    /// at once.
    #[must_use]
    pub const fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = fraction;
        self
    }

    /// Doubles from the first delay to the maximum. One that is not set has its default, or the value of the other if
    /// that is beyond the default.
    pub(crate) fn between(first: Option<Duration>, max: Option<Duration>) -> Self {
        let default = Self::DEFAULT;
        let longest = max.unwrap_or_else(|| first.map_or(default.max, |it| it.max(default.max)));
        Self::exponential(first.unwrap_or_else(|| default.first.min(longest)), longest)
    }
}

impl Default for Backoff {
    /// 500 ms, doubling to 30 s, with a jitter of 0.5.
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, Recovery};
    use crate::connection::validate;
    use crate::error::{BrokerError, CloseCause, InvalidArgument, InvalidReason, TransportError};
    use crate::{Config, limits};
    use amqp_proto::ShortStr;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_close_by_the_broker_may_end_the_connection() {
        let refused = BrokerError::new(320, ShortStr::default(), 0, 0);
        let (closed, silence) = (CloseCause::ByBroker(refused), SECOND);
        let lost = [
            CloseCause::Transport(TransportError::end_of_file()),
            CloseCause::HeartbeatTimeout { silence },
            CloseCause::WriteTimeout { stalled: silence },
            CloseCause::BlockedTimeout { reason: "".into(), timeout: silence },
        ];
        let ended = [
            CloseCause::Aborted,
            CloseCause::ByClient,
            CloseCause::ByClientForced,
            CloseCause::DriverGone,
            CloseCause::Panicked,
        ];
        for (policy, after_loss, after_close) in [
            (Recovery::automatic(), true, true),
            (Recovery::unless_closed_by_broker(), true, false),
            (Recovery::never(), false, false),
        ] {
            assert_eq!(policy.recovers_from(&closed), after_close, "{policy:?}");
            for cause in &lost {
                assert_eq!(policy.recovers_from(cause), after_loss, "{policy:?} {cause}");
            }
            assert!(!ended.iter().any(|cause| policy.recovers_from(cause)), "{policy:?}");
        }
    }

    #[test]
    fn prefixes_skip_names() {
        let none = Recovery::automatic();
        assert!(!none.skips_exchange("a") && !none.skips_queue(""));
        let some = none.skip_exchanges_with_prefix("tmp.").skip_exchanges_with_prefix("x");
        let some = some.skip_queues_with_prefix("amq.gen-");
        assert!(some.skips_exchange("tmp.1") && some.skips_exchange("x"));
        assert!(!some.skips_exchange("tmp") && !some.skips_exchange("amq.gen-1"));
        assert!(some.skips_queue("amq.gen-1") && !some.skips_queue("tmp.1"));
    }

    #[test]
    fn invalid_delays_are_refused_when_connecting() {
        let check =
            |backoff| validate(&Config::default().recovery(Recovery::automatic().backoff(backoff)));
        let refused = |argument| Err(InvalidArgument::new(argument, InvalidReason::OutOfRange));
        let doubling = Backoff::exponential;
        for valid in [
            Backoff::default(),
            Backoff::fixed(limits::RECOVERY_DELAY_MIN).jitter(0.0),
            Backoff::fixed(Duration::MAX).jitter(1.0),
            doubling(SECOND, Duration::MAX),
        ] {
            assert_eq!(check(valid), Ok(()), "{valid:?}");
        }
        for (invalid, argument) in [
            (Backoff::fixed(Duration::ZERO), "recovery_delay"),
            (doubling(Duration::ZERO, SECOND), "recovery_delay"),
            (doubling(Duration::from_micros(999), SECOND), "recovery_delay"),
            (doubling(SECOND, Duration::ZERO), "recovery_max_delay"),
            (doubling(2 * SECOND, SECOND), "recovery_max_delay"),
            (Backoff::default().jitter(f64::NAN), "recovery_jitter"),
            (Backoff::default().jitter(-0.1), "recovery_jitter"),
            (Backoff::default().jitter(1.1), "recovery_jitter"),
            (Backoff::default().jitter(f64::INFINITY), "recovery_jitter"),
        ] {
            assert_eq!(check(invalid), refused(argument), "{invalid:?}");
        }
        assert_eq!(Recovery::automatic().attempts(0).attempts, Some(1));
    }

    /// As from a URI, which may set one of both.
    #[test]
    fn one_delay_may_move_the_other() {
        let millis = Duration::from_millis;
        for (first, max, expected) in [
            (None, None, (500, 30_000)),
            (Some(1_000), None, (1_000, 30_000)),
            (Some(60_000), None, (60_000, 60_000)),
            (None, Some(100), (100, 100)),
            (None, Some(60_000), (500, 60_000)),
            (Some(7), Some(8), (7, 8)),
            // Both are set, and refused when connecting.
            (Some(8), Some(7), (8, 7)),
        ] {
            let backoff = Backoff::between(first.map(millis), max.map(millis));
            let expected = Backoff::exponential(millis(expected.0), millis(expected.1));
            assert_eq!(backoff, expected, "{first:?} {max:?}");
        }
    }
}
