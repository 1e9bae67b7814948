//! A world of one seed for asynchronous code: clients on one thread, a model broker, the network between them, and a
//! virtual clock.
//!
//! [`World`] is a runtime, so that connectors, pools and applications run in it unchanged. The seed decides which task runs
//! next, how long the network takes, and what fails and when. When every task waits, the clock moves to the next
//! deadline: of a timer, of the network or of the broker. So a wait of minutes takes no time, and a world in which nothing
//! can happen any more panics instead of hanging.
//!
//! | file | |
//! | --- | --- |
//! | `tasks` | the tasks that may run, and their wakers |
//! | `network` | lines between clients and the broker: latency, ends, silence |
//!
//! The client draws its own jitter, which is not a part of the seed. Use fixed delays where a seed is to be played again.

mod network;
mod tasks;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use amqp_async::{Clock, Config, Connector, Executor, Runtime, Target, Timer};
use amqp_testkit::model::Broker;

use crate::sim::random::Random;
use network::{Line, Network};
use tasks::{MAIN, Tasks};

/// More turns than any test needs. A world that takes more runs in a circle.
const TURNS_MAX: u64 = 50_000_000;

/// The world, and the runtime of everything in it. Clones are handles to the same world.
#[derive(Clone, Debug)]
pub struct World(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tasks: Tasks,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    begun: Instant,
    /// The time since the world began.
    now: Duration,
    broker: Broker,
    /// Until when the broker accepts no connections.
    down_until: Duration,
    /// Until when the broker does not answer those who connect.
    unreachable_until: Duration,
    network: Network,
    timers: BTreeMap<(Duration, u64), Waker>,
    timers_made: u64,
    random: Random,
    /// The most lines that there were at once, with those that were being connected.
    lines_max: usize,
    connecting: usize,
}

impl World {
    /// Creates the world of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let network = Network::new(random.fork());
        let tasks = Tasks::new(random.fork());
        let state = State {
            begun: Instant::now(),
            now: Duration::ZERO,
            broker: Broker::new(),
            down_until: Duration::ZERO,
            unreachable_until: Duration::ZERO,
            network,
            timers: BTreeMap::new(),
            timers_made: 0,
            random,
            lines_max: 0,
            connecting: 0,
        };
        Self(Arc::new(Shared { tasks, state: Mutex::new(state) }))
    }

    /// Returns a connector to the broker of this world.
    pub fn connector(&self) -> Connector<Self> {
        Connector::on(self.clone(), Config::default())
    }

    /// Runs a future to its end, and with it the tasks of the world.
    ///
    /// # Panics
    /// If nothing can happen any more before it ends.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let main = self.0.tasks.waker(MAIN);
        main.wake_by_ref();
        for _ in 0..TURNS_MAX {
            match self.0.tasks.next() {
                Some(MAIN) => {
                    let mut context = Context::from_waker(&main);
                    if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                        return output;
                    }
                }
                Some(task) => self.0.tasks.poll(task),
                None => self.lock().go_on(),
            }
        }
        panic!("the world runs in a circle, at {:?}", self.elapsed());
    }

    /// Returns the virtual time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.lock().now
    }

    /// Resolves after this virtual time.
    pub async fn sleep(&self, time: Duration) {
        let mut timer = self.timer();
        let deadline = Clock::now(self) + time;
        std::future::poll_fn(|cx| timer.poll_until(cx, deadline)).await;
    }

    /// Returns a number below `end`, which must not be 0.
    pub fn below(&self, end: usize) -> usize {
        self.lock().random.below(end)
    }

    /// Looks at the broker, or changes it.
    pub fn broker<T>(&self, look: impl FnOnce(&mut Broker) -> T) -> T {
        look(&mut self.lock().broker)
    }

    /// Returns how many lines to the broker there are, with those that are being connected.
    pub fn lines(&self) -> usize {
        self.lock().lines()
    }

    /// Returns the most lines that there were at once.
    pub fn lines_max(&self) -> usize {
        self.lock().lines_max
    }

    /// Cuts one of the lines, if there is one. What is on its way is lost.
    pub fn cut(&self) {
        let state = &mut *self.lock();
        let lines = state.network.open();
        if let Some(place) = state.random.place(lines.len()) {
            state.network.cut(lines[place], &mut state.broker);
        }
    }

    /// Lets one of the lines fall silent, if there is one: nothing arrives any more, and no side learns of it.
    pub fn silence(&self) {
        let state = &mut *self.lock();
        let lines = state.network.open();
        if let Some(place) = state.random.place(lines.len()) {
            state.network.silence(lines[place], &state.broker, state.now);
        }
    }

    /// Crashes the broker, which accepts no connections for this time. What is not durable is lost.
    pub fn crash(&self, down: Duration) {
        let state = &mut *self.lock();
        for line in state.network.open() {
            state.network.cut(line, &mut state.broker);
        }
        state.broker.restart();
        state.down_until = state.now + down;
    }

    /// Does not answer those who connect for this time, as behind a firewall that drops packets.
    pub fn do_not_answer(&self, time: Duration) {
        let state = &mut *self.lock();
        state.unreachable_until = state.now + time;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }
}

