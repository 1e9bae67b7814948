//! The pump: a driver without its I/O.
//!
//! Every loop that moves bytes has the same tasks between its reads and writes: pass the input to the core,
//! handle deadlines, take actions and output, and sleep. These tasks are [`Pump::turn`].

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use crate::limits::{READ_BUFFER_BYTES, READ_BUFFERS_MAX, READ_MAX_BYTES, READ_MIN_BYTES};
use amqp_core::errors::TransportError;
use amqp_core::{Action, Attempt, BufferPool, CloseCause, ProvidedCredentials, Transmit};
use bytes::BytesMut;

use crate::shared::{Shared, Sleep};
use crate::trace::{Direction, Frames, Step};

/// The I/O-free part of a driver: see [`turn`](Self::turn).
#[derive(Debug)]
pub struct Pump {
    shared: Arc<Shared>,
    input: BytesMut,
    transmit: Transmit,
    /// The number of bytes of `input` that were logged.
    traced: usize,
    received: Frames,
    sent: Frames,
    /// The attempt of the current transport, or of the last one.
    attempt: Option<Attempt>,
    /// The number of bytes of its stream that have reached the socket.
    written: u64,
    read_size: usize,
    /// The size for which the input buffer was allocated.
    buffer_size: usize,
    /// The number of bytes that the incomplete frame at the front of the input lacks.
    lacking: usize,
    /// Used buffers, of which messages still use parts.
    full: BufferPool,
    /// Whether the deadline of the last turn has passed.
    due: bool,
    finished: bool,
}

/// What a driver has to do after a turn.
#[derive(Debug)]
#[non_exhaustive]
pub struct Turn {
    /// An action to carry out first. Then call `turn` again. After [`Action::Disconnect`] and [`Action::Finish`],
    /// write until [`Pump::refill`] returns `false`, and drop the transport.
    pub action: Option<Action>,
    /// Whether to read. Call `turn` again when something was read.
    pub read: bool,
    /// Whether to write from [`Pump::slices`]. Call `turn` again when everything is written.
    pub write: bool,
    /// When to call [`Pump::deadline_passed`]. Then call `turn` again.
    pub deadline: Option<Instant>,
    /// Whether the connection has ended. Stop when the last bytes are written.
    pub finished: bool,
}

