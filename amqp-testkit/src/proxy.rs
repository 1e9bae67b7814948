//! A TCP proxy that breaks connections as a test says.
//!
//! Each connection is a pair of sockets and, for either direction, two threads: one reads and stamps what
//! it read with the time at which it is due, the other waits for that time and writes. Faults happen in
//! the writer, so that an offset is exact to the byte, and in the order of the bytes.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Pieces under way in one direction: what is more waits in the sockets, as behind a slow line.
const PIECES_MAX: usize = 256;
/// How long a write may wait before it is looked whether the connection has ended.
const WRITE_TIMEOUT: Duration = Duration::from_millis(50);
/// The largest piece.
const PIECE_BYTES: usize = 16 << 10;

/// A proxy on a free port of 127.0.0.1 in front of a broker.
///
/// ```
/// use amqp_testkit::{Direction, Fault, ModelBroker, Proxy};
/// let broker = ModelBroker::start()?;
/// let proxy = Proxy::start(broker.port())?;
/// // Every connection from here on is cut behind the broker's 100th byte.
/// proxy.at(Direction::ToClient, 100, Fault::Cut);
/// println!("connect a client to {}", proxy.uri());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    inner: Arc<Inner>,
}

/// A direction of bytes.
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
    /// From here on bytes pass in pieces of this size, with a pause behind each.
    Dribble {
        /// Bytes of a piece.
        size: usize,
        /// Between two pieces.
        pause: Duration,
    },
    /// The receiver of this direction sees the end of the stream; the other direction goes on.
    HalfClose,
    /// Nothing more passes in this direction, and nobody is told: what a dead line looks like.
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
    /// What the next connections will meet.
    script: Vec<(Direction, u64, Fault)>,
    links: Vec<Weak<Link>>,
    accepted: usize,
}

