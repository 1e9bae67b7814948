//! One conversation: application, session, a transport that cuts where it likes, and broker, in virtual
//! time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amqp_core::errors::TransportError;
use amqp_core::proto::method::{WireMethod, connection};
use amqp_core::proto::{RawTable, frame};
use amqp_core::{Attempt, CloseCause, Config, Session, Transmit};
use bytes::BytesMut;

use super::application::Application;
use super::broker::Broker;
use super::dice::Dice;
use super::log::Log;
use super::pauses::Pauses;
use super::scan::Scan;
use super::versions::Version;
use crate::peer::{server_properties, start};

/// The most bytes of one read.
pub(super) const READ_BYTES: usize = 64 << 10;

pub(crate) struct World {
    pub(super) session: Session,
    attempt: Attempt,
    pub(super) now: Instant,
    pub(super) dice: Dice,
    pub(super) log: Log,
    pub(super) application: Application,
    pub(super) broker: Broker,
    scan: Scan,
    out: Transmit,
    input: BytesMut,
    /// Bytes that were taken from the session, and those of them that reached the socket.
    taken: u64,
    socket: u64,
    pub(super) heartbeat: Duration,
    pub(super) last_fed: Instant,
    pub(super) pauses: Pauses,
    /// How far time may go on in one step.
    tick: Duration,
    lost: bool,
    closing: bool,
}

/// Plays the conversation of a seed to its end. Returns how often each thing happened.
pub(crate) fn play(seed: u64, traced: bool) -> BTreeMap<&'static str, u64> {
    let mut world = World::open(seed, traced);
    let steps = if world.log.flood { 600 } else { 50 + world.dice.below(500) };
    for step in 0..steps {
        if world.log.flood && step > 50 {
            world.broker.calm = true;
            world.flooded_step();
        } else {
            world.step();
        }
        if world.session.cause().is_some() {
            world.check_end();
            return world.log.counts;
        }
    }
    world.broker.calm = true;
    world.quiesce();
    world.check_rest();
    world.end();
    world.check_end();
    world.log.counts
}

impl World {
    fn open(seed: u64, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let now = Instant::now();
        let version = if dice.chance(50) { Version::V3 } else { Version::V4 };
        let flood = dice.below(100) == 0;
        let frame_max = [4_096, 4_096, 8_192, 131_072][if flood { 3 } else { dice.below(4) }];
        let heartbeat = [0, 0, 10][dice.below(3)];
        let channel_max = 1 + dice.below(6) as u16;
        let tick = Duration::from_millis([10, 100, 2_000][dice.below(3)]);
        let (session, attempt) = Session::connected(Arc::new(Config::default()), now).unwrap();
        let mut world = Self {
            session,
            attempt,
            now,
            log: Log::new(traced, version, flood),
            application: Application::new(),
            broker: Broker::new(frame_max as usize),
            scan: Scan::new(frame_max as usize),
            out: Transmit::new(),
            input: BytesMut::new(),
            taken: 0,
            socket: 0,
            heartbeat: Duration::from_secs(heartbeat.into()),
            last_fed: now,
            pauses: Pauses::new(now),
            tick: if heartbeat > 0 { tick.min(Duration::from_millis(100)) } else { tick },
            lost: false,
            closing: false,
            dice,
        };
        let properties = server_properties(version.name());
        let server_properties = RawTable::new(&properties);
        world.shake(&connection::Start { server_properties, ..start(b"PLAIN") });
        world.shake(&connection::Tune { channel_max, frame_max, heartbeat });
        world.shake(&connection::OpenOk::default());
        assert!(world.session.connection().is_open());
        assert_eq!(world.session.poll_event(), Some(amqp_core::Event::Opened));
        world.scan.begin(world.taken);
        world
    }

