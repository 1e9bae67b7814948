//! A runtime with one socket, whose peer is the test.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use amqp_async::core::Config;
use amqp_async::core::proto::frame;
use amqp_async::core::proto::method::{WireMethod, channel, connection};
use amqp_async::{
    Channel, Clock, Connection, Driver, Executor, OverTransport, Plugins, Timer, Transport,
    connect_with,
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
    pub(crate) written: usize,
    /// Bytes that the socket still takes.
    pub(crate) room: usize,
    /// How often the driver asked the runtime to look at its sockets.
    pub(crate) rescheduled: u32,
    /// What is woken once it has.
    waiting: Vec<Waker>,
}

/// A connection whose driver the test polls.
pub(crate) struct Peer {
    pub(crate) played: Played,
    driver: Driver<OverTransport<Played, Socket>>,
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
        let played = Played(Arc::new(Mutex::new(Inner {
            now: Instant::now(),
            readable: Vec::new(),
            unnoticed: Vec::new(),
            endless: Vec::new(),
            written: 0,
            room: usize::MAX,
            rescheduled: 0,
            waiting: Vec::new(),
        })));
        let socket = Socket(played.clone());
        let (connecting, driver) =
            connect_with(played.clone(), Config::default(), Plugins::default(), socket).unwrap();
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let mut peer = Self { played, driver, woken };
        let start = connection::Start { mechanisms: b"PLAIN", ..Default::default() };
        peer.sends(0, &connection::Start { version_minor: 9, locales: b"en_US", ..start });
        peer.sends(0, &connection::Tune { channel_max: 9, frame_max: 0, heartbeat });
        peer.sends(0, &connection::OpenOk::default());
        peer.run();
        let connection = peer.resolves(connecting).unwrap();
        (peer, connection)
    }

    pub(crate) fn open_channel(&mut self, connection: &Connection) -> Channel {
        let mut opening = connection.open_channel();
        assert!(self.poll(&mut opening).is_pending());
        self.sends(1, &channel::OpenOk::default());
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

    /// Polls the driver once, whoever woke it; whether it has ended.
    pub(crate) fn poll_driver(&mut self) -> bool {
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&self.woken));
        Pin::new(&mut self.driver).poll(&mut Context::from_waker(&waker)).is_ready()
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
            if self.poll_driver() {
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

    fn spawn(&self, _: impl Future<Output = ()> + Send + 'static) {}

    fn spawn_blocking(&self, _: impl FnOnce() + Send + 'static) {}
}

impl Timer for Played {
    fn poll_until(&mut self, _: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline <= self.lock().now { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The client's end.
pub(crate) struct Socket(Played);

impl Transport for Socket {
    fn poll_read(
        &mut self,
        _: &mut Context<'_>,
        input: &mut BytesMut,
        _: usize,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        let mut bytes = std::mem::take(&mut state.readable);
        if bytes.is_empty() {
            bytes.clone_from(&state.endless);
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
        let mut state = self.0.lock();
        let count = slices.iter().map(|slice| slice.len()).sum::<usize>().min(state.room);
        if count == 0 {
            return Poll::Pending;
        }
        state.room -= count;
        state.written += count;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
