//! An application that does whatever an application may do, in any order, and remembers what it is
//! owed. It is driven by events alone: what no event announces it does not look at.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use amqp_core::{
    AckError, BasicConsume, BasicGet, BasicQos, BasicRecover, Call, CallKey, ChannelFlow,
    ChannelId, ConfirmSelect, ConsumerKey, DeliveryTag, Error, ExchangeDelete, FieldTable,
    Properties, Publish, PublishRefused, PublishSeq, QueueDeclare, QueueDelete, QueuePurge, Secret,
    Session, TxCommit, TxRollback, TxSelect,
};
use bytes::Bytes;

use super::calls::{Expected, Owed, Typed};
use super::channel::Channel;
use super::dice::Dice;
use super::log::{Intent, Log, Published};

/// Where in a body its publish's number stands; the bytes before are the same in all.
const PREFIX: usize = 64;

#[derive(Debug)]
pub(crate) struct Application {
    /// In the order in which they were opened.
    pub(crate) handles: Vec<Handle>,
    pub(crate) owed: BTreeMap<CallKey, Owed>,
    /// Forgotten calls, whose event may be queued already.
    pub(super) forgotten: BTreeSet<CallKey>,
    publishes: u64,
    pub(super) names: u32,
    pub(super) blocked: bool,
    pub(crate) closed: bool,
}

#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) id: ChannelId,
    /// The call of `channel.open` has its reply.
    pub(super) open: bool,
    pub(super) confirms: bool,
    pub(super) transactional: bool,
    pub(crate) released: bool,
    pub(crate) closed: bool,
    /// A publish was refused, and no event has said since that there is room.
    pub(super) full: bool,
    /// Publishes in confirm mode.
    published: u64,
    pub(super) outcomes: Vec<Outcome>,
    pub(crate) consumers: Vec<Reader>,
    pub(crate) held: Vec<Held>,
    pub(super) uncommitted: Vec<Held>,
    pub(crate) given_up: BTreeSet<usize>,
    pub(super) returned: bool,
    /// A drain has cancelled its consumers.
    pub(super) drained: bool,
    /// `basic.recover` was called.
    pub(super) recovered: bool,
}

#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) id: u64,
    pub(super) seq: PublishSeq,
    pub(super) body: Bytes,
    /// An event has said that it is settled.
    pub(super) settled: bool,
}

#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) key: ConsumerKey,
    pub(super) tag: String,
    /// An event has said that there is something.
    pub(super) flagged: bool,
    /// How many of the deliveries that it was sent it has read, or has missed for a reason.
    pub(crate) read: usize,
    pub(super) cancelled: bool,
}

/// A delivery that the application has to settle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(super) tag: DeliveryTag,
    pub(crate) number: usize,
    /// `basic.recover` was called since.
    pub(super) stale: bool,
}

/// The number of the publish that a body belongs to; one that is too short has none.
pub(crate) fn body_id(body: &[u8]) -> u64 {
    let id = body.get(PREFIX..PREFIX + 8);
    id.map_or(u64::MAX, |id| u64::from_be_bytes(id.try_into().unwrap()))
}

impl Application {
    pub(crate) const fn new() -> Self {
        Self {
            handles: Vec::new(),
            owed: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            publishes: 0,
            names: 0,
            blocked: false,
            closed: false,
        }
    }

