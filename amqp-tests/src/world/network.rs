//! Lines between clients and the broker: two pipes, whose bytes arrive in order and after a while.

use std::collections::BTreeMap;
use std::io;
use std::sync::MutexGuard;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use amqp_async::Transport;
use amqp_testkit::model::{Broker, ConnectionId};
use bytes::BytesMut;

use super::{State, World};
use crate::sim::random::Random;

/// The longest that bytes are on their way, in microseconds.
const LATENCY_MAX: u64 = 2_000;

/// When the broker closes a silent line that has no heartbeats.
const KEEPALIVE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Network {
    lines: BTreeMap<u64, Pipes>,
    events: BTreeMap<(Duration, u64), (u64, Event)>,
    scheduled: u64,
    dialled: u64,
    random: Random,
}

#[derive(Debug)]
enum Event {
    /// Bytes reach the broker.
    Sent(Vec<u8>),
    /// The broker sees the end of the line.
    Closed,
    /// Bytes reach the client.
    Answered(Vec<u8>),
    /// The client sees the end of the line.
    Ended,
    /// The broker sends a heartbeat.
    Beat,
}

#[derive(Debug)]
struct Pipes {
    connection: ConnectionId,
    readable: BytesMut,
    reader: Option<Waker>,
    /// How the line has ended for the client.
    end: Option<End>,
    /// When what was sent last arrives, at the broker and at the client.
    arrivals: [Duration; 2],
    is_silent: bool,
    beats: bool,
    /// Whether the client has its end of the line yet.
    is_open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

impl Network {
    pub(super) fn new(random: Random) -> Self {
        Self { lines: BTreeMap::new(), events: BTreeMap::new(), scheduled: 0, dialled: 0, random }
    }

    /// The lines that have not ended for their client.
    pub(super) fn open(&self) -> Vec<u64> {
        let open = self.lines.iter().filter(|(_, pipes)| pipes.is_open && pipes.end.is_none());
        open.map(|(line, _)| *line).collect()
    }

    pub(super) fn latency(&mut self) -> Duration {
        Duration::from_micros(self.random.between(0, LATENCY_MAX))
    }

    pub(super) fn dial(&mut self, broker: &mut Broker) -> u64 {
        self.dialled += 1;
        let pipes = Pipes {
            connection: broker.connect(),
            readable: BytesMut::new(),
            reader: None,
            end: None,
            arrivals: [Duration::ZERO; 2],
            is_silent: false,
            beats: false,
            is_open: true,
        };
        self.lines.insert(self.dialled, pipes);
        self.dialled
    }

    /// When something arrives next.
    pub(super) fn next(&self) -> Option<Duration> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    /// Puts what the broker has to say on its way.
    pub(super) fn send(&mut self, broker: &mut Broker, now: Duration) {
        loop {
            let dirty = broker.take_dirty();
            if dirty.is_empty() {
                return;
            }
            let lines = self.lines.iter().filter(|(_, pipes)| dirty.contains(&pipes.connection));
            for line in lines.map(|(line, _)| *line).collect::<Vec<_>>() {
                self.answer(line, broker, now);
            }
        }
    }

    fn answer(&mut self, line: u64, broker: &mut Broker, now: Duration) {
        let Some(connection) = self.lines.get(&line).map(|pipes| pipes.connection) else { return };
        let bytes = broker.take_output(connection);
        if !bytes.is_empty() {
            self.schedule(line, Event::Answered(bytes), now);
        }
        if broker.is_finished(connection) {
            broker.disconnect(connection);
            self.schedule(line, Event::Ended, now);
        }
    }

    /// Lets arrive what is due.
    pub(super) fn arrive(&mut self, broker: &mut Broker, now: Duration) {
        while let Some(event) = self.events.first_entry()
            && event.key().0 <= now
        {
            let (line, event) = event.remove();
            self.handle(line, event, broker, now);
        }
    }

