//! A runtime with one socket, whose peer is the test.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use amqp_async::core::errors::{TlsError, TlsErrorKind};
use amqp_async::core::proto::frame;
use amqp_async::core::proto::method::{WireMethod, channel, connection};
use amqp_async::core::{Backoff, Config, Recovery, Target};
use amqp_async::futures::Connecting;
use amqp_async::{
    Channel, Clock, Connection, Executor, Plugins, Runtime, Timer, Transport, connect, connect_with,
};
use bytes::BytesMut;

/// The runtime, shared with the test.
#[derive(Clone)]
pub(crate) struct Played(Arc<Mutex<Inner>>);

pub(crate) struct Inner {
    pub(crate) now: Instant,
    /// What the socket holds, and the runtime has noticed.
    pub(crate) readable: Vec<u8>,
    /// What the socket holds, and the runtime notices when it is asked next.
    pub(crate) unnoticed: Vec<u8>,
    /// What comes again as soon as everything is read.
    pub(crate) endless: Vec<u8>,
    /// What was written to the socket that was dialled last.
    pub(crate) written: Vec<u8>,
    /// Bytes that the socket still takes.
    pub(crate) room: usize,
    /// How many sockets were dialled, and how many of them dropped.
    pub(crate) dialled: u32,
    pub(crate) dropped: u32,
    /// Whether the peer has closed the socket that was dialled last.
    pub(crate) hung_up: bool,
    /// Why the peer has reset the socket that was dialled last: the next write fails by the reset, and what is read ends with
    /// this.
    pub(crate) refused: Option<TlsErrorKind>,
    /// Whether the runtime has not noticed yet that there is something to read.
    pub(crate) hidden: bool,
    /// Tasks that were spawned.
    pub(crate) tasks: Vec<Task>,
    /// How often the driver asked the runtime to look at its sockets.
    pub(crate) rescheduled: u32,
    /// What is woken once it has.
    waiting: Vec<Waker>,
}

pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection whose driver the test polls.
pub(crate) struct Peer {
    pub(crate) played: Played,
    driver: Task,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Peer {
    /// An open connection, with this heartbeat.
    pub(crate) fn open(heartbeat: u16) -> (Self, Connection) {
        let played = Played::new();
        let socket = Socket::new(&played);
        let (connecting, driver) =
            connect_with(played.clone(), Config::default(), Plugins::default(), socket).unwrap();
        let mut peer = Self::of(played, driver);
        peer.greets(heartbeat);
        let connection = peer.resolves(connecting).unwrap();
        (peer, connection)
    }

    /// A connection that is recovered 5 s after a loss, and that is being dialled.
    pub(crate) fn dialling(plugins: Plugins) -> (Self, Connecting) {
        let played = Played::new();
        let backoff = Backoff::fixed(Duration::from_secs(5)).jitter(0.0);
        let config = Config::default().recovery(Recovery::automatic().backoff(backoff));
        let (connecting, driver) = connect(played.clone(), config, plugins).unwrap();
        (Self::of(played, driver), connecting)
    }

    /// An open connection that is recovered 5 s after a loss.
    pub(crate) fn recovering() -> (Self, Connection) {
        let (mut peer, connecting) = Self::dialling(Plugins::default());
        peer.run();
        peer.greets(0);
        let connection = peer.resolves(connecting).unwrap();
        (peer, connection)
    }

    fn of(played: Played, driver: impl Future<Output = ()> + Send + 'static) -> Self {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        Self { played, driver: Box::pin(driver), woken }
    }

    /// The broker's part of the handshake.
    pub(crate) fn greets(&mut self, heartbeat: u16) {
        let start = connection::Start { mechanisms: b"PLAIN", ..Default::default() };
        self.sends(0, &connection::Start { version_minor: 9, locales: b"en_US", ..start });
        self.sends(0, &connection::Tune { channel_max: 9, frame_max: 0, heartbeat });
        self.sends(0, &connection::OpenOk::default());
        self.run();
    }

    /// The peer closes the socket.
    pub(crate) fn hangs_up(&mut self) {
        self.state().hung_up = true;
        self.run();
    }

    /// The delay passes after which the connection is dialled again, and the broker greets.
    pub(crate) fn is_dialled_again(&mut self) {
        let dialled = self.state().dialled;
        self.time_passes(Duration::from_secs(5));
        self.run();
        assert_eq!(self.state().dialled, dialled + 1);
        self.greets(0);
    }

    pub(crate) fn open_channel(&mut self, connection: &Connection) -> Channel {
        self.open_channel_on(connection, 1)
    }

    /// A channel that gets this number.
    pub(crate) fn open_channel_on(&mut self, connection: &Connection, number: u16) -> Channel {
        let mut opening = connection.open_channel();
        assert!(self.poll(&mut opening).is_pending());
        self.sends(number, &channel::OpenOk::default());
        self.run();
        self.resolves(opening).unwrap()
    }

    /// The runtime.
    pub(crate) fn state(&self) -> MutexGuard<'_, Inner> {
        self.played.lock()
    }