impl Pump {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let log = shared.with(|state| state.log.clone());
        Self {
            shared,
            input: BytesMut::new(),
            transmit: Transmit::new(),
            traced: 0,
            received: Frames::new(&log, Direction::Received),
            sent: Frames::new(&log, Direction::Sent),
            attempt: None,
            written: 0,
            read_size: READ_MIN_BYTES,
            buffer_size: 0,
            lacking: 0,
            full: BufferPool::new(READ_BUFFERS_MAX),
            due: false,
            finished: false,
        }
    }

    /// Passes in what was read, handles deadlines, and returns what to do next. `waker` is woken when there
    /// is something to do earlier.
    ///
    /// If the last turn said so, read before calling this: the peer counts as silent only if there was
    /// nothing to read.
    pub fn turn(&mut self, now: Instant, waker: &Waker) -> Turn {
        self.trace_input();
        let Self { shared, input, transmit, lacking, .. } = self;
        let (due, attempt, written) = (std::mem::take(&mut self.due), self.attempt, self.written);
        // Each lock is held for a limited amount of input.
        while !input.is_empty() && shared.with(|state| state.session.handle_input(now, input)) {}
        let mut filled = false;
        let turn = shared.with(|state| {
            let session = &mut state.session;
            // Writing progress is reported first, so that a pause of this process is not taken for one of the
            // peer.
            if let Some(attempt) = attempt {
                session.handle_written(now, attempt, written);
            }
            if due {
                session.handle_timeout(now);
            }
            let action = session.poll_action();
            filled = transmit.is_empty() && session.poll_transmit(now, transmit);
            let read = session.wants_input();
            *lacking = session.connection().lacking();
            let turn = Turn {
                write: !transmit.is_empty(),
                read,
                deadline: session.poll_timeout().map(|(deadline, _)| deadline),
                finished: matches!(action, Some(Action::Finish { .. })),
                action,
            };
            let sleep = Sleep { reads: read, writes: turn.write, until: turn.deadline };
            state.driver_sleeps(waker, sleep);
            turn
        });
        self.traced = input.len();
        if filled {
            self.trace_output();
        }
        self.finished |= turn.finished;
        Turn { finished: self.finished, ..turn }
    }

    /// Records that the deadline of the last turn has passed. The next turn handles it. Call this only after
    /// a wait in which input would have been noticed, so that a pause of this process is not taken for one of
    /// the peer.
    pub const fn deadline_passed(&mut self) {
        self.due = true;
    }

    /// Takes more output when everything is written. Returns whether there was any.
    pub fn refill(&mut self, now: Instant) -> bool {
        let transmit = &mut self.transmit;
        let filled = self.shared.with(|state| state.session.poll_transmit(now, transmit));
        if filled {
            self.trace_output();
        }
        filled
    }

    /// Returns the buffer to which to append what is read, and about how many bytes to read at once.
    pub fn input(&mut self) -> (&mut BytesMut, usize) {
        let want = self.lacking.max(self.read_size);
        let spare = self.input.capacity() - self.input.len();
        if spare >= want || self.input.try_reclaim(want) {
            return (&mut self.input, want);
        }
        let least = if self.lacking > 0 { self.lacking } else { READ_MIN_BYTES };
        if self.buffer_size >= want && spare >= least {
            // Messages use a part of the buffer, but there is some space behind it.
            return (&mut self.input, spare);
        }
        let mut size = self.input.len() + want;
        if want >= READ_MAX_BYTES {
            size = size.max(READ_BUFFER_BYTES);
        }
        let mut next = self.full.reclaim(size).unwrap_or_default();
        // Without input, no memory is reserved until there is something to read.
        if !self.input.is_empty() {
            next.reserve(size);
            next.extend_from_slice(&self.input);
        }
        let full = std::mem::replace(&mut self.input, next);
        if self.buffer_size >= READ_BUFFER_BYTES {
            self.full.retire(full);
        }
        self.buffer_size = if self.input.capacity() > 0 { size } else { want };
        (&mut self.input, want)
    }

    /// Records that `count` bytes were appended to the input.
    pub fn was_read(&mut self, count: usize) {
        if count >= self.read_size {
            self.read_size = (self.read_size * 2).min(READ_MAX_BYTES);
        }
    }

    /// Records that there was nothing to read. Memory for large reads is released step by step.
    pub fn read_is_empty(&mut self) {
        self.read_size = (self.read_size / 2).max(READ_MIN_BYTES);
        if self.input.is_empty() && self.input.capacity() > 2 * self.read_size {
            (self.input, self.buffer_size) = (BytesMut::new(), 0);
        }
        if self.read_size == READ_MIN_BYTES {
            self.full.shrink();
        }
    }

    /// Fills `slices` with the bytes to write next. Returns the number of slices filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.transmit.slices(slices)
    }

    /// Records that `count` bytes have reached the socket.
    pub fn was_written(&mut self, count: usize) {
        self.written += count as u64;
        self.transmit.advance(count);
    }

    /// Returns whether there are bytes to write.
    pub fn wants_write(&self) -> bool {
        !self.transmit.is_empty()
    }

    /// Reports the result of [`Action::Resolve`].
    pub fn resolved(
        &mut self,
        now: Instant,
        attempt: Attempt,
        result: Result<Vec<SocketAddr>, TransportError>,
    ) {
        self.shared.with(|state| state.session.handle_resolved(now, attempt, result));
    }

    /// Reports the result of [`Action::FetchCredentials`].
    pub fn fetched(
        &mut self,
        now: Instant,
        attempt: Attempt,
        result: Result<ProvidedCredentials, TransportError>,
    ) {
        // The credentials that are replaced are dropped after the lock is released.
        let _ = self.shared.with(|state| state.session.handle_credentials(now, attempt, result));
    }

    /// Reports the response to the challenge of [`Action::Authenticate`].
    pub fn responded(&mut self, now: Instant, attempt: Attempt, response: Result<Vec<u8>, String>) {
        self.shared.with(|state| state.session.handle_response(now, attempt, response));
    }

    /// Returns the session, for what runs beside the driver.
    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Returns whether the connection is open.
    pub(crate) fn is_open(&self) -> bool {
        self.shared.with(|state| state.session.connection().is_open())
    }

    /// Reports that the transport is connected and is being encrypted. [`connected`](Self::connected) follows.
    pub fn dialled(&mut self, attempt: Attempt) {
        self.shared.with(|state| state.session.handle_dialled(attempt));
    }

    /// Reports the decision of [`Action::DecideRecovery`].
    pub fn decided(&mut self, now: Instant, attempt: Attempt, recovers: bool) {
        self.shared.with(|state| state.session.handle_decision(now, attempt, recovers));
    }

    /// Reports the success of [`Action::Dial`]: the transport is connected, and encrypted if the target is to be
    /// reached over TLS.
    pub fn connected(&mut self, now: Instant, attempt: Attempt) {
        self.reset();
        self.begin_stream(attempt);
        self.shared.with(|state| state.session.handle_connected(now, attempt));
    }

    /// Records that the transport of this attempt is connected. The bytes of its stream are counted from 0.
    pub(crate) const fn begin_stream(&mut self, attempt: Attempt) {
        (self.attempt, self.written) = (Some(attempt), 0);
    }

    /// Drops the bytes that were not written, because the transport is dropped.
    pub fn reset(&mut self) {
        self.discard_output();
        self.discard_input();
        self.received.restart();
        self.sent.restart();
    }

    /// Drops what was read and not handled, because nothing more is read from the transport.
    pub fn discard_input(&mut self) {
        (self.input, self.buffer_size) = (BytesMut::new(), 0);
        (self.traced, self.lacking) = (0, 0);
        self.read_size = READ_MIN_BYTES;
    }

    /// Reports that dialling failed or the transport is lost. What was read before is passed in first.
    pub fn disconnected(&mut self, now: Instant, attempt: Attempt, error: TransportError) {
        self.trace_input();
        let Self { shared, input, written, .. } = self;
        while !input.is_empty() && shared.with(|state| state.session.handle_input(now, input)) {}
        shared.with(|state| state.session.handle_disconnected(now, attempt, error, *written));
        self.discard_output();
    }

    /// Drops the output that was taken and not written.
    fn discard_output(&mut self) {
        let unwritten = std::mem::take(&mut self.transmit);
        if let Some(attempt) = self.attempt.filter(|_| !unwritten.is_empty()) {
            self.shared.with(|state| state.session.handle_unwritten(attempt, &unwritten));
        }
    }

    /// Ends the connection with this error, because the code that moves the bytes has failed.
    pub fn fail(&mut self, error: TransportError) {
        self.shared.with(|state| state.session.abort(CloseCause::Transport(error)));
    }

    fn trace_input(&mut self) {
        if self.received.wants_bytes() {
            self.received.pass(self.input.get(self.traced..).unwrap_or_default());
        }
    }

    fn trace_output(&mut self) {
        if self.sent.wants_bytes() {
            // Not copied: a login is wiped when it is written.
            self.transmit.parts().for_each(|part| self.sent.pass(part));
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        let Self { shared, transmit, .. } = self;
        let taken: usize = transmit.parts().map(<[u8]>::len).sum();
        shared.with(|state| {
            let unsent_bytes = state.session.connection().stats().unsent_bytes + taken as u64;
            let close_requested =
                !state.session.is_recovering() && !state.session.connection().is_open();
            state.session.abort(CloseCause::DriverGone);
            // Any other end was logged, and accounts for what was not sent.
            if let Some(cause) = state.session.cause().cloned()
                && (cause == CloseCause::DriverGone
                    || (cause == CloseCause::ByClientForced && unsent_bytes > 0))
            {
                state.log(|| Step::DriverDropped { unsent_bytes, cause, close_requested });
            }
            state.driver_dropped();
        });
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use std::time::{Duration, Instant};

    use amqp_core::proto::ShortStr;
    use amqp_core::proto::frame::{self, HEARTBEAT};
    use amqp_core::proto::method::{WireMethod, basic, channel, confirm, connection};
    use amqp_core::requests::ConfirmSelect;
    use amqp_core::{
        Action, BasicConsume, ChannelCause, ChannelId, CloseCause, Config, Confirmation, Error,
        Publish, PublishRefused, QueuePurge, Recovery, Session,
    };

    use super::Pump;
    use crate::executor::Clock;
    use crate::shared::Shared;

    struct Still(Instant);

    impl Clock for Still {
        fn now(&self) -> Instant {
            self.0
        }
    }

    fn feed<'a>(pump: &mut Pump, channel: u16, method: &impl WireMethod<'a>) {
        let mut bytes = Vec::new();
        frame::write_method(&mut bytes, channel, method);
        pump.input().0.extend_from_slice(&bytes);
    }

    fn write(pump: &mut Pump) {
        let length = pump.transmit.to_vec().len();
        pump.was_written(length);
    }

    /// An open connection with a heartbeat of 10 s, to which `channel.open` is being written.
    fn open(now: Instant) -> (Pump, Arc<Shared>, ChannelId) {
        let config = Config::default().recovery(Recovery::never());
        let session = Session::new(Arc::new(config), now, 0).unwrap();
        let shared = Arc::new(Shared::new(session, Box::new(Still(now))));
        let mut pump = Pump::new(Arc::clone(&shared));
        let Some(Action::Resolve { attempt, .. }) = pump.turn(now, Waker::noop()).action else {
            panic!("no address is asked for")
        };
        pump.resolved(now, attempt, Ok(vec![([127, 0, 0, 1], 5672).into()]));
        let Some(Action::Dial { attempt, .. }) = pump.turn(now, Waker::noop()).action else {
            panic!("no address is dialled")
        };
        pump.connected(now, attempt);
        let start = connection::Start { mechanisms: b"PLAIN", ..Default::default() };
        feed(&mut pump, 0, &connection::Start { version_minor: 9, locales: b"en_US", ..start });
        feed(&mut pump, 0, &connection::Tune { channel_max: 9, frame_max: 0, heartbeat: 10 });
        feed(&mut pump, 0, &connection::OpenOk::default());
        while pump.turn(now, Waker::noop()).write {
            write(&mut pump);
        }
        let (id, _) = shared.with(|state| state.session.open_channel(now)).unwrap();
        assert!(pump.turn(now, Waker::noop()).write);
        (pump, shared, id)
    }

    /// A process was suspended in the middle of a write. When it continues, the socket has taken the rest, a
    /// heartbeat has arrived, and the deadline has passed.
    #[test]
    fn what_was_written_counts_before_the_deadline() {
        let start = Instant::now();
        let late = start + Duration::from_secs(25);
        for progress in [true, false] {
            let (mut pump, shared, _) = open(start);
            pump.input().0.extend_from_slice(&HEARTBEAT);
            if progress {
                write(&mut pump);
            }
            pump.deadline_passed();
            let turn = pump.turn(late, Waker::noop());
            let cause = shared.with(|state| state.session.cause().cloned());
            match progress {
                true => assert!(cause.is_none() && !turn.finished, "{cause:?}"),
                false => {
                    assert!(matches!(cause, Some(CloseCause::WriteTimeout { .. })), "{cause:?}");
                }
            }
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A call panics under the lock while tasks wait for everything that a connection can wait for.
    #[test]
    fn a_panic_under_the_lock_ends_the_session_for_everyone() {
        let now = Instant::now();
        let (mut pump, shared, id) = open(now);
        write(&mut pump);
        feed(&mut pump, 1, &channel::OpenOk::default());
        pump.turn(now, Waker::noop());
        let (select, consume) = shared.with(|state| {
            let mut channel = state.session.channel(id);
            let consume = BasicConsume::new("q").consumer_tag("c");
            let select = channel.call(now, &ConfirmSelect::default()).unwrap();
            (select, channel.consume(now, &consume).unwrap())
        });
        feed(&mut pump, 1, &confirm::SelectOk::default());
        feed(&mut pump, 1, &basic::QosOk::default());
        let tag = ShortStr::new("c").unwrap();
        feed(&mut pump, 1, &basic::ConsumeOk { consumer_tag: tag });
        pump.turn(now, Waker::noop());
        let (purge, seq, consumer) = shared.with(|state| {
            state.session.take_reply(&select).unwrap().unwrap();
            let consumer = state.session.take_reply(&consume).unwrap().unwrap().consumer;
            let mut channel = state.session.channel(id);
            let purge = channel.call(now, &QueuePurge::new("q")).unwrap();
            (purge, channel.publish(&Publish::new("", "q", b"x")).unwrap(), consumer)
        });
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        shared.with(|state| {
            let released = &mut state.released;
            state.calls.register(purge.key().index(), &waker, released);
            state.consumers.register(consumer.index(), &waker, released);
            state.lifecycle.wait(&mut None, &waker, released);
            state.channel(id);
            let channel = &mut state.channels[id.index()];
            channel.confirms.register(seq, &waker, &mut state.released);
            channel.space.wait(&mut None, &waker, &mut state.released);
            channel.returned.wait(&mut None, &waker, &mut state.released);
        });
        while pump.turn(now, &waker).write {
            write(&mut pump);
        }

        let panicked = catch_unwind(AssertUnwindSafe(|| shared.with(|_| panic!("under the lock"))));
        assert!(panicked.is_err(), "it goes on");
        assert_eq!(count.0.load(Ordering::Relaxed), 7, "all are woken, the driver among them");

        let cause = CloseCause::Panicked;
        let gone = Error::Connection(cause.clone());
        shared.with(|state| {
            let session = &mut state.session;
            assert_eq!(session.cause(), Some(&cause));
            assert_eq!(session.take_reply(&purge), Some(Err(gone.clone())));
            assert_eq!(session.open_channel(now).unwrap_err(), gone);
            let mut channel = session.channel(id);
            assert_eq!(channel.cause(), Some(ChannelCause::Connection(cause.clone())));
            assert_eq!(channel.confirmed(seq), Some(Confirmation::Unknown(gone.clone())));
            assert_eq!(channel.consumer_end(consumer), Some(Err(gone.clone())));
            assert_eq!(channel.call(now, &QueuePurge::new("q")).unwrap_err(), gone);
            let refused = channel.publish(&Publish::new("", "q", b"x")).unwrap_err();
            assert_eq!(refused, PublishRefused::Error(gone));
        });
        let turn = pump.turn(now, Waker::noop());
        assert!(matches!(turn.action, Some(Action::Finish { at_once: true, .. })));
    }
}