    /// Does something.
    pub(crate) fn act(
        &mut self,
        session: &mut Session,
        now: Instant,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        let living: Vec<usize> = (0..self.handles.len())
            .filter(|at| !self.handles[*at].released && !self.handles[*at].closed)
            .collect();
        let Some(at) = dice.place(living.len()).filter(|_| !dice.chance(4)) else {
            return self.open(session, now, log);
        };
        let at = living[at];
        log.line(|| format!("  application, handle {at}"));
        match dice.below(100) {
            0..=29 => self.publish(at, session, dice, log),
            30..=44 => self.read(at, session, now, dice, log),
            45..=64 => self.settle(at, session, dice, log),
            65..=72 => self.take_outcomes(at, session, dice, log),
            73..=76 => self.consume(at, session, now, dice),
            77..=90 => self.call(at, session, now, dice),
            91 | 92 => self.cancel(at, session, now, dice),
            93 | 94 => self.forget(session, now, dice),
            95 => self.release_consumer(at, session, now, dice, log),
            96 if dice.chance(50) => {
                let call = session.channel(self.handles[at].id).close(now);
                self.owe(Typed::Done(call), Expected::ChannelClose(at));
            }
            97 if dice.chance(50) => {
                self.release(at, session, now);
            }
            98 if dice.chance(30) => {
                if let Ok(call) = session.drain(now, Duration::from_secs(dice.next() % 100)) {
                    self.handles.iter_mut().for_each(|handle| handle.drained = true);
                    self.owe(Typed::Done(call), Expected::Drain);
                }
            }
            98 => {
                if let Ok(call) = session.update_secret(now, &Secret::new("s"), "r") {
                    self.owe(Typed::Done(call), Expected::Done(None));
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, session: &mut Session, now: Instant, log: &Log) {
        if let Ok((id, call)) = session.open_channel(now) {
            log.line(|| format!("  {id:?} is handle {}", self.handles.len()));
            self.owe(Typed::Done(call), Expected::ChannelOpen(self.handles.len()));
            self.handles.push(Handle {
                id,
                open: false,
                confirms: false,
                transactional: false,
                released: false,
                closed: false,
                full: false,
                published: 0,
                outcomes: Vec::new(),
                consumers: Vec::new(),
                held: Vec::new(),
                uncommitted: Vec::new(),
                given_up: BTreeSet::new(),
                returned: false,
                drained: false,
                recovered: false,
            });
        }
    }

    pub(super) fn owe(&mut self, call: Typed, expected: Expected) {
        let known = self.owed.insert(call.key(), Owed { call, expected });
        assert!(known.is_none(), "a call's key is used twice");
    }

    fn publish(&mut self, at: usize, session: &mut Session, dice: &mut Dice, log: &mut Log) {
        let handle = &mut self.handles[at];
        if handle.full || !handle.open {
            return;
        }
        let id = self.publishes;
        self.publishes += 1;
        let mut body = vec![b'='; PREFIX];
        body.extend(id.to_be_bytes());
        let size = dice.size();
        // Others of the same length differ late.
        body.resize(body.len() + if dice.chance(50) { 0 } else { size }, b'-');
        let body = Bytes::from(body);
        let headers = FieldTable::from([("number", (id as i64).into())]);
        let properties = Properties::new().content_type("text/plain").headers(headers);
        let mut publish = Publish::new("", "q", &body);
        if dice.chance(30) {
            publish = publish.mandatory();
        }
        if dice.chance(30) {
            publish = publish.persistent();
        }
        if dice.chance(30) {
            publish = publish.properties(&properties);
        }
        match session.channel(handle.id).publish(&publish) {
            Ok(seq) if handle.confirms => {
                handle.published += 1;
                assert_eq!(seq.number(), handle.published);
                log.line(|| format!("  publish {id} of handle {at} is {seq:?}"));
                log.published.insert(id, Published { channel: at, ..Published::default() });
                handle.outcomes.push(Outcome { id, seq, body, settled: false });
            }
            Ok(seq) => assert_eq!(seq.number(), 0),
            Err(PublishRefused::Full) => {
                log.count("no room");
                handle.full = true;
            }
            Err(PublishRefused::Error(_)) => assert!(is_dead(session, handle), "refused"),
            Err(refused) => panic!("{refused}"),
        }
    }

    /// Asks for outcomes that were announced, and at times for one that was not.
    fn take_outcomes(&mut self, at: usize, session: &mut Session, dice: &mut Dice, log: &mut Log) {
        let handle = &mut self.handles[at];
        let (id, closed) = (handle.id, is_dead(session, handle));
        let most = dice.below(20);
        let mut taken = 0;
        handle.outcomes.retain(|outcome| {
            if taken > most || !(outcome.settled || dice.chance(5)) {
                return true;
            }
            taken += 1;
            if dice.chance(10) {
                session.channel(id).forget_publish(outcome.seq);
                return false;
            }
            match session.channel(id).confirmed(outcome.seq) {
                Some(confirmation) => {
                    let seq = outcome.seq.number();
                    log.check_outcome(outcome.id, seq, &outcome.body, closed, &confirmation);
                    false
                }
                None => {
                    assert!(!outcome.settled, "{outcome:?} has none, though an event said so");
                    true
                }
            }
        });
    }

    fn consume(&mut self, at: usize, session: &mut Session, now: Instant, dice: &mut Dice) {
        let handle = &self.handles[at];
        let mut consume = BasicConsume::new("q").prefetch([0, 1, 3, 20][dice.below(4)]);
        if dice.chance(40) {
            consume = consume.no_ack();
        }
        if dice.chance(30) {
            self.names += 1;
            consume = consume.consumer_tag(format!("custom-{}", self.names));
        }
        match session.channel(handle.id).consume(now, &consume) {
            Ok(call) => self.owe(Typed::Consume(call), Expected::Consume(at)),
            Err(error) => assert!(is_dead(session, handle), "{error}"),
        }
    }

    fn call(&mut self, at: usize, session: &mut Session, now: Instant, dice: &mut Dice) {
        self.names += 1;
        let name = format!("q{}", self.names);
        let count = self.names;
        let handle = &mut self.handles[at];
        let id = handle.id;
        let (confirms, transactional) = (handle.confirms, handle.transactional);
        let done = |call: Result<Call<()>, Error>, expected| {
            call.map(|call| (Typed::Done(call), expected))
        };
        let mut channel = session.channel(id);
        let called = match dice.below(24) {
            0..=3 => {
                let get = BasicGet::new(&*name);
                let get = if dice.chance(30) { get.no_ack() } else { get };
                channel.call(now, &get).map(|call| (Typed::Get(call), Expected::Get(at, name)))
            }
            4..=5 => {
                let qos = BasicQos::new(dice.below(10) as u16);
                let qos = if dice.chance(30) { qos.global() } else { qos };
                done(channel.call(now, &qos), Expected::Done(Some(at)))
            }
            6..=7 => channel
                .call(now, &QueueDeclare::new(&*name))
                .map(|call| (Typed::Declare(call), Expected::Count(at, count))),
            8 => channel
                .call(now, &QueuePurge::new(&*name))
                .map(|call| (Typed::Count(call), Expected::Count(at, count))),
            9 => channel
                .call(now, &QueueDelete::new(&*name))
                .map(|call| (Typed::Count(call), Expected::Count(at, count))),
            10 => done(channel.call(now, &ExchangeDelete::new("x")), Expected::Done(Some(at))),
            11 => channel
                .call(now, &ChannelFlow::new(true))
                .map(|call| (Typed::Flow(call), Expected::Done(Some(at)))),
            12 => {
                let _ = channel.call_no_wait(&QueueDeclare::new(&*name));
                return;
            }
            13..=16 if !transactional => {
                let called = channel.call(now, &ConfirmSelect::default());
                handle.confirms |= called.is_ok();
                done(called, Expected::Done(Some(at)))
            }
            17 if !confirms => {
                let called = channel.call(now, &TxSelect::default());
                handle.transactional |= called.is_ok();
                done(called, Expected::Done(Some(at)))
            }
            18..=20 if transactional => {
                let called = channel.call(now, &TxCommit::default());
                if called.is_ok() {
                    handle.uncommitted.clear();
                }
                done(called, Expected::Done(Some(at)))
            }
            21 if transactional => {
                let called = channel.call(now, &TxRollback::default());
                if called.is_ok() {
                    handle.held.append(&mut handle.uncommitted);
                }
                done(called, Expected::Done(Some(at)))
            }
            22 if dice.chance(30) => {
                let called = channel.call(now, &BasicRecover::default());
                if called.is_ok() {
                    handle.held.iter_mut().for_each(|held| held.stale = true);
                    handle.recovered = true;
                }
                done(called, Expected::Done(Some(at)))
            }
            _ => return,
        };
        match called {
            Ok((call, expected)) => self.owe(call, expected),
            Err(error) => assert!(is_dead(session, &self.handles[at]), "{error}"),
        }
    }

    /// Reads deliveries of a consumer that was announced to have some.
    fn read(
        &mut self,
        at: usize,
        session: &mut Session,
        now: Instant,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        let handle = &mut self.handles[at];
        if std::mem::take(&mut handle.returned) {
            while session.channel(handle.id).take_returned().is_some() {}
        }
        let flagged: Vec<usize> =
            (0..handle.consumers.len()).filter(|at| handle.consumers[*at].flagged).collect();
        let Some(which) = dice.place(flagged.len()) else { return };
        let which = flagged[which];
        let reader = &mut handle.consumers[which];
        let mut pulled = std::collections::VecDeque::new();
        if dice.chance(30) {
            session.channel(handle.id).pull_deliveries(reader.key, &mut pulled);
        } else {
            let next = |_| session.channel(handle.id).next_delivery(reader.key);
            pulled.extend((0..1 + dice.below(5)).map_while(next));
        }
        for delivery in &pulled {
            let number = read_number(&delivery.message);
            let sent = &mut log.sent[number];
            let of_it = (sent.channel, sent.consumer.as_deref()) == (at, Some(&reader.tag));
            assert!(of_it, "{sent:?} was delivered to {reader:?} of handle {at}");
            assert!(!std::mem::replace(&mut sent.seen, true), "delivered twice: {number}");
            assert!(delivery.message.body() == sent.body, "the body of delivery {number}");
            assert_eq!(delivery.redelivered, sent.redelivered);
            if !sent.no_ack {
                handle.held.push(Held { tag: delivery.tag, number, stale: false });
            } else if dice.chance(10) {
                // Its tag may be that of another delivery.
                let (tag, multiple) = (delivery.tag, dice.chance(50));
                assert!(session.channel(handle.id).ack(tag, multiple).is_err(), "{number}");
                session.channel(handle.id).requeue(tag);
                session.channel(handle.id).drop_unacked(tag);
            }
            log.count("read");
            log.read_in_order(at, &reader.tag, number, &mut reader.read);
        }
        if pulled.is_empty() {
            reader.flagged = false;
            if let Some(end) = session.channel(handle.id).consumer_end(reader.key) {
                let dead = is_dead(session, handle);
                let reader = handle.consumers.swap_remove(which);
                let cancelled = reader.cancelled || handle.drained;
                assert!(end.is_err() || cancelled || dead, "{reader:?} ended");
                // Recovering drops what comes before its answer.
                log.read_all(at, &reader.tag, reader.read, dead || handle.recovered);
                session.channel(handle.id).release_consumer(now, reader.key, []);
            }
        }
    }

    fn settle(&mut self, at: usize, session: &mut Session, dice: &mut Dice, log: &mut Log) {
        let handle = &mut self.handles[at];
        let Some(which) = dice.place(handle.held.len()) else { return };
        let held = handle.held[which];
        let (mut multiple, requeue) = (dice.chance(30), dice.chance(50));
        let mut channel = session.channel(handle.id);
        let (result, intent) = match dice.below(10) {
            0..=4 => (channel.ack(held.tag, multiple), Intent::Ack),
            5..=6 => (channel.nack(held.tag, multiple, requeue), Intent::Refuse { requeue }),
            7 => {
                multiple = false;
                (channel.reject(held.tag, requeue), Intent::Refuse { requeue })
            }
            8 => {
                channel.drop_unacked(held.tag);
                handle.given_up.insert(held.number);
                handle.held.swap_remove(which);
                return;
            }
            _ => {
                // Dropped by a handle that was told to requeue.
                log.intend(at, held.tag.number(), false, Intent::Refuse { requeue: true });
                channel.requeue(held.tag);
                handle.held.swap_remove(which);
                return;
            }
        };
        match result {
            Ok(()) => {
                assert!(!held.stale, "{held:?} was settled behind recover");
                log.intend(at, held.tag.number(), multiple, intent);
                let covered = |it: &mut Held| match multiple {
                    true => it.tag.number() <= held.tag.number(),
                    false => it.tag == held.tag,
                };
                let settled: Vec<Held> = handle.held.extract_if(.., covered).collect();
                if handle.transactional {
                    handle.uncommitted.extend(settled.iter().filter(|held| !held.stale));
                }
                let again = session.channel(handle.id).ack(held.tag, false);
                assert!(again.is_err(), "{held:?} was settled twice");
            }
            Err(error) => {
                let dead = is_dead(session, handle);
                let recovered = handle.recovered && matches!(error, AckError::Recovered(_));
                // A `multiple` covers what is unread as well.
                let covered = matches!(error, AckError::AlreadyAcked(_))
                    && !log.sent[held.number].intents.is_empty();
                assert!(dead || recovered || covered, "{held:?}: {error}");
                handle.held.swap_remove(which);
            }
        }
    }

    fn cancel(&mut self, at: usize, session: &mut Session, now: Instant, dice: &mut Dice) {
        let handle = &mut self.handles[at];
        let Some(which) = dice.place(handle.consumers.len()) else { return };
        handle.consumers[which].cancelled = true;
        if let Ok(call) = session.channel(handle.id).cancel(now, handle.consumers[which].key) {
            self.owe(Typed::Done(call), Expected::Done(Some(at)));
        }
    }

    fn release_consumer(
        &mut self,
        at: usize,
        session: &mut Session,
        now: Instant,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        let handle = &mut self.handles[at];
        let Some(which) = dice.place(handle.consumers.len()) else { return };
        let reader = handle.consumers.swap_remove(which);
        // What its handle had taken and nobody has read.
        let of_it = |held: &mut Held| {
            log.sent[held.number].consumer.as_deref() == Some(&reader.tag) && dice.chance(30)
        };
        let taken: Vec<Held> = handle.held.extract_if(.., of_it).collect();
        for held in &taken {
            log.intend(at, held.tag.number(), false, Intent::Refuse { requeue: true });
        }
        let taken = taken.into_iter().map(|held| held.tag);
        session.channel(handle.id).release_consumer(now, reader.key, taken);
    }

    /// The handle is dropped; its consumers' may live on.
    fn release(&mut self, at: usize, session: &mut Session, now: Instant) {
        let handle = &mut self.handles[at];
        session.channel(handle.id).release(now);
        handle.released = true;
        handle.outcomes.clear();
    }

    pub(crate) fn release_all(&mut self, session: &mut Session, now: Instant) {
        for at in 0..self.handles.len() {
            self.release(at, session, now);
        }
    }

    fn forget(&mut self, session: &mut Session, now: Instant, dice: &mut Dice) {
        let Some(which) = dice.place(self.owed.len()) else { return };
        let key = *self.owed.keys().nth(which).unwrap();
        let owed = self.owed.remove(&key).unwrap();
        if let Expected::ChannelOpen(at) = owed.expected {
            self.handles[at].released = true;
            self.handles[at].outcomes.clear();
        }
        self.forgotten.insert(key);
        session.forget(now, key);
    }

    /// Does everything that is left to be done: reads, takes, settles, commits. Nothing new begins.
    pub(crate) fn finish(
        &mut self,
        session: &mut Session,
        now: Instant,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        for at in 0..self.handles.len() {
            while self.handles[at].consumers.iter().any(|reader| reader.flagged) {
                self.read(at, session, now, dice, log);
            }
            while !self.handles[at].held.is_empty() {
                self.settle(at, session, dice, log);
            }
            self.take_outcomes(at, session, dice, log);
            let handle = &mut self.handles[at];
            if !handle.uncommitted.is_empty() && handle.open && !is_dead(session, handle) {
                handle.uncommitted.clear();
                let call = session.channel(handle.id).call(now, &TxCommit::default()).unwrap();
                self.owe(Typed::Done(call), Expected::Done(Some(at)));
            }
            let handle = &mut self.handles[at];
            // The bytes of what was last pulled count until the next time.
            for reader in &handle.consumers {
                let mut pulled = std::collections::VecDeque::new();
                session.channel(handle.id).pull_deliveries(reader.key, &mut pulled);
                assert!(pulled.is_empty(), "{reader:?} has deliveries that no event announced");
            }
        }
    }

    /// Of what the broker holds as unacknowledged, all was given up.
    pub(crate) fn check_unacked(&self, channel: &Channel) {
        let handle = &self.handles[channel.id];
        assert!(handle.closed || !channel.has_ghosts(), "a cancel of the broker was not answered");
        // A rollback opens again what was requeued for nobody.
        if !handle.transactional && !handle.closed {
            for number in channel.unacked() {
                assert!(handle.given_up.contains(&number), "delivery {number} is not settled");
            }
        }
    }

    /// A publish that was refused for lack of buffer space is let in by now.
    pub(crate) fn check_room(&self, session: &mut Session) {
        for handle in &self.handles {
            assert!(!handle.full || is_dead(session, handle), "no event said that there is room");
        }
    }

    /// What is still owed.
    pub(crate) fn open_outcomes(&self) -> usize {
        let held = self.handles.iter().filter(|handle| !handle.released);
        held.map(|handle| handle.outcomes.len()).sum()
    }
}

/// Whether the channel or the connection is closed, or is about to be.
pub(super) fn is_dead(session: &mut Session, handle: &Handle) -> bool {
    handle.released
        || !session.connection().is_open()
        || session.channel(handle.id).cause().is_some()
        || !handle.open
}

pub(super) fn read_number(message: &amqp_core::ReceivedMessage) -> usize {
    message.routing_key().as_str().unwrap().parse().unwrap()
}
