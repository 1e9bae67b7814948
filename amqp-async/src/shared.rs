//! The session behind one lock, and the wakers next to it.
//!
//! Three rules apply. No I/O under the lock. No code of the application runs under the lock: no waker is
//! woken, replaced or dropped, and no body of the application is dropped. Only one function locks,
//! [`Shared::with`]: it turns the session's events into wake-ups before it unlocks, and carries these out
//! afterwards.
//!
//! A panic under the lock can only come from a waker that panics when it is cloned, or from a bug of this
//! library. It may leave the session in an inconsistent state. So a session that has ended with
//! [`CloseCause::Panicked`] replaces it before the panic continues, and everything that waits is woken.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use amqp_core::errors::TransportError;
use amqp_core::{Attempt, ChannelId, CloseCause, Event, Session};

use crate::executor::Clock;
use crate::listeners::Listeners;
use crate::trace::{Log, Step, Steps};
use crate::wakers::{Released, SeqWakers, WaitQueue, WakerTable, register};

#[allow(unreachable_pub, reason = "it stands in a sealed trait")]
pub struct Shared {
    state: Mutex<State>,
    clock: Box<dyn Clock>,
    losses: Arc<AtomicU32>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) session: Session,
    pub(crate) released: Released,
    pub(crate) calls: WakerTable,
    pub(crate) consumers: WakerTable,
    pub(crate) channels: Vec<ChannelWakers>,
    /// Tasks that wait for the connection to open or to close.
    pub(crate) lifecycle: WaitQueue,
    pub(crate) listeners: Listeners,
    /// The attempt whose hook runs, and the waker of its task.
    hook: Option<(Attempt, Option<Waker>)>,
    pub(crate) log: Log,
    /// The number of transports that were lost, for handles to read without the lock. It changes under the lock.
    losses: Arc<AtomicU32>,
    /// The waker of the driver, while it sleeps.
    driver: Option<Waker>,
    /// Whether the driver was dropped, with its socket.
    pub(crate) is_driver_dropped: bool,
    sleep: Sleep,
}

/// The events that wake a sleeping driver without its waker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sleep {
    /// Input wakes it.
    pub(crate) reads: bool,
    /// It is writing, and takes more output when that is done.
    pub(crate) writes: bool,
    /// It wakes up at this time.
    pub(crate) until: Option<Instant>,
}

/// The wakers of the tasks that wait for a channel.
#[derive(Debug, Default)]
pub(crate) struct ChannelWakers {
    pub(crate) confirms: SeqWakers,
    /// Tasks that wait until all publishes have an outcome.
    pub(crate) all_confirmed: WaitQueue,
    /// Publishes that wait for buffer space.
    pub(crate) space: WaitQueue,
    pub(crate) returned: WaitQueue,
    /// Tasks that wait until the channel is closed.
    pub(crate) closed: WaitQueue,
}

impl Shared {
    pub(crate) fn new(session: Session, clock: Box<dyn Clock>) -> Self {
        let losses = Arc::<AtomicU32>::default();
        let state = State {
            losses: Arc::clone(&losses),
            log: Log::new(session.connection_name()),
            session,
            released: Released::default(),
            calls: WakerTable::default(),
            consumers: WakerTable::default(),
            channels: Vec::new(),
            lifecycle: WaitQueue::default(),
            listeners: Listeners::default(),
            hook: None,
            driver: None,
            is_driver_dropped: false,
            sleep: Sleep::default(),
        };
        Self { state: Mutex::new(state), clock, losses }
    }

    /// Calls `f` with the state, under the lock.
    #[inline]
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        // Dropped in a panic only, and then after the guard of the lock.
        let panicked = Panicked(self);
        let mut state = self.state.lock().unwrap_or_else(|it| self.recover(it));
        let result = f(&mut state);
        let released = state.dispatch_events();
        drop(state);
        std::mem::forget(panicked);
        released.release();
        result
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The number of transports that were lost. A delivery that came before a loss is delivered again.
    pub(crate) const fn losses(&self) -> &Arc<AtomicU32> {
        &self.losses
    }

    /// Replaces the session, because a panic has interrupted a change of it.
    #[cold]
    fn recover<'s>(
        &'s self,
        poisoned: PoisonError<MutexGuard<'s, State>>,
    ) -> MutexGuard<'s, State> {
        let mut state = poisoned.into_inner();
        state.replace_session();
        self.state.clear_poison();
        state
    }
}

