//! What the application has asked for and what the broker has done: the truth that outcomes are
//! compared with.

use std::collections::BTreeMap;

use amqp_core::{Confirmation, Error};

/// How a delivery was to be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    Ack,
    Refuse { requeue: bool },
}

/// A publish in confirm mode.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) channel: usize,
    /// The number that the broker counted, once it has the message.
    pub(crate) counted: Option<u64>,
    /// Where in the broker's stream these ended.
    pub(crate) acked: Option<u64>,
    pub(crate) nacked: Option<u64>,
    pub(crate) returned: Option<u64>,
    /// Where in the client's stream it begins, once it was handed over.
    pub(crate) offset: Option<u64>,
}

/// A delivery or a got message.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) channel: usize,
    pub(crate) consumer: Option<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) no_ack: bool,
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
    pub(crate) published: BTreeMap<u64, Published>,
    pub(crate) sent: Vec<Sent>,
    /// Deliveries that are to be settled, by channel and tag.
    pub(crate) tags: BTreeMap<(usize, u64), usize>,
    /// Deliveries of each consumer, by channel and consumer tag.
    pub(crate) of_consumer: BTreeMap<(usize, String), Vec<usize>>,
    /// Bytes of the broker's stream that the session has taken.
    pub(crate) fed: u64,
    /// Bytes of the client's stream that count as written, once the connection has ended.
    pub(crate) end: Option<u64>,
    /// How often each thing happened that conversations are to reach.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Log {
    pub(crate) fn new(traced: bool) -> Self {
        Self { traced, ..Self::default() }
    }

    pub(crate) fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    pub(crate) fn line(&self, line: impl FnOnce() -> String) {
        if self.traced {
            println!("{}", line());
        }
    }

    /// The publishes of a channel that the broker has counted from `first` to `last` and not settled.
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

    /// The application settles one delivery, or all of the channel up to it.
    pub(crate) fn intend(&mut self, channel: usize, tag: u64, multiple: bool, intent: Intent) {
        let first = if multiple { 0 } else { tag };
        for (_, number) in self.tags.range((channel, first)..=(channel, tag)) {
            self.sent[*number].intents.push(intent);
        }
    }

    /// The broker takes a settlement.
    pub(crate) fn check_settled(&mut self, number: usize, intent: Intent) {
        self.count(match intent {
            Intent::Ack => "acked",
            Intent::Refuse { requeue: true } => "requeued",
            Intent::Refuse { requeue: false } => "refused",
        });
        let sent = &self.sent[number];
        // What nobody has read the core may requeue by itself.
        let by_core = intent == Intent::Refuse { requeue: true } && !sent.seen;
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
            // A `multiple` may have settled it, unread, before that.
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

    /// The outcome of a publish must be the broker's.
    pub(crate) fn check_outcome(
        &mut self,
        id: u64,
        seq: u64,
        body: &[u8],
        channel_closed: bool,
        outcome: &Confirmation,
    ) {
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
            Confirmation::Confirmed => assert!(acked && truth.returned.is_none(), "{message}"),
            Confirmation::Nacked => assert!(nacked, "{message}"),
            Confirmation::Returned(returned) => {
                assert!((acked || channel_closed) && fed(truth.returned), "{message}");
                assert!(returned.message.body() == body, "{message}: another body");
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
