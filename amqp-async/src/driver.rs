//! The driver: the future that moves the bytes of one connection, the same on every runtime.
//!
//! Each poll goes through a few rounds: read, pass the input to the core, carry out its action, write, check
//! the timer.
//!
//! The driver does not handle a deadline immediately when it has passed. A runtime reports timers and sockets
//! separately. After a process was suspended, the runtime may report the timer first, while the socket has
//! bytes that show that the peer is alive. So the driver asks the runtime to check its sockets
//! (`Executor::reschedule`), and waits for that wake-up even if something else wakes it before. Then it reads
//! until nothing is left, and handles the deadline if it has still passed. This costs one wake-up for each
//! deadline of any kind, such as the timeout of a call, of `connect` or of a write.
//!
//! A transport that the session no longer uses *lingers*: its last bytes are written, such as the reason why this side
//! closes the connection, and nothing more is read from it. Meanwhile the driver goes on. The transport is dropped when
//! everything is written, when the next one is dialled, or after [`LINGER_TIMEOUT`].

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Instant;

use crate::limits::{DRIVER_ROUNDS_MAX, LINGER_TIMEOUT, WRITE_SLICES_MAX};
use amqp_core::errors::{TlsErrorKind, TransportError};
use amqp_core::{Action, Attempt};
use futures_core::FusedFuture;

use crate::authentication::Authentication;
use crate::dialling::{Dialled, Dialling, Secured};
use crate::executor::Timer;
use crate::hooks::{Hooks, Watching};
use crate::pump::Pump;
use crate::runtime::Runtime;
use crate::secure::Secure;
use crate::shared::State;
use crate::transport::Transport;

type Boxed<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// Moves the bytes of one connection. The future resolves when the connection has ended.
///
/// Adapters spawn it. If it is dropped before, the connection ends, and every handle returns
/// [`CloseCause::DriverGone`](amqp_core::CloseCause::DriverGone).
///
/// # Cancel safety
/// Not cancel-safe: dropping it ends the connection, and unsent messages are lost.
#[must_use = "a connection does nothing until its driver is polled"]
pub struct Driver<R: Runtime> {
    runtime: R,
    resolving: Option<(Attempt, Boxed<Vec<SocketAddr>>)>,
    dialling: Option<(Attempt, Dialling<R::Transport>)>,
    authentication: Authentication,
    transport: Option<(Attempt, Secured<R::Transport>)>,
    hooks: Hooks,
    /// The task of the application's callbacks, until it is spawned.
    watching: Option<Watching>,
    /// What encrypts transports to hosts that ask for TLS.
    secure: Option<Arc<dyn Secure>>,
    timer: R::Timer,
    /// The time for which the timer is set: the deadline, or an earlier time.
    armed: Option<Instant>,
    due: Option<Due>,
    reads: bool,
    /// Whether a flush is in progress.
    flushing: bool,
    /// The error if writing has failed. Then what the peer sent before is read until its end or until this
    /// time, and after that the transport counts as lost.
    write_error: Option<(TransportError, Instant)>,
    /// The deadline for writing the last bytes, if the transport lingers.
    linger_until: Option<Instant>,
    ended: bool,
    /// Dropped last: it tells those who wait for the end of the socket.
    pump: Pump,
}

/// A deadline that has passed.
struct Due {
    deadline: Instant,
    /// Whether the runtime has checked its sockets since.
    asked: Arc<AtomicBool>,
}

/// Wakes the driver when the runtime has checked its sockets.
struct Asked {
    asked: Arc<AtomicBool>,
    task: Waker,
}

impl Wake for Asked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.asked.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<R: Runtime> Driver<R> {
    pub(crate) fn new(
        runtime: R,
        pump: Pump,
        authentication: Authentication,
        secure: Option<Arc<dyn Secure>>,
        hooks: Hooks,
    ) -> Self {
        let watching = hooks.watch(pump.shared());
        let timer = runtime.timer();
        Self {
            runtime,
            pump,
            resolving: None,
            dialling: None,
            authentication,
            transport: None,
            hooks,
            watching,
            secure,
            timer,
            armed: None,
            due: None,
            reads: false,
            flushing: false,
            write_error: None,
            linger_until: None,
            ended: false,
        }
    }

    /// Starts with a transport that is connected already.
    pub(crate) fn with_transport(mut self, attempt: Attempt, transport: R::Transport) -> Self {
        self.transport = Some((attempt, Secured::Plain(transport)));
        self.reads = true;
        self.pump.begin_stream(attempt);
        self
    }

    /// Ends the connection with this error, because the code that polls the driver cannot continue.
    pub fn fail(mut self, error: TransportError) {
        self.pump.fail(error);
    }

