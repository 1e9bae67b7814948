//! Which publish a `basic.return` belongs to.
//!
//! A return carries no number. It does carry the whole message, and RabbitMQ promises that it comes
//! before the ack of the same publish. So each open mandatory publish keeps a fingerprint of its
//! message, a return waits for the ack that follows it, and the ack's publishes claim the returns
//! whose fingerprint is theirs, the oldest first. Equal messages published twice are told apart by
//! the acks alone.
//!
//! The broker may change a message's headers on the way (it strips `BCC`). A return whose full
//! fingerprint no open publish bears falls back on exchange, routing key and size.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::limits::{RETURN_HASH_BODY_BYTES, RETURNED_UNCLAIMED_BYTES};
use crate::message::ReturnedMessage;

/// What tells a message from others, twice: in full, and by what the broker never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    full: u64,
    loose: u64,
}

impl Fingerprint {
    pub(crate) fn new(exchange: &[u8], routing_key: &[u8], properties: &[u8], body: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        (exchange, routing_key, body.len()).hash(&mut hasher);
        let loose = hasher.finish();
        let start = body.get(..RETURN_HASH_BODY_BYTES).unwrap_or(body);
        (properties, start).hash(&mut hasher);
        Self { full: hasher.finish(), loose }
    }
}

#[derive(Debug)]
pub(crate) struct Returns {
    open: BTreeMap<u64, Fingerprint>,
    /// Returns whose acks have not come; never more than there are open publishes.
    waiting: VecDeque<(Fingerprint, ReturnedMessage)>,
    /// Bytes of those.
    bytes: usize,
}

impl Returns {
    pub(crate) const fn new() -> Self {
        Self { open: BTreeMap::new(), waiting: VecDeque::new(), bytes: 0 }
    }

    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn publish(&mut self, seq: u64, fingerprint: Fingerprint) {
        self.open.insert(seq, fingerprint);
    }

    pub(crate) fn returned(&mut self, fingerprint: Fingerprint, message: ReturnedMessage) {
        if self.waiting.len() < self.open.len() {
            let size = message.message.size();
            let strip = self.bytes > 0 && self.bytes + size > RETURNED_UNCLAIMED_BYTES;
            let message = if strip { message.stripped() } else { message };
            self.bytes += message.message.size();
            self.waiting.push_back((fingerprint, message));
        }
    }

    /// The publishes from `first` to `last` are settled: which of them were returned.
    pub(crate) fn settle(
        &mut self,
        first: u64,
        last: u64,
        acked: bool,
    ) -> Vec<(u64, ReturnedMessage)> {
        let mut settled = Vec::new();
        while let Some((&seq, _)) = self.open.range(first..=last).next() {
            settled.extend(self.open.remove(&seq).map(|fingerprint| (seq, fingerprint)));
        }
        let mut claimed = Vec::new();
        if self.waiting.is_empty() || !acked {
            self.forget_leftovers();
            return claimed;
        }
        settled.retain(|(seq, fingerprint)| {
            let same = |waiting: &(Fingerprint, _)| waiting.0.full == fingerprint.full;
            match self.waiting.iter().position(same).and_then(|at| self.waiting.remove(at)) {
                Some((_, message)) => {
                    self.bytes -= message.message.size();
                    claimed.push((*seq, message));
                    false
                }
                None => true,
            }
        });
        for (seq, fingerprint) in settled {
            let open = &self.open;
            let alike = |waiting: &(Fingerprint, _)| {
                waiting.0.loose == fingerprint.loose
                    && !open.values().any(|other| other.full == waiting.0.full)
            };
            let found = self.waiting.iter().position(alike);
            if let Some((_, message)) = found.and_then(|at| self.waiting.remove(at)) {
                self.bytes -= message.message.size();
                claimed.push((seq, message));
            }
        }
        self.forget_leftovers();
        claimed
    }

    /// A return that nobody has claimed once all publishes are settled belongs to none of them.
    fn forget_leftovers(&mut self) {
        if self.open.is_empty() {
            self.waiting.clear();
            self.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fingerprint, Returns};
    use crate::message::{Apart, Message, ReturnedMessage};
    use bytes::Bytes;

    fn fingerprint(header: &str, body: &str) -> Fingerprint {
        Fingerprint::new(b"e", b"k", header.as_bytes(), body.as_bytes())
    }

    fn message(name: &'static str) -> ReturnedMessage {
        let body = Apart::Body(Bytes::from_static(name.as_bytes()));
        ReturnedMessage {
            code: 312.into(),
            text: "".into(),
            is_stripped: false,
            message: Message::new(Bytes::new(), (0, 0, 0), Some(Box::new(body))),
        }
    }

    fn claim(returns: &mut Returns, first: u64, last: u64) -> Vec<(u64, Vec<u8>)> {
        let claimed = returns.settle(first, last, true).into_iter();
        claimed.map(|(seq, message)| (seq, message.message.body().to_vec())).collect()
    }

    #[test]
    fn messages_are_told_apart_by_properties_and_body() {
        let mut returns = Returns::new();
        returns.publish(1, fingerprint("routed", "1"));
        returns.publish(2, fingerprint("lost", "2"));
        returns.publish(3, fingerprint("routed", "3"));
        returns.publish(4, fingerprint("lost", "4"));
        returns.returned(fingerprint("lost", "4"), message("four"));
        returns.returned(fingerprint("lost", "2"), message("two"));
        assert_eq!(claim(&mut returns, 1, 4), [(2, b"two".to_vec()), (4, b"four".to_vec())]);
    }

    #[test]
    fn equal_messages_are_told_apart_by_their_acks() {
        let mut returns = Returns::new();
        for seq in 1..=3 {
            returns.publish(seq, fingerprint("", "same"));
        }
        returns.returned(fingerprint("", "same"), message("second"));
        assert_eq!(claim(&mut returns, 2, 2), [(2, b"second".to_vec())]);
        assert_eq!(claim(&mut returns, 1, 3), []);
        assert!(returns.is_idle());
    }

    #[test]
    fn a_message_that_the_broker_changed_is_found_by_its_address() {
        let mut returns = Returns::new();
        returns.publish(1, fingerprint("plain", "1"));
        returns.publish(2, fingerprint("with BCC", "2"));
        returns.returned(fingerprint("stripped", "2"), message("two"));
        // The first publish's own ack must not take what fits the second better; nothing tells them
        // apart but that the ack comes right behind the return.
        assert_eq!(claim(&mut returns, 2, 2), [(2, b"two".to_vec())]);
        assert_eq!(claim(&mut returns, 1, 1), []);
    }
}