    fn handle(&mut self, line: u64, event: Event, broker: &mut Broker, now: Duration) {
        let Some(pipes) = self.lines.get_mut(&line) else { return };
        let connection = pipes.connection;
        match event {
            Event::Sent(bytes) => {
                broker.receive(connection, &bytes);
                if !pipes.beats && broker.heartbeat(connection).is_some() {
                    pipes.beats = true;
                    self.beat(line, broker, now);
                }
            }
            Event::Closed => {
                broker.disconnect(connection);
                if pipes.is_open {
                    self.schedule(line, Event::Ended, now);
                } else {
                    self.lines.remove(&line);
                }
            }
            Event::Answered(bytes) => {
                pipes.readable.extend_from_slice(&bytes);
                pipes.wake();
            }
            Event::Ended => pipes.end(End::Closed),
            Event::Beat => {
                broker.send_heartbeat(connection);
                self.answer(line, broker, now);
                self.beat(line, broker, now);
            }
        }
    }

    fn beat(&mut self, line: u64, broker: &Broker, now: Duration) {
        let Some(pipes) = self.lines.get(&line) else { return };
        if let Some(interval) = broker.heartbeat(pipes.connection) {
            self.at(now + interval, line, Event::Beat);
        }
    }

    /// Ends a line for both sides. What is on its way is lost.
    pub(super) fn cut(&mut self, line: u64, broker: &mut Broker) {
        self.events.retain(|_, (of, _)| *of != line);
        if let Some(pipes) = self.lines.get_mut(&line) {
            broker.disconnect(pipes.connection);
            pipes.end(End::Reset);
        }
    }

    /// Nothing arrives any more. The broker gives the line up when it has heard nothing for too long.
    pub(super) fn silence(&mut self, line: u64, broker: &Broker, now: Duration) {
        let Some(pipes) = self.lines.get_mut(&line) else { return };
        pipes.is_silent = true;
        self.events.retain(|_, (of, event)| *of != line || matches!(event, Event::Beat));
        let patience = broker.silence_max(pipes.connection).unwrap_or(KEEPALIVE);
        self.at(now + patience, line, Event::Closed);
    }

    /// Has an event happen after those of its direction.
    fn schedule(&mut self, line: u64, event: Event, now: Duration) {
        let latency = self.latency();
        let Some(pipes) = self.lines.get_mut(&line) else { return };
        if pipes.is_silent {
            return;
        }
        let direction = usize::from(matches!(event, Event::Answered(_) | Event::Ended));
        let at = pipes.arrivals[direction].max(now + latency);
        pipes.arrivals[direction] = at;
        self.at(at, line, event);
    }

    fn at(&mut self, at: Duration, line: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), (line, event));
    }
}

impl Pipes {
    fn end(&mut self, end: End) {
        self.end = self.end.or(Some(end));
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// A client's end of a line.
#[derive(Debug)]
pub struct Line {
    pub(super) world: World,
    pub(super) line: u64,
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.world.lock()
    }
}

impl Transport for Line {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        let Some(pipes) = state.network.lines.get_mut(&self.line) else {
            return Poll::Ready(Ok(0));
        };
        if pipes.end == Some(End::Reset) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = pipes.readable.len().min(max);
        if count > 0 {
            input.extend_from_slice(&pipes.readable.split_to(count));
        } else if pipes.end.is_none() {
            pipes.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_write(
        &mut self,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.state();
        let end = state.network.lines.get(&self.line).and_then(|pipes| pipes.end);
        if end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let count = bytes.len();
        state.network.schedule(self.line, Event::Sent(bytes), state.now);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state();
        state.network.schedule(self.line, Event::Closed, state.now);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let state = &mut *self.world.lock();
        if let Some(pipes) = state.network.lines.get_mut(&self.line) {
            pipes.is_open = false;
        }
        state.network.schedule(self.line, Event::Closed, state.now);
    }
}
