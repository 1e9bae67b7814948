//! `Test`: a whole application on a model broker.

use std::fmt;
use std::time::Duration;

use amqp_async::{Delivery, Error as ClientError};
#[cfg(feature = "threads")]
use amqp_blocking::Connector;
use amqp_testkit::ModelBroker;
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "threads")]
use super::fixture::blocked;
use super::fixture::{Fixture, Pace, awaited, methods};
use crate::app::{App, report::Report};
use crate::limits::{TEST_PATIENCE, TEST_POLL};
use crate::message::Message;
use crate::platform::{Asynchronous, Platform};
use crate::sync::lock;

/// A whole application on a separate model broker, whose clock the test advances: a retry policy of ten minutes is tested in
/// milliseconds.
///
/// Methods panic when something fails, or when nothing happens within 10 s: they are for tests. On threads,
/// with `amqp_blocking::Connector`, they block, and are not asynchronous: `Test::start_on_threads`.
///
/// ```
/// use amqp_app::prelude::*;
/// use amqp_app::testing::Test;
/// use amqp_tokio::Connector;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let test = Test::start(Connector::new).await;
/// test.queue("orders").await;
/// // Fails until its last attempt, 11 min 11 s after the first one.
/// let handler = async |Attempt(attempt): Attempt| {
///     if attempt < 5 { Err("down") } else { Ok(()) }
/// };
/// test.run(App::new(test.platform()).consume("orders", handler)).await;
/// test.send("orders", &7).await;
/// for delay in [1, 10, 60, 600] {
///     test.advance(Duration::from_secs(delay)).await;
/// }
/// let report = test.stop().await;
/// assert_eq!((report.failed, report.handled, report.parked), (4, 1, 0));
/// # }
/// ```
#[derive(Debug)]
pub struct Test<P> {
    broker: ModelBroker,
    fixture: Fixture<P>,
}

impl<P: Asynchronous> Test<P> {
    /// Starts a model broker, and connects a client of the test. Takes a function that makes a connector of a URI, such as
    /// `amqp_tokio::Connector::new`.
    pub async fn start<E: fmt::Debug>(connect: impl Fn(&str) -> Result<P, E>) -> Self {
        Self::with(connect).await
    }

    methods!(P, Delivery, awaited, async);

    /// Waits until the applications have handled everything that is in their queues.
    pub async fn all_handled(&self) {
        self.until_handled().await;
    }

    /// Waits until the applications have handled everything that is in their queues, then advances the broker's clock, and
    /// waits again. Messages whose delay ends come back to their queues.
    ///
    /// A message that fails then waits for its next delay from then on: advance once for each delay.
    pub async fn advance(&self, time: Duration) {
        self.pass(time).await;
    }
}

impl<P: Platform> Test<P> {
    /// Returns the model broker.
    pub const fn broker(&self) -> &ModelBroker {
        &self.broker
    }

    /// Returns the platform of the application: its connections go to the broker of the test.
    pub fn platform(&self) -> P {
        self.fixture.platform.clone()
    }

    async fn with<E: fmt::Debug>(connect: impl Fn(&str) -> Result<P, E>) -> Self {
        let broker = ModelBroker::start_with_stopped_clock().expect("a free port");
        let pace = Pace { patience: TEST_PATIENCE, poll: TEST_POLL };
        let fixture = Fixture::connect(connect, &broker.uri(), pace).await;
        Self { broker, fixture }
    }

    async fn until_handled(&self) {
        let are_handled = || {
            let running = lock(&self.fixture.running);
            let mut queues = running.iter().flat_map(|it| &it.queues);
            queues.all(|queue| self.broker.messages(queue).is_empty())
        };
        let handled = async {
            while !are_handled() {
                self.fixture.poll().await;
            }
        };
        self.fixture.within("the end of all work", handled).await;
    }

    async fn pass(&self, time: Duration) {
        self.until_handled().await;
        self.broker.advance(time);
        self.until_handled().await;
    }

    async fn has_one(&self, queue: &str) -> Result<bool, ClientError> {
        Ok(self.broker.ready(queue).is_some_and(|ready| ready > 0))
    }
}

/// The same on threads: the methods block the calling thread.
#[cfg(feature = "threads")]
impl Test<Connector> {
    /// Starts a model broker, and connects a client of the test. Takes a function that makes a connector of a URI, such as
    /// `amqp_blocking::Connector::new`.
    pub fn start_on_threads<E: fmt::Debug>(connect: impl Fn(&str) -> Result<Connector, E>) -> Self {
        blocked!(Self::with(connect))
    }

    methods!(Connector, amqp_blocking::Delivery, blocked);

    /// Waits until the applications have handled everything that is in their queues.
    pub fn all_handled(&self) {
        blocked!(self.until_handled());
    }

    /// Waits until the applications have handled everything that is in their queues, then advances the broker's clock, and
    /// waits again, as on other platforms.
    pub fn advance(&self, time: Duration) {
        blocked!(self.pass(time));
    }
}
