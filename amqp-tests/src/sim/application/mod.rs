//! A random application that keeps to what the session's documentation allows. It is driven by events alone, remembers
//! what it is owed, and compares each answer with the [truth](super::truth).
//!
//! While it is `finishing` it begins nothing new: it reads, acks, commits and takes outcomes until nothing is owed.

mod calls;
mod consuming;
mod hook;
mod listening;
pub(super) mod mirror;
mod publishing;
mod topology;

pub(super) use consuming::Wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use amqp_core::requests::{ConfirmSelect, TxCommit, TxRollback, TxSelect};
use amqp_core::{BasicQos, CallKey, ChannelId, CloseCause, Error, Session};

use super::Totals;
use super::invariants as check;
use super::network::Network;
use super::random::Random;
use super::swarm::{Swarm, Work};
use super::trace::Trace;
use super::truth::{Lane, Truth};

use calls::{Awaited, Call};
use consuming::{Held, Reader};
use hook::Hook;
use mirror::Mirror;
use publishing::Outcome;

/// The prefetch of a consumer if the application asks for none.
const PREFETCH: u16 = 256;

/// What the application acts on.
pub(super) struct Context<'w> {
    pub(super) session: &'w mut Session,
    pub(super) now: Instant,
    /// The current link.
    pub(super) link: u64,
    pub(super) truth: &'w mut Truth,
    pub(super) trace: &'w mut Trace,
    pub(super) totals: &'w mut Totals,
    pub(super) swarm: &'w Swarm,
    /// Whether something has failed since the session began.
    pub(super) disturbed: bool,
}

#[derive(Debug)]
pub(super) struct Application {
    random: Random,
    pub(super) mirror: Mirror,
    /// The channels of this session, in the order in which they were opened.
    channels: Vec<Handle>,
    /// The number of channels of all sessions.
    flows: u64,
    /// The calls whose result is awaited, and the channel of each.
    owed: BTreeMap<CallKey, Awaited>,
    /// Calls that were forgotten, whose event may be queued already.
    forgotten: BTreeSet<CallKey>,
    /// The number of calls of this session, and of what the session calls by itself because of a drop.
    pub(super) called: usize,
    published: u64,
    hook: Hook,
    /// Server-named queues of this session.
    named: Vec<String>,
    /// The last link of this session.
    pub(super) link: u64,
    /// The connection is lost, and the session recovers it.
    pub(super) recovering: bool,
    /// The number of losses of this session.
    losses: usize,
    /// The number of acts.
    pub(super) acts: usize,
    /// The session was closed or aborted by the application.
    pub(super) closed: bool,
    pub(super) finishing: bool,
    /// No further session is wanted.
    pub(super) done: bool,
}

#[derive(Debug)]
struct Handle {
    id: ChannelId,
    /// Its number among those of all sessions.
    flow: u64,
    /// `channel.open` has its reply.
    opened: bool,
    mode: Mode,
    /// The prefetch of a consumer without its own, if that is certain.
    prefetch: Option<u16>,
    /// `channel.close` was called.
    closing: bool,
    closed: bool,
    released: bool,
    /// A publish was refused for lack of buffer space.
    full: bool,
    outcomes: Vec<Outcome>,
    readers: Vec<Reader>,
    held: Vec<Held>,
    /// Deliveries that were acked since the last commit.
    uncommitted: Vec<Held>,
    /// Deliveries of transports that were lost.
    stale: Vec<Held>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    Confirm,
    Tx,
}

impl Application {
    pub(super) fn new(random: Random) -> Self {
        Self {
            random,
            mirror: topology::mirror(),
            channels: Vec::new(),
            flows: 0,
            owed: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            called: 0,
            published: 0,
            hook: Hook::default(),
            named: Vec::new(),
            link: 0,
            recovering: false,
            losses: 0,
            acts: 0,
            closed: false,
            finishing: false,
            done: false,
        }
    }

