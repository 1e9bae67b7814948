//! The client's driver: it carries out the session's actions, moves bytes between it and its link, and passes the time.
//! The order is that of `amqp-async`: first what was read, then deadlines, actions, output, and events.
//!
//! `out` is what the session has handed over, and `pending` the same bytes as far as the socket has not taken them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use amqp_core::errors::TransportError;
use amqp_core::{Action, Attempt, Config, Session, Transmit};
use bytes::BytesMut;

use super::invariants as check;
use super::network::{Direction, End};
use super::swarm::{Fault, MILLISECOND, Policy};
use super::world::{Event, World};

/// The most bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// More rounds than one moment has.
const ROUNDS_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Client {
    pub(super) session: Session,
    /// The number of sessions so far.
    pub(super) life: u64,
    config: Arc<Config>,
    seed: u64,
    pub(super) transport: Option<Transport>,
    out: Transmit,
    pending: BytesMut,
    input: BytesMut,
    /// The session has ended: what it has handed over is written, then the transport is closed.
    finishing: bool,
    /// The next `Wake` event.
    wake: u64,
    /// The attempt that is being dialled.
    dialling: Option<Attempt>,
    /// The earliest time of the next dial, if the session waits.
    waits_until: Option<u64>,
    /// The number of dials of this session, or of its present attempt to recover.
    dials: u64,
    /// Whether something has failed since the session began.
    pub(super) disturbed: bool,
}

#[derive(Debug)]
pub(super) struct Transport {
    attempt: Attempt,
    pub(super) link: u64,
    /// The number of bytes that the socket has taken.
    written: u64,
    /// When it last took some, or could not.
    active: u64,
}

impl Client {
    pub(super) fn new(config: Arc<Config>, now: Instant, seed: u64) -> Self {
        Self {
            session: session(&config, now, seed),
            life: 1,
            config,
            seed,
            transport: None,
            out: Transmit::new(),
            pending: BytesMut::new(),
            input: BytesMut::new(),
            finishing: false,
            wake: 0,
            dialling: None,
            waits_until: None,
            dials: 0,
            disturbed: false,
        }
    }
}

fn session(config: &Arc<Config>, now: Instant, seed: u64) -> Session {
    Session::new(Arc::clone(config), now, seed).expect("a valid configuration")
}

impl World {
    /// Begins the next session.
    pub(super) fn begin(&mut self) {
        self.drop_transport();
        let (now, client) = (self.instant(), &mut self.client);
        client.life += 1;
        // What failed before may affect this one too.
        client.disturbed = !self.swarm.faults.is_empty();
        client.session = session(&client.config, now, client.seed.wrapping_add(client.life));
        (client.finishing, client.dials, client.waits_until) = (false, 0, None);
        self.totals.sessions += 1;
        self.trace.line(|| "a new session".to_owned());
    }