    fn act(&mut self, now: Instant, action: Action) {
        match action {
            Action::Authenticate { attempt, challenge } => {
                self.authentication.respond(now, attempt, &challenge, &mut self.pump);
            }
            Action::FetchCredentials { attempt } => {
                // A renewal keeps the transport that it is for.
                if self.transport.as_ref().is_none_or(|(its, _)| *its != attempt) {
                    self.drop_unless_lingering();
                    self.dialling = None;
                    self.pump.shared().with(State::end_hook);
                }
                self.authentication.fetch(attempt);
            }
            Action::DecideRecovery { attempt, cause } => {
                let recovers = self.hooks.recovers(&cause);
                self.pump.decided(self.runtime.now(), attempt, recovers);
            }
            Action::Resolve { attempt, host, port } => {
                self.drop_unless_lingering();
                self.stop();
                self.resolving = Some((attempt, Box::pin(self.runtime.resolve(&host, port))));
            }
            Action::Dial { attempt, target } => {
                self.drop_transport();
                self.pump.shared().with(State::end_hook);
                let dialling = Dialling::new(&self.runtime, target, self.secure.as_ref());
                self.dialling = Some((attempt, dialling));
            }
            Action::RunHook { attempt } => {
                self.pump.shared().with(|state| state.begin_hook(attempt));
                self.runtime.spawn(self.hooks.run(self.pump.shared(), attempt));
            }
            Action::Disconnect { .. } => self.linger(now),
            Action::Finish { at_once, .. } => {
                self.linger(now);
                if at_once {
                    self.drop_transport();
                }
            }
            // The core has no other actions. A new one that is ignored ends with its timeout.
            _ => {}
        }
    }

    /// Writes the last bytes of the transport, and drops what an action has started.
    fn linger(&mut self, now: Instant) {
        self.stop();
        if self.write_error.is_some() {
            self.drop_transport();
        }
        if self.transport.is_some() && self.linger_until.is_none() {
            self.linger_until = Some(now + LINGER_TIMEOUT);
            self.pump.discard_input();
        }
    }

    /// Drops what an action has started.
    fn stop(&mut self) {
        (self.resolving, self.dialling) = (None, None);
        self.authentication.stop();
        self.pump.shared().with(State::end_hook);
    }

