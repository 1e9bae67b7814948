//! What became of the publishes of a load, and what its queue must then have.

use std::collections::BTreeMap;
use std::fmt;

use amqp_core::PublishError;

/// The bits of a message id that number the publishes of one publisher. The bits above are the number of the publisher.
pub const ID_BITS: u32 = 32;

/// The outcome of each publish, by message id.
#[derive(Debug)]
pub struct Ledger {
    republishes: bool,
    outcomes: BTreeMap<u64, Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Confirmed,
    Nacked,
    NotSent,
    Unknown,
}

/// What became of all publishes of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Balance {
    /// Publishes that were confirmed.
    pub confirmed: u64,
    /// Publishes that the broker refused.
    pub nacked: u64,
    /// Publishes that were reported as not sent.
    pub not_sent: u64,
    /// Publishes that were reported as sent with an unknown outcome.
    pub unknown: u64,
    /// Publishes that are in the queue at least once.
    pub stored: u64,
    /// Copies in the queue beyond the first one of each publish.
    pub duplicates: u64,
}

impl Ledger {
    /// Creates the ledger of publishers that send unconfirmed publishes again after a loss, or do not.
    pub const fn new(republishes: bool) -> Self {
        Self { republishes, outcomes: BTreeMap::new() }
    }

    /// Records the outcome of a publish.
    ///
    /// # Panics
    /// If it is none that a loss may cause, or if the publish already has one.
    pub fn record(&mut self, id: u64, outcome: &Result<(), PublishError>) {
        let outcome = match outcome {
            Ok(()) => Outcome::Confirmed,
            Err(PublishError::Nacked) => Outcome::Nacked,
            Err(PublishError::NotSent(_)) => Outcome::NotSent,
            Err(PublishError::Unknown(_)) => Outcome::Unknown,
            Err(other) => panic!("publish {id}: {other:?}"),
        };
        let earlier = self.outcomes.insert(id, outcome);
        assert_eq!(earlier, None, "publish {id} has two outcomes");
    }

    /// Adds the outcomes of another publisher.
    pub fn extend(&mut self, other: Self) {
        self.outcomes.extend(other.outcomes);
    }

    /// Compares the outcomes with the ids of the messages in the queue, in their order.
    ///
    /// # Errors
    /// If an outcome is not true: a publish that was confirmed is not stored, or one is stored that was reported as not
    /// sent. If publishes are sent again: also if one has no other outcome than that it was lost, or was overtaken. If they
    /// are not: also if one is stored twice.
    pub fn balance(&self, stored: &[u64]) -> Result<Balance, String> {
        let mut copies = BTreeMap::<u64, u64>::new();
        let mut newest = BTreeMap::<u64, u64>::new();
        let mut overtaken = None;
        for id in stored {
            let count = copies.entry(*id).or_default();
            *count += 1;
            if *count == 1 {
                let newest = newest.entry(id >> ID_BITS).or_default();
                if id < newest {
                    overtaken.get_or_insert((*id, *newest));
                }
                *newest = (*id).max(*newest);
            }
        }
        if let Some(id) = copies.keys().find(|id| !self.outcomes.contains_key(id)) {
            return Err(format!("{id} is stored and was not published"));
        }
        let mut balance = Balance::default();
        for (id, outcome) in &self.outcomes {
            let copies = copies.get(id).copied().unwrap_or_default();
            balance.add(*outcome, copies);
            self.check(*outcome, copies).map_err(|wrong| format!("publish {id} {wrong}"))?;
        }
        match overtaken {
            // The broker may refuse one publish, and take those behind it.
            Some((id, by)) if self.republishes && balance.nacked == 0 => {
                Err(format!("publish {id} was overtaken by {by}"))
            }
            _ => Ok(balance),
        }
    }

    fn check(&self, outcome: Outcome, copies: u64) -> Result<(), String> {
        match outcome {
            Outcome::Confirmed if copies == 0 => Err("was confirmed and is not stored".into()),
            Outcome::NotSent if copies > 0 => Err("was not sent and is stored".into()),
            Outcome::NotSent | Outcome::Unknown if self.republishes => {
                Err(format!("was not sent again: {outcome:?}"))
            }
            _ if copies > 1 && !self.republishes => Err(format!("is stored {copies} times")),
            _ => Ok(()),
        }
    }
}

impl Balance {
    const fn add(&mut self, outcome: Outcome, copies: u64) {
        let count = match outcome {
            Outcome::Confirmed => &mut self.confirmed,
            Outcome::Nacked => &mut self.nacked,
            Outcome::NotSent => &mut self.not_sent,
            Outcome::Unknown => &mut self.unknown,
        };
        *count += 1;
        if copies > 0 {
            self.stored += 1;
            self.duplicates += copies - 1;
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { confirmed, nacked, not_sent, unknown, stored, duplicates } = self;
        write!(
            f,
            "{confirmed} confirmed, {unknown} unknown, {not_sent} not sent, {nacked} nacked; {stored} stored, \
             {duplicates} duplicates"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Balance, ID_BITS, Ledger};
    use amqp_core::{CloseCause, Error, PublishError};

    fn ledger(republishes: bool, outcomes: &[(u64, Result<(), PublishError>)]) -> Ledger {
        let mut ledger = Ledger::new(republishes);
        outcomes.iter().for_each(|(id, outcome)| ledger.record(*id, outcome));
        ledger
    }

    fn unknown() -> Result<(), PublishError> {
        Err(PublishError::Unknown(Error::ConnectionLost(CloseCause::Aborted)))
    }

    fn not_sent() -> Result<(), PublishError> {
        Err(PublishError::NotSent(Error::ConnectionLost(CloseCause::Aborted)))
    }

    #[test]
    fn what_is_true_is_counted() {
        let outcomes = [(1, Ok(())), (2, unknown()), (3, unknown()), (4, not_sent())];
        let balance = ledger(false, &outcomes).balance(&[2, 1]).unwrap();
        let expected =
            Balance { confirmed: 1, unknown: 2, not_sent: 1, stored: 2, ..Balance::default() };
        assert_eq!(balance, expected);
        let other = 1 << ID_BITS;
        let outcomes = [(1, Ok(())), (2, Ok(())), (3, Ok(())), (other, Ok(()))];
        let balance = ledger(true, &outcomes).balance(&[1, 2, other, 1, 2, 3]).unwrap();
        assert_eq!((balance.confirmed, balance.stored, balance.duplicates), (4, 4, 2));
    }

    #[test]
    fn what_is_not_true_is_reported() {
        for (republishes, outcomes, stored, expected) in [
            (
                true,
                vec![(1, Ok(())), (2, Ok(()))],
                vec![1],
                "publish 2 was confirmed and is not stored",
            ),
            (false, vec![(1, not_sent())], vec![1], "publish 1 was not sent and is stored"),
            (false, vec![(1, Ok(()))], vec![1, 1], "publish 1 is stored 2 times"),
            (false, vec![(1, Ok(()))], vec![1, 2], "2 is stored and was not published"),
            (true, vec![(1, unknown())], vec![1], "publish 1 was not sent again: Unknown"),
            (true, vec![(1, Ok(())), (2, Ok(()))], vec![2, 1], "publish 1 was overtaken by 2"),
        ] {
            let error = ledger(republishes, &outcomes).balance(&stored).unwrap_err();
            assert_eq!(error, expected);
        }
    }
}