/// Ends the session if a panic poisons the lock.
struct Panicked<'s>(&'s Shared);

impl Drop for Panicked<'_> {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        self.0.with(|_| ());
    }
}

impl State {
    /// Logs a step once the lock is released.
    #[inline]
    pub(crate) fn log(&mut self, step: impl FnOnce() -> Step) {
        self.released.log(&self.log, step);
    }

    /// Logs that a channel is open.
    pub(crate) fn log_channel_opened(&mut self, id: ChannelId) {
        if Steps::ENABLED {
            let number = self.session.channel(id).number().unwrap_or_default();
            self.log(|| Step::ChannelOpened(number));
        }
    }

    /// Returns the wakers of a channel.
    pub(crate) fn channel(&mut self, id: ChannelId) -> &mut ChannelWakers {
        if self.channels.len() <= id.index() {
            self.channels.resize_with(id.index() + 1, ChannelWakers::default);
        }
        &mut self.channels[id.index()]
    }

    /// Registers the waker of the driver, which goes to sleep. It is woken when there is something to do.
    pub(crate) fn driver_sleeps(&mut self, waker: &Waker, sleep: Sleep) {
        register(&mut self.driver, waker, &mut self.released);
        self.sleep = sleep;
    }

    /// Records that the hook of an attempt runs.
    pub(crate) fn begin_hook(&mut self, attempt: Attempt) {
        self.end_hook();
        self.hook = Some((attempt, None));
    }

    /// Ends the hook that runs: its task drops it.
    pub(crate) fn end_hook(&mut self) {
        let waker = self.hook.take().and_then(|(_, waker)| waker);
        self.released.wake(waker);
    }

    /// Records that the hook of an attempt has returned.
    pub(crate) fn hook_done(
        &mut self,
        now: Instant,
        attempt: Attempt,
        result: Result<(), TransportError>,
    ) {
        if let Some((_, waker)) = self.hook.take_if(|(running, _)| *running == attempt) {
            self.released.drop_waker(waker);
        }
        self.session.handle_hook_done(now, attempt, result);
    }

    /// Returns whether the hook of an attempt is to go on. The waker is woken when that changes.
    pub(crate) fn continues_hook(&mut self, attempt: Attempt, waker: &Waker) -> bool {
        let Some((running, place)) = &mut self.hook else { return false };
        if *running == attempt {
            register(place, waker, &mut self.released);
        }
        *running == attempt
    }

    /// Drops the waker of the driver, because the driver is dropped.
    pub(crate) fn driver_dropped(&mut self) {
        let driver = self.driver.take();
        self.released.drop_waker(driver);
        self.end_hook();
        self.is_driver_dropped = true;
        self.lifecycle.wake_all(&mut self.released);
    }

    /// Replaces the session with one that has ended, and wakes everything that waits.
    #[cold]
    fn replace_session(&mut self) {
        self.end_hook();
        let ended = self.session.replacement(CloseCause::Panicked);
        let Self { session, released, calls, consumers, channels, .. } = self;
        released.drop_session(std::mem::replace(session, ended));
        calls.wake_all(released);
        consumers.wake_all(released);
        for wakers in channels {
            wakers.confirms.wake_all(released);
            wakers.returned.wake_all(released);
            wakers.closed.wake_all(released);
            wakers.all_confirmed.wake_all(released);
        }
    }

    /// Turns events into wakers, and takes everything that is to be released after the lock.
    #[inline]
    fn dispatch_events(&mut self) -> Released {
        // In most cases no task waits, and the driver is awake.
        if self.driver.is_some()
            || self.session.has_events()
            || self.session.connection().has_discarded()
        {
            self.dispatch_all();
        }
        std::mem::take(&mut self.released)
    }

    fn dispatch_all(&mut self) {
        while let Some(event) = self.session.poll_event() {
            self.handle_event(&event);
        }
        if self.driver.is_some() && self.driver_is_needed() {
            let driver = self.driver.take();
            self.released.wake(driver);
        }
        if self.session.connection().has_discarded() {
            self.released.drop_bodies(self.session.take_discarded());
        }
    }