    /// Does something.
    pub(super) fn act(&mut self, cx: &mut Context<'_>) {
        self.acts += 1;
        check::k16_the_state_is_what_events_say(cx.session, self.recovering, self.closed);
        if !cx.session.is_open() && !self.recovering {
            return;
        }
        if self.finishing {
            return self.finish(cx);
        }
        let living: Vec<usize> = (0..self.channels.len()).filter(|at| self.lives(*at)).collect();
        let place = self.random.place(living.len());
        let Some(at) = place.filter(|_| living.len() >= 5 || !self.random.chance(15)) else {
            return self.open(cx);
        };
        let at = living[at];
        let does = |work| cx.swarm.does(work);
        match self.random.below(100) {
            0..=24 if does(Work::Publish) => self.publish(at, cx),
            25..=39 => self.read(at, cx),
            40..=54 => self.acknowledge(at, cx),
            55..=60 => self.take_outcomes(at, cx),
            61..=66 if does(Work::Consume) => self.consume(at, cx),
            67..=69 if does(Work::Get) => self.get(at, cx),
            70..=82 => self.declare(at, cx),
            83..=86 if does(Work::Churn) => self.remove(at, cx),
            87..=89 if does(Work::Consume) => self.cancel(at, cx),
            90 | 91 => self.select(at, cx),
            92 if self.mode(at) != Mode::Tx => {
                let count = self.random.one_of(&[0, 1, 5, 50]);
                self.limit(at, cx, count);
            }
            93 if cx.swarm.policy.recovers => self.acknowledge_stale(at, cx),
            93 | 94 => self.end_transaction(at, cx),
            95 | 96 if does(Work::Forget) => self.forget(cx),
            97 if does(Work::Close) => self.close_channel(at, cx),
            98 if does(Work::Close) => self.release(at, cx),
            99 if does(Work::End) && self.random.chance(30) => {
                self.closed = true;
                if self.random.chance(70) {
                    cx.session.close(cx.now);
                } else {
                    cx.session.abort(CloseCause::Aborted);
                }
            }
            _ => {}
        }
    }

    /// Does everything that is left to be done on every channel.
    fn finish(&mut self, cx: &mut Context<'_>) {
        for at in 0..self.channels.len() {
            if !self.lives(at) {
                continue;
            }
            for _ in 0..20 {
                self.read(at, cx);
            }
            for _ in 0..self.channels[at].held.len() {
                self.acknowledge(at, cx);
            }
            self.take_outcomes(at, cx);
            let handle = &self.channels[at];
            if !handle.uncommitted.is_empty() && self.is_usable(at, cx) {
                self.commit(at, cx);
            }
        }
    }

    /// Returns whether nothing is owed, and nothing is left to be read or acked.
    pub(super) fn is_idle(&self) -> bool {
        let busy = |handle: &Handle| {
            let reads = handle.readers.iter().any(|reader| reader.flagged);
            let held = handle.held.len() + handle.uncommitted.len();
            !handle.released && !handle.closed && (reads || held > 0)
        };
        self.owed.is_empty() && self.open_outcomes() == 0 && !self.channels.iter().any(busy)
    }

    /// Returns the number of publishes whose outcome is not known.
    pub(super) fn open_outcomes(&self) -> usize {
        let held = self.channels.iter().filter(|handle| !handle.released);
        held.map(|handle| handle.outcomes.iter().filter(|it| !it.resolved).count()).sum()
    }

    /// Returns the numbers of channels and consumers that are open. Those of queues that do not exist wait for them.
    pub(super) fn attached(&self, exists: impl Fn(&str) -> bool) -> (usize, usize) {
        let living = (0..self.channels.len()).filter(|at| self.lives(*at));
        let living: Vec<_> = living.map(|at| &self.channels[at]).collect();
        let readers = living.iter().flat_map(|handle| &handle.readers);
        (living.len(), readers.filter(|reader| exists(reader.queue())).count())
    }

    /// Compares the consumers of each channel with those that the broker has.
    pub(super) fn check_consumers(&self, cx: &mut Context<'_>, exists: impl Fn(&str) -> bool) {
        for at in (0..self.channels.len()).filter(|at| self.lives(*at)) {
            let subscribed = self.lane(at, cx).expect("a channel that is open").subscriptions();
            let readers = self.channels[at].readers.iter();
            let wanted = readers.filter(|reader| exists(reader.queue()));
            let wanted = wanted.map(|reader| (reader.tag.as_str(), &reader.wanted));
            check::j2_consumers_are_as_before(subscribed, wanted);
        }
    }