/// One connection.
#[derive(Debug)]
struct Link {
    client: TcpStream,
    broker: TcpStream,
    state: Mutex<LinkState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LinkState {
    ended: bool,
    lanes: [Lane; 2],
    script: Vec<(Direction, u64, Fault)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// Its receiver was told that nothing more comes.
    ended: bool,
    paused: bool,
    dribble: Option<(usize, Duration)>,
    passed: u64,
}

impl Proxy {
    /// A proxy in front of the broker on this port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port can be listened on.
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
                // A client that finds nobody behind the proxy sees its connection closed.
                let _ = client.and_then(|client| accepting.accept(client));
            }
        });
        Ok(Self { port, inner })
    }

    /// The port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A URI that leads through the proxy, with RabbitMQ's default user and virtual host.
    pub fn uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Has `fault` happen to every connection that is made from here on, once so many bytes of
    /// `direction` have passed.
    pub fn at(&self, direction: Direction, offset: u64, fault: Fault) {
        self.inner.settings().script.push((direction, offset, fault));
    }

    /// Connections that are made from here on meet no fault.
    pub fn heal(&self) {
        self.inner.settings().script.clear();
    }

    /// Has `fault` happen to every connection there is.
    pub fn inject(&self, direction: Direction, fault: Fault) {
        for link in self.links() {
            link.suffer(direction, fault);
        }
    }

    /// Ends [`Fault::Pause`] and [`Fault::Dribble`] on every connection there is: what was held up passes.
    pub fn resume(&self) {
        for link in self.links() {
            let mut state = link.state();
            for lane in &mut state.lanes {
                (lane.paused, lane.dribble) = (false, None);
            }
            link.changed.notify_all();
        }
    }

    /// Has every byte that is read from here on take so long, in each direction.
    pub fn delay(&self, latency: Duration) {
        self.inner.settings().latency = latency;
    }

    /// Bytes that passed on all connections there are.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.links().iter().map(|link| link.state().lanes[direction as usize].passed).sum()
    }

    /// Connections that were made.
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
        // The one that accepts looks when there is something to accept.
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
            let link = Arc::new(Link { client, broker, state, changed });
            settings.links.retain(|link| link.strong_count() > 0);
            settings.links.push(Arc::downgrade(&link));
            settings.accepted += 1;
            link
        };
        for direction in [Direction::ToBroker, Direction::ToClient] {
            let (sender, pieces) = sync_channel(PIECES_MAX);
            let (inner, reading) = (Arc::clone(self), Arc::clone(&link));
            thread::spawn(move || reading.read(direction, &inner, &sender));
            let writing = Arc::clone(&link);
            thread::spawn(move || writing.write(direction, &pieces));
        }
        Ok(())
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

    /// Reads what is to pass; ends when there is no more, or nobody to take it.
    fn read(&self, direction: Direction, inner: &Inner, pieces: &SyncSender<(Instant, Vec<u8>)>) {
        let (mut from, _) = self.ends(direction);
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(count) = from.read(&mut piece) {
            let due = Instant::now() + inner.settings().latency;
            // The end of the stream is a piece of no bytes.
            let sent = pieces.send((due, piece[..count].to_vec()));
            if sent.is_err() {
                // Read to the end all the same: to close a socket that has bytes left is to reset it.
                while from.read(&mut piece).is_ok_and(|count| count > 0) {}
            }
            if count == 0 || sent.is_err() {
                return;
            }
        }
        // A side that was reset resets the other.
        if !self.state().ended {
            self.suffer(direction, Fault::Reset);
        }
    }

    fn write(&self, direction: Direction, pieces: &Receiver<(Instant, Vec<u8>)>) {
        for (due, piece) in pieces {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let (_, to) = self.ends(direction);
            if piece.is_empty() {
                // The end waits as bytes do.
                if self.wait_for_room(direction).is_some() {
                    let _ = to.shutdown(Shutdown::Write);
                }
                return;
            }
            if self.pass(direction, &piece).is_none() {
                return;
            }
        }
    }

    /// Writes the piece as the faults let it; `None` if nothing more is to be written.
    fn pass(&self, direction: Direction, piece: &[u8]) -> Option<()> {
        let (_, mut to) = self.ends(direction);
        let mut rest = piece;
        while !rest.is_empty() {
            let room = self.wait_for_room(direction)?;
            let written = match to.write(&rest[..rest.len().min(room)]) {
                Ok(count) => count,
                // The receiver reads nothing: time to look whether it is over.
                Err(error) if is_passing(&error) => continue,
                Err(_) => {
                    if !self.is_over(direction) {
                        self.suffer(direction, Fault::Reset);
                    }
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
        // What is due behind the last byte does not wait for another.
        self.meet(direction).then_some(())
    }

    /// Whether the connection has ended, or this direction of it.
    fn is_over(&self, direction: Direction) -> bool {
        let state = self.state();
        state.ended || state.lanes[direction as usize].ended
    }

    /// Has the faults happen that are due; whether bytes may still pass.
    fn meet(&self, direction: Direction) -> bool {
        loop {
            let due = {
                let mut state = self.state();
                let passed = state.lanes[direction as usize].passed;
                let due =
                    state.script.iter().position(|(on, at, _)| *on == direction && *at <= passed);
                due.map(|due| state.script.remove(due))
            };
            let Some((_, _, fault)) = due else { return !self.state().ended };
            self.suffer(direction, fault);
            if fault == Fault::HalfClose {
                return false;
            }
        }
    }

    /// How many bytes may pass at once, after the pause if there is one.
    fn wait_for_room(&self, direction: Direction) -> Option<usize> {
        if !self.meet(direction) {
            return None;
        }
        let mut state = self.state();
        while state.lanes[direction as usize].paused && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let Lane { ended, passed, dribble, .. } = state.lanes[direction as usize];
        let next = state.script.iter().filter(|(on, ..)| *on == direction).map(|(_, at, _)| *at);
        let to_fault = next.min().map_or(usize::MAX, |at| (at - passed) as usize);
        let room = dribble.map_or(to_fault, |(size, _)| to_fault.min(size.max(1)));
        (!state.ended && !ended).then_some(room)
    }

    fn suffer(&self, direction: Direction, fault: Fault) {
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
                    // Sent when the last thread has let go of the socket.
                    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
                }
                self.end(Shutdown::Read);
            }
        }
    }

    /// Ends all threads of the connection, those that read included.
    fn end(&self, how: Shutdown) {
        self.state().ended = true;
        for stream in [&self.client, &self.broker] {
            let _ = stream.shutdown(how);
        }
        self.changed.notify_all();
    }
}
