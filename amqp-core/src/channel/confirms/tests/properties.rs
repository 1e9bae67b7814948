//! Random publishes, answers, losses and questions, compared with a list of every publish and its fate.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::sample::Index;

use crate::channel::confirms::{Confirmation, Confirms, Unconfirmed};
use crate::channel::fingerprint::Returned;
use crate::channel::outbox::Resend;
use crate::channel::returns::{message, plain};
use crate::error::{CloseCause, Error, Misuse, ProtocolDetail};
use crate::ids::PublishSeq;
use crate::limits::{COPIED_BODY_BYTES, LOST_EPOCHS_MAX, OUTBOX_BYTES};
use crate::message::Body;
use crate::transmit::Sent;

/// The size of each publish on the wire.
const SIZE: u64 = 10;

#[derive(Clone, Debug)]
enum Step {
    /// A publish with this body is mandatory. Some publishes are queued in a lane, and some in the outbox.
    Publish {
        body: Option<u8>,
        in_lane: bool,
        stored: bool,
    },
    Resend {
        in_lane: bool,
    },
    CannotResend,
    Release,
    /// The first frame of the first publish in the lane is sent.
    Deal,
    /// The driver takes bytes.
    Send(Index),
    Answer {
        tag: Index,
        multiple: bool,
        acked: bool,
    },
    Return(u8),
    Lose(Index),
    End(Index),
    Take(Index),
    Forget(Index),
    All(Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let body = prop::option::weighted(0.3, 0_u8..3);
    let lane = || prop::bool::weighted(0.05);
    let stored = prop::bool::weighted(0.8);
    let (one, flag) = (any::<Index>, any::<bool>);
    let step = prop_oneof![
        80 => (body, lane(), stored)
            .prop_map(|(body, in_lane, stored)| Step::Publish { body, in_lane, stored }),
        40 => lane().prop_map(|in_lane| Step::Resend { in_lane }),
        2 => Just(Step::CannotResend),
        10 => Just(Step::Release),
        20 => Just(Step::Deal),
        20 => one().prop_map(Step::Send),
        60 => (one(), flag(), prop::bool::weighted(0.7))
            .prop_map(|(tag, multiple, acked)| Step::Answer { tag, multiple, acked }),
        15 => (0_u8..3).prop_map(Step::Return),
        10 => one().prop_map(Step::Lose),
        1 => one().prop_map(Step::End),
        40 => one().prop_map(Step::Take),
        15 => one().prop_map(Step::Forget),
        10 => one().prop_map(Step::All),
    ];
    prop::collection::vec(step, 1..300)
}

#[derive(Clone, Debug, PartialEq)]
enum Fate {
    Open,
    /// Open, and a return has claimed it.
    Claimed,
    Confirmed,
    Nacked,
    Returned,
    /// It was open at this loss.
    Lost {
        loss: usize,
        sent: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    At(u64),
    InLane,
    /// It is to be sent again.
    Waiting,
}

#[derive(Debug)]
struct Published {
    body: Option<u8>,
    wire: Wire,
    stored: bool,
    /// Whether an earlier transport has written a part of it.
    begun: bool,
    fate: Fate,
    /// Whether its outcome was taken, or no caller asks for it.
    left: bool,
}

impl Published {
    const fn is_open(&self) -> bool {
        matches!(self.fate, Fate::Open | Fate::Claimed)
    }
}

#[derive(Debug)]
struct Loss {
    first: usize,
    last: usize,
    cause: Error,
}

#[derive(Debug)]
struct World {
    confirms: Confirms,
    published: Vec<Published>,
    /// The publishes of this transport in the order of their tags.
    tags: Vec<usize>,
    /// The number of bytes of the stream that are queued, and that the driver has taken.
    queued: u64,
    sent: u64,
    losses: Vec<Loss>,
    failed: Unconfirmed,
    ended: Option<Unconfirmed>,
    /// The number of large bodies that were released.
    released: usize,
}

impl World {
    fn new(has_outbox: bool) -> Self {
        let mut confirms = Confirms::new();
        if has_outbox {
            confirms.open_outbox(OUTBOX_BYTES);
        }
        Self {
            confirms,
            published: Vec::new(),
            tags: Vec::new(),
            queued: 0,
            sent: 0,
            losses: Vec::new(),
            failed: Unconfirmed::default(),
            ended: None,
            released: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        let any = |index: &Index, count: usize| index.index(count.max(1));
        let count = self.published.len();
        match step {
            Step::Take(index) => self.take(any(index, count)),
            Step::Forget(index) => self.forget(any(index, count)),
            Step::All(index) => self.all(index.index(count + 1)),
            Step::Release => self.release(),
            _ if self.ended.is_some() => {}
            Step::Publish { body, in_lane, stored } => self.publish(*body, *in_lane, *stored),
            Step::Resend { in_lane } => self.resend(*in_lane),
            Step::CannotResend => self.cannot_resend(),
            Step::Deal => self.deal(),
            Step::Send(index) => {
                self.sent = self.sent.max(index.index(self.queued as usize + 1) as u64);
            }
            Step::Answer { tag, multiple, acked } => {
                self.answer(tag.index(self.tags.len() + 3), *multiple, *acked);
            }
            Step::Return(body) => self.give_back(*body),
            Step::Lose(index) => self.lose(index.index(self.sent as usize + 1) as u64, false),
            Step::End(index) => self.lose(index.index(self.sent as usize + 1) as u64, true),
        }
        self.check();
    }

    /// The first open publish, or the next one.
    fn base(&self) -> usize {
        let base = self.published.iter().position(Published::is_open);
        base.unwrap_or(self.published.len())
    }

    /// The first open publish that is in this place.
    fn first_open(&self, wire: Wire) -> Option<usize> {
        self.published.iter().position(|it| it.is_open() && it.wire == wire)
    }

    fn sent(&self) -> Sent {
        let in_lane = self.first_open(Wire::InLane).map_or(u64::MAX, |index| index as u64 + 1);
        Sent { offset: self.sent, in_lane }
    }

    fn is_sent(&self, index: usize) -> bool {
        matches!(self.published[index].wire, Wire::At(offset) if offset < self.sent)
    }

    fn publish(&mut self, body: Option<u8>, in_lane: bool, stored: bool) {
        if self.first_open(Wire::Waiting).is_some() {
            return;
        }
        assert!(self.confirms.outbox_has_space());
        let stored = stored && self.confirms.has_outbox();
        let index = self.published.len();
        if stored {
            self.confirms.store(&head(index), &Body::Shared(stored_body(index)));
        }
        let (wire, offset) = self.queue(in_lane);
        self.confirms.publish(offset, body.map(|body| plain(&[body])));
        self.published.push(Published {
            body,
            wire,
            stored,
            begun: false,
            fate: Fate::Open,
            left: false,
        });
        self.tags.push(index);
    }

    fn resend(&mut self, in_lane: bool) {
        let next = self.first_open(Wire::Waiting);
        let expected = next.map(|index| Resend {
            seq: index as u64 + 1,
            head: head(index),
            body: stored_body(index),
        });
        assert_eq!(self.confirms.next_resend(), expected);
        if let Some(index) = next {
            let (wire, offset) = self.queue(in_lane);
            self.confirms.resent(index as u64 + 1, offset);
            self.published[index].wire = wire;
            self.tags.push(index);
        }
    }

    fn cannot_resend(&mut self) {
        let Some(index) = self.first_open(Wire::Waiting) else { return };
        let cause = Error::from(Misuse::NotConnected);
        self.confirms.cannot_resend(index as u64 + 1, cause.clone());
        let mut lost = self.fail(index);
        lost.cause = Some(cause.clone());
        self.failed.add(lost);
        self.losses.push(Loss { first: index, last: index, cause });
    }

    /// Returns where a publish is queued, and its offset.
    fn queue(&mut self, in_lane: bool) -> (Wire, u64) {
        if in_lane || self.first_open(Wire::InLane).is_some() {
            return (Wire::InLane, u64::MAX);
        }
        self.queued += SIZE;
        (Wire::At(self.queued - SIZE), self.queued - SIZE)
    }

    fn deal(&mut self) {
        if let Some(index) = self.first_open(Wire::InLane) {
            self.confirms.dealt(index as u64 + 1, self.queued);
            self.published[index].wire = Wire::At(self.queued);
            self.queued += SIZE;
        }
    }

    fn release(&mut self) {
        let mut released = Vec::new();
        self.confirms.release(&mut released);
        self.released += released.len();
        let large = |index: &usize| self.published[*index].stored && is_large(*index);
        assert_eq!(self.released, (0..self.base()).filter(large).count());
    }

    fn answer(&mut self, tag: usize, multiple: bool, acked: bool) {
        let (sent, covered) = (self.sent(), self.covered(tag, multiple));
        let expected = covered.map(|covered| {
            let (first, last) = covered?;
            let mut count = 0;
            for index in first..=last {
                count += u64::from(self.resolve(index, acked));
            }
            Some((first as u64 + 1, last as u64 + 1, count))
        });
        let expected = expected.map_err(|()| ProtocolDetail::ConfirmUnknown(tag as u64));
        assert_eq!(self.confirms.resolve(tag as u64, multiple, acked, sent), expected);
    }

    /// The first and the last publish that an answer covers.
    fn covered(&self, tag: usize, multiple: bool) -> Result<Option<(usize, usize)>, ()> {
        let base = self.base();
        if tag == 0 {
            let sent = |index: &usize| !self.published[*index].is_open() || self.is_sent(*index);
            let last = (base..self.published.len()).take_while(sent).last();
            return if multiple { Ok(last.map(|last| (base, last))) } else { Err(()) };
        }
        let Some(&index) = self.tags.get(tag - 1) else { return Err(()) };
        if !self.published[index].is_open() {
            return if multiple { Ok((index >= base).then_some((base, index))) } else { Err(()) };
        }
        let first = if multiple { base } else { index };
        if self.is_sent(index) { Ok(Some((first, index))) } else { Err(()) }
    }

    /// Returns whether the publish was open.
    fn resolve(&mut self, index: usize, acked: bool) -> bool {
        let it = &mut self.published[index];
        it.fate = match (&it.fate, acked) {
            (Fate::Claimed, _) => Fate::Returned,
            (Fate::Open, true) => Fate::Confirmed,
            (Fate::Open, false) => Fate::Nacked,
            _ => return false,
        };
        self.failed.returned += u64::from(it.fate == Fate::Returned);
        self.failed.nacked += u64::from(it.fate == Fate::Nacked);
        true
    }

    fn give_back(&mut self, body: u8) {
        let returned = Returned { fingerprint: plain(&[body]), restamped: false };
        let claims = |it: &Published| it.fate == Fate::Open && it.body == Some(body);
        let claimed = self.published.iter().position(claims).filter(|index| self.is_sent(*index));
        let left = self.confirms.returned(returned, message(Bytes::new()), self.sent());
        assert_eq!(left.is_none(), claimed.is_some());
        if let Some(index) = claimed {
            self.published[index].fate = Fate::Claimed;
        }
    }

    fn lose(&mut self, written: u64, ends: bool) {
        // The time tells the losses apart.
        let stalled = Duration::from_secs(self.losses.len() as u64);
        let cause = Error::ConnectionLost(CloseCause::WriteTimeout { stalled });
        let (base, next) = (self.base(), self.published.len());
        let (mut lost, mut resolved, mut range) = (Unconfirmed::default(), Vec::new(), None);
        for index in base..next {
            let it = &mut self.published[index];
            it.begun |= matches!(it.wire, Wire::At(offset) if offset < written);
            if it.fate == Fate::Claimed {
                self.resolve(index, true);
                resolved.push(index as u64 + 1);
            } else if it.fate == Fate::Open && it.stored && !ends {
                it.wire = Wire::Waiting;
            } else if it.fate == Fate::Open {
                lost.add(self.fail(index));
                resolved.push(index as u64 + 1);
                range = Some((range.map_or(index, |(first, _)| first), index));
            }
        }
        lost.cause = range.map(|_| cause.clone());
        if let Some((first, last)) = range {
            self.losses.push(Loss { first, last, cause: cause.clone() });
        }
        let all = (!resolved.is_empty()).then_some((base as u64 + 1, next as u64));
        if ends {
            self.ended = Some(lost);
            assert_eq!(self.confirms.end(cause, written), all);
        } else {
            self.failed.add(lost);
            let ranges = self.confirms.lose(cause, written);
            if self.confirms.has_outbox() {
                let mut reported: Vec<_> =
                    ranges.iter().flat_map(|(first, last)| *first..=*last).collect();
                reported.sort_unstable();
                assert_eq!(reported, resolved);
            } else {
                assert_eq!(ranges.first().copied(), all);
            }
            assert!(!self.confirms.is_selected());
            self.confirms.selected();
        }
        self.tags.clear();
        (self.queued, self.sent) = (0, 0);
    }

    /// Fails a publish that is open, and counts it.
    fn fail(&mut self, index: usize) -> Unconfirmed {
        let loss = self.losses.len();
        let it = &mut self.published[index];
        it.fate = Fate::Lost { loss, sent: it.begun };
        let (unknown, not_sent) = (u64::from(it.begun), u64::from(!it.begun));
        Unconfirmed { unknown, not_sent, ..Unconfirmed::default() }
    }

    fn take(&mut self, index: usize) {
        let expected = self.published.get(index).and_then(|_| self.outcome(index));
        let outcome = self.confirms.take(PublishSeq(index as u64 + 1));
        match (&outcome, &expected) {
            (Some(Confirmation::Returned(_)), Some(Confirmation::Returned(_))) => {}
            _ => assert_eq!(outcome, expected, "{index}"),
        }
        if let Some(it) = self.published.get_mut(index) {
            it.left |= expected.is_some();
        }
    }

    fn forget(&mut self, index: usize) {
        self.confirms.forget(PublishSeq(index as u64 + 1));
        if let Some(it) = self.published.get_mut(index) {
            it.left = true;
        }
    }

    fn all(&mut self, count: usize) {
        let result = self.confirms.all_confirmed(PublishSeq(count as u64));
        if self.base() < count {
            assert_eq!(result, None);
            return;
        }
        let mut failed = std::mem::take(&mut self.failed);
        failed.add(self.ended.clone().unwrap_or_default());
        assert_eq!(result, Some(if failed.count() == 0 { Ok(()) } else { Err(failed) }));
    }

    /// What a caller should get.
    fn outcome(&self, index: usize) -> Option<Confirmation> {
        let it = &self.published[index];
        match it.fate {
            Fate::Open | Fate::Claimed => return None,
            Fate::Nacked if !it.left => return Some(Confirmation::Nacked),
            Fate::Returned if !it.left => {
                return Some(Confirmation::Returned(Box::new(message(Bytes::new()))));
            }
            Fate::Lost { loss, sent } if loss + LOST_EPOCHS_MAX >= self.losses.len() => {
                let cause = self.losses[loss].cause.clone();
                return Some(match sent {
                    true => Confirmation::Unknown(cause),
                    false => Confirmation::NotSent(cause),
                });
            }
            _ => {}
        }
        let merged = self.losses.len().saturating_sub(LOST_EPOCHS_MAX);
        let merged = &self.losses[..merged];
        let first = merged.iter().map(|loss| loss.first).min();
        let last = merged.iter().map(|loss| loss.last).max();
        if let (Some(first), Some(last), Some(newest)) = (first, last, merged.last())
            && (first..=last).contains(&index)
        {
            return Some(Confirmation::Unknown(newest.cause.clone()));
        }
        Some(Confirmation::Confirmed)
    }

    fn check(&self) {
        let (base, next) = (self.base(), self.published.len());
        assert_eq!(self.confirms.next(), next as u64 + 1);
        assert_eq!(self.confirms.span(), (next - base) as u64);
        let failed = |it: &Published| match it.fate {
            Fate::Nacked | Fate::Returned => !it.left,
            Fate::Lost { .. } => true,
            _ => false,
        };
        let end = self.published.iter().rposition(failed).map_or(0, |last| last + 1);
        for index in 0..=next {
            let confirmed = (end..base).contains(&index);
            assert_eq!(self.confirms.is_confirmed(PublishSeq(index as u64 + 1)), confirmed);
        }
    }
}

fn head(index: usize) -> Vec<u8> {
    index.to_string().into_bytes()
}

const fn is_large(index: usize) -> bool {
    index % 4 == 3
}

fn stored_body(index: usize) -> Bytes {
    match index % 4 {
        3 => Bytes::from_static(&[0; COPIED_BODY_BYTES]),
        small => Bytes::from(vec![0; small]),
    }
}

proptest! {
    /// In particular, no answer on one transport confirms a publish of another.
    #[test]
    fn every_publish_has_the_outcome_of_its_last_transport(
        steps in steps(),
        has_outbox in any::<bool>(),
    ) {
        let mut world = World::new(has_outbox);
        for step in steps {
            world.step(&step);
        }
        for index in 0..world.published.len() {
            world.take(index);
            world.take(index);
        }
        world.release();
    }
}
