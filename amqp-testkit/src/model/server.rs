//! Serves the model broker on a loopback port: for each connection, a thread that reads and one that writes. One more
//! thread does what is due while the clock runs.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::broker::{Broker, ConnectionId, Held};
use super::clock::Clock;
use super::inspection::QueuedMessage;
use super::users::PermissionsError;

/// A broker in memory that listens on a free port of 127.0.0.1 until it is dropped. See [`model`](super) for what it
/// supports.
///
/// ```
/// let broker = amqp_testkit::ModelBroker::start()?;
/// let uri = broker.uri(); // amqp://guest:guest@127.0.0.1:..
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Messages and queues expire by its clock. [`start`](Self::start) takes the system's.
/// [`start_with_stopped_clock`](Self::start_with_stopped_clock) takes one that moves only by [`advance`](Self::advance), so
/// that a test of ten minutes takes no time. Heartbeats always keep the system's time, because clients do.
#[derive(Debug)]
pub struct ModelBroker {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the threads that wait for the end of an alarm.
    alarm_changed: Condvar,
    /// Wakes the thread that waits for the next deadline.
    deadline_changed: Condvar,
}

#[derive(Debug)]
struct State {
    broker: Broker,
    clock: Clock,
    /// The deadline that the clock's thread waits for.
    awaited: Option<Duration>,
    sockets: BTreeMap<ConnectionId, Socket>,
    stopping: bool,
}

#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    output: Arc<Condvar>,
}

impl ModelBroker {
    /// Starts a broker with the standard exchanges and without queues.
    ///
    /// # Errors
    /// If it cannot listen on a port.
    pub fn start() -> io::Result<Self> {
        Self::start_with(Clock::running())
    }

    /// Starts a broker whose clock stands still, at the current time, until [`advance`](Self::advance) is called. Nothing
    /// expires by itself.
    ///
    /// # Errors
    /// If it cannot listen on a port.
    pub fn start_with_stopped_clock() -> io::Result<Self> {
        Self::start_with(Clock::stopped())
    }

    fn start_with(clock: Clock) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let runs = clock.is_running();
        let mut broker = Broker::new();
        broker.handle_time(clock.now());
        let state =
            State { broker, clock, awaited: None, sockets: BTreeMap::new(), stopping: false };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            alarm_changed: Condvar::new(),
            deadline_changed: Condvar::new(),
        });
        let mut threads = Vec::new();
        threads.push(thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        }));
        if runs {
            let shared = Arc::clone(&shared);
            threads.push(thread::spawn(move || keep_deadlines(&shared)));
        }
        Ok(Self { address, shared, threads })
    }

    /// Returns the port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the broker's URI. User and password are `guest`, the virtual host is `/`.
    pub fn uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port())
    }

    /// Moves the clock forward. Each deadline until then is handled in order, at its own time: what expires into a queue
    /// with a shorter time to live expires there too. When this returns, deliveries that it has caused are on their way.
    ///
    /// A message that a client publishes in answer to them has the new time. To run what a client repeats after delays,
    /// call this once for each delay.
    ///
    /// ```
    /// use std::time::Duration;
    /// let broker = amqp_testkit::ModelBroker::start_with_stopped_clock()?;
    /// let before = broker.now();
    /// broker.advance(Duration::from_secs(600));
    /// assert_eq!(broker.now(), before + Duration::from_secs(600));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn advance(&self, by: Duration) {
        let mut state = self.shared.lock();
        state.clock.advance(by);
        state.keep_time();
        self.shared.notify(&mut state);
    }

    /// Returns the broker's time.
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.shared.lock().clock.now()
    }

    /// Returns how long it is until something expires, `None` if nothing does. [`advance`](Self::advance) by that time
    /// reaches it.
    pub fn until_next_deadline(&self) -> Option<Duration> {
        let state = self.shared.lock();
        Some(state.broker.next_deadline()?.saturating_sub(state.clock.now()))
    }

    /// Adds a user without permissions, or changes the password of one: see [`Broker::add_user`].
    pub fn add_user(&self, user: &str, password: &str) {
        self.shared.lock().broker.add_user(user, password);
    }

    /// Sets the permissions of a user: see [`Broker::set_permissions`].
    ///
    /// ```
    /// let broker = amqp_testkit::ModelBroker::start()?;
    /// broker.add_user("billing", "secret");
    /// // It may declare and use what begins with "billing", and publish anywhere.
    /// broker.set_permissions("billing", "^billing", ".*", "^billing")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`PermissionsError`]. Nothing is changed then.
    pub fn set_permissions(
        &self,
        user: &str,
        configure: &str,
        write: &str,
        read: &str,
    ) -> Result<(), PermissionsError> {
        self.shared.lock().broker.set_permissions(user, configure, write, read)
    }

    /// Sets how long a client may keep a delivery unacknowledged: see [`Broker::set_consumer_timeout`].
    pub fn set_consumer_timeout(&self, timeout: Option<Duration>) {
        self.shared.lock().broker.set_consumer_timeout(timeout);
    }

    /// Raises a memory or disk alarm with this reason, or ends it with `None`: see [`Broker::set_alarm`].
    pub fn set_alarm(&self, reason: Option<&str>) {
        let mut state = self.shared.lock();
        state.keep_time();
        state.broker.set_alarm(reason);
        self.shared.notify(&mut state);
        self.shared.alarm_changed.notify_all();
    }

    /// Closes every connection with 320 CONNECTION_FORCED, as an operator does.
    pub fn close_all(&self, reason: &str) {
        let mut state = self.shared.lock();
        state.keep_time();
        state.broker.close_all(reason);
        self.shared.notify(&mut state);
    }

    /// Resets every connection, and restarts the broker as after a crash: see [`Broker::restart`].
    pub fn restart(&self) {
        let mut state = self.shared.lock();
        state.keep_time();
        state.broker.restart();
        for socket in std::mem::take(&mut state.sockets).into_values() {
            // The client may have disconnected.
            let _ = socket.stream.shutdown(Shutdown::Both);
            socket.output.notify_all();
        }
        self.shared.alarm_changed.notify_all();
    }

    /// Returns the numbers of connections, channels, consumers and unacknowledged deliveries.
    pub fn held(&self) -> Held {
        self.shared.lock().broker.held()
    }

    /// Returns the number of messages that are ready in a queue, `None` if the queue does not exist.
    pub fn ready(&self, queue: &str) -> Option<usize> {
        self.shared.lock().broker.ready(queue)
    }

    /// Returns the messages in a queue: those that are ready, in their order, then those that were delivered and are
    /// unacknowledged. Empty if the queue does not exist.
    ///
    /// What a client has published a moment ago is there once the broker has confirmed it.
    pub fn messages(&self, queue: &str) -> Vec<QueuedMessage> {
        self.shared.lock().broker.messages(queue)
    }
}

