//! The application publishes, and compares what became of each message with the truth.

use amqp_core::{Confirmation, Error, Publish, PublishRefused, PublishSeq};
use bytes::Bytes;

use super::topology::KEYS;
use super::{Application, Context, Mode};
use crate::sim::invariants as check;
use crate::sim::swarm::Work;
use crate::sim::truth::Published;
use crate::sim::wire::message_id;

/// A publish in confirm mode whose outcome was not taken.
#[derive(Debug)]
pub(super) struct Outcome {
    id: u64,
    pub(super) seq: PublishSeq,
    /// An event has reported its outcome.
    pub(super) resolved: bool,
}

impl Application {
    pub(super) fn publish(&mut self, at: usize, cx: &mut Context<'_>) {
        if self.mode(at) == Mode::Tx {
            return;
        }
        let (exchange, key) = if self.random.chance(70) {
            (String::new(), self.queue(cx))
        } else {
            (self.exchange().to_owned(), self.random.one_of(&KEYS).to_owned())
        };
        self.publish_to(at, cx, exchange, key);
    }

    /// Publishes a message. Returns its id, or `None` if it was refused.
    pub(super) fn publish_to(
        &mut self,
        at: usize,
        cx: &mut Context<'_>,
        exchange: String,
        routing_key: String,
    ) -> Option<u64> {
        let handle = &self.channels[at];
        if handle.full || !handle.opened {
            return None;
        }
        let id = self.published;
        let body = self.body(id, cx);
        let (persistent, mandatory) = (self.random.chance(60), self.random.chance(40));
        let mut publish = Publish::new(&exchange, &routing_key, &body);
        if persistent {
            publish = publish.persistent();
        }
        if mandatory {
            publish = publish.mandatory();
        }
        let confirms = self.mode(at) == Mode::Confirm;
        match cx.session.channel(self.channels[at].id).publish(&publish) {
            Ok(seq) => {
                self.published += 1;
                cx.totals.published += 1;
                cx.trace
                    .line(|| format!("  message {id} to {exchange:?} {routing_key:?}: {seq:?}"));
                let flow = cx.truth.flows.entry(self.channels[at].flow).or_default();
                check::i3_lost_publishes_are_reported_first(flow.lost);
                flow.expected.push_back(id);
                match self.mode(at) {
                    Mode::Plain => flow.plain.push(id),
                    Mode::Confirm => {
                        flow.confirming.insert(id);
                    }
                    Mode::Tx => {}
                }
                let stores = exchange.is_empty() && self.mirror.stores(&routing_key);
                let stored_in = stores.then(|| routing_key.clone());
                let published = Published {
                    exchange,
                    routing_key,
                    persistent,
                    stored_in,
                    ..Published::default()
                };
                cx.truth.published.insert(id, published);
                if confirms {
                    self.channels[at].outcomes.push(Outcome { id, seq, resolved: false });
                }
                return Some(id);
            }
            Err(PublishRefused::Full) => self.channels[at].full = true,
            // The outbox is full.
            Err(PublishRefused::Unconfirmed) if confirms && cx.swarm.policy.republishes() => {}
            Err(PublishRefused::Error(Error::PublishesLost { count, .. })) => {
                let flow = cx.truth.flows.entry(self.channels[at].flow).or_default();
                check::i3_lost_publishes_are_counted(count, std::mem::take(&mut flow.lost));
                cx.totals.lost_publishes += count;
            }
            Err(refused) => {
                assert!(!self.is_usable(at, cx), "channel {at} is open, and refuses: {refused}");
            }
        }
        None
    }

    /// Takes the outcomes that events have reported, and at times asks for others.
    pub(super) fn take_outcomes(&mut self, at: usize, cx: &mut Context<'_>) {
        let handle = &mut self.channels[at];
        let id = handle.id;
        let closed = handle.closing || cx.session.channel(id).cause().is_some();
        let (most, eager) = (self.random.below(20), self.finishing);
        let mut taken = 0;
        for outcome in std::mem::take(&mut handle.outcomes) {
            let ask = outcome.resolved || self.random.chance(5);
            if !ask || (taken > most && !eager) {
                self.channels[at].outcomes.push(outcome);
                continue;
            }
            taken += 1;
            if cx.swarm.does(Work::Forget) && self.random.chance(10) {
                cx.session.channel(id).forget_publish(outcome.seq);
                continue;
            }
            match cx.session.channel(id).confirmed(outcome.seq) {
                Some(confirmation) => check_outcome(&outcome, &confirmation, closed, cx),
                None => {
                    assert!(!outcome.resolved, "I3: {outcome:?} was reported, and is not there");
                    self.channels[at].outcomes.push(outcome);
                }
            }
        }
    }

    /// Returns a body that begins with the id of its message.
    fn body(&mut self, id: u64, cx: &Context<'_>) -> Bytes {
        let mut body = id.to_be_bytes().to_vec();
        let more = match self.random.below(10) {
            0..=4 => 0,
            5..=7 => self.random.below(300),
            8 => self.random.below(5_000),
            _ if !cx.swarm.does(Work::Large) => 0,
            _ if self.random.chance(20) => self.random.below(200_000),
            _ => self.random.below(20_000),
        };
        body.resize(body.len() + more, b'.');
        body.into()
    }
}

fn check_outcome(
    outcome: &Outcome,
    confirmation: &Confirmation,
    channel_closed: bool,
    cx: &mut Context<'_>,
) {
    let id = outcome.id;
    cx.trace.line(|| format!("  message {id}: {confirmation:?}"));
    let truth = &mut *cx.truth;
    let published = truth.published.get_mut(&id).expect("a message that was published");
    check::i4_the_outcome_is_the_brokers(published, &truth.links, confirmation, channel_closed);
    check::i1_what_is_sent_again_is_not_lost(confirmation, cx.swarm.policy);
    match confirmation {
        Confirmation::Confirmed => {
            cx.totals.confirmed += 1;
            published.confirmed = true;
        }
        Confirmation::Returned(returned) => {
            cx.totals.returned += 1;
            let found = message_id(returned.message.body());
            assert_eq!(found, id, "I4: the message of another publish was returned");
        }
        Confirmation::NotSent(error) => {
            cx.totals.not_sent += 1;
            // What was in a buffer when the broker closed the channel is written, and ignored.
            if matches!(error, Error::Connection(_) | Error::ConnectionLost(_)) {
                truth.not_sent.push(id);
            }
        }
        _ => cx.totals.unknown += 1,
    }
}