    /// Drops the consumers whose queue does not exist.
    pub(super) fn release_absent(&mut self, cx: &mut Context<'_>, exists: impl Fn(&str) -> bool) {
        for handle in self.channels.iter_mut().filter(|it| !it.closed && !it.released) {
            for reader in handle.readers.extract_if(.., |reader| !exists(reader.queue())) {
                self.called += 1;
                cx.session.channel(handle.id).release_consumer(cx.now, reader.key, []);
            }
        }
    }

    /// Returns the queues of this session whose name the broker has chosen.
    pub(super) fn named(&self) -> &[String] {
        &self.named
    }

    /// Says which of the channels have a number on the present link.
    pub(super) fn locate(&self, session: &mut Session, truth: &mut Truth) {
        truth.owners.clear();
        for handle in &self.channels {
            let mut channel = session.channel(handle.id);
            if channel.closed_cause().is_none()
                && let Some(number) = channel.number()
            {
                truth.owners.insert(number, handle.flow);
            }
        }
    }

    /// Returns each name of which it is certain whether the broker has it.
    pub(super) fn certain(&mut self, network: &Network) -> Vec<(String, bool)> {
        self.mirror.refresh(network);
        self.mirror.certain()
    }

    /// Releases every channel.
    pub(super) fn release_all(&mut self, cx: &mut Context<'_>) {
        for at in 0..self.channels.len() {
            if self.lives(at) {
                self.release(at, cx);
            }
        }
    }

    /// Opens a channel, and consumes from each of the queues.
    pub(super) fn consume_all(&mut self, cx: &mut Context<'_>, queues: Vec<String>) {
        self.open(cx);
        let at = self.channels.len() - 1;
        for queue in queues {
            self.consume_from(at, cx, queue, false, false);
        }
    }

    /// Closes the connection for good.
    pub(super) fn close(&mut self, now: Instant, session: &mut Session) {
        (self.closed, self.done) = (true, true);
        session.close(now);
    }

    /// The session has ended, and everything that it owed is answered.
    pub(super) fn session_ended(&mut self) {
        assert!(self.owed.is_empty(), "J1: a session has ended and owes {:?}", self.owed);
        let open = self.channels.iter().filter(|it| !it.closed && !it.released).count();
        assert_eq!(open, 0, "J1: channels are open: {:?}", self.channels);
        self.mirror.session_ended(self.link);
        self.channels.clear();
        self.named.clear();
        self.forgotten.clear();
        self.hook = Hook::default();
        (self.called, self.recovering, self.losses) = (0, false, 0);
        self.closed = self.done;
    }

    fn open(&mut self, cx: &mut Context<'_>) {
        let Ok((id, call)) = cx.session.open_channel(cx.now) else { return };
        let at = self.channels.len();
        cx.trace.line(|| format!("  channel {at} is {id:?}"));
        self.flows += 1;
        self.channels.push(Handle {
            id,
            flow: self.flows,
            opened: false,
            mode: Mode::Plain,
            prefetch: Some(PREFETCH),
            closing: false,
            closed: false,
            released: false,
            full: false,
            outcomes: Vec::new(),
            readers: Vec::new(),
            held: Vec::new(),
            uncommitted: Vec::new(),
            stale: Vec::new(),
        });
        self.owe(cx, at, Call::Open(call));
    }

    fn close_channel(&mut self, at: usize, cx: &mut Context<'_>) {
        self.channels[at].closing = true;
        cx.trace.line(|| format!("  close channel {at}"));
        let call = cx.session.channel(self.channels[at].id).close(cx.now);
        self.owe(cx, at, Call::Close(call));
    }

    /// Drops the handle of a channel.
    fn release(&mut self, at: usize, cx: &mut Context<'_>) {
        let handle = &mut self.channels[at];
        cx.trace.line(|| format!("  release channel {at}"));
        self.called += 1;
        handle.released = true;
        handle.outcomes.clear();
        for reader in handle.readers.drain(..) {
            cx.session.channel(handle.id).release_consumer(cx.now, reader.key, []);
        }
        cx.session.channel(handle.id).release(cx.now);
    }

