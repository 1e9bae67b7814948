//! Matches a returned message (`basic.return`) to its publish.
//!
//! A return has no publish number, but it contains the whole message. RabbitMQ sends it before the ack of the
//! same publish; acks of other publishes may come in between. So a [`Fingerprint`] of each open mandatory
//! publish is stored. A return claims the oldest open publish with the same fingerprint that is not claimed
//! yet. The ack or nack that covers a claimed publish reports the return. Publishes with the same fingerprint
//! are equal, so it does not matter which of them is claimed.
//!
//! The broker may set the timestamp of a message. If no publish has the timestamp of the return, the return
//! claims a publish that is equal except for its timestamp.
//!
//! An index by fingerprint has the publishes that can be claimed. So a return costs O(log n) for n open
//! mandatory publishes, and so does each publish that an ack covers, regardless of the number of returns.

use std::collections::{BTreeMap, BTreeSet};

use crate::channel::fingerprint::{Fingerprint, Returned};
use crate::limits::RETURNED_UNCLAIMED_BYTES;
use crate::message::ReturnedMessage;

#[derive(Debug)]
pub(crate) struct Returns {
    open: BTreeMap<u64, Mandatory>,
    /// The open publishes that no return has claimed.
    unclaimed: BTreeSet<(Fingerprint, u64)>,
    /// The number of bytes of the returned messages.
    bytes: usize,
}

#[derive(Debug)]
enum Mandatory {
    Unclaimed(Fingerprint),
    Returned(Box<ReturnedMessage>),
}

impl Returns {
    pub(crate) const fn new() -> Self {
        Self { open: BTreeMap::new(), unclaimed: BTreeSet::new(), bytes: 0 }
    }

    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn publish(&mut self, seq: u64, fingerprint: Fingerprint) {
        self.open.insert(seq, Mandatory::Unclaimed(fingerprint));
        self.unclaimed.insert((fingerprint, seq));
    }

    /// Returns the number of the publish that a return claims.
    pub(crate) fn claimable(&self, returned: Returned) -> Option<u64> {
        let Returned { fingerprint, restamped } = returned;
        let oldest = |first, last| {
            let range = (first, 0)..=(last, u64::MAX);
            self.unclaimed.range(range).next().map(|(_, seq)| *seq)
        };
        let exact = oldest(fingerprint, fingerprint);
        exact.or_else(|| {
            let (first, last) = fingerprint.whatever_timestamp();
            if restamped { oldest(first, last) } else { None }
        })
    }

    pub(crate) fn claim(&mut self, seq: u64, message: ReturnedMessage) {
        let Some(publish) = self.open.get_mut(&seq) else { return };
        let size = message.message.size();
        let strip = self.bytes > 0 && self.bytes + size > RETURNED_UNCLAIMED_BYTES;
        let message = if strip { message.stripped() } else { message };
        self.bytes += message.message.size();
        let claimed = std::mem::replace(publish, Mandatory::Returned(Box::new(message)));
        if let Mandatory::Unclaimed(fingerprint) = claimed {
            self.unclaimed.remove(&(fingerprint, seq));
        }
    }

    /// Removes the publishes that a return has claimed, and returns them.
    pub(crate) fn take_claimed(&mut self) -> Vec<(u64, Box<ReturnedMessage>)> {
        let claimed = |publish: &Mandatory| matches!(publish, Mandatory::Returned(_));
        let open = self.open.iter().filter(|(_, publish)| claimed(publish));
        let numbers: Vec<_> = open.map(|(seq, _)| *seq).collect();
        numbers.into_iter().flat_map(|seq| self.resolve(seq, seq)).collect()
    }

    /// Removes the publishes from `first` to `last`, which are resolved. Returns those of them that were
    /// returned.
    pub(crate) fn resolve(&mut self, first: u64, last: u64) -> Vec<(u64, Box<ReturnedMessage>)> {
        let mut returned = Vec::new();
        while let Some(seq) = self.open.range(first..=last).next().map(|(seq, _)| *seq) {
            match self.open.remove(&seq) {
                Some(Mandatory::Unclaimed(fingerprint)) => {
                    self.unclaimed.remove(&(fingerprint, seq));
                }
                Some(Mandatory::Returned(message)) => {
                    self.bytes -= message.message.size();
                    returned.push((seq, message));
                }
                None => {}
            }
        }
        returned
    }
}

