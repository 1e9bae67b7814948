//! What the application has asked for and what the broker has done: the truth that outcomes are
//! compared with.

use std::collections::{BTreeMap, BTreeSet};

use amqp_core::{Confirmation, Error};

use super::prefetch::Limits;
use super::publishing::Outcome;
use super::versions::Version;

/// Whether the application acked a delivery or refused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    Ack,
    Refuse { requeue: bool },
}

/// A publish in confirm mode.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) channel: usize,
    /// It is equal to others in all that the broker does not change.
    pub(crate) twin: bool,
    /// The number that the broker counted, once it has the message.
    pub(crate) counted: Option<u64>,
    /// Where in the broker's stream these ended.
    pub(crate) acked: Option<u64>,
    pub(crate) nacked: Option<u64>,
    pub(crate) returned: Option<u64>,
    /// Where in the client's stream it begins, once it was handed over.
    pub(crate) offset: Option<u64>,
}

/// Where a delivery comes from, as far as the client can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// From a stream, as the application has said.
    pub(crate) announced: bool,
    /// Whether the client is to take it for a stream's; `None` if that depends on what it knows of the
    /// consumer when the delivery arrives.
    pub(crate) suspected: Option<bool>,
}

impl Origin {
    pub(crate) const QUEUE: Self = Self { announced: false, suspected: Some(false) };

    /// What is written when the application refuses it.
    pub(crate) const fn refusal(self, requeue: bool) -> Intent {
        if self.announced { Intent::Ack } else { Intent::Refuse { requeue } }
    }

    pub(crate) fn may_be_refused(self) -> bool {
        self.suspected != Some(true)
    }

    pub(crate) fn may_be_suspected(self) -> bool {
        self.suspected != Some(false)
    }
}

