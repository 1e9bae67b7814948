//! The network: links between the client and the broker, each with a pipe per direction.
//!
//! A pipe takes bytes as long as its window is not full, cuts them into segments, and delivers each after its latency, in
//! order. Bytes leave the window when the receiver has read them and their acknowledgement can come back. Faults:
//! * **End.** A FIN follows everything that was written, a RST overtakes what the receiver has not read. A link may be
//!   drawn to end after a number of bytes.
//! * **Silence.** Segments are lost from a moment on, and nobody notices: the window fills.
//! * **Stall.** Nothing arrives until a moment.

use std::collections::{BTreeMap, VecDeque};

use amqp_testkit::model::ConnectionId;

use super::random::Random;
use super::swarm::{Chunking, Fault, Swarm};

/// The payload of a TCP segment.
const SEGMENT: usize = 1_460;
/// How many bytes of a pipe arrive one by one, of a link that is cut so.
const SINGLE_BYTES: u64 = 600;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    /// From the client to the broker.
    Up,
    Down,
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Rst,
}

#[derive(Debug)]
pub(super) enum Segment {
    Bytes(Vec<u8>),
    End(End),
}

#[derive(Debug)]
pub(super) struct Pipe {
    segments: VecDeque<(u64, Segment)>,
    /// The number of bytes that were written and not read.
    unread: usize,
    pub(super) window: usize,
    /// The number of bytes that were written.
    carried: u64,
    /// After this many bytes the link ends.
    pub(super) cut: Option<(u64, End)>,
    /// Whether segments are lost.
    pub(super) silent: bool,
    /// Nothing arrives before.
    pub(super) stalled_until: u64,
    /// When the last segment arrives.
    last: u64,
    ended: bool,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    /// The broker's end, until the broker closes it or notices that it is gone.
    pub(super) broker: Option<ConnectionId>,
    /// What has arrived at the broker and was not read.
    pub(super) arrived: Vec<u8>,
    /// What the broker is to write.
    pub(super) outgoing: Vec<u8>,
    /// When the broker has last received or sent something.
    pub(super) heard: u64,
    pub(super) beat: u64,
    /// Whether the client has the socket.
    pub(super) is_open: bool,
    /// What has arrived at the client and was not read, and how it goes on.
    pub(super) inbox: VecDeque<u8>,
    pub(super) end: Option<End>,
}

#[derive(Debug)]
pub(super) struct Network {
    pub(super) links: BTreeMap<u64, Link>,
    random: Random,
}

impl Network {
    pub(super) const fn new(random: Random) -> Self {
        Self { links: BTreeMap::new(), random }
    }

    /// Connects a link.
    pub(super) fn connect(&mut self, now: u64, swarm: &Swarm, broker: ConnectionId) -> u64 {
        let number = self.links.len() as u64 + 1;
        let pipe = |cut| Pipe {
            segments: VecDeque::new(),
            unread: 0,
            window: swarm.window,
            carried: 0,
            cut,
            silent: false,
            stalled_until: 0,
            last: 0,
            ended: false,
        };
        let ends: Vec<End> = [(Fault::Close, End::Fin), (Fault::Reset, End::Rst)]
            .into_iter()
            .filter(|(fault, _)| swarm.has(*fault))
            .map(|(_, end)| end)
            .collect();
        let (mut up, mut down) = (pipe(None), pipe(None));
        if !ends.is_empty() && self.random.chance(swarm.cut_percent) {
            // Half of the cuts are within the handshake or close to it.
            let most = self.random.one_of(&[700, 3_000, 20_000, 100_000]);
            let cut = (self.random.between(0, most), self.random.one_of(&ends));
            let cut_pipe = if self.random.chance(50) { &mut up } else { &mut down };
            cut_pipe.cut = Some(cut);
        }
        let link = Link {
            up,
            down,
            broker: Some(broker),
            arrived: Vec::new(),
            outgoing: Vec::new(),
            heard: now,
            beat: now,
            is_open: true,
            inbox: VecDeque::new(),
            end: None,
        };
        self.links.insert(number, link);
        number
    }

