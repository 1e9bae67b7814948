//! The ledger: what was confirmed, and what was found at the end.

use std::collections::BTreeMap;

use crate::producer;
use crate::worker::{Mode, NEVER, is_parked, is_retried};

/// The messages that were found, by number: how often.
#[derive(Debug)]
pub(crate) struct Ledger {
    mode: Mode,
    /// How often each of the replies was found.
    answered: BTreeMap<u64, Vec<u64>>,
    parked: BTreeMap<u64, u64>,
}

/// What became of all messages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Balance {
    pub(crate) answered: usize,
    pub(crate) parked: usize,
    /// The answers and parked messages beyond the first one of each message.
    pub(crate) duplicates: [u64; 2],
}

impl Ledger {
    pub(crate) const fn new(mode: Mode) -> Self {
        Self { mode, answered: BTreeMap::new(), parked: BTreeMap::new() }
    }

    /// Notes an answer by its message id and body.
    ///
    /// # Errors
    /// If it is not an answer to a message of the producer, or cannot be recognised when it comes twice.
    pub(crate) fn answer(&mut self, id: &str, body: &str) -> Result<(), String> {
        let number = number(body)?;
        let replies = self.mode.replies();
        let of_id = |index: &usize| id == format!("{}#{index}", producer::id(number));
        let Some(index) = (0..replies).find(of_id) else {
            return Err(format!("the answer {body:?} has the id {id:?}"));
        };
        self.answered.entry(number).or_insert_with(|| vec![0; replies])[index] += 1;
        Ok(())
    }

    /// Notes a parked message by its message id, its body and its reason.
    ///
    /// # Errors
    /// If it is not one of the producer, cannot be recognised when it comes twice, or was parked for another reason.
    pub(crate) fn park(&mut self, id: &str, body: &str, reason: &str) -> Result<(), String> {
        let number = number(body)?;
        if id != producer::id(number) {
            return Err(format!("the parked message {body:?} has the id {id:?}"));
        }
        if reason != NEVER {
            return Err(format!("{id} was parked: {reason}"));
        }
        *self.parked.entry(number).or_default() += 1;
        Ok(())
    }

    /// Compares what was found with the messages that were confirmed: the numbers below `confirmed`.
    ///
    /// # Errors
    /// If a message is lost, was not published, or is in the wrong place.
    pub(crate) fn balance(&self, confirmed: u64) -> Result<Balance, String> {
        let found = || self.answered.keys().chain(self.parked.keys());
        if let Some(unknown) = found().find(|it| **it >= confirmed) {
            return Err(format!("message {unknown} was found, and not confirmed"));
        }
        for number in 0..confirmed {
            let places = [self.answered.contains_key(&number), self.parked.contains_key(&number)];
            let expected = [!is_parked(number), is_parked(number)];
            if places == [false, false] {
                return Err(format!("message {number} is lost"));
            }
            let counts = self.answered.get(&number).map_or(&[][..], Vec::as_slice);
            if counts.iter().any(|count| *count != counts[0]) {
                return Err(format!("message {number} has a part of its replies: {counts:?}"));
            }
            // Only the copy of a message that waits for its second attempt may be there twice.
            let may_repeat = self.mode == Mode::Confirms || is_retried(number);
            if counts.iter().any(|count| *count > 1) && !may_repeat {
                return Err(format!("message {number} was committed more than once: {counts:?}"));
            }
            if places != expected {
                let error = "answered, parked";
                return Err(format!("message {number} ({error}): {places:?}, not {expected:?}"));
            }
        }
        let answers = self.answered.values().map(|counts| counts[0] - 1).sum();
        let parked = self.parked.values().map(|count| count - 1).sum();
        Ok(Balance {
            answered: self.answered.len(),
            parked: self.parked.len(),
            duplicates: [answers, parked],
        })
    }
}

fn number(body: &str) -> Result<u64, String> {
    body.parse().map_err(|_| format!("a message has the body {body:?}"))
}

#[cfg(test)]
mod tests {
    use super::{Balance, Ledger};
    use crate::worker::Mode;

    fn ledger(answers: &[u64], parked: &[u64]) -> Ledger {
        let mut ledger = Ledger::new(Mode::Confirms);
        for number in answers {
            ledger.answer(&format!("m{number}#0"), &number.to_string()).unwrap();
        }
        for number in parked {
            ledger.park(&format!("m{number}"), &number.to_string(), "never").unwrap();
        }
        ledger
    }

    #[test]
    fn a_balance_counts_duplicates() {
        let balance = ledger(&[2, 1, 2, 2], &[0, 0]).balance(3).unwrap();
        assert_eq!(balance, Balance { answered: 2, parked: 1, duplicates: [2, 1] });
    }

    #[test]
    fn what_does_not_balance_is_reported() {
        for (answers, parked, expected) in [
            (&[1][..], &[0][..], "message 2 is lost"),
            (&[1, 2], &[], "message 0 is lost"),
            (&[0, 1, 2], &[], "message 0 (answered, parked): [true, false], not [false, true]"),
            (&[1, 2], &[0, 2], "message 2 (answered, parked): [true, true], not [true, false]"),
            (&[1, 2, 3], &[0], "message 3 was found, and not confirmed"),
        ] {
            assert_eq!(ledger(answers, parked).balance(3).unwrap_err(), expected);
        }
        let mut ledger = Ledger::new(Mode::Confirms);
        assert!(ledger.answer("m1#1", "1").is_err(), "another id");
        assert!(ledger.answer("m1#0", "x").is_err(), "another body");
        assert!(ledger.park("1", "1", "never").is_err(), "another id");
        assert!(ledger.park("m1", "1", "delivered 10 times").is_err(), "another reason");
    }

    #[test]
    fn a_transaction_has_all_of_its_replies_or_none() {
        let balance = |numbers: &[(u64, usize)]| {
            let mut ledger = Ledger::new(Mode::Transactions);
            ledger.park("m0", "0", "never").unwrap();
            for (number, index) in numbers {
                ledger.answer(&format!("m{number}#{index}"), &number.to_string()).unwrap();
            }
            ledger.balance(3)
        };
        let all = |number| (0..3).map(move |index| (number, index));
        let whole: Vec<_> = all(1).chain(all(1)).chain(all(2)).collect();
        assert_eq!(balance(&whole).unwrap().duplicates, [1, 0], "message 1 has waited");
        let part = balance(&whole[1..]).unwrap_err();
        assert_eq!(part, "message 1 has a part of its replies: [1, 2, 2]");
        let twice: Vec<_> = whole.iter().copied().chain(all(2)).collect();
        let twice = balance(&twice).unwrap_err();
        assert_eq!(twice, "message 2 was committed more than once: [2, 2, 2]");
        let mut ledger = Ledger::new(Mode::Transactions);
        assert!(ledger.answer("m1#3", "1").is_err(), "one reply too many");
    }
}