/// A delivery or a got message.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) channel: usize,
    pub(crate) consumer: Option<String>,
    pub(crate) properties: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) no_ack: bool,
    /// No prefetch bounds how many of them are under way.
    pub(crate) unbounded: bool,
    /// Its queue is a stream.
    pub(crate) of_stream: bool,
    pub(crate) origin: Origin,
    pub(crate) redelivered: bool,
    /// Where in the broker's stream it ended, once it was written whole.
    pub(crate) written: Option<u64>,
    pub(crate) intents: Vec<Intent>,
    /// The application has read it.
    pub(crate) seen: bool,
    /// `basic.recover` took it back.
    pub(crate) recovered: bool,
    /// Its consumer was cancelled by the broker.
    pub(crate) ghost: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    traced: bool,
    /// The broker.
    pub(crate) version: Version,
    /// More is delivered than is read.
    pub(crate) flood: bool,
    /// Opens that the broker refuses.
    pub(crate) refused: BTreeSet<usize>,
    /// What the application has asked for on each channel.
    pub(crate) limits: BTreeMap<usize, Limits>,
    pub(crate) published: BTreeMap<u64, Published>,
    pub(crate) sent: Vec<Sent>,
    /// Deliveries that need an ack or nack, by channel and tag.
    pub(crate) tags: BTreeMap<(usize, u64), usize>,
    /// Deliveries of each consumer, by channel and consumer tag.
    pub(crate) of_consumer: BTreeMap<(usize, String), Vec<usize>>,
    /// Where in the broker's stream a cancel of the consumer ended, or the answer to one.
    pub(crate) ended: BTreeMap<(usize, String), u64>,
    /// Where in the broker's stream returns of twins ended, and how many were reported.
    pub(crate) twins: BTreeMap<usize, (Vec<u64>, usize)>,
    /// Bytes of the broker's stream that the session has taken.
    pub(crate) fed: u64,
    /// Bytes of the client's stream that count as written, once the connection has ended.
    pub(crate) end: Option<u64>,
    /// How often each thing happened that conversations are to reach.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Log {
    pub(crate) fn new(traced: bool, version: Version, flood: bool) -> Self {
        Self { traced, version, flood, ..Self::default() }
    }

    pub(crate) fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    pub(crate) fn line(&self, line: impl FnOnce() -> String) {
        if self.traced {
            println!("{}", line());
        }
    }

    /// The publishes of a channel that the broker has counted from `first` to `last` and not resolved.
    pub(crate) fn numbered(
        &mut self,
        channel: usize,
        first: u64,
        last: u64,
    ) -> impl Iterator<Item = &mut Published> {
        self.published.values_mut().filter(move |it| {
            let open = it.acked.is_none() && it.nacked.is_none();
            open && it.channel == channel && it.counted.is_some_and(|at| first <= at && at <= last)
        })
    }

    /// The application acks or refuses one delivery, or all of the channel up to it.
    pub(crate) fn intend(&mut self, channel: usize, tag: u64, multiple: bool, intent: Intent) {
        let first = if multiple { 0 } else { tag };
        for (_, number) in self.tags.range((channel, first)..=(channel, tag)) {
            self.sent[*number].intents.push(intent);
        }
    }

    /// The broker has received an ack, nack or reject.
    pub(crate) fn check_acknowledged(&mut self, number: usize, intent: Intent) {
        self.count(match intent {
            Intent::Ack => "acked",
            Intent::Refuse { requeue: true } => "requeued",
            Intent::Refuse { requeue: false } => "refused",
        });
        let sent = &self.sent[number];
        let refused = intent != Intent::Ack;
        let fatal = sent.of_stream && self.version == Version::V3;
        assert!(!(refused && fatal), "a stream's delivery was refused: {sent:?}");
        assert!(!refused || sent.origin.may_be_refused(), "refused: {sent:?}");
        // What nobody has read the core may requeue by itself.
        let requeued = Intent::Refuse { requeue: true };
        let by_core = !sent.seen && [sent.origin.refusal(true), requeued].contains(&intent);
        assert!(
            by_core || sent.intents.contains(&intent),
            "delivery {number}: {intent:?} was written, and {:?} asked for",
            sent.intents
        );
    }

    /// A consumer has read a delivery; what it was sent before it has read, or `basic.recover` took back.
    pub(crate) fn read_in_order(&self, channel: usize, tag: &str, number: usize, read: &mut usize) {
        let all = &self.of_consumer[&(channel, tag.to_owned())];
        while let Some(next) = all.get(*read)
            && *next != number
        {
            let sent = &self.sent[*next];
            // A `multiple` may have covered it, unread, before that.
            let gone = sent.recovered || !sent.intents.is_empty();
            assert!(gone && !sent.no_ack, "{next} was not read, and {number} was: {sent:?}");
            *read += 1;
        }
        assert_eq!(all.get(*read), Some(&number), "read out of order");
        *read += 1;
    }

    /// A consumer has ended: it has read everything, but for what went back to its queue.
    pub(crate) fn read_all(&self, channel: usize, tag: &str, read: usize, dead: bool) {
        let all = self.of_consumer.get(&(channel, tag.to_owned()));
        for number in all.into_iter().flatten().skip(read) {
            let sent = &self.sent[*number];
            let arrived = sent.written.is_some_and(|at| at <= self.fed);
            let requeued = !sent.no_ack && (sent.recovered || dead);
            assert!(!arrived || requeued || sent.ghost, "{number} was never read: {sent:?}");
        }
    }

    /// A cancel of the consumer has been answered, or the broker has cancelled it.
    pub(crate) fn has_ended(&self, channel: usize, tag: &str) -> bool {
        self.ended.get(&(channel, tag.to_owned())).is_some_and(|at| *at <= self.fed)
    }

    /// Bytes of bodies that have arrived whole for a consumer, that it has not read and that no prefetch
    /// bounds.
    pub(crate) fn unbounded_bytes(&self, channel: usize, tag: &str, read: usize) -> usize {
        let all = self.of_consumer.get(&(channel, tag.to_owned()));
        let sent = all.into_iter().flatten().skip(read).map(|number| &self.sent[*number]);
        let unread = sent.filter(|sent| {
            let lost = sent.seen || sent.recovered || sent.ghost;
            sent.unbounded && !lost && sent.written.is_some_and(|at| at <= self.fed)
        });
        unread.map(|sent| sent.body.len()).sum()
    }

    /// The outcome of a publish must be the broker's.
    pub(crate) fn check_outcome(
        &mut self,
        publish: &Outcome,
        channel_closed: bool,
        outcome: &Confirmation,
    ) {
        let (id, seq) = (publish.id, publish.seq.number());
        self.count(match outcome {
            Confirmation::Confirmed => "confirmed",
            Confirmation::Nacked => "nacked",
            Confirmation::Returned(_) => "returned",
            Confirmation::NotSent(_) => "not sent",
            Confirmation::Unknown(_) => "unknown",
            _ => "another outcome",
        });
        let truth = &self.published[&id];
        let fed = |at: Option<u64>| at.is_some_and(|at| at <= self.fed);
        let (acked, nacked) = (fed(truth.acked), fed(truth.nacked));
        let message =
            format!("publish {id}, number {seq}: {outcome:?} of {truth:?}, fed {}", self.fed);
        match outcome {
            Confirmation::Confirmed => {
                assert!(acked && (truth.returned.is_none() || truth.twin), "{message}");
            }
            Confirmation::Nacked => assert!(nacked, "{message}"),
            Confirmation::Returned(returned) => {
                // Of two that come back as the same message, either may have come back, and be nacked.
                assert!(acked || channel_closed || (truth.twin && nacked), "{message}");
                if truth.twin {
                    let (all, reported) = self.twins.get_mut(&truth.channel).expect("a return");
                    *reported += 1;
                    let arrived = all.iter().filter(|at| **at <= self.fed).count();
                    assert!(*reported <= arrived, "{message}: {reported} of {arrived}");
                } else {
                    assert!(fed(truth.returned), "{message}");
                }
                let it = &returned.message;
                let properties = self.version.returned(&publish.properties);
                assert_eq!(it.raw_properties().as_bytes(), properties, "{message}");
                assert_eq!(it.routing_key(), publish.routing_key, "{message}");
                assert!(it.body() == publish.body, "{message}: another body");
            }
            // What was in the buffer when the broker closed the channel is written, and ignored.
            Confirmation::NotSent(Error::Channel(_)) => {
                assert!(channel_closed && truth.counted.is_none(), "{message}");
            }
            Confirmation::Unknown(Error::Channel(_)) => {
                let written = truth.offset.is_some();
                assert!(channel_closed && written && !acked && !nacked, "{message}");
            }
            Confirmation::NotSent(_) => {
                let end = self.end.unwrap_or_else(|| panic!("{message}: the connection lives"));
                let unwritten = truth.offset.is_none_or(|at| at >= end);
                assert!(unwritten && !acked && !nacked, "{message}, end {end}");
            }
            Confirmation::Unknown(_) => {
                let end = self.end.unwrap_or_else(|| panic!("{message}: the connection lives"));
                let written = truth.offset.is_some_and(|at| at < end);
                assert!(written && !acked && !nacked, "{message}, end {end}");
            }
            _ => panic!("{message}"),
        }
        if acked || nacked {
            assert_eq!(truth.counted, Some(seq), "{message}");
        }
    }
}
