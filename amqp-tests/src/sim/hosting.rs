//! The broker's side: its sockets, its timers, and its crashes. The broker itself is the model of the testkit.
//!
//! The broker closes a connection whose client is silent for three heartbeat intervals. Without heartbeats, the keepalive of
//! TCP tells it that a client is gone, much later. Until then it holds the connection's exclusive queues and consumers, and
//! refuses them to others.

use super::network::{Direction, End, Segment};
use super::swarm::SECOND;
use super::world::{Event, World};

/// When TCP notices that its peer is gone.
const KEEPALIVE: u64 = 60 * SECOND;

impl World {
    /// Accepts a connection.
    pub(super) fn accept(&mut self) -> u64 {
        let id = self.broker.connect();
        let link = self.network.connect(self.now, &self.swarm, id);
        self.tick_later(link);
        link
    }

    /// A segment arrives, if it was not lost.
    pub(super) fn arrive(&mut self, link: u64, direction: Direction) {
        let now = self.now;
        let Some(found) = self.network.links.get_mut(&link) else { return };
        let segment = match found.pipe(direction).arrive(now) {
            Ok(Some(segment)) => segment,
            Ok(None) => return,
            Err(later) => return self.at(later, Event::Arrive { link, direction }),
        };
        match (direction, segment) {
            (Direction::Up, Segment::Bytes(bytes)) => {
                found.heard = now;
                if found.broker.is_none() {
                    return self.refuse(link);
                }
                found.arrived.extend_from_slice(&bytes);
                self.feed(link);
            }
            (Direction::Up, Segment::End(end)) => self.hang_up(link, end),
            (Direction::Down, Segment::Bytes(bytes)) => {
                if found.is_open {
                    found.inbox.extend(bytes);
                }
            }
            (Direction::Down, Segment::End(end)) => {
                self.client.disturbed |= found.is_open;
                if end == End::Rst && self.random.chance(50) {
                    found.inbox.clear();
                }
                found.end = Some(end);
            }
        }
    }

    /// The broker reads what has arrived, unless an alarm keeps it from that.
    fn feed(&mut self, link: u64) {
        let Some(found) = self.network.links.get_mut(&link) else { return };
        let Some(id) = found.broker.filter(|id| self.broker.is_reading(*id)) else { return };
        let bytes = std::mem::take(&mut found.arrived);
        found.read(Direction::Up, bytes.len());
        self.broker.receive(id, &bytes);
    }

    /// Writes what the broker has put out.
    pub(super) fn serve(&mut self) {
        // Taking output may cause more of it on other connections.
        while !self.broker.take_dirty().is_empty() {}
        let links: Vec<u64> = self.network.links.keys().copied().collect();
        links.into_iter().for_each(|link| self.flush(link));
    }

    fn flush(&mut self, link: u64) {
        loop {
            let found = self.network.links.get_mut(&link).expect("a link");
            let Some(id) = found.broker else { return };
            if found.outgoing.is_empty() {
                if found.down.space() == 0 {
                    return;
                }
                found.outgoing = self.broker.take_output(id);
                if found.outgoing.is_empty() {
                    if self.broker.is_finished(id) {
                        self.hang_up(link, End::Fin);
                    }
                    return;
                }
                found.beat = self.now;
                self.truth.put_out(link, &found.outgoing, &self.trace);
            }
            let outgoing = std::mem::take(&mut found.outgoing);
            let (taken, arrivals) =
                self.network.write(self.now, link, Direction::Down, &outgoing, &self.swarm);
            let found = self.network.links.get_mut(&link).expect("a link");
            found.outgoing = outgoing[taken..].to_vec();
            for at in arrivals {
                self.at(at, Event::Arrive { link, direction: Direction::Down });
            }
            if taken == 0 {
                return;
            }
        }
    }

    /// The broker's end of a link is gone, and so is the connection.
    fn hang_up(&mut self, link: u64, end: End) {
        let Some(found) = self.network.links.get_mut(&link) else { return };
        let Some(id) = found.broker.take() else { return };
        // What needs no acknowledgement counts as delivered, although it was not sent.
        let unsent = self.broker.take_output(id);
        self.truth.put_out(link, &unsent, &self.trace);
        self.broker.disconnect(id);
        self.end_down(link, end);
    }

    /// Resets a link that the broker does not know.
    fn refuse(&mut self, link: u64) {
        self.end_down(link, End::Rst);
    }

    fn end_down(&mut self, link: u64, end: End) {
        if let Some(at) = self.network.end(self.now, link, Direction::Down, end, &self.swarm) {
            self.at(at, Event::Arrive { link, direction: Direction::Down });
        }
    }

    /// Resets a link on both sides, whatever was silent.
    pub(super) fn reset(&mut self, link: u64) {
        let Some(found) = self.network.links.get_mut(&link) else { return };
        (found.up.silent, found.down.silent) = (false, false);
        found.end = Some(End::Rst);
        self.client.disturbed |= found.is_open;
        self.hang_up(link, End::Rst);
    }

    /// The broker sends a heartbeat, and looks whether the client is alive.
    pub(super) fn tick(&mut self, link: u64) {
        let now = self.now;
        let Some(found) = self.network.links.get_mut(&link) else { return };
        let Some(id) = found.broker else { return };
        let patience = match self.broker.heartbeat(id) {
            Some(half) => 6 * half.as_nanos() as u64,
            None => KEEPALIVE,
        };
        // Keepalive asks the client's system, not the client.
        let dead = !found.is_open || found.up.silent || found.down.silent;
        let silent = now - found.heard > patience;
        if silent && self.broker.is_reading(id) && (dead || self.swarm.heartbeat > 0) {
            self.trace.line(|| format!("the broker ends link {link}: its client is silent"));
            return self.hang_up(link, End::Rst);
        }
        if self.broker.heartbeat(id).is_some() {
            self.broker.send_heartbeat(id);
        }
        self.tick_later(link);
    }

    fn tick_later(&mut self, link: u64) {
        let every = match self.swarm.heartbeat {
            0 => 20 * SECOND,
            seconds => u64::from(seconds) * SECOND / 2,
        };
        self.at(self.now + every, Event::Tick { link });
    }

    pub(super) fn end_alarm(&mut self) {
        self.broker.set_alarm(None);
        let links: Vec<u64> = self.network.links.keys().copied().collect();
        links.into_iter().for_each(|link| self.feed(link));
    }

    /// The broker crashes. What is transient is lost.
    pub(super) fn kill(&mut self) {
        self.listens = false;
        self.broker.restart();
        let links: Vec<u64> = self.network.links.keys().copied().collect();
        for link in links {
            let found = self.network.links.get_mut(&link).expect("a link");
            found.outgoing.clear();
            if found.broker.take().is_some() {
                self.end_down(link, End::Rst);
            }
        }
        self.application.mirror.broker_restarted();
        for published in self.truth.published.values_mut() {
            if !published.persistent {
                published.stored_in = None;
            }
        }
    }
}