    /// Polls the futures that an action has started. Returns whether one was ready.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some((attempt, resolving)) = &mut self.resolving
            && let Poll::Ready(result) = resolving.as_mut().poll(cx)
        {
            let result = result.map_err(TransportError::from);
            self.pump.resolved(self.runtime.now(), *attempt, result);
            self.resolving = None;
            return true;
        }
        if self.authentication.has_exchange() && self.pump.is_open() {
            self.authentication.end_exchange();
        }
        if let Poll::Ready((attempt, result)) = self.authentication.poll(cx) {
            self.pump.fetched(self.runtime.now(), attempt, result);
            return true;
        }
        if let Some((attempt, dialling)) = &mut self.dialling
            && let Poll::Ready(dialled) = dialling.poll(cx)
        {
            let (attempt, now) = (*attempt, self.runtime.now());
            match dialled {
                Dialled::Securing => {
                    self.pump.dialled(attempt);
                    return true;
                }
                Dialled::Done(Ok(transport)) => {
                    self.transport = Some((attempt, transport));
                    self.reads = true;
                    self.pump.connected(now, attempt);
                }
                Dialled::Done(Err(error)) => self.pump.disconnected(now, attempt, error.into()),
            }
            self.dialling = None;
            return true;
        }
        false
    }

    /// Reads once. Returns whether there was something.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((_, transport)) = &mut self.transport else { return false };
        if self.linger_until.is_some() {
            return false;
        }
        let (input, size) = self.pump.input();
        match transport.poll_read(cx, input, size) {
            Poll::Ready(Ok(0)) => self.lost(TransportError::end_of_file()),
            Poll::Ready(Ok(count)) => self.pump.was_read(count),
            Poll::Ready(Err(error)) => self.lost(error.into()),
            Poll::Pending => {
                self.pump.read_is_empty();
                return false;
            }
        }
        true
    }

    /// Writes until the socket accepts no more. Ready when everything is written and flushed, or when writing
    /// has failed.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.pump.wants_write() && self.write_error.is_none() {
            let Some((_, transport)) = &mut self.transport else { return Poll::Pending };
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
            let filled = self.pump.slices(&mut slices);
            match ready!(transport.poll_write(cx, &slices[..filled])) {
                Ok(0) => {
                    let error = TransportError::new(io::ErrorKind::WriteZero, "write of 0 bytes");
                    self.write_failed(error);
                }
                Ok(count) => {
                    self.pump.was_written(count);
                    self.flushing = true;
                }
                Err(error) => self.write_failed(error.into()),
            }
        }
        if self.flushing
            && let Some((_, transport)) = &mut self.transport
        {
            let flushed = ready!(transport.poll_flush(cx));
            self.flushing = false;
            if let Err(error) = flushed {
                self.write_failed(error.into());
            }
        }
        Poll::Ready(())
    }

    fn write_failed(&mut self, error: TransportError) {
        let until = self.runtime.now() + LINGER_TIMEOUT;
        self.write_error.get_or_insert((error, until));
    }

    fn lost(&mut self, error: TransportError) {
        // The first error is the cause of later ones, unless a later one is the peer's reason: an alert of TLS is read after
        // the write that finds the reset behind it.
        let is_reason = error.tls.is_some_and(|kind| kind != TlsErrorKind::Truncated);
        let first = self.write_error.take().filter(|_| !is_reason);
        let error = first.map_or(error, |(first, _)| first);
        if let Some((attempt, _)) = self.transport.take() {
            self.pump.disconnected(self.runtime.now(), attempt, error);
        }
        self.drop_transport();
    }

    fn drop_unless_lingering(&mut self) {
        if self.linger_until.is_none() {
            self.drop_transport();
        }
    }

    fn drop_transport(&mut self) {
        self.transport = None;
        self.authentication.end_exchange();
        self.pump.reset();
        (self.flushing, self.write_error, self.linger_until) = (false, None, None);
    }

    /// Writes the last bytes of a transport that lingers, closes it, and drops it. Ready when it is dropped.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.poll_write(cx));
            if self.write_error.is_some() || !self.pump.refill(self.runtime.now()) {
                break;
            }
        }
        if let (Some((_, transport)), None) = (&mut self.transport, &self.write_error) {
            // It is dropped after an error too.
            let _ = ready!(transport.poll_close(cx));
        }
        self.drop_transport();
        Poll::Ready(())
    }

    /// Checks whether the deadline has passed, and handles one that may be handled now. Returns whether there
    /// is more to do.
    fn poll_deadline(
        &mut self,
        cx: &mut Context<'_>,
        deadline: Option<Instant>,
        act: bool,
    ) -> bool {
        self.due.take_if(|due| Some(due.deadline) != deadline);
        let Some(deadline) = deadline else { return false };
        if self.due.is_some() {
            if act {
                self.due = None;
                self.deadline_passed(deadline);
            }
            return act;
        }
        // Most deadlines are extended before they pass. To set the timer anew each time costs more than one
        // wake-up that is too early.
        let at = self.armed.map_or(deadline, |armed| armed.min(deadline));
        self.armed = Some(at);
        if self.timer.poll_until(cx, at).is_pending() {
            return false;
        }
        self.armed = None;
        self.due = (at == deadline).then(|| Due { deadline, asked: Arc::default() });
        self.due.is_none()
    }

    fn deadline_passed(&mut self, deadline: Instant) {
        if self.linger_until == Some(deadline) {
            self.drop_transport();
        } else if self.write_error.as_ref().is_some_and(|(_, until)| *until == deadline) {
            self.lost(TransportError::end_of_file());
        } else {
            self.pump.deadline_passed();
        }
    }

    /// Schedules another poll of the driver after the runtime has checked its sockets.
    fn reschedule(&self, cx: &mut Context<'_>) {
        let Some(due) = &self.due else { return self.runtime.reschedule(cx) };
        let asked = Asked { asked: Arc::clone(&due.asked), task: cx.waker().clone() };
        self.runtime.reschedule(&mut Context::from_waker(&Waker::from(Arc::new(asked))));
    }

    fn poll_rounds(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.due.as_ref().filter(|due| due.asked.load(Ordering::Acquire));
        let may_act = due.map(|due| due.deadline);
        for round in 1..=DRIVER_ROUNDS_MAX {
            let mut progress = self.poll_answers(cx);
            if self.reads || self.write_error.is_some() {
                progress |= self.poll_read(cx);
            }
            // A peer that never stops sending must not delay a deadline forever.
            let heard_all = !progress || round == DRIVER_ROUNDS_MAX;
            let now = self.runtime.now();
            let turn = self.pump.turn(now, cx.waker());
            // After a pause, the socket reports nothing until it is read.
            progress |= turn.read && !self.reads;
            self.reads = turn.read;
            if let Some(action) = turn.action {
                self.act(now, action);
                progress = true;
            }
            // Once everything is written, more may have been queued meanwhile.
            if self.linger_until.is_some() {
                progress |= self.poll_linger(cx).is_ready();
            } else if (turn.write || self.flushing) && self.write_error.is_none() {
                progress |= self.poll_write(cx).is_ready();
            }
            if turn.finished && self.linger_until.is_none() {
                return Poll::Ready(());
            }
            let read_until = self.write_error.as_ref().map(|(_, until)| *until);
            let deadlines = [turn.deadline, read_until, self.linger_until];
            let deadline = deadlines.into_iter().flatten().min();
            progress |= self.poll_deadline(cx, deadline, heard_all && may_act == deadline);
            if !progress {
                if self.due.is_some() {
                    break;
                }
                return Poll::Pending;
            }
        }
        self.reschedule(cx);
        Poll::Pending
    }
}

impl<R: Runtime> Future for Driver<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended {
            return Poll::Pending;
        }
        if let Some(watching) = self.watching.take() {
            self.runtime.spawn(watching);
        }
        ready!(self.poll_rounds(cx));
        self.ended = true;
        Poll::Ready(())
    }
}

impl<R: Runtime> FusedFuture for Driver<R> {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

impl<R: Runtime> std::fmt::Debug for Driver<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("connected", &self.transport.is_some())
            .finish_non_exhaustive()
    }
}
