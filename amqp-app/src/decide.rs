//! What becomes of a message that was not handled: a pure function of the policy, the attempt and the failure.

use std::time::Duration;

use crate::failure::{Failure, FailureCause, Verdict};
use crate::limits::GIVE_BACK_PAUSE;
use crate::retry::{LastResort, Retry};

/// The next step for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Another attempt in place, after a pause.
    Again(Duration),
    /// A copy waits in the queue for this delay, and the message is acknowledged.
    Delay(Duration),
    /// The last resort of the policy.
    Last(LastResort),
    /// Back into its queue by `basic.nack`, after a pause.
    GiveBack(Duration),
    /// The message is acknowledged.
    Discard,
    /// Back into its queue, and the application ends.
    Stop,
}

/// Decides what follows the failure of an attempt, which is counted from 1.
pub(crate) fn decide(policy: &Retry, attempt: u32, failure: &Failure) -> Step {
    let last = || match &policy.last {
        LastResort::Discard => Step::Discard,
        LastResort::Stop => Step::Stop,
        last => Step::Last(last.clone()),
    };
    let retries = || {
        let undecodable =
            matches!(failure.cause(), FailureCause::Undecodable | FailureCause::Malformed);
        !undecodable && policy.retries_if.as_ref().is_none_or(|retries| retries(failure))
    };
    match failure.verdict {
        Verdict::GiveBack => Step::GiveBack(GIVE_BACK_PAUSE),
        Verdict::Discard => Step::Discard,
        Verdict::Stop => Step::Stop,
        Verdict::Permanent => last(),
        Verdict::Retry | Verdict::RetryAfter(_) if !retries() => last(),
        Verdict::RetryAfter(least) => match long_enough(policy, attempt, least) {
            Some(delay) => Step::Delay(delay),
            None => next(policy, attempt).unwrap_or_else(last),
        },
        Verdict::Retry => next(policy, attempt).unwrap_or_else(last),
    }
}

/// The attempt that follows this one, if there is one.
fn next(policy: &Retry, attempt: u32) -> Option<Step> {
    if attempt <= policy.now {
        return Some(Step::Again(policy.pause));
    }
    let index = attempt - policy.now - 1;
    policy.delays.get(index as usize).copied().map(Step::Delay)
}

/// The shortest delay of at least this time, or the longest one, while attempts are left.
fn long_enough(policy: &Retry, attempt: u32, least: Duration) -> Option<Duration> {
    if u64::from(attempt) >= policy.attempts() {
        return None;
    }
    let fits = policy.delays.iter().filter(|delay| **delay >= least).min();
    fits.or_else(|| policy.delays.iter().max()).copied()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Step, decide};
    use crate::failure::{Failure, FailureCause, Verdict};
    use crate::limits::GIVE_BACK_PAUSE;
    use crate::retry::{LastResort, Retry};

    const MS: Duration = Duration::from_millis(1);

    fn policy() -> Retry {
        Retry::now(2).pause(5 * MS).and_after([100 * MS, 900 * MS])
    }

    fn caused(cause: FailureCause) -> Failure {
        Failure::new(Verdict::Retry, cause, "it failed")
    }

    #[test]
    fn attempts_follow_each_other_in_place_then_after_delays_then_the_last_resort() {
        let park = Step::Last(LastResort::Park(None));
        let steps: Vec<_> = (1..=6).map(|it| decide(&policy(), it, &Failure::retry("x"))).collect();
        let expected = [
            Step::Again(5 * MS),
            Step::Again(5 * MS),
            Step::Delay(100 * MS),
            Step::Delay(900 * MS),
            park.clone(),
            park,
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn each_cause_and_verdict_has_its_step() {
        let park = || Step::Last(LastResort::Park(None));
        let again = || Step::Again(5 * MS);
        for (failure, step) in [
            (caused(FailureCause::Error), again()),
            (caused(FailureCause::Panic), again()),
            (caused(FailureCause::TimedOut), again()),
            (caused(FailureCause::Unsent), again()),
            (caused(FailureCause::Undecodable), park()),
            (caused(FailureCause::Malformed), park()),
            (Failure::undecodable("x"), park()),
            (Failure::permanent("x"), park()),
            (Failure::give_back("x"), Step::GiveBack(GIVE_BACK_PAUSE)),
            (Failure::discard("x"), Step::Discard),
            (Failure::stop("x"), Step::Stop),
            (Failure::retry_after(50 * MS, "x"), Step::Delay(100 * MS)),
            (Failure::retry_after(101 * MS, "x"), Step::Delay(900 * MS)),
            (Failure::retry_after(5_000 * MS, "x"), Step::Delay(900 * MS)),
        ] {
            assert_eq!(decide(&policy(), 1, &failure), step, "{failure:?}");
        }
        // What is given back is so after any number of attempts.
        assert_eq!(
            decide(&Retry::none(), 99, &Failure::give_back("x")),
            Step::GiveBack(GIVE_BACK_PAUSE)
        );
        let late = Failure::retry_after(50 * MS, "x");
        assert_eq!(decide(&policy(), 5, &late), park(), "no attempt is left");
        let for_ever = Retry::now(u32::MAX);
        for attempt in [1, u32::MAX] {
            let step = decide(&for_ever, attempt, &Failure::retry("x"));
            assert_eq!(step, Step::Again(for_ever.pause));
        }
        let no_delay = Retry::now(1);
        assert_eq!(decide(&no_delay, 1, &late), Step::Again(no_delay.pause));
    }

    #[test]
    fn each_last_resort_has_its_step() {
        let report = LastResort::Report { exchange: "errors".into(), routing_key: "k".into() };
        for (policy, step) in [
            (Retry::none(), Step::Last(LastResort::Park(None))),
            (Retry::none().then_park_in("p"), Step::Last(LastResort::Park(Some("p".into())))),
            (Retry::none().then_dead_letter(), Step::Last(LastResort::DeadLetter)),
            (Retry::none().then_discard(), Step::Discard),
            (Retry::none().then_requeue(MS * 1_000), Step::Last(LastResort::Requeue(MS * 1_000))),
            (Retry::none().then_stop(), Step::Stop),
            (Retry::none().then_report("errors", "k"), Step::Last(report)),
        ] {
            assert_eq!(decide(&policy, 1, &Failure::retry("x")), step);
            assert_eq!(decide(&policy, 7, &Failure::permanent("x")), step);
        }
    }

    #[test]
    fn a_condition_decides_which_failures_are_retried() {
        let is_io = |failure: &Failure| failure.error().is::<std::io::Error>();
        let policy = policy().if_error(is_io);
        let io = Failure::retry(std::io::Error::other("down"));
        assert_eq!(decide(&policy, 1, &io), Step::Again(5 * MS));
        assert_eq!(decide(&policy, 1, &Failure::retry("text")), Step::Last(LastResort::Park(None)));
    }
}
