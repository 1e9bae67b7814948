//! A TCP proxy that breaks connections when and how a test asks for it.
//!
//! Each connection is a pair of sockets. Each of its two directions has two threads. One reads, and notes when each
//! piece is due. The other waits for that time, and writes. Faults happen in the thread that writes, so that an offset is
//! exact to the byte, and a method to the frame.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use amqp_proto::method::TABLE;

use crate::frames::{Begun, Frames, Stop};

/// The maximum number of pieces under way in one direction. More than that wait in the sockets, as on a slow network.
const PIECES_MAX: usize = 256;
/// How long a write waits before it checks whether the connection has ended.
const WRITE_TIMEOUT: Duration = Duration::from_millis(50);
/// The maximum size of a piece.
const PIECE_BYTES: usize = 16 << 10;

/// A proxy on a free port of 127.0.0.1 in front of a broker. Its connections are cut when it is dropped.
///
/// ```
/// use amqp_testkit::{Direction, Fault, ModelBroker, Proxy};
/// let broker = ModelBroker::start()?;
/// let proxy = Proxy::start(broker.port())?;
/// // Every connection that is made from here on is cut after 100 bytes from the broker.
/// proxy.at(Direction::ToClient, 100, Fault::Cut);
/// println!("connect a client to {}", proxy.uri());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    inner: Arc<Inner>,
}

/// The direction in which bytes pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the broker.
    ToBroker,
    /// From the broker to the client.
    ToClient,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Both sides see the end of the stream (FIN).
    Cut,
    /// From here on, bytes pass in pieces of this size, with a pause after each.
    Dribble {
        /// The size of a piece in bytes.
        size: usize,
        /// The pause between two pieces.
        pause: Duration,
    },
    /// The receiver of this direction sees the end of the stream; the other direction goes on.
    HalfClose,
    /// Nothing more passes in this direction, and neither side sees an end: a network that drops packets.
    Pause,
    /// Both sides see a reset (RST).
    Reset,
}

#[derive(Debug)]
struct Inner {
    broker: SocketAddr,
    settings: Mutex<Settings>,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Settings {
    latency: Duration,
    /// The faults of connections that are made from here on.
    script: Vec<(Direction, u64, Fault)>,
    links: Vec<Weak<Link>>,
    accepted: usize,
    /// The faults before frames that are still to happen.
    awaited: Vec<Awaited>,
    /// The connections on which faults before frames have happened.
    faulted: Vec<usize>,
}

/// A fault that happens before a frame.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    direction: Direction,
    frame: Begun,
    /// The number of such frames that are still to come, this one included.
    number: usize,
    fault: Fault,
}

/// One connection.
#[derive(Debug)]
struct Link {
    /// Its place in the order in which clients have connected.
    number: usize,
    client: TcpStream,
    broker: TcpStream,
    state: Mutex<LinkState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LinkState {
    ended: bool,
    /// A write has failed, because its receiver has reset the connection.
    was_reset: bool,
    lanes: [Lane; 2],
    script: Vec<(Direction, u64, Fault)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// The receiver has seen the end of the stream.
    ended: bool,
    /// Everything has passed, up to the end of the stream.
    is_passed: bool,
    paused: bool,
    dribble: Option<(usize, Duration)>,
    passed: u64,
}

/// What is under way in one direction.
#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    End,
    Reset,
}