    /// A step of the handshake.
    fn shake<'a>(&mut self, method: &impl WireMethod<'a>) {
        let mut bytes = Vec::new();
        frame::write_method(&mut bytes, 0, method);
        self.input.extend_from_slice(&bytes);
        while self.session.handle_input(self.now, &mut self.input) {}
        while self.session.poll_transmit(self.now, &mut self.out) {
            let length = self.out.to_vec().len();
            self.out.advance(length);
            self.taken += length as u64;
        }
        self.socket = self.taken;
    }

    fn step(&mut self) {
        match self.dice.below(1_000) {
            0 => self.lose(),
            1 => self.close(),
            2 => {
                self.session.abort(CloseCause::Aborted);
                self.closing = true;
            }
            3..=349 => {
                let Self { session, now, dice, log, application, .. } = self;
                application.act(session, *now, dice, log);
            }
            350..=499 => self.write(),
            500..=649 => {
                self.broker.process(&mut self.dice, &mut self.log);
            }
            650..=749 => {
                for _ in 0..1 + self.dice.below(6) {
                    self.broker.act(&mut self.dice, &mut self.log);
                }
            }
            750..=849 => {
                for _ in 0..self.dice.below(20) {
                    self.broker.write(&mut self.dice, &mut self.log);
                }
            }
            850..=969 => self.feed(),
            _ => self.pass(),
        }
        self.after();
    }

    /// What every driver does after every call.
    pub(super) fn after(&mut self) {
        if self.session.cause().is_some() && self.log.end.is_none() {
            self.log.end = Some(if self.lost { self.socket } else { self.taken });
        }
        if self.dice.chance(70) || self.session.cause().is_some() {
            self.application.listen(&mut self.session, &mut self.log);
        }
        drop(self.session.take_discarded());
    }

    /// The driver takes bytes, or the socket takes some of them.
    pub(super) fn write(&mut self) {
        self.take();
        let bytes = self.out.to_vec();
        let size = match self.dice.below(4) {
            0 => self.dice.below(bytes.len().min(40) + 1),
            1 => self.dice.below(bytes.len() + 1),
            _ => bytes.len(),
        };
        self.out.advance(size);
        self.socket += size as u64;
        self.broker.receive(&bytes[..size], &mut self.dice, &mut self.log);
        if self.dice.chance(50) {
            self.session.handle_written(self.now, self.attempt, self.socket);
        }
    }

    fn take(&mut self) {
        if self.session.poll_transmit(self.now, &mut self.out) {
            let bytes = self.out.to_vec();
            self.scan.take(&bytes, &mut self.log);
            self.taken += bytes.len() as u64;
        }
    }

    /// Bytes arrive, as many as the session wants.
    pub(super) fn feed(&mut self) {
        let there = self.broker.wire.len();
        let size = match self.dice.below(10) {
            0 => 1,
            1..=3 => self.dice.below(100),
            4..=5 => self.dice.below(4_000),
            _ => there,
        };
        let mut left = size.min(there);
        while self.wants_input() && left > 0 {
            let read = left.min(READ_BYTES);
            left -= read;
            self.input.extend_from_slice(&self.broker.wire.split_to(read));
            self.log.fed += read as u64;
            self.last_fed = self.now;
            self.log.line(|| format!("  fed {}", self.log.fed));
            while self.session.handle_input(self.now, &mut self.input) {}
        }
    }

    pub(super) fn pass(&mut self) {
        self.now += self.tick.mul_f64(self.dice.below(100) as f64 / 100.0);
        // The broker lives, and its transport.
        if self.now - self.last_fed > Duration::from_secs(8) {
            self.broker.write_heartbeat(&mut self.log);
            for _ in 0..20 {
                self.feed();
                self.write();
            }
        }
        if self.session.poll_timeout().is_some_and(|(deadline, _)| deadline <= self.now) {
            self.session.handle_timeout(self.now);
        }
    }

    fn lose(&mut self) {
        self.log.line(|| format!("! lost, {} of {} written", self.socket, self.taken));
        self.lost = true;
        let error = TransportError::end_of_file();
        self.session.handle_disconnected(self.now, self.attempt, error, self.socket);
    }

    fn close(&mut self) {
        self.log.line(|| "! closed by the application".to_owned());
        self.closing = true;
        self.session.close(self.now);
    }

    /// Everything that is under way comes to its end.
    fn round(&mut self) {
        let Self { session, now, dice, log, application, .. } = self;
        application.listen(session, log);
        application.finish(session, *now, dice, log);
        for _ in 0..10 {
            self.write();
        }
        while self.broker.process(&mut self.dice, &mut self.log) {}
        for _ in 0..10 {
            self.broker.act(&mut self.dice, &mut self.log);
        }
        while self.broker.write(&mut self.dice, &mut self.log) {}
        while !self.broker.wire.is_empty() && self.wants_input() {
            self.feed();
        }
        self.after();
    }

    fn quiesce(&mut self) {
        for _ in 0..300 {
            self.round();
            if self.session.cause().is_some() || self.is_idle() {
                return;
            }
        }
        panic!(
            "never idle: {:?}, owed {:?}, {} outcomes, broker {:?}",
            self.session.connection().stats(),
            self.application.owed,
            self.application.open_outcomes(),
            self.broker.channels
        );
    }

    fn is_idle(&mut self) -> bool {
        let stats = self.session.connection().stats();
        self.application.owed.is_empty()
            && self.application.open_outcomes() == 0
            && self.broker.is_idle()
            && self.out.is_empty()
            && !self.session.connection().wants_transmit()
            && stats.open_calls + stats.unconfirmed + stats.unacked == 0
            && stats.unread_bytes + stats.incomplete_bytes + stats.unsent_bytes == 0
    }

    /// Everything has been answered and resolved on a connection that lives.
    fn check_rest(&mut self) {
        if self.session.cause().is_some() {
            return;
        }
        for channel in self.broker.channels.values() {
            self.application.check_unacked(channel, &self.log);
            channel.check_rest(&mut self.log);
        }
        self.check_reading();
        self.application.check_room(&mut self.session);
    }

    /// The connection ends, one way or another.
    fn end(&mut self) {
        if self.session.cause().is_some() {
            return;
        }
        match self.dice.below(3) {
            0 => self.lose(),
            1 => self.close(),
            _ => {
                let Self { session, now, application, .. } = self;
                application.release_all(session, *now);
                for _ in 0..300 {
                    self.round();
                    if self.session.connection().stats().channels == 0 {
                        break;
                    }
                }
                assert_eq!(
                    self.session.connection().stats().channels,
                    0,
                    "of channels that were released"
                );
                self.close();
            }
        }
        self.after();
        for _ in 0..10 {
            self.round();
        }
        assert!(self.session.cause().is_some(), "the connection does not end");
    }

    /// Nothing is owed by a connection that has ended.
    fn check_end(&mut self) {
        self.after();
        let cause = self.session.cause().unwrap().clone();
        self.log.count(match &cause {
            CloseCause::Transport(_) => "lost",
            CloseCause::ByBroker(_) => "closed by the broker",
            _ => "closed by the client",
        });
        let expected = match &cause {
            CloseCause::Transport(_) => self.lost,
            CloseCause::ByBroker(_) => self.broker.closed,
            CloseCause::ByClient | CloseCause::Aborted => self.closing,
            CloseCause::ByClientForced => self.closing,
            _ => false,
        };
        assert!(expected, "ended {cause:?}");
        for _ in 0..100 {
            let Self { session, now, dice, log, application, .. } = self;
            application.finish(session, *now, dice, log);
            application.listen(session, log);
            self.take();
            self.out = Transmit::new();
        }
        assert!(self.application.closed, "no event said that the connection has ended");
        assert_eq!(self.application.open_outcomes(), 0);
        assert!(self.application.owed.is_empty(), "{:?}", self.application.owed);
        assert!(self.application.handles.iter().all(|handle| handle.closed));
        let stats = self.session.connection().stats();
        assert_eq!(stats.open_calls + stats.unconfirmed + stats.unacked, 0, "{stats:?}");
        assert_eq!(stats.unread_bytes + stats.incomplete_bytes, 0, "{stats:?}");
        assert_eq!(stats.unsent_bytes, 0, "{stats:?}");
        assert_eq!(stats.channels + stats.consumers, 0, "{stats:?}");
        assert!(self.session.poll_timeout().is_none());
    }
}
