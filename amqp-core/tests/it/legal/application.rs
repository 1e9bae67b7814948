//! An application that does whatever an application may do, in any order, and remembers what it is
//! owed. It is driven by events alone: what no event announces it does not look at.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use amqp_core::requests::{
    BasicRecover, ChannelFlow, ConfirmSelect, TxCommit, TxRollback, TxSelect,
};
use amqp_core::types::Secret;
use amqp_core::{
    BasicGet, BasicQos, Call, CallKey, ChannelId, Error, ExchangeDelete, QueueDeclare, QueueDelete,
    QueuePurge, Session,
};

use super::calls::{Expected, Owed, Typed};
use super::channel::Channel;
use super::consuming::{Held, Reader};
use super::dice::Dice;
use super::log::Log;
use super::publishing::Outcome;

#[derive(Debug)]
pub(crate) struct Application {
    /// In the order in which they were opened.
    pub(crate) handles: Vec<Handle>,
    pub(crate) owed: BTreeMap<CallKey, Owed>,
    /// Forgotten calls, whose event may be queued already.
    pub(super) forgotten: BTreeSet<CallKey>,
    pub(super) publishes: u64,
    pub(super) names: u32,
    pub(super) blocked: bool,
    /// An event has said that reading pauses.
    pub(crate) paused: bool,
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
    pub(super) published: u64,
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
    /// Deliveries on it may come from a stream.
    pub(super) streams: bool,
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
            paused: false,
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
            _ if log.flood && dice.chance(20) => self.consume(at, session, now, dice, log),
            0..=29 => self.publish(at, session, dice, log),
            30..=44 => self.read(at, session, now, dice, log),
            45..=64 => self.acknowledge(at, session, dice, log),
            65..=72 => self.take_outcomes(at, session, dice, log),
            73..=76 => self.consume(at, session, now, dice, log),
            77..=90 => self.call(at, session, now, dice, log),
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
                streams: false,
            });
        }
    }

    pub(super) fn owe(&mut self, call: Typed, expected: Expected) {
        let known = self.owed.insert(call.key(), Owed { call, expected });
        assert!(known.is_none(), "a call's key is used twice");
    }

    fn call(
        &mut self,
        at: usize,
        session: &mut Session,
        now: Instant,
        dice: &mut Dice,
        log: &mut Log,
    ) {
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
        let called = match dice.below(28) {
            0..=3 => {
                let get = BasicGet::new(&*name);
                let get = if dice.chance(30) { get.no_ack() } else { get };
                channel.call(now, &get).map(|call| (Typed::Get(call), Expected::Get(at, name)))
            }
            4..=5 | 24..=27 => {
                let qos = BasicQos::new([0, 0, 1, 3, 7][dice.below(5)]);
                let qos = if dice.chance(50) { qos.global() } else { qos };
                let called = channel.call(now, &qos);
                if called.is_ok() {
                    log.limits.entry(at).or_default().ask(qos.prefetch_count, qos.global);
                }
                done(called, Expected::Done(Some(at)))
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
            22 if !handle.streams && dice.chance(30) => {
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

    /// Does everything that is left to be done: reads, takes, acks, commits. Nothing new begins.
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
                self.acknowledge(at, session, dice, log);
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
    pub(crate) fn check_unacked(&self, channel: &Channel, log: &Log) {
        let handle = &self.handles[channel.id];
        assert!(handle.closed || !channel.has_ghosts(), "a cancel of the broker was not answered");
        // A rollback opens again what was requeued for nobody.
        if !handle.transactional && !handle.closed {
            for number in channel.unacked() {
                let sent = &log.sent[number];
                // What may be a stream's is not requeued when its consumer goes.
                let kept = !sent.seen && sent.origin.may_be_suspected();
                let given_up = kept || handle.given_up.contains(&number);
                assert!(given_up, "delivery {number} is neither acked nor nacked: {sent:?}");
            }
        }
    }

    /// A publish that was refused for lack of buffer space is let in by now.
    pub(crate) fn check_room(&self, session: &mut Session) {
        for handle in &self.handles {
            assert!(!handle.full || is_dead(session, handle), "no event said that there is room");
        }
    }

    /// Reads a little, and does nothing else.
    pub(super) fn look(
        &mut self,
        session: &mut Session,
        now: Instant,
        dice: &mut Dice,
        log: &mut Log,
    ) {
        if let Some(at) = dice.place(self.handles.len()) {
            self.read(at, session, now, dice, log);
        }
    }

    /// Whether something is awaited that only input can bring, as far as events have said.
    pub(super) fn awaited(&self) -> bool {
        let call = self.owed.values().any(|owed| !matches!(owed.expected, Expected::Drain));
        let living = self.handles.iter().filter(|handle| !handle.released && !handle.closed);
        let of_handle = |handle: &Handle| {
            handle.outcomes.iter().any(|outcome| !outcome.resolved)
                || handle.consumers.iter().any(|reader| !reader.flagged)
        };
        call || self.blocked || living.into_iter().any(of_handle)
    }

    /// Bytes that living consumers have not read and that no prefetch bounds.
    pub(super) fn unbounded_bytes(&self, log: &Log) -> usize {
        let handles = self.handles.iter().enumerate();
        let living = handles.filter(|(_, handle)| !handle.released && !handle.closed);
        let readers =
            living.flat_map(|(at, handle)| handle.consumers.iter().map(move |it| (at, it)));
        readers.map(|(at, reader)| log.unbounded_bytes(at, &reader.tag, reader.read)).sum()
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