impl Proxy {
    /// Starts a proxy in front of the broker on this port of 127.0.0.1.
    ///
    /// # Errors
    /// If it cannot listen on a port.
    pub fn start(broker: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let broker = SocketAddr::from((Ipv4Addr::LOCALHOST, broker));
        let inner = Inner { broker, settings: Mutex::default(), closed: AtomicBool::new(false) };
        let inner = Arc::new(inner);
        let accepting = Arc::clone(&inner);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.closed.load(Ordering::SeqCst) {
                    break;
                }
                // If the broker refuses the connection, the client sees its own closed.
                let _ = client.and_then(|client| accepting.accept(client));
            }
        });
        Ok(Self { port, inner })
    }

    /// Returns the port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns a URI of the broker through the proxy, with RabbitMQ's default user and virtual host.
    pub fn uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Schedules a fault for every connection that is made from here on: it happens when `offset` bytes have passed in
    /// `direction`.
    pub fn at(&self, direction: Direction, offset: u64, fault: Fault) {
        self.inner.settings().script.push((direction, offset, fault));
    }

    /// Schedules a fault, once, at a point of the protocol: before a frame passes in `direction`. What was sent before it
    /// passes, and nothing of the frame does. `number` counts the frames of this method from here on, from 1, on
    /// all connections together, also on those that are open.
    ///
    /// The method has its name in the protocol, such as `basic.ack` or `queue.declare-ok`. The frames of contents are `header`
    /// and `body`. Connections must not be encrypted.
    ///
    /// ```
    /// use amqp_testkit::{Direction, Fault, ModelBroker, Proxy};
    /// let broker = ModelBroker::start()?;
    /// let proxy = Proxy::start(broker.port())?;
    /// // The broker never sees the client's third acknowledgement, and has answered everything before it.
    /// proxy.before(Direction::ToBroker, "basic.ack", 3, Fault::Cut);
    /// println!("connect a client to {}", proxy.uri());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Panics
    /// If no method has this name.
    pub fn before(&self, direction: Direction, method: &str, number: usize, fault: Fault) {
        let plain = |name: &str| name.to_lowercase().replace('-', "");
        let id = || {
            let spec = TABLE.iter().find(|spec| plain(&format!("{:?}", spec.id)) == plain(method));
            spec.unwrap_or_else(|| panic!("no method is called {method:?}")).id
        };
        let frame = match method {
            "header" => Begun::Header,
            "body" => Begun::Body,
            _ => Begun::Method(id()),
        };
        self.inner.settings().awaited.push(Awaited { direction, frame, number, fault });
    }

    /// Returns the connections on which faults of [`before`](Self::before) have happened, in their order. Each is a number in
    /// the order in which clients have connected, from 0.
    pub fn faulted(&self) -> Vec<usize> {
        self.inner.settings().faulted.clone()
    }

    /// Removes the scheduled faults. Connections that are made from here on have none.
    pub fn heal(&self) {
        let mut settings = self.inner.settings();
        settings.script.clear();
        settings.awaited.clear();
    }

    /// Causes a fault on every open connection, at once.
    pub fn inject(&self, direction: Direction, fault: Fault) {
        for link in self.links() {
            link.cause(direction, fault);
        }
    }

    /// Causes a fault on one connection, at once, if it is open. `connection` is its number in the order in which clients
    /// have connected, from 0.
    pub fn inject_on(&self, connection: usize, direction: Direction, fault: Fault) {
        for link in self.links().iter().filter(|link| link.number == connection) {
            link.cause(direction, fault);
        }
    }

    /// Ends [`Fault::Pause`] and [`Fault::Dribble`] on every open connection. Bytes that were held up pass.
    pub fn resume(&self) {
        for link in self.links() {
            let mut state = link.state();
            for lane in &mut state.lanes {
                (lane.paused, lane.dribble) = (false, None);
            }
            link.changed.notify_all();
        }
    }

    /// Delays every byte that is read from here on by `latency`, in each direction.
    pub fn delay(&self, latency: Duration) {
        self.inner.settings().latency = latency;
    }

    /// Returns the number of bytes that have passed on the open connections.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.links().iter().map(|link| link.state().lanes[direction as usize].passed).sum()
    }

    /// Returns the number of connections that clients have made.
    pub fn accepted(&self) -> usize {
        self.inner.settings().accepted
    }

    fn links(&self) -> Vec<Arc<Link>> {
        self.inner.settings().links.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        self.inject(Direction::ToClient, Fault::Cut);
        // Wakes the thread that accepts, which then ends.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Inner {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let broker = TcpStream::connect(self.broker)?;
        for stream in [&client, &broker] {
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        }
        let link = {
            let mut settings = self.settings();
            let script = settings.script.clone();
            let state = LinkState { script, ..LinkState::default() };
            let (state, changed) = (Mutex::new(state), Condvar::new());
            let number = settings.accepted;
            let link = Arc::new(Link { number, client, broker, state, changed });
            settings.links.retain(|link| link.strong_count() > 0);
            settings.links.push(Arc::downgrade(&link));
            settings.accepted += 1;
            link
        };
        for direction in [Direction::ToBroker, Direction::ToClient] {
            let (sender, pieces) = sync_channel(PIECES_MAX);
            let (inner, reading) = (Arc::clone(self), Arc::clone(&link));
            thread::spawn(move || reading.read(direction, &inner, &sender));
            let (inner, writing) = (Arc::clone(self), Arc::clone(&link));
            thread::spawn(move || writing.write(direction, &inner, &pieces));
        }
        Ok(())
    }

    /// Counts a frame that is about to pass. Returns the fault that happens before it.
    fn meet(&self, direction: Direction, frame: Begun) -> Option<Fault> {
        let awaited = &mut self.settings().awaited;
        let mut due = None;
        for (index, it) in awaited.iter_mut().enumerate() {
            if it.direction == direction && it.frame == frame {
                it.number = it.number.saturating_sub(1);
                if it.number == 0 {
                    due.get_or_insert(index);
                }
            }
        }
        due.map(|index| awaited.remove(index).fault)
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

impl Link {
    fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const fn ends(&self, direction: Direction) -> (&TcpStream, &TcpStream) {
        match direction {
            Direction::ToBroker => (&self.client, &self.broker),
            Direction::ToClient => (&self.broker, &self.client),
        }
    }

    /// Reads what is to pass. Ends when there is no more, or when the thread that writes has ended.
    fn read(&self, direction: Direction, inner: &Inner, pieces: &SyncSender<(Instant, Piece)>) {
        let (mut from, _) = self.ends(direction);
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let read = from.read(&mut buffer);
            let piece = match read {
                Ok(count @ 1..) => Piece::Bytes(buffer[..count].to_vec()),
                Ok(_) => Piece::End,
                Err(_) => Piece::Reset,
            };
            let is_last = !matches!(piece, Piece::Bytes(_));
            let due = Instant::now() + inner.settings().latency;
            if pieces.send((due, piece)).is_err() {
                // Read to the end all the same: closing a socket with unread bytes would reset it.
                while from.read(&mut buffer).is_ok_and(|count| count > 0) {}
                return;
            }
            if is_last {
                return;
            }
        }
    }

    fn write(&self, direction: Direction, inner: &Inner, pieces: &Receiver<(Instant, Piece)>) {
        let mut frames = match direction {
            Direction::ToBroker => Frames::of_client(),
            Direction::ToClient => Frames::default(),
        };
        // The beginning of a frame whose method is not known yet.
        let mut held = Vec::new();
        for (due, piece) in pieces {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let (_, to) = self.ends(direction);
            if let Piece::Bytes(bytes) = &piece {
                held.extend_from_slice(bytes);
                match self.pass_frames(direction, inner, &mut frames, &held) {
                    Some(passed) => drop(held.drain(..passed)),
                    None => return,
                }
                continue;
            }
            if self.pass(direction, &held).is_none() {
                return;
            }
            // A pause holds up the end of the stream too.
            if self.wait_until_writable(direction).is_none() {
                return;
            }
            let was_reset = {
                let mut state = self.state();
                state.lanes[direction as usize].is_passed = true;
                state.was_reset
            };
            // A reset of one side is passed on to the other, after what came before it.
            match piece {
                Piece::End if !was_reset => drop(to.shutdown(Shutdown::Write)),
                _ => self.cause(direction, Fault::Reset),
            }
        }
    }

    /// Writes the bytes as far as the faults allow, also those before frames. Returns how many have passed: all, up to a
    /// frame whose method is not known yet. Returns `None` if nothing more is to be written.
    fn pass_frames(
        &self,
        direction: Direction,
        inner: &Inner,
        frames: &mut Frames,
        bytes: &[u8],
    ) -> Option<usize> {
        let mut passed = 0;
        loop {
            let rest = &bytes[passed..];
            if inner.settings().awaited.is_empty() {
                frames.skip(rest);
                self.pass(direction, rest)?;
                return Some(bytes.len());
            }
            let mut fault = None;
            let (count, stop) = frames.scan(rest, |frame| {
                fault = inner.meet(direction, frame);
                fault.is_some()
            });
            self.pass(direction, &rest[..count])?;
            passed += count;
            match (stop, fault) {
                (Stop::Here, Some(fault)) => {
                    self.cause(direction, fault);
                    inner.settings().faulted.push(self.number);
                    let state = self.state();
                    if state.ended || state.lanes[direction as usize].ended {
                        return None;
                    }
                }
                _ => return Some(passed),
            }
        }
    }

    /// Writes the piece as far as the faults allow. Returns `None` if nothing more is to be written.
    fn pass(&self, direction: Direction, piece: &[u8]) -> Option<()> {
        let (_, mut to) = self.ends(direction);
        let mut rest = piece;
        while !rest.is_empty() {
            let writable = self.wait_until_writable(direction)?;
            let written = match to.write(&rest[..rest.len().min(writable)]) {
                Ok(count) => count,
                // The receiver does not read: check whether the connection has ended.
                Err(error) if is_passing(&error) => continue,
                Err(_) => {
                    self.note_reset(direction);
                    return None;
                }
            };
            rest = &rest[written..];
            let pause = {
                let mut state = self.state();
                let lane = &mut state.lanes[direction as usize];
                lane.passed += written as u64;
                lane.dribble.map(|(_, pause)| pause)
            };
            thread::sleep(pause.unwrap_or_default());
        }
        // A fault that is due after the last byte happens without another byte.
        self.cause_due(direction).then_some(())
    }

    /// The receiver of this direction has reset the connection. What it had sent before that is passed on first.
    fn note_reset(&self, direction: Direction) {
        let other = match direction {
            Direction::ToBroker => Direction::ToClient,
            Direction::ToClient => Direction::ToBroker,
        };
        let is_passed = {
            let mut state = self.state();
            if state.ended || state.lanes[direction as usize].ended {
                return;
            }
            state.was_reset = true;
            state.lanes[other as usize].is_passed
        };
        if is_passed {
            self.cause(direction, Fault::Reset);
        }
    }

    /// Causes the faults that are due. Returns whether bytes may still pass.
    fn cause_due(&self, direction: Direction) -> bool {
        loop {
            let due = {
                let mut state = self.state();
                let passed = state.lanes[direction as usize].passed;
                let due =
                    state.script.iter().position(|(on, at, _)| *on == direction && *at <= passed);
                due.map(|due| state.script.remove(due))
            };
            let Some((_, _, fault)) = due else { return !self.state().ended };
            self.cause(direction, fault);
            if fault == Fault::HalfClose {
                return false;
            }
        }
    }

    /// Waits while the direction is paused. Returns how many bytes may pass in one write, `None` if none may pass any more.
    fn wait_until_writable(&self, direction: Direction) -> Option<usize> {
        if !self.cause_due(direction) {
            return None;
        }
        let mut state = self.state();
        while state.lanes[direction as usize].paused && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let Lane { ended, passed, dribble, .. } = state.lanes[direction as usize];
        let next = state.script.iter().filter(|(on, ..)| *on == direction).map(|(_, at, _)| *at);
        let until_fault = next.min().map_or(usize::MAX, |at| (at - passed) as usize);
        let writable = dribble.map_or(until_fault, |(size, _)| until_fault.min(size.max(1)));
        (!state.ended && !ended).then_some(writable)
    }

    fn cause(&self, direction: Direction, fault: Fault) {
        match fault {
            Fault::Dribble { size, pause } => {
                self.state().lanes[direction as usize].dribble = Some((size, pause));
            }
            Fault::HalfClose => {
                self.state().lanes[direction as usize].ended = true;
                let _ = self.ends(direction).1.shutdown(Shutdown::Write);
            }
            Fault::Pause => self.state().lanes[direction as usize].paused = true,
            Fault::Cut => self.end(Shutdown::Write),
            Fault::Reset => {
                for stream in [&self.client, &self.broker] {
                    // The reset is sent when the last thread drops the socket.
                    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
                }
                self.end(Shutdown::Read);
            }
        }
    }

    /// Ends all threads of the connection, also those that wait for input.
    fn end(&self, how: Shutdown) {
        self.state().ended = true;
        for stream in [&self.client, &self.broker] {
            let _ = stream.shutdown(how);
        }
        self.changed.notify_all();
    }
}