    /// Sets the prefetch of consumers that start later.
    fn limit(&mut self, at: usize, cx: &mut Context<'_>, count: u16) {
        let called = cx.session.channel(self.channels[at].id).call(cx.now, &BasicQos::new(count));
        if let Some(call) = self.accepted(at, cx, called) {
            self.channels[at].prefetch = Some(count);
            self.owe(cx, at, Call::Limit(call));
        }
    }

    /// The application does not know which prefetch a channel has.
    fn doubt_limit(&mut self, at: usize) {
        let handle = &mut self.channels[at];
        handle.prefetch = None;
        handle.readers.iter_mut().for_each(|reader| reader.wanted.doubt_limit());
        for awaited in self.owed.values_mut().filter(|awaited| awaited.at == at) {
            if let Call::Consume { wanted, .. } = &mut awaited.call {
                wanted.doubt_limit();
            }
        }
    }

    /// The broker has given a queue another name.
    fn renamed(&mut self, from: &str, to: &str) {
        self.mirror.rename(from, to);
        self.owed.values_mut().for_each(|awaited| awaited.call.rename(from, to));
        let readers = self.channels.iter_mut().flat_map(|handle| &mut handle.readers);
        let queues = readers.map(|reader| &mut reader.wanted.subscription.queue);
        for name in queues.chain(&mut self.named).filter(|name| *name == from) {
            name.replace_range(.., to);
        }
    }

    /// Selects confirm mode or transaction mode.
    fn select(&mut self, at: usize, cx: &mut Context<'_>) {
        let handle = &self.channels[at];
        // What was delivered before would be acked without a reply.
        let consumes = self.owed.values().any(|awaited| awaited.at == at && awaited.delivers());
        let fresh = handle.readers.is_empty() && handle.held.is_empty() && !consumes;
        if self.random.chance(60) && cx.swarm.does(Work::Confirm) && handle.mode != Mode::Tx {
            if self.done(at, cx, &ConfirmSelect::default()) {
                self.channels[at].mode = Mode::Confirm;
            }
        } else if cx.swarm.does(Work::Transact)
            && handle.mode == Mode::Plain
            && fresh
            && self.done(at, cx, &TxSelect::default())
        {
            self.channels[at].mode = Mode::Tx;
        }
    }

    fn end_transaction(&mut self, at: usize, cx: &mut Context<'_>) {
        if self.mode(at) != Mode::Tx {
            return;
        }
        if self.random.chance(70) {
            self.commit(at, cx);
        } else if self.done(at, cx, &TxRollback::default()) {
            let handle = &mut self.channels[at];
            handle.held.append(&mut handle.uncommitted);
        }
    }

    fn commit(&mut self, at: usize, cx: &mut Context<'_>) {
        let called = cx.session.channel(self.channels[at].id).call(cx.now, &TxCommit::default());
        if matches!(called, Err(Error::Interrupted { .. })) && self.losses > 0 {
            // What was acked since is rolled back.
            self.called += 1;
            let handle = &mut self.channels[at];
            handle.held.append(&mut handle.uncommitted);
        } else if let Some(call) = self.accepted(at, cx, called) {
            self.channels[at].uncommitted.clear();
            self.owe(cx, at, Call::Done(call));
        }
    }

    /// Returns what the wire says of a channel that is open.
    fn lane<'t>(&self, at: usize, cx: &'t mut Context<'_>) -> Option<&'t mut Lane> {
        let number = cx.session.channel(self.channels[at].id).number()?;
        cx.truth.lane(cx.link, number)
    }

    fn mode(&self, at: usize) -> Mode {
        self.channels[at].mode
    }

    /// Returns whether the application has a handle of a channel that is not known to be closed.
    fn lives(&self, at: usize) -> bool {
        let handle = &self.channels[at];
        !handle.released && !handle.closed && !handle.closing
    }

    /// Returns whether the session must accept calls and publishes on the channel.
    fn is_usable(&self, at: usize, cx: &mut Context<'_>) -> bool {
        let handle = &self.channels[at];
        self.lives(at)
            && handle.opened
            && cx.session.is_open()
            && cx.session.channel(handle.id).is_open()
    }
}
