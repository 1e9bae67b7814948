//! When the session tries again after a loss or a failed attempt.
//!
//! An attempt to recover is one cycle over the hosts. The delays are those of the policy, each with a random part, so that
//! clients that lose their broker together do not return to it at once. They start again when the connection is recovered.

use std::time::{Duration, Instant};

use crate::config::{Backoff, Recovery};
use crate::session::dice::throw_fraction;

/// The attempts since the connection was last open.
#[derive(Debug)]
pub(super) struct Retries {
    backoff: Backoff,
    most: Option<u32>,
    dice: u64,
    attempt: u32,
    /// The delay before the next attempt, without jitter.
    delay: Duration,
}

impl Retries {
    /// Each session needs another random number as its seed.
    pub(super) const fn new(recovery: &Recovery, seed: u64) -> Self {
        let Recovery { backoff, attempts: most, .. } = *recovery;
        Self { backoff, most, dice: seed, attempt: 0, delay: backoff.first }
    }

    /// The same delays, without a limit on the attempts.
    pub(super) const fn unlimited(self) -> Self {
        Self { most: None, ..self }
    }

    /// Returns when the next attempt begins, or `None` if as many attempts have failed as the policy allows. To be called
    /// when the connection is lost, and when an attempt has failed.
    pub(super) fn next(&mut self, now: Instant) -> Option<Instant> {
        if self.most.is_some_and(|most| self.attempt >= most) {
            return None;
        }
        self.attempt = self.attempt.saturating_add(1);
        let delay = self.delay;
        self.delay = delay.saturating_mul(2).min(self.backoff.max);
        Some(now + self.jittered(delay))
    }

    /// The number of the attempt that `next` has returned last, from 1; 0 if there was none.
    pub(super) const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Starts again, because the connection is recovered.
    pub(super) const fn reset(&mut self) {
        self.attempt = 0;
        self.delay = self.backoff.first;
    }

    /// Returns a random time around `delay`, up to twice as long.
    const fn jittered(&mut self, delay: Duration) -> Duration {
        let factor = 1.0 + self.backoff.jitter * (2.0 * throw_fraction(&mut self.dice) - 1.0);
        Duration::from_nanos((delay.as_nanos() as f64 * factor) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::Retries;
    use crate::config::{Backoff, Recovery};
    use crate::limits::TIMEOUT_MAX;
    use std::time::{Duration, Instant};

    fn retries(backoff: Backoff, seed: u64) -> Retries {
        Retries::new(&Recovery::automatic().backoff(backoff), seed)
    }

    /// The delays before the next attempts.
    fn delays(retries: &mut Retries, count: usize) -> Vec<Duration> {
        let now = Instant::now();
        (0..count).map(|_| retries.next(now).unwrap() - now).collect()
    }

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn r10_delays_double_up_to_the_maximum() {
        let mut doubling = retries(Backoff::exponential(millis(500), millis(3_000)).jitter(0.0), 0);
        let expected = [500, 1_000, 2_000, 3_000, 3_000].map(millis);
        assert_eq!(delays(&mut doubling, 5), expected);
        assert_eq!(doubling.attempt(), 5);
        doubling.reset();
        assert_eq!(doubling.attempt(), 0);
        assert_eq!(delays(&mut doubling, 5), expected);
        let mut fixed = retries(Backoff::fixed(millis(7)).jitter(0.0), 0);
        assert_eq!(delays(&mut fixed, 3), [millis(7); 3]);
    }

    #[test]
    fn r10_attempts_may_be_limited() {
        let now = Instant::now();
        let mut three = Retries::new(&Recovery::automatic().attempts(3), 0);
        assert_eq!((0..9).filter(|_| three.next(now).is_some()).count(), 3);
        assert_eq!(three.attempt(), 3);
        three.reset();
        assert!(three.next(now).is_some());
    }

    /// Clients that lose one broker at once, and whose attempts all fail.
    #[test]
    fn r10_clients_do_not_dial_in_step() {
        let mut clients: Vec<_> = (0..50).map(|seed| retries(Backoff::default(), seed)).collect();
        for base in [500_u64, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000] {
            let mut slots = [0; 10];
            for client in &mut clients {
                let delay = delays(client, 1).remove(0).as_nanos() as u64 / 1_000;
                let earliest = base * 500;
                assert!((earliest..base * 1_500).contains(&delay), "{delay} us around {base} ms");
                slots[((delay - earliest) / (base * 100)) as usize] += 1;
            }
            // Five of them on average.
            assert!(slots.iter().all(|clients| *clients <= 14), "{base} ms: {slots:?}");
        }
    }

    #[test]
    fn a_seed_repeats_its_delays() {
        let all = |seed| delays(&mut retries(Backoff::default(), seed), 20);
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        // Each delay has another random part.
        let fixed = delays(&mut retries(Backoff::fixed(millis(1_000)), 1), 20);
        assert!(fixed.windows(2).all(|pair| pair[0] != pair[1]), "{fixed:?}");
    }

    #[test]
    fn many_attempts_overflow_nothing() {
        let longest = Backoff::exponential(TIMEOUT_MAX, Duration::MAX).jitter(1.0);
        for backoff in [longest, Backoff::exponential(millis(1), TIMEOUT_MAX), Backoff::default()] {
            let mut retries = retries(backoff, u64::MAX);
            for delay in delays(&mut retries, 10_000) {
                assert!(delay <= 2 * TIMEOUT_MAX, "{delay:?}");
            }
            assert_eq!(retries.attempt(), 10_000);
        }
    }
}
