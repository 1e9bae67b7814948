//! Recovery, the same for every client: what is restored, and the gate through which a client reaches the broker.
//!
//! The gate passes one connection at a time. It cuts it when it is asked to, waits until the broker has forgotten it, and
//! accepts the next one. A recovery is timed from that moment on. A client that has dialled before waits in the queue of
//! the listener, so that the delay before its attempt does not count.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use amqp_proto::frame::{self, FrameLimits, Peek};
use amqp_proto::method::{MethodId, WireMethod, basic};

use super::{bound, check};
use crate::outcome::{Failure, Measured, Stopwatch};
use crate::socket::address;

/// The exchange to which every queue is bound, with its name as the key.
pub(super) const EXCHANGE: &str = "amq.direct";
/// The prefetch of every consumer, which is this client's default.
pub(super) const PREFETCH: u16 = 256;
/// Before a client dials again, if it can be set.
pub(super) const DIAL_AFTER: Duration = Duration::from_millis(100);
/// How long the broker takes to forget a connection, and more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1);
/// Bytes that are passed at once.
const READ: usize = 64 << 10;

/// What is declared, and restored. Each channel declares its share of the queues, and consumes from the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Restored {
    /// Durable queues, each with a binding.
    pub(crate) queues: u16,
    /// Channels, each with a consumer.
    pub(crate) channels: u16,
}

impl Restored {
    /// The names of all queues.
    pub(super) fn queues(self) -> impl Iterator<Item = String> {
        (0..self.queues).map(queue)
    }

    /// The names of the queues that are consumed from.
    pub(super) fn consumed(self) -> impl Iterator<Item = String> {
        self.shares().map(|share| queue(share.start))
    }

    /// The names of the queues of each channel.
    pub(super) fn shared(self) -> impl Iterator<Item = Vec<String>> {
        self.shares().map(|share| share.map(queue).collect())
    }

    fn shares(self) -> impl Iterator<Item = std::ops::Range<u16>> {
        let each = self.queues / self.channels;
        (0..self.channels).map(move |channel| channel * each..(channel + 1) * each)
    }
}

fn queue(number: u16) -> String {
    format!("recovery-{number}")
}

/// The losses of a run.
#[derive(Debug)]
pub(super) struct Losses {
    gate: Gate,
    broker: String,
    restored: Restored,
    watch: Stopwatch,
    times: Vec<Duration>,
}

impl Losses {
    /// Opens the gate to a broker.
    pub(super) fn before(broker: &str, restored: Restored) -> io::Result<Self> {
        let gate = Gate::before(address(broker))?;
        let (broker, watch) = (broker.to_owned(), Stopwatch::start());
        Ok(Self { gate, broker, restored, watch, times: Vec::new() })
    }

    /// The URI of the broker behind the gate.
    pub(super) fn uri(&self) -> String {
        self.broker.replacen(address(&self.broker), &self.gate.address, 1)
    }

    /// Loses the connection. What was done before is not measured.
    pub(super) fn lose(&mut self) {
        if self.times.is_empty() {
            self.watch = Stopwatch::start();
        }
        self.gate.cut();
    }

    /// When the broker has started as many consumers as there were, on the connection after a loss.
    pub(super) fn consumers_started(&self) -> Option<Instant> {
        let state = self.gate.state();
        state.last_consumer.filter(|_| state.consumers == self.restored.channels)
    }

    /// Everything was restored at this time. Checks that it was.
    pub(super) fn restored(&mut self, at: Instant) -> Result<(), Failure> {
        let accepted = self.gate.state().accepted.ok_or("nothing was lost")?;
        self.consumers_started().ok_or("not every consumer was started")?;
        self.times.push(at.duration_since(accepted));
        for consumers in bound::consumers(&self.broker, self.restored.consumed())? {
            check("consumers of a queue", consumers, 1)?;
        }
        Ok(())
    }

    pub(super) fn stop(self) -> Measured {
        self.watch.stop().with_latencies(self.times)
    }
}

#[derive(Debug)]
struct Gate {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Both sockets of the connection.
    link: Option<[TcpStream; 2]>,
    /// When it was accepted, if nothing was cut since.
    accepted: Option<Instant>,
    /// How many consumers the broker has started on it, and when the last one.
    consumers: u16,
    last_consumer: Option<Instant>,
    closed: bool,
}