#[cfg(test)]
pub(super) use tests::{count_step, message, plain};

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::Returns;
    use crate::channel::fingerprint::{Fingerprint, Returned};
    use crate::limits::RETURNED_UNCLAIMED_BYTES;
    use crate::message::{
        Detached, PROPERTIES_GAP, ROUTING_KEY_GAP, ReceivedMessage, ReturnedMessage,
    };
    use amqp_proto::{FieldTable, Properties, RawProperties, ShortStr};
    use bytes::Bytes;

    thread_local! {
        static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts one comparison of two fingerprints.
    pub(in crate::channel) fn count_step() {
        STEPS.set(STEPS.get() + 1);
    }

    fn fingerprint(properties: &Properties, body: &[u8]) -> Fingerprint {
        let mut raw = Vec::new();
        properties.encode(&mut raw).unwrap();
        let (key, raw) = (ShortStr::new("k").unwrap(), RawProperties::new(&raw));
        Fingerprint::new(key, key, raw, body, &mut Vec::new())
    }

    pub(in crate::channel) fn plain(body: &[u8]) -> Fingerprint {
        fingerprint(&Properties::new(), body)
    }

    pub(in crate::channel) fn message(body: Bytes) -> ReturnedMessage {
        ReturnedMessage {
            code: 312.into(),
            text: "".into(),
            is_stripped: false,
            message: ReceivedMessage::new(
                Bytes::new(),
                (0, 0, 0),
                Some(Box::new(Detached::Body(body))),
            ),
        }
    }

    fn give_back(returns: &mut Returns, fingerprint: Fingerprint, restamped: bool) -> Option<u64> {
        let seq = returns.claimable(Returned { fingerprint, restamped })?;
        returns.claim(seq, message(Bytes::new()));
        Some(seq)
    }

    fn resolved(returns: &mut Returns, first: u64, last: u64) -> Vec<u64> {
        returns.resolve(first, last).into_iter().map(|(seq, _)| seq).collect()
    }

    #[test]
    fn the_oldest_equal_publish_is_claimed_once() {
        let mut returns = Returns::new();
        for (seq, body) in [(1, b"a"), (2, b"b"), (3, b"a"), (4, b"a")] {
            returns.publish(seq, plain(body));
        }
        assert_eq!(give_back(&mut returns, plain(b"c"), true), None);
        assert_eq!(give_back(&mut returns, plain(b"a"), false), Some(1));
        assert!(resolved(&mut returns, 3, 3).is_empty());
        assert_eq!(give_back(&mut returns, plain(b"a"), false), Some(4));
        assert_eq!(give_back(&mut returns, plain(b"a"), true), None);
        assert_eq!(resolved(&mut returns, 1, 4), [1, 4]);
        assert!(returns.is_idle() && returns.unclaimed.is_empty());
        assert_eq!(returns.bytes, 0);
    }

    #[test]
    fn a_timestamp_counts_unless_the_broker_may_have_set_it() {
        let stamped = |timestamp: u64| fingerprint(&Properties::new().timestamp(timestamp), b"a");
        let mut returns = Returns::new();
        returns.publish(1, plain(b"a"));
        returns.publish(2, stamped(5));
        returns.publish(3, stamped(6));
        assert_eq!(give_back(&mut returns, stamped(7), false), None);
        assert_eq!(give_back(&mut returns, stamped(6), true), Some(3));
        assert_eq!(give_back(&mut returns, stamped(7), true), Some(1));
        assert_eq!(give_back(&mut returns, stamped(7), true), Some(2));
        assert_eq!(give_back(&mut returns, stamped(7), true), None);
    }

    #[test]
    fn the_header_of_a_message_interceptor_says_that_the_timestamp_may_be_new() {
        let restamped = |properties: Properties| {
            let mut raw = vec![0; ROUTING_KEY_GAP + PROPERTIES_GAP];
            let start = raw.len();
            properties.encode(&mut raw).unwrap();
            let length = (raw.len() - start) as u32;
            let message = ReceivedMessage::new(raw.into(), (0, 0, length), None);
            Returned::new(&message, None, &mut Vec::new()).restamped
        };
        let headers = |name: &str| FieldTable::from([(name, 1_i64.into())]);
        assert!(!restamped(Properties::new().timestamp(1_u64)));
        assert!(!restamped(Properties::new().headers(headers("x-routed-by"))));
        assert!(restamped(Properties::new().headers(headers("timestamp_in_ms"))));
    }

    /// The cost of a return and of an ack does not grow with the number of open or returned publishes.
    #[test]
    fn returns_and_acks_cost_few_steps_each() {
        const OPEN: u64 = 65_536;
        let mut returns = Returns::new();
        let prints: Vec<_> = (0..OPEN).map(|number| plain(&number.to_be_bytes())).collect();
        let mut most = 0;
        let mut cost = |act: &mut dyn FnMut()| {
            STEPS.set(0);
            act();
            most = most.max(STEPS.get());
        };
        for (seq, print) in (0..).zip(&prints) {
            cost(&mut || returns.publish(seq, *print));
        }
        for print in prints.iter().step_by(2) {
            cost(&mut || assert!(give_back(&mut returns, *print, true).is_some()));
        }
        for seq in (0..OPEN).rev() {
            cost(&mut || drop(returns.resolve(seq, seq)));
        }
        assert!(returns.is_idle());
        assert!((17..250).contains(&most), "{most} comparisons");
    }

    /// The first message is kept completely, and so are others until the limit is reached.
    #[test]
    fn what_waits_for_its_ack_is_kept_up_to_the_limit() {
        const LIMIT: usize = RETURNED_UNCLAIMED_BYTES;
        for (sizes, stripped) in [
            ([LIMIT + 1, 1], [false, true]),
            ([LIMIT - 1, 1], [false, false]),
            ([LIMIT - 1, 2], [false, true]),
        ] {
            let mut returns = Returns::new();
            for (seq, size) in (1..).zip(sizes) {
                returns.publish(seq, plain(b"same"));
                returns.claim(seq, message(vec![0; size].into()));
            }
            let returned = returns.resolve(1, 2);
            let flags: Vec<_> = returned.iter().map(|(_, it)| it.is_stripped).collect();
            assert_eq!(flags, stripped, "{sizes:?}");
        }
    }

    #[test]
    fn what_waits_for_its_ack_is_bounded_by_bytes() {
        let mut returns = Returns::new();
        let body = Bytes::from(vec![0; 3 << 20]);
        for seq in 1..=4 {
            returns.publish(seq, plain(b"same"));
            returns.claim(seq, message(body.clone()));
        }
        assert_eq!(returns.resolve(1, 2).iter().filter(|(_, it)| it.is_stripped).count(), 0);
        returns.publish(5, plain(b"same"));
        returns.claim(5, message(body));
        let stripped = returns.resolve(3, 5);
        assert_eq!(
            stripped.iter().map(|(_, it)| it.is_stripped).collect::<Vec<_>>(),
            [true, true, false]
        );
        assert_eq!(returns.bytes, 0);
    }
}
