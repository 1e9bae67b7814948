//! The I/O thread, which moves the bytes of one connection.
//!
//! It polls the driver, which is the same future as on any runtime. In between, it sleeps in the system's
//! poller until the socket is ready, a handle has something to send, or a deadline passes. The driver's
//! socket and timer share state with the thread ([`Io`]). No other thread uses this state. It consists of
//! atomics and a lock only because a driver may be moved to another thread before it runs.
//!
//! The poller reports each change once (edge-triggered). So after a report, the socket counts as ready until
//! a read or a write would block. A read that leaves space in its buffer has emptied the socket, unless the
//! peer has closed its side: that is reported once too, perhaps together with the last bytes.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use amqp_async::Runtime;
use amqp_async::core::ConnectError;
use amqp_async::core::errors::TransportError;
use mio::event::{Event, Source};
use mio::{Events, Interest, Registry, Token};

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);

/// Moves the bytes of one connection, on the thread that [runs](Self::run) it.
///
/// If it is dropped before the connection has ended, the connection ends, and every handle returns
/// [`CloseCause::DriverGone`](crate::CloseCause::DriverGone).
#[must_use = "a connection does nothing until its driver runs"]
pub struct Driver {
    poller: mio::Poll,
    notifier: Arc<Notifier>,
    io: Arc<Io>,
    driver: Box<dyn Drive>,
}

/// The shared driver over any type of stream.
pub(crate) trait Drive: Future<Output = ()> + Send + Unpin {
    /// Ends the connection with this error.
    fn fail(self: Box<Self>, error: TransportError);
}

impl<R: Runtime> Drive for amqp_async::Driver<R> {
    fn fail(self: Box<Self>, error: TransportError) {
        Self::fail(*self, error);
    }
}

impl Driver {
    /// Creates the I/O state, and the driver that `connect` creates with it.
    pub(crate) fn new<T, D>(
        connect: impl FnOnce(Arc<Io>) -> Result<(T, D), ConnectError>,
    ) -> Result<(T, Self), ConnectError>
    where
        D: Drive + 'static,
    {
        let poller = mio::Poll::new().map_err(not_started)?;
        let waker = mio::Waker::new(poller.registry(), WAKER).map_err(not_started)?;
        let registry = poller.registry().try_clone().map_err(not_started)?;
        let io = Arc::new(Io {
            registry,
            readable: AtomicBool::new(false),
            writable: AtomicBool::new(false),
            read_closed: AtomicBool::new(false),
            coupled: AtomicBool::new(false),
            timing: Mutex::new(Timing { asked: Instant::now(), deadline: None }),
        });
        let notifier = Arc::new(Notifier { state: AtomicU8::new(AWAKE), waker });
        let (connecting, driver) = connect(Arc::clone(&io))?;
        Ok((connecting, Self { poller, notifier, io, driver: Box::new(driver) }))
    }

    /// Moves bytes until the connection has ended. Returns when the last of them are written, or 1 s after
    /// the end.
    ///
    /// If the system's poller fails, the connection ends with
    /// [`CloseCause::Transport`](crate::CloseCause::Transport) and the poller's error.
    pub fn run(self) {
        self.run_on(mio::Poll::poll);
    }

    fn run_on(
        mut self,
        mut poll: impl FnMut(&mut mio::Poll, &mut Events, Option<Duration>) -> io::Result<()>,
    ) {
        let waker = Waker::from(Arc::clone(&self.notifier));
        let mut cx = Context::from_waker(&waker);
        let mut events = Events::with_capacity(4);
        loop {
            self.notifier.state.store(AWAKE, Ordering::SeqCst);
            if Pin::new(&mut *self.driver).poll(&mut cx).is_ready() {
                return;
            }
            let timeout = if self.notifier.falls_asleep() {
                self.io.time_left()
            } else {
                Some(Duration::ZERO)
            };
            self.io.is_asked(Instant::now());
            match poll(&mut self.poller, &mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Without the system's poller, no bytes can be moved.
                Err(error) => return self.driver.fail(error.into()),
            }
            for event in events.iter().filter(|event| event.token() == SOCKET) {
                self.io.handle_event(event);
            }
        }
    }