    /// Writes bytes into a pipe. Returns how many it has taken, and when the segments arrive.
    pub(super) fn write(
        &mut self,
        now: u64,
        link: u64,
        direction: Direction,
        bytes: &[u8],
        swarm: &Swarm,
    ) -> (usize, Vec<u64>) {
        let Some(found) = self.links.get_mut(&link) else { return (0, Vec::new()) };
        let pipe = found.pipe(direction);
        let taken = bytes.len().min(pipe.space());
        pipe.unread += taken;
        let mut arrivals = Vec::new();
        let mut rest = &bytes[..taken];
        while !rest.is_empty() && !pipe.ended {
            let before_cut = pipe.cut.map_or(u64::MAX, |(at, _)| at.saturating_sub(pipe.carried));
            let size = chunk(&mut self.random, swarm.chunking, pipe.carried, rest.len());
            let size = size.min(before_cut as usize);
            if size > 0 {
                let (piece, left) = rest.split_at(size);
                rest = left;
                pipe.carried += size as u64;
                let segment = Segment::Bytes(piece.to_vec());
                arrivals.extend(pipe.send(now, &mut self.random, swarm, segment));
            }
            if let Some((_, end)) = pipe.cut.filter(|(at, _)| pipe.carried >= *at) {
                arrivals.extend(pipe.send(now, &mut self.random, swarm, Segment::End(end)));
                pipe.ended = true;
            }
        }
        (taken, arrivals)
    }

    /// Ends a pipe. Returns when that arrives.
    pub(super) fn end(
        &mut self,
        now: u64,
        link: u64,
        direction: Direction,
        end: End,
        swarm: &Swarm,
    ) -> Option<u64> {
        let pipe = self.links.get_mut(&link)?.pipe(direction);
        if std::mem::replace(&mut pipe.ended, true) {
            return None;
        }
        pipe.send(now, &mut self.random, swarm, Segment::End(end))
    }
}

impl Link {
    pub(super) const fn pipe(&mut self, direction: Direction) -> &mut Pipe {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    /// The receiver has read this many bytes, and acknowledges them by the other pipe.
    pub(super) const fn read(&mut self, direction: Direction, count: usize) {
        let (pipe, back) = match direction {
            Direction::Up => (&mut self.up, &self.down),
            Direction::Down => (&mut self.down, &self.up),
        };
        if !back.silent {
            pipe.unread -= count;
        }
    }
}

impl Pipe {
    /// Returns whether what is written into it arrives.
    pub(super) const fn is_whole(&self) -> bool {
        !self.silent && !self.ended
    }

    /// Returns the number of bytes that it takes now. Like TCP, it takes none until a quarter of its window is free.
    pub(super) const fn space(&self) -> usize {
        let free = self.window.saturating_sub(self.unread);
        if free * 4 < self.window { 0 } else { free }
    }

    /// Takes the next segment if it has arrived. Returns when to ask again if it was stalled.
    pub(super) fn arrive(&mut self, now: u64) -> Result<Option<Segment>, u64> {
        if self.stalled_until > now {
            return Err(self.stalled_until);
        }
        let due = self.segments.front().is_some_and(|(at, _)| *at <= now);
        let segment = if due { self.segments.pop_front() } else { None };
        Ok(segment.map(|(_, segment)| segment).filter(|_| !self.silent))
    }

    fn send(
        &mut self,
        now: u64,
        random: &mut Random,
        swarm: &Swarm,
        segment: Segment,
    ) -> Option<u64> {
        let at = now + random.between(swarm.latency.0, swarm.latency.1);
        self.last = self.last.max(at);
        self.segments.push_back((self.last, segment));
        (!self.silent).then_some(self.last)
    }
}

/// Returns the size of the next segment.
fn chunk(random: &mut Random, chunking: Chunking, carried: u64, left: usize) -> usize {
    let most = match chunking {
        Chunking::Bytes if carried < SINGLE_BYTES => 1,
        Chunking::Bytes | Chunking::Random => {
            let scale = random.one_of(&[8, 100, 2_000, 20_000]);
            random.between(1, scale) as usize
        }
        Chunking::Segments => SEGMENT,
        Chunking::Whole => left,
    };
    most.min(left)
}
