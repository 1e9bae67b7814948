//! The world of one seed: a virtual clock, the events in the order of their times, the network, the broker, the client's
//! driver and the application. Everything happens on one thread, in one order.
//!
//! First come acts of the application and faults, about 500 events together. Then nothing fails any more, and the
//! application finishes what it has begun. Now every call and publish must be resolved, and the broker must have the
//! topology, channels and consumers of the application. Then the queues are drained, the connection is closed, and nothing
//! may be left.
//!
//! A session recovers its connection, or ends with it, as its policy says. One that has ended is replaced by another one.
//! So the application lives through any number of sessions; `life` counts them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amqp_core::{Attempt, Config, Heartbeat};
use amqp_testkit::model::Broker;

use super::application::{Application, Context};
use super::driver::Client;
use super::invariants as check;
use super::network::{Direction, Network};
use super::random::Random;
use super::swarm::{Fault, MILLISECOND, SECOND, Swarm};
use super::trace::Trace;
use super::truth::Truth;
use super::{Report, Totals};

/// How long everything may take to be resolved once nothing fails any more. It covers timeouts of calls, a heartbeat
/// timeout on both sides, and a cycle of attempts.
const PATIENCE: u64 = 300 * SECOND;

/// More events than any seed has.
const EVENTS_MAX: u64 = 200_000;

#[derive(Clone, Debug)]
pub(super) enum Event {
    /// The application does something.
    Act,
    /// A deadline of the session may have passed.
    Wake,
    /// A lookup is answered.
    Resolved { life: u64, attempt: Attempt, found: bool },
    /// A dial is answered.
    Dialled { life: u64, attempt: Attempt, accepted: bool },
    /// The hook does something.
    SetUp { life: u64, attempt: Attempt, fails: bool },
    /// A segment arrives.
    Arrive { link: u64, direction: Direction },
    /// The broker's timer of a connection.
    Tick { link: u64 },
    /// Something fails.
    Fault,
    /// The broker serves connections again.
    Launch,
    /// An alarm ends.
    EndAlarm,
    /// The application begins a new session.
    Begin,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: u64,
    base: Instant,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    pub(super) handled: u64,
    pub(super) swarm: Swarm,
    pub(super) network: Network,
    pub(super) broker: Broker,
    /// Whether the broker accepts connections.
    pub(super) listens: bool,
    pub(super) client: Client,
    pub(super) application: Application,
    pub(super) truth: Truth,
    pub(super) trace: Trace,
    pub(super) totals: Totals,
    /// For faults, and for what the network draws outside of pipes.
    pub(super) random: Random,
}

/// Plays the world of a seed to its end.
pub(super) fn play(seed: u64, trace: Trace) -> Report {
    let mut world = World::new(seed, trace);
    world.run();
    let Trace { now, .. } = world.trace;
    let hash = world.trace.finish();
    Report { hash, totals: Totals { virtual_seconds: now / SECOND, ..world.totals } }
}

impl World {
    fn new(seed: u64, mut trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let swarm = Swarm::draw(&mut random.fork());
        trace.line(|| format!("{swarm:?}"));
        trace.hash(seed, &[]);
        let base = Instant::now();
        let hosts = ["one", "two"].into_iter().take(swarm.hosts);
        let config = Config::default()
            .recovery(swarm.policy.recovery())
            .runs_hook(swarm.policy.has_hook)
            .hook_timeout(Duration::from_secs(5))
            .hosts(hosts)
            .heartbeat(Heartbeat::Seconds(swarm.heartbeat))
            .frame_max(swarm.frame_max)
            .channel_max(swarm.channel_max)
            .connection_attempts(swarm.cycles)
            .retry_delay(Duration::from_millis(500))
            .address_timeout(Duration::from_secs(5))
            .connect_timeout(Duration::from_secs(25))
            .call_timeout(super::CALL_TIMEOUT)
            .close_timeout(Duration::from_secs(5));
        let client = Client::new(Arc::new(config), base, random.next());
        let network = Network::new(random.fork());
        let application = Application::new(random.fork());
        let mut world = Self {
            now: 0,
            base,
            events: BTreeMap::new(),
            scheduled: 0,
            handled: 0,
            network,
            broker: Broker::new(),
            listens: true,
            client,
            application,
            truth: Truth::default(),
            trace,
            totals: Totals::default(),
            random,
            swarm,
        };
        world.at(0, Event::Act);
        world.at(world.swarm.fault_every, Event::Fault);
        world
    }