impl Gate {
    fn before(broker: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?.to_string();
        let (state, broker) = (Arc::new(Mutex::default()), broker.to_owned());
        let serving = Arc::clone(&state);
        // A failure ends the gate, and with it the client's connection.
        thread::spawn(
            move || while serve(&listener, &broker, &serving).is_ok_and(|goes_on| goes_on) {},
        );
        Ok(Self { address, state })
    }

    fn cut(&self) {
        let mut state = self.state();
        for socket in state.link.take().into_iter().flatten() {
            // It may have ended already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        *state = State { closed: state.closed, ..State::default() };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.state().closed = true;
        self.cut();
        // Wakes the thread that accepts, which then ends.
        let _ = TcpStream::connect(&self.address);
    }
}

/// Passes the next connection. Returns whether to go on.
fn serve(listener: &TcpListener, broker: &str, state: &Mutex<State>) -> io::Result<bool> {
    let (client, _) = listener.accept()?;
    let accepted = Instant::now();
    if lock(state).closed {
        return Ok(false);
    }
    let broker = TcpStream::connect(broker)?;
    for socket in [&client, &broker] {
        socket.set_nodelay(true)?;
    }
    {
        let mut state = lock(state);
        state.link = Some([client.try_clone()?, broker.try_clone()?]);
        state.accepted = Some(accepted);
    }
    let mut unread = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| pass(&client, &broker, |_| {}));
        pass(&broker, &client, |bytes| {
            unread.extend_from_slice(bytes);
            let started = consumers_in(&mut unread);
            if started > 0 {
                let mut state = lock(state);
                state.consumers += started;
                state.last_consumer = Some(Instant::now());
            }
        });
    });
    thread::sleep(FORGOTTEN_AFTER);
    Ok(true)
}

/// Passes bytes until one side ends, and ends the other.
fn pass(mut from: &TcpStream, mut to: &TcpStream, mut look: impl FnMut(&[u8])) {
    let mut buffer = vec![0; READ];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        look(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    for socket in [from, to] {
        // It may have ended already.
        let _ = socket.shutdown(Shutdown::Both);
    }
}

/// Takes whole frames, and counts those that say that a consumer has started.
fn consumers_in(bytes: &mut Vec<u8>) -> u16 {
    let (mut taken, mut started) = (0, 0);
    while let Ok(Peek::Complete(frame)) = frame::peek(&bytes[taken..], FrameLimits::default()) {
        taken += frame.frame_len();
        let method = MethodId::split(frame.payload);
        started += u16::from(method.is_ok_and(|(id, _)| id == basic::ConsumeOk::ID));
    }
    bytes.drain(..taken);
    started
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use amqp_testkit::ModelBroker;

    use super::Restored;
    use crate::clients::Client;
    use crate::workload::{Task, named};

    #[test]
    fn every_client_that_recovers_restores_its_consumers() {
        let recovery = named("w10").unwrap();
        let task = Task::Recover(Restored { queues: 40, channels: 20 });
        let mut small = *recovery;
        small.task = task;
        for client in Client::built().filter(|client| client.refuses(recovery).is_none()) {
            let broker = ModelBroker::start().unwrap();
            let measured = client.run(&broker.uri(), &small, 2);
            let outcome = measured.unwrap().outcome(client.name(), "w10", 2).unwrap();
            // It does not include the gate's pause, nor the delay before an attempt.
            let longest = outcome.p99_us.unwrap() / 1e6;
            assert!(longest < outcome.seconds - 2.0, "{} took {longest} s", client.name());
        }
    }

    #[test]
    fn each_channel_has_its_share_of_the_queues() {
        let restored = Restored { queues: 6, channels: 3 };
        let shared: Vec<_> = restored.shared().flatten().collect();
        assert_eq!(shared, restored.queues().collect::<Vec<_>>());
        let consumed: Vec<_> = restored.consumed().collect();
        assert_eq!(consumed, ["recovery-0", "recovery-2", "recovery-4"]);
    }
}
