//! Serves the model broker on a loopback port: for each connection, a thread that reads and one that writes.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::broker::{Broker, ConnectionId, Held};

/// A broker in memory that listens on a free port of 127.0.0.1 until it is dropped. See [`model`](super) for what it
/// supports.
///
/// ```
/// let broker = amqp_testkit::ModelBroker::start()?;
/// let uri = broker.uri(); // amqp://guest:guest@127.0.0.1:..
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct ModelBroker {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the threads that wait for the end of an alarm.
    alarm_changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    broker: Broker,
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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { state: Mutex::default(), alarm_changed: Condvar::new() });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Returns the port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the broker's URI. User and password are `guest`, the virtual host is `/`.
    pub fn uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port())
    }

    /// Raises a memory or disk alarm with this reason, or ends it with `None`: see [`Broker::set_alarm`].
    pub fn set_alarm(&self, reason: Option<&str>) {
        let mut state = self.shared.lock();
        state.broker.set_alarm(reason);
        state.notify();
        self.shared.alarm_changed.notify_all();
    }

    /// Closes every connection with 320 CONNECTION_FORCED, as an operator does.
    pub fn close_all(&self, reason: &str) {
        let mut state = self.shared.lock();
        state.broker.close_all(reason);
        state.notify();
    }

    /// Resets every connection, and restarts the broker as after a crash: see [`Broker::restart`].
    pub fn restart(&self) {
        let mut state = self.shared.lock();
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
        }
        // Wakes the acceptor, which then ends.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Wakes the writers of the connections that have new output.
    fn notify(&mut self) {
        for id in self.broker.take_dirty() {
            if let Some(socket) = self.sockets.get(&id) {
                socket.output.notify_one();
            }
        }
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
    loop {
        let count = stream.read(&mut buffer).unwrap_or(0);
        let mut state = shared.lock();
        if count > 0 {
            state.broker.receive(id, &buffer[..count]);
            state.notify();
            // A blocked client is not read, so that what it sends fills the sockets' buffers.
            while !state.broker.is_reading(id) && !state.stopping {
                let waited = shared.alarm_changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            }
            continue;
        }
        state.broker.disconnect(id);
        state.notify();
        if let Some(socket) = state.sockets.remove(&id) {
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
        state.notify();
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