    fn run(&mut self) {
        self.drive();
        while self.application.acts < self.swarm.acts {
            self.step();
        }
        self.trace.line(|| "nothing fails any more".to_owned());
        self.heal();
        self.until("everything is resolved", |world| {
            world.is_linked() && world.application.is_idle()
        });
        self.check_rest();
        self.drain();
        self.close();
    }

    /// Handles events until this holds (J1, J3, J6).
    fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let latest = self.now + PATIENCE;
        while !holds(self) {
            let state = &self.application;
            assert!(self.now < latest, "J1: not yet that {what}: {state:#?}");
            self.step();
        }
    }

    /// Returns whether the session is open over a link that goes on, and the broker has no other one.
    fn is_linked(&self) -> bool {
        let Some(link) = self.client.transport.as_ref().map(|it| it.link) else { return false };
        let (found, witness) = (&self.network.links[&link], &self.truth.links[&link]);
        let whole = found.up.is_whole() && found.down.is_whole() && witness.closed.is_none();
        let open = self.client.session.is_open();
        whole && open && self.broker.held().connections == 1
    }

    /// Handles the next event.
    fn step(&mut self) {
        let ((time, _), event) = self.events.pop_first().expect("the application always acts");
        self.now = time;
        self.trace.now = time;
        self.handled += 1;
        assert!(self.handled < EVENTS_MAX, "J5: {EVENTS_MAX} events, at last {event:?}");
        match event {
            Event::Act => {
                self.act();
                let waits = self.application.finishing;
                let every = if waits { 100 * MILLISECOND } else { self.swarm.act_every };
                let next = self.now + self.random.between(0, 2 * every);
                self.at(next, Event::Act);
            }
            Event::Wake => {}
            Event::Resolved { life, attempt, found } => self.resolved(life, attempt, found),
            Event::Dialled { life, attempt, accepted } => self.dialled(life, attempt, accepted),
            Event::SetUp { life, attempt, fails } if life == self.client.life => {
                let (application, mut context) = self.context();
                application.set_up(&mut context, attempt, fails);
            }
            Event::SetUp { .. } => {}
            Event::Arrive { link, direction } => self.arrive(link, direction),
            Event::Tick { link } => self.tick(link),
            Event::Fault => self.fault(),
            Event::Launch => self.listens = true,
            Event::EndAlarm => self.end_alarm(),
            Event::Begin => self.begin(),
        }
        self.serve();
        self.drive();
    }

    /// Adds an event.
    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((time.max(self.now), self.scheduled), event);
    }

    /// Returns the time for the session.
    pub(super) fn instant(&self) -> Instant {
        self.base + Duration::from_nanos(self.now)
    }

    /// Returns the virtual time of a deadline.
    pub(super) fn time_of(&self, deadline: Instant) -> u64 {
        deadline.saturating_duration_since(self.base).as_nanos() as u64
    }

    pub(super) fn context(&mut self) -> (&mut Application, Context<'_>) {
        let now = self.instant();
        let Self { application, client, truth, trace, totals, swarm, .. } = self;
        let link = client.transport.as_ref().map_or(0, |transport| transport.link);
        let session = &mut client.session;
        let disturbed = client.disturbed;
        (application, Context { session, now, link, truth, trace, totals, swarm, disturbed })
    }

    fn act(&mut self) {
        let (application, mut context) = self.context();
        application.act(&mut context);
        if !self.client.session.is_open() {
            return;
        }
        let stats = self.client.session.connection().stats();
        let (called, outcomes) = (self.application.called, self.application.open_outcomes());
        check::i9_memory_is_bounded(&stats, called, outcomes);
    }

    /// Ends all faults. What was silent stays so if heartbeats can tell; otherwise it is reset.
    fn heal(&mut self) {
        self.swarm.heal();
        self.application.finishing = true;
        self.end_alarm();
        self.listens = true;
        let mut silent = Vec::new();
        for (number, link) in &mut self.network.links {
            for pipe in [&mut link.up, &mut link.down] {
                pipe.cut = None;
                pipe.stalled_until = 0;
                pipe.window = self.swarm.window;
            }
            if (link.up.silent || link.down.silent) && self.swarm.heartbeat == 0 {
                silent.push(*number);
            }
        }
        for link in silent {
            self.reset(link);
        }
        self.serve();
        self.drive();
    }

    /// Checks a connection on which nothing is under way.
    fn check_rest(&mut self) {
        // Late replies may still have to be undone, and consumers may wait for their queue.
        self.until("J2: channels and consumers are attached", |world| {
            let (held, topology) = (world.broker.held(), world.broker.topology());
            let exists = |queue: &str| topology.queues.contains_key(queue);
            world.application.attached(exists) == (held.channels, held.consumers)
        });
        let topology = self.broker.topology();
        let exists = |queue: &str| topology.queues.contains_key(queue);
        let (application, mut context) = self.context();
        application.check_consumers(&mut context, exists);
        application.release_absent(&mut context, exists);
        let certain = self.application.certain(&self.network);
        check::j3_the_topology_is_what_was_declared(&topology, certain.into_iter());
        check::j3_named_queues_exist(&topology, self.application.named());
        // Forgotten calls and publishes stay open until they are answered or their deadline passes.
        self.until("J4: only heartbeats are timed, and nothing is open", |world| {
            let timeout = world.client.session.poll_timeout().map(|(_, reason)| reason);
            let stats = world.client.session.connection().stats();
            check::j4_only_heartbeats_are_timed(timeout, world.swarm.heartbeat)
                && stats.open_calls + stats.unconfirmed + stats.unsent_bytes == 0
                && world.application.is_idle()
        });
        let (channels, consumers) = self.application.attached(|_| true);
        let stats = self.client.session.connection().stats();
        check::j4_no_record_is_left(&stats, channels, consumers);
        check::i1_no_confirmed_message_is_lost(&self.truth, &self.broker);
    }

    /// Consumes from every queue until all are empty.
    fn drain(&mut self) {
        let (application, mut context) = self.context();
        application.release_all(&mut context);
        self.drive();
        self.until("channels are closed", |world| {
            world.client.session.connection().stats().channels == 0
        });
        let queues: Vec<String> = self.broker.topology().queues.into_keys().collect();
        let (application, mut context) = self.context();
        application.consume_all(&mut context, queues);
        self.drive();
        self.until("queues are drained", |world| {
            let mut queues = world.broker.topology().queues.into_keys();
            world.application.is_idle() && queues.all(|it| world.broker.bodies(&it).is_empty())
        });
        check::j2_queues_are_drained(&self.broker);
        check::i1_no_confirmed_message_is_lost(&self.truth, &self.broker);
    }

    fn close(&mut self) {
        self.application
            .close(self.base + Duration::from_nanos(self.now), &mut self.client.session);
        self.drive();
        self.until("the session has ended", |world| world.client.session.cause().is_some());
        self.until("the broker has no connection", |world| world.broker.held().connections == 0);
        check::i4_what_was_not_sent_is_never_written(&self.truth);
        let timeout = self.client.session.poll_timeout().map(|(_, reason)| reason);
        check::j4_nothing_is_left(&self.client.session.connection().stats(), timeout);
        assert!(self.application.is_idle(), "J1: {:#?}", self.application);
    }

    fn fault(&mut self) {
        let sudden = self.swarm.sudden();
        if let Some(place) = self.random.place(sudden.len()) {
            self.fail(sudden[place]);
        }
        let next = self.now + self.random.between(MILLISECOND, 2 * self.swarm.fault_every);
        self.at(next, Event::Fault);
    }

    fn fail(&mut self, fault: Fault) {
        let now = self.now;
        let newest = self.network.links.keys().next_back().copied().unwrap_or_default();
        self.trace.line(|| format!("! {fault:?}, link {newest}"));
        self.trace.hash(fault as u64, b"fault");
        self.client.disturbed = true;
        let until = now + self.random.between(10, 8_000) * MILLISECOND;
        match fault {
            Fault::Kill if self.listens => {
                self.kill();
                self.at(until, Event::Launch);
            }
            Fault::CloseAll => {
                self.truth.forced = true;
                self.broker.close_all("maintenance");
            }
            Fault::Alarm => {
                self.broker.set_alarm(Some("low on memory"));
                self.at(until, Event::EndAlarm);
            }
            _ => {
                let both = self.random.chance(30);
                let Some(link) = self.network.links.get_mut(&newest) else { return };
                let up = matches!(fault, Fault::HalfOpenUp | Fault::HalfOpen);
                let down = matches!(fault, Fault::HalfOpenDown | Fault::HalfOpen);
                link.up.silent |= up;
                link.down.silent |= down;
                if fault == Fault::Stall {
                    let stall_up = self.random.chance(50);
                    let link = self.network.links.get_mut(&newest).expect("a link");
                    if both || stall_up {
                        link.up.stalled_until = until;
                    }
                    if both || !stall_up {
                        link.down.stalled_until = until;
                    }
                }
            }
        }
    }
}