    /// Does everything that the session can do now.
    pub(super) fn drive(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut progress = self.read();
            progress |= self.pass_time();
            while let Some(action) = self.client.session.poll_action() {
                self.carry_out(action);
                progress = true;
            }
            progress |= self.write();
            progress |= self.listen();
            if !progress {
                return self.sleep();
            }
        }
        panic!("J5: the session is never idle");
    }

    /// Schedules the next deadline.
    fn sleep(&mut self) {
        let Some((deadline, _)) = self.client.session.poll_timeout() else { return };
        let time = self.time_of(deadline);
        let client = &mut self.client;
        if client.wake <= self.now || time < client.wake {
            client.wake = time;
            self.at(time, Event::Wake);
        }
    }

    /// Reports events to the application. Returns whether there were any.
    fn listen(&mut self) -> bool {
        if !self.client.session.has_events() {
            return false;
        }
        let (application, mut context) = self.context();
        let ended = application.listen(&mut context);
        if let Some(cause) = ended {
            let (closed, disturbed) = (self.application.closed, self.client.disturbed);
            let opened = self.client.session.was_opened();
            let policy = self.swarm.policy;
            check::j3_the_session_ends_for_a_reason(&cause, closed, disturbed, policy, opened);
            self.application.session_ended();
            let again = self.now + self.random.between(0, 1_000) * MILLISECOND;
            if !self.application.done {
                self.at(again, Event::Begin);
            }
        }
        true
    }

    fn pass_time(&mut self) -> bool {
        let now = self.instant();
        let client = &mut self.client;
        if let Some(transport) = &client.transport {
            client.session.handle_written(now, transport.attempt, transport.written);
        }
        let due = client.session.poll_timeout().is_some_and(|(deadline, _)| deadline <= now);
        if due {
            client.session.handle_timeout(now);
            self.note_end();
        }
        due
    }

    /// Reads once. Returns whether there was something.
    fn read(&mut self) -> bool {
        let now = self.instant();
        let wants = self.client.session.wants_input();
        let Some(Transport { attempt, link, written, .. }) = self.client.transport else {
            return false;
        };
        let found = self.network.links.get_mut(&link).expect("a link");
        let count = found.inbox.len().min(READ_BYTES);
        if wants && count > 0 {
            let read: Vec<u8> = found.inbox.drain(..count).collect();
            found.read(Direction::Down, count);
            self.trace.hash(link, &read);
            self.truth.links.get_mut(&link).expect("a link").has_read(count as u64);
            let client = &mut self.client;
            let was_open = client.session.connection().is_open();
            client.input.extend_from_slice(&read);
            while client.session.handle_input(now, &mut client.input) {}
            if let Some(transport) = client.transport.as_mut().filter(|_| !was_open) {
                // Heartbeats are due from the moment on at which the connection is open.
                transport.active = self.now;
            }
            self.note_end();
            return true;
        }
        let found = &self.network.links[&link];
        // A write into a transport that was reset fails, whether or not there is something to read.
        let gone = match found.end {
            Some(End::Rst) => !wants || found.inbox.is_empty(),
            Some(End::Fin) => wants && found.inbox.is_empty(),
            None => false,
        };
        if gone {
            self.trace.line(|| format!("link {link} is lost, {written} bytes written"));
            let witness = self.truth.links.get_mut(&link).expect("a link");
            witness.end.get_or_insert(written);
            let error = TransportError::end_of_file();
            self.client.session.handle_disconnected(now, attempt, error, written);
            self.drop_transport();
        }
        gone
    }

    /// Writes what the socket takes. Returns whether it has taken something.
    fn write(&mut self) -> bool {
        let now = self.instant();
        let mut progress = false;
        while let Some(transport) = &mut self.client.transport {
            let link = transport.link;
            if self.client.pending.is_empty() {
                let client = &mut self.client;
                if !client.session.poll_transmit(now, &mut client.out) {
                    break;
                }
                client.out.parts().for_each(|part| client.pending.extend_from_slice(part));
                self.application.locate(&mut client.session, &mut self.truth);
                self.truth.handed(link, &client.pending, &self.trace);
                progress = true;
            }
            let pending = &self.client.pending;
            let (taken, arrivals) =
                self.network.write(self.now, link, Direction::Up, pending, &self.swarm);
            self.trace.hash(link, &pending[..taken]);
            let client = &mut self.client;
            let _ = client.pending.split_to(taken);
            client.out.advance(taken);
            self.truth.links.get_mut(&link).expect("a link").written += taken as u64;
            if let Some(transport) = &mut client.transport {
                if taken > 0 && client.session.connection().is_open() {
                    let heartbeat = Duration::from_secs(self.swarm.heartbeat.into());
                    check::i10_heartbeats_are_in_time(self.now - transport.active, heartbeat);
                }
                transport.written += taken as u64;
                transport.active = self.now;
            }
            for at in arrivals {
                self.at(at, Event::Arrive { link, direction: Direction::Up });
            }
            if taken == 0 {
                return progress;
            }
            progress = true;
        }
        if self.client.finishing {
            self.drop_transport();
            self.client.finishing = false;
        }
        progress
    }

    fn carry_out(&mut self, action: Action) {
        self.trace.line(|| match &action {
            Action::Dial { attempt, target } => {
                format!("{attempt:?}: dial {}", target.endpoint.host)
            }
            action => format!("{action:?}"),
        });
        let life = self.client.life;
        let delay = self.random.between(self.swarm.latency.0, self.swarm.latency.1);
        let percent = self.swarm.dial_percent;
        let fails = |fault, this: &mut Self| {
            let fails = this.swarm.has(fault) && this.random.chance(percent);
            this.client.disturbed |= fails;
            fails
        };
        match action {
            Action::Resolve { attempt, .. } => {
                check::j5_attempts_wait(self.client.waits_until.take(), self.now);
                self.drop_transport();
                if !fails(Fault::DialTimeout, self) {
                    let found = !fails(Fault::Refuse, self);
                    self.at(self.now + delay, Event::Resolved { life, attempt, found });
                }
            }
            Action::Dial { attempt, .. } => {
                self.drop_transport();
                self.client.dials += 1;
                self.client.dialling = Some(attempt);
                self.totals.attempts += 1;
                match self.client.session.is_recovering() {
                    true => check::j5_attempts_are_short(self.client.dials, self.swarm.hosts),
                    false => check::j5_dials_are_bounded(self.client.dials),
                }
                if !fails(Fault::DialTimeout, self) {
                    let accepted = !fails(Fault::Refuse, self);
                    self.at(self.now + delay, Event::Dialled { life, attempt, accepted });
                }
            }
            Action::Disconnect { .. } => {
                let (shortest, _) = Policy::delays(1);
                self.client.waits_until = Some(self.now + shortest.as_nanos() as u64);
                if self.client.session.is_recovering() {
                    self.client.dials = 0;
                }
                self.write();
                self.drop_transport();
            }
            Action::RunHook { attempt } => {
                self.application.run_hook(attempt);
                let (disturbs, random) = (!self.swarm.faults.is_empty(), &mut self.random);
                let (fails, stalls) = (random.chance(10), random.chance(5));
                self.client.disturbed |= disturbs && (fails || stalls);
                if !(disturbs && stalls) {
                    let fails = disturbs && fails;
                    self.at(self.now + delay, Event::SetUp { life, attempt, fails });
                }
            }
            Action::Finish { at_once: true, .. } => self.drop_transport(),
            Action::Finish { .. } => self.client.finishing = true,
            action => panic!("an action that this driver does not know: {action:?}"),
        }
    }

    pub(super) fn resolved(&mut self, life: u64, attempt: Attempt, found: bool) {
        if life != self.client.life {
            return;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 5672));
        let error = TransportError::new(std::io::ErrorKind::NotFound, "no such host");
        let result = if found { Ok(vec![address]) } else { Err(error) };
        let now = self.instant();
        self.client.session.handle_resolved(now, attempt, result);
    }

    pub(super) fn dialled(&mut self, life: u64, attempt: Attempt, accepted: bool) {
        if life != self.client.life || self.client.dialling != Some(attempt) {
            return;
        }
        self.client.dialling = None;
        let now = self.instant();
        if !accepted || !self.listens {
            self.client.disturbed = true;
            let error = TransportError::new(std::io::ErrorKind::ConnectionRefused, "refused");
            return self.client.session.handle_disconnected(now, attempt, error, 0);
        }
        let link = self.accept();
        self.trace.line(|| format!("link {link} is connected"));
        self.truth.connected(link, self.swarm.frame_max as usize);
        self.application.link = link;
        self.application.mirror.connected();
        let open = self.network.links.values().filter(|link| link.is_open).count();
        check::i12_one_transport_at_a_time(open);
        self.client.transport = Some(Transport { attempt, link, written: 0, active: self.now });
        self.client.session.handle_connected(now, attempt);
    }

    /// Closes the client's socket.
    fn drop_transport(&mut self) {
        let client = &mut self.client;
        client.dialling = None;
        let out = std::mem::replace(&mut client.out, Transmit::new());
        client.pending.clear();
        client.input.clear();
        let Some(Transport { link, attempt, .. }) = client.transport.take() else { return };
        client.session.handle_unwritten(attempt, &out);
        self.network.links.get_mut(&link).expect("a link").is_open = false;
        if let Some(at) = self.network.end(self.now, link, Direction::Up, End::Fin, &self.swarm) {
            self.at(at, Event::Arrive { link, direction: Direction::Up });
        }
    }

    /// Notes how much counts as written when the connection has ended by itself.
    pub(super) fn note_end(&mut self) {
        if self.client.session.connection().end_state().is_some()
            && let Some(Transport { link, .. }) = self.client.transport
        {
            let witness = self.truth.links.get_mut(&link).expect("a link");
            witness.end.get_or_insert(witness.handed);
        }
    }
}