    pub(crate) fn sends<'a>(&self, channel: u16, method: &impl WireMethod<'a>) {
        frame::write_method(&mut self.state().readable, channel, method);
    }

    pub(crate) fn time_passes(&self, time: Duration) {
        self.state().now += time;
    }

    /// The driver is dropped.
    pub(crate) fn drop_driver(&mut self) {
        self.driver = Box::pin(std::future::pending());
    }

    /// Polls the driver once, whoever woke it; whether it has ended.
    pub(crate) fn poll_driver(&mut self) -> bool {
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&self.woken));
        self.driver.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
    }

    /// Polls the tasks that were spawned.
    fn poll_tasks(&self) {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut tasks = std::mem::take(&mut self.state().tasks);
        tasks.retain_mut(|task| task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        self.state().tasks.extend(tasks);
    }

    /// Whether the driver was woken since it was polled.
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Relaxed)
    }

    /// The runtime looks at its sockets.
    pub(crate) fn look(&self) {
        let mut state = self.state();
        let noticed = std::mem::take(&mut state.unnoticed);
        state.readable.extend(noticed);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Polls the driver until nothing wakes it any more.
    pub(crate) fn run(&mut self) {
        for _ in 0..1_000 {
            let ended = self.poll_driver();
            self.poll_tasks();
            if ended && !self.is_woken() {
                return;
            }
            if !self.is_woken() {
                self.look();
            }
            if !self.is_woken() {
                return;
            }
        }
        panic!("the driver does not come to rest");
    }

    pub(crate) fn poll<F: Future + Unpin>(&self, future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[track_caller]
    pub(crate) fn resolves<F: Future + Unpin>(&self, mut future: F) -> F::Output {
        match self.poll(&mut future) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it is pending"),
        }
    }
}

impl Played {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            now: Instant::now(),
            readable: Vec::new(),
            unnoticed: Vec::new(),
            endless: Vec::new(),
            written: Vec::new(),
            room: usize::MAX,
            dialled: 0,
            dropped: 0,
            hung_up: false,
            refused: None,
            hidden: false,
            tasks: Vec::new(),
            rescheduled: 0,
            waiting: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Clock for Played {
    fn now(&self) -> Instant {
        self.lock().now
    }
}

impl Executor for Played {
    type Timer = Self;

    fn timer(&self) -> Self {
        self.clone()
    }

    fn reschedule(&self, cx: &mut Context<'_>) {
        let mut state = self.lock();
        state.rescheduled += 1;
        state.waiting.push(cx.waker().clone());
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.lock().tasks.push(Box::pin(task));
    }

    fn spawn_blocking(&self, _: impl FnOnce() + Send + 'static) {}
}

impl Runtime for Played {
    type Transport = Socket;

    fn resolve(
        &self,
        _: &str,
        _: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static {
        std::future::ready(Ok(vec![([127, 0, 0, 1], 5672).into()]))
    }

    fn dial(&self, _: Target) -> impl Future<Output = io::Result<Socket>> + Send + 'static {
        std::future::ready(Ok(Socket::new(self)))
    }
}

impl Timer for Played {
    fn poll_until(&mut self, _: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline <= self.lock().now { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The client's end. Only the one that was dialled last has a peer.
pub(crate) struct Socket {
    played: Played,
    number: u32,
}

impl Socket {
    fn new(played: &Played) -> Self {
        let mut state = played.lock();
        state.dialled += 1;
        state.readable.clear();
        state.written.clear();
        (state.room, state.hung_up, state.refused) = (usize::MAX, false, None);
        Self { played: played.clone(), number: state.dialled }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.played.lock().dropped += 1;
    }
}

impl Transport for Socket {
    fn poll_read(
        &mut self,
        _: &mut Context<'_>,
        input: &mut BytesMut,
        _: usize,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.played.lock();
        assert_eq!(self.number, state.dialled, "another was dialled");
        if state.hidden {
            return Poll::Pending;
        }
        let mut bytes = std::mem::take(&mut state.readable);
        if bytes.is_empty() {
            bytes.clone_from(&state.endless);
        }
        if bytes.is_empty()
            && let Some(kind) = state.refused
        {
            return Poll::Ready(Err(TlsError::new(kind, "").into()));
        }
        if bytes.is_empty() && state.hung_up {
            return Poll::Ready(Ok(0));
        }
        if bytes.is_empty() {
            return Poll::Pending;
        }
        input.extend_from_slice(&bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write(
        &mut self,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.played.lock();
        assert_eq!(self.number, state.dialled, "another was dialled");
        if state.refused.is_some() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = slices.iter().map(|slice| slice.len()).sum::<usize>().min(state.room);
        if count == 0 {
            return Poll::Pending;
        }
        state.room -= count;
        let bytes = slices.iter().flat_map(|slice| &**slice).take(count);
        state.written.extend(bytes);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