impl Drop for ModelBroker {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.stopping = true;
            for socket in state.sockets.values() {
                // The client may have disconnected.
                let _ = socket.stream.shutdown(Shutdown::Both);
                socket.output.notify_all();
            }
            self.shared.alarm_changed.notify_all();
            self.shared.deadline_changed.notify_all();
        }
        // Wakes the acceptor, which then ends.
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the writers of the connections that have new output, and the clock's thread if a deadline is earlier than the
    /// one that it waits for.
    fn notify(&self, state: &mut State) {
        for id in state.broker.take_dirty() {
            if let Some(socket) = state.sockets.get(&id) {
                socket.output.notify_one();
            }
        }
        if let Some(next) = state.broker.next_deadline()
            && state.awaited.is_none_or(|awaited| next < awaited)
        {
            self.deadline_changed.notify_one();
        }
    }
}

impl State {
    /// Passes the time to the broker.
    fn keep_time(&mut self) {
        self.broker.handle_time(self.clock.now());
    }
}

/// Does what is due, each at its time.
fn keep_deadlines(shared: &Shared) {
    let mut state = shared.lock();
    while !state.stopping {
        state.keep_time();
        shared.notify(&mut state);
        state.awaited = state.broker.next_deadline();
        let Some(next) = state.awaited else {
            state = shared.deadline_changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let left = next.saturating_sub(state.clock.now());
        let waited = shared.deadline_changed.wait_timeout(state, left);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.lock().stopping {
            return;
        }
        // A client that disconnects before it is served does not stop the broker.
        let _ = stream.and_then(|stream| serve(stream, shared));
    }
}

fn serve(stream: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (input, output) = (stream.try_clone()?, stream.try_clone()?);
    let written = Arc::new(Condvar::new());
    let id = {
        let mut state = shared.lock();
        let id = state.broker.connect();
        state.sockets.insert(id, Socket { stream, output: Arc::clone(&written) });
        id
    };
    thread::spawn({
        let shared = Arc::clone(shared);
        move || read(input, id, &shared)
    });
    thread::spawn({
        let shared = Arc::clone(shared);
        move || write(output, id, &written, &shared)
    });
    Ok(())
}

fn read(mut stream: TcpStream, id: ConnectionId, shared: &Shared) {
    let mut buffer = vec![0; 64 << 10];
    let mut patience = None;
    loop {
        // A timeout ends the connection, as an error does: the client was silent for too long.
        let count = stream.read(&mut buffer).unwrap_or(0);
        let mut state = shared.lock();
        if count > 0 {
            state.keep_time();
            state.broker.receive(id, &buffer[..count]);
            shared.notify(&mut state);
            // A blocked client is not read, so that what it sends fills the sockets' buffers.
            let silence_max = state.broker.silence_max(id);
            if patience != silence_max && stream.set_read_timeout(silence_max).is_ok() {
                patience = silence_max;
            }
            while !state.broker.is_reading(id) && !state.stopping {
                let waited = shared.alarm_changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            }
            continue;
        }
        state.keep_time();
        state.broker.disconnect(id);
        shared.notify(&mut state);
        if let Some(socket) = state.sockets.remove(&id) {
            // The client may have disconnected.
            let _ = socket.stream.shutdown(Shutdown::Both);
            socket.output.notify_all();
        }
        return;
    }
}

fn write(mut stream: TcpStream, id: ConnectionId, written: &Condvar, shared: &Shared) {
    let mut state = shared.lock();
    let mut last_output = Instant::now();
    loop {
        let output = state.broker.take_output(id);
        shared.notify(&mut state);
        let finished = state.broker.is_finished(id);
        if output.is_empty() {
            if finished || state.stopping {
                drop(state);
                // The client may have closed first.
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            state = match state.broker.heartbeat(id) {
                None => written.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(interval) => {
                    // Input may wake this thread too early.
                    let left = interval.saturating_sub(last_output.elapsed());
                    let waited = written.wait_timeout(state, left);
                    let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                    if last_output.elapsed() >= interval {
                        state.broker.send_heartbeat(id);
                    }
                    state
                }
            };
            continue;
        }
        drop(state);
        if stream.write_all(&output).is_err() {
            // The reader sees the end too, and cleans up.
            return;
        }
        last_output = Instant::now();
        state = shared.lock();
    }
}