    fn driver_is_needed(&mut self) -> bool {
        let Sleep { reads, writes, until } = self.sleep;
        let session = &mut self.session;
        (!writes && session.connection().wants_transmit())
            || session.wants_action()
            || (!reads && session.wants_input())
            || (session.has_new_timeout()
                && session.poll_timeout().is_some_and(|(at, _)| until.is_none_or(|it| at < it)))
    }

    fn handle_event(&mut self, event: &Event) {
        let released = &mut self.released;
        self.listeners.report(event, released);
        match *event {
            Event::CallDone(key) => released.wake(self.calls.take(key.index())),
            Event::Deliverable(key) => released.wake(self.consumers.take(key.index())),
            Event::Resolved { channel, first, last } => {
                if let Some(wakers) = self.channels.get_mut(channel.index()) {
                    wakers.confirms.resolved(first, last, released);
                    wakers.space.wake_front(released);
                    if !wakers.all_confirmed.is_empty() {
                        wakers.all_confirmed.wake_all(released);
                    }
                }
            }
            Event::ChannelClosing(channel) => {
                if let Some(wakers) = self.channels.get_mut(channel.index()) {
                    wakers.space.wake_all(released);
                    wakers.returned.wake_all(released);
                }
            }
            Event::ChannelClosed { channel, number, ref cause } => {
                if let Some(wakers) = self.channels.get_mut(channel.index()) {
                    wakers.space.wake_all(released);
                    wakers.returned.wake_all(released);
                    wakers.closed.wake_all(released);
                    wakers.all_confirmed.wake_all(released);
                }
                released.log(&self.log, || Step::ChannelClosed(number, cause.clone()));
            }
            Event::Returned(channel) => {
                if let Some(wakers) = self.channels.get_mut(channel.index()) {
                    wakers.returned.wake_front(released);
                }
            }
            Event::BufferSpace => {
                for wakers in &mut self.channels {
                    wakers.space.wake_front(released);
                }
            }
            Event::Opened => {
                self.lifecycle.wake_all(released);
                released.log(&self.log, || Step::Opened {
                    target: Box::new(self.session.target()),
                    server: self.session.connection().server_properties().clone(),
                });
            }
            Event::Closed(ref cause) => {
                // The pump knows more of the end of its driver.
                if *cause != CloseCause::DriverGone {
                    let was_opened = self.session.was_opened();
                    released.log(&self.log, || Step::Closed { cause: cause.clone(), was_opened });
                }
                self.lifecycle.wake_all(released);
                for wakers in &mut self.channels {
                    wakers.space.wake_all(released);
                }
            }
            Event::AttemptFailed(ref attempt) => {
                released.log(&self.log, || Step::AttemptFailed(attempt.clone()));
            }
            Event::Blocked(ref reason) => {
                released.log(&self.log, || Step::Blocked(Arc::clone(reason)));
            }
            Event::CredentialsNotRenewed(ref reason) => {
                released.log(&self.log, || Step::CredentialsNotRenewed(Arc::clone(reason)));
            }
            Event::ConsumerCancelled(ref consumer) => {
                released.log(&self.log, || Step::ConsumerCancelled(consumer.clone()));
            }
            Event::ConsumerLost(ref consumer) => {
                released.log(&self.log, || Step::ConsumerLost(consumer.clone()));
            }
            Event::Lost(ref cause) => {
                self.losses.fetch_add(1, Ordering::Relaxed);
                released.log(&self.log, || Step::Lost((**cause).clone()));
            }
            Event::QueueRenamed(ref renamed) => {
                released.log(&self.log, || Step::QueueRenamed(renamed.clone()));
            }
            Event::Recovered(ref report) => {
                released.log(&self.log, || Step::Recovered {
                    target: Box::new(self.session.target()),
                    failed: report.failed.clone(),
                });
            }
            Event::Retrying(ref retrying) => {
                released.log(&self.log, || Step::Retrying(retrying.clone()));
            }
            Event::InputPaused { unread_bytes } => {
                released.log(&self.log, || Step::ReadingPaused(unread_bytes));
            }
            Event::InputResumed => released.log(&self.log, || Step::ReadingResumed),
            Event::Unblocked => released.log(&self.log, || Step::Unblocked),
            _ => {}
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