impl State {
    fn lines(&self) -> usize {
        self.network.open().len() + self.connecting
    }

    fn count_lines(&mut self) {
        self.lines_max = self.lines_max.max(self.lines());
    }

    /// Sends what the broker has to say. Nothing else can run, so the clock moves to the next deadline.
    fn go_on(&mut self) {
        self.network.send(&mut self.broker, self.now);
        let timer = self.timers.keys().next().map(|(at, _)| *at);
        let deadlines = [timer, self.network.next(), self.broker.next_deadline()];
        let next = deadlines.into_iter().flatten().min();
        let next = next.unwrap_or_else(|| panic!("nothing can happen any more, at {:?}", self.now));
        self.now = self.now.max(next);
        self.broker.handle_time(self.now);
        self.network.arrive(&mut self.broker, self.now);
        while let Some(timer) = self.timers.first_entry()
            && timer.key().0 <= self.now
        {
            timer.remove().wake();
        }
    }
}

impl Clock for World {
    fn now(&self) -> Instant {
        let state = self.lock();
        state.begun + state.now
    }
}

impl Executor for World {
    type Timer = Alarm;

    fn timer(&self) -> Alarm {
        Alarm { world: self.clone(), key: None }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(Box::pin(task));
    }

    /// There is one thread: work that blocks for long would block the world.
    fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        self.spawn(async { work() });
    }
}

impl Runtime for World {
    type Transport = Line;

    #[allow(clippy::manual_async_fn, reason = "the future must not borrow the arguments")]
    fn resolve(
        &self,
        _: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static {
        async move { Ok(vec![([127, 0, 0, 1], port).into()]) }
    }

    fn dial(&self, _: Target) -> impl Future<Output = io::Result<Line>> + Send + 'static {
        let world = self.clone();
        async move {
            let latency = {
                let mut state = world.lock();
                state.connecting += 1;
                state.count_lines();
                state.network.latency()
            };
            let _connecting = Connecting(&world);
            world.sleep(latency).await;
            let unanswered = {
                let state = world.lock();
                state.unreachable_until.saturating_sub(state.now)
            };
            world.sleep(unanswered).await;
            let state = &mut *world.lock();
            if state.now < state.down_until {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let line = state.network.dial(&mut state.broker);
            Ok(Line { world: world.clone(), line })
        }
    }
}

/// Counts a dial until it has ended, or is dropped.
struct Connecting<'a>(&'a World);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.lock().connecting -= 1;
    }
}

/// A timer of the virtual clock.
#[derive(Debug)]
pub struct Alarm {
    world: World,
    key: Option<(Duration, u64)>,
}

impl Alarm {
    fn stop(&mut self, state: &mut State) {
        if let Some(key) = self.key.take() {
            state.timers.remove(&key);
        }
    }
}

impl Timer for Alarm {
    fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let world = self.world.clone();
        let state = &mut *world.lock();
        self.stop(state);
        let at = deadline.saturating_duration_since(state.begun);
        if at <= state.now {
            return Poll::Ready(());
        }
        state.timers_made += 1;
        let key = (at, state.timers_made);
        state.timers.insert(key, cx.waker().clone());
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let world = self.world.clone();
        let mut state = world.lock();
        self.stop(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::World;

    #[test]
    fn time_moves_when_every_task_waits() {
        let world = World::new(0);
        let (fast, slow) =
            (world.sleep(Duration::from_secs(1)), world.sleep(Duration::from_secs(600)));
        world.block_on(fast);
        assert_eq!(world.elapsed(), Duration::from_secs(1));
        world.block_on(slow);
        assert_eq!(world.elapsed(), Duration::from_secs(601));
    }

    #[test]
    #[should_panic = "nothing can happen any more"]
    fn a_world_in_which_nothing_can_happen_fails() {
        World::new(0).block_on(std::future::pending::<()>());
    }
}