    /// Runs the driver on a new thread.
    pub(crate) fn spawn(self) -> Result<(), ConnectError> {
        let spawned = thread::Builder::new().name("amqp-io".into()).spawn(move || self.run());
        spawned.map(|_| ()).map_err(not_started)
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

pub(crate) fn not_started(error: io::Error) -> ConnectError {
    ConnectError::DriverNotStarted(TransportError::from(error))
}

/// The state that the parts of the driver share with its thread.
#[derive(Debug)]
pub(crate) struct Io {
    registry: Registry,
    readable: AtomicBool,
    writable: AtomicBool,
    read_closed: AtomicBool,
    /// Whether a read may require a write and the other way round, as with TLS.
    coupled: AtomicBool,
    timing: Mutex<Timing>,
}

#[derive(Debug)]
struct Timing {
    /// When the poller was last called.
    asked: Instant,
    /// The latest time for the next poll of the driver.
    deadline: Option<Instant>,
}

impl Io {
    /// Registers a socket in place of any other.
    pub(crate) fn register(
        &self,
        socket: &mut (impl Source + ?Sized),
        coupled: bool,
    ) -> io::Result<()> {
        self.registry.register(socket, SOCKET, Interest::READABLE | Interest::WRITABLE)?;
        for (flag, value) in [
            (&self.readable, true),
            (&self.writable, true),
            (&self.read_closed, false),
            (&self.coupled, coupled),
        ] {
            flag.store(value, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(crate) fn deregister(&self, socket: &mut (impl Source + ?Sized)) {
        // An error does not matter, because the socket is closed next.
        let _ = self.registry.deregister(socket);
    }

    /// Returns whether the socket may have something to read.
    pub(crate) fn may_read(&self) -> bool {
        self.readable.load(Ordering::Relaxed)
    }

    /// Reads into `buffer` if the socket may have something. `short_read_empties` is whether a read that
    /// leaves space in `buffer` has emptied the socket.
    pub(crate) fn poll_read(
        &self,
        stream: &mut (impl Read + ?Sized),
        buffer: &mut [u8],
        short_read_empties: bool,
    ) -> Poll<io::Result<usize>> {
        let size = buffer.len();
        let result = poll_ready(&self.readable, || stream.read(buffer));
        if result.is_ready() && self.coupled.load(Ordering::Relaxed) {
            self.writable.store(true, Ordering::Relaxed);
        }
        let is_short = matches!(result, Poll::Ready(Ok(count)) if 0 < count && count < size);
        if short_read_empties && is_short && !self.read_closed.load(Ordering::Relaxed) {
            self.readable.store(false, Ordering::Relaxed);
        }
        result
    }

    /// Writes if the socket may accept bytes.
    pub(crate) fn poll_write<T>(
        &self,
        write: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        poll_ready(&self.writable, write)
    }

    fn handle_event(&self, event: &Event) {
        let closed = event.is_read_closed() || event.is_error();
        let coupled = self.coupled.load(Ordering::Relaxed);
        if coupled || event.is_readable() || closed {
            self.readable.store(true, Ordering::Relaxed);
        }
        if coupled || event.is_writable() || event.is_write_closed() || event.is_error() {
            self.writable.store(true, Ordering::Relaxed);
        }
        if closed {
            self.read_closed.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether the deadline has passed and the poller was called since. The second condition keeps a
    /// pause of this thread from being taken for one of the peer. If `false`, the driver is polled again when
    /// both are true.
    pub(crate) fn has_passed(&self, deadline: Instant) -> bool {
        let mut timing = self.timing();
        let passed = deadline <= timing.asked;
        timing.deadline = (!passed).then_some(deadline);
        passed
    }

    /// Records that the poller is about to report everything that has happened until now.
    fn is_asked(&self, now: Instant) {
        self.timing().asked = now;
    }

    /// Returns how long the thread may sleep.
    fn time_left(&self) -> Option<Duration> {
        // The driver sets it again at each poll.
        let deadline = self.timing().deadline.take();
        deadline.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn timing(&self) -> MutexGuard<'_, Timing> {
        self.timing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Performs an operation for which the socket may be ready.
fn poll_ready<T>(
    ready: &AtomicBool,
    mut act: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    while ready.load(Ordering::Relaxed) {
        match act() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.store(false, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return Poll::Ready(result),
        }
    }
    Poll::Pending
}

/// The thread is polling the driver, or is about to.
const AWAKE: u8 = 0;
/// The driver is to be polled again.
const NOTIFIED: u8 = 1;
/// The thread is sleeping in the poller, or is about to.
const ASLEEP: u8 = 2;

/// The waker of the driver.
#[derive(Debug)]
struct Notifier {
    state: AtomicU8,
    waker: mio::Waker,
}

impl Notifier {
    /// Returns whether the thread may sleep, because nothing has happened meanwhile.
    fn falls_asleep(&self) -> bool {
        self.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Wake for Notifier {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A system call is needed only if the thread sleeps.
        if self.state.swap(NOTIFIED, Ordering::SeqCst) == ASLEEP {
            // It fails only if the poller and its thread are gone.
            let _ = self.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Ready;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use amqp_async::core::errors::TransportError;
    use amqp_async::core::{CloseCause, ConnectError, Error, Heartbeat};
    use amqp_testkit::ModelBroker;

    use super::{Drive, Driver};
    use crate::Connector;

    impl Drive for Ready<()> {
        fn fail(self: Box<Self>, _: TransportError) {}
    }

    /// Opens a connection on a thread whose poller fails once `fails` is set.
    fn open(broker: &ModelBroker, fails: &Arc<AtomicBool>) -> crate::runtime::Connecting {
        let (connecting, driver) = Connector::new(&broker.uri()).unwrap().driver().unwrap();
        let fails = Arc::clone(fails);
        thread::spawn(move || {
            driver.run_on(|poller, events, timeout| match fails.load(Ordering::SeqCst) {
                true => Err(io::Error::other("the poller is broken")),
                false => poller.poll(events, timeout),
            });
        });
        connecting
    }

    /// The poller's timeouts are rounded. A timeout that ends before the deadline would be started again
    /// immediately.
    #[test]
    fn a_thread_at_rest_does_not_spin() {
        let broker = ModelBroker::start().unwrap();
        let connector = Connector::new(&broker.uri()).unwrap();
        let connector = connector.heartbeat(Heartbeat::Seconds(1));
        let (connecting, driver) = connector.driver().unwrap();
        let polls = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&polls);
        thread::spawn(move || {
            driver.run_on(|poller, events, timeout| {
                count.fetch_add(1, Ordering::SeqCst);
                poller.poll(events, timeout)
            });
        });
        let connection = connecting.wait().unwrap();
        let before = polls.load(Ordering::SeqCst);
        thread::sleep(Duration::from_secs(4));
        let polled = polls.load(Ordering::SeqCst) - before;
        // Each heartbeat that is sent or received takes a few polls.
        assert!((4..200).contains(&polled), "{polled} polls in 4 s");
        connection.close();
    }

    #[test]
    fn an_error_of_the_poller_is_reported_by_every_handle() {
        let broker = ModelBroker::start().unwrap();
        let fails = Arc::new(AtomicBool::new(false));
        let connection = open(&broker, &fails).wait().unwrap();
        fails.store(true, Ordering::SeqCst);
        let expected = CloseCause::Transport(io::Error::other("the poller is broken").into());
        // The call wakes the thread.
        let error = connection.open_channel().unwrap_err();
        assert_eq!(error, Error::Connection(expected.clone()));
        assert_eq!(connection.closed(), expected);

        let error = open(&broker, &fails).wait().unwrap_err();
        let CloseCause::Transport(expected) = expected else { unreachable!() };
        assert_eq!(error, ConnectError::DriverNotStarted(expected));
    }

    /// A process that was suspended has not seen the bytes that arrived meanwhile.
    #[test]
    fn a_deadline_passes_once_the_poller_was_asked_behind_it() {
        let (io, driver) = Driver::new(|io| Ok((io, std::future::ready(())))).unwrap();
        let deadline = Instant::now();
        let late = deadline + Duration::from_secs(10);
        assert!(!io.has_passed(deadline));
        assert_eq!(io.time_left(), Some(Duration::ZERO));
        assert_eq!(io.time_left(), None, "it is said anew each time");
        io.is_asked(late);
        assert!(io.has_passed(deadline) && !io.has_passed(late + Duration::from_nanos(1)));
        drop(driver);
    }
}
