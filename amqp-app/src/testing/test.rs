//! `Test`: a whole application on a model broker.

use std::sync::Mutex;
use std::time::Duration;

use amqp_async::{Channel, Delivery, Publisher, QueueBind, QueueDeclare};
use amqp_testkit::ModelBroker;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::{App, report::Report, shutdown::Shutdown, shutdown::Stopper};
use crate::error::Error;
use crate::limits::TEST_PATIENCE;
use crate::message::Message;
use crate::platform::Asynchronous;
use crate::runner::Runner;
use crate::sync::{Either, Level, Promise, lock, race};

/// A whole application on a model broker of its own, whose clock the test advances: a retry policy of ten minutes is tested in
/// milliseconds.
///
/// Methods panic when something fails, or when nothing happens within 10 s: they are for tests.
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
    platform: P,
    runner: Runner,
    channel: Channel,
    publisher: Publisher,
    running: Mutex<Vec<Running>>,
}

/// An application that runs.
#[derive(Debug)]
struct Running {
    queues: Vec<String>,
    stopper: Stopper,
    ended: Promise<Result<Report, Error>>,
}

impl<P: Asynchronous> Test<P> {
    /// Starts a model broker, and connects a client of the test. Takes a function that makes a connector of a URI, such as
    /// `amqp_tokio::Connector::new`.
    pub async fn start<E: std::fmt::Debug>(connect: impl Fn(&str) -> Result<P, E>) -> Self {
        let broker = ModelBroker::start_with_stopped_clock().expect("a free port");
        let platform = connect(&broker.uri()).expect("a connector for the URI of the model broker");
        let runner = Runner::new(platform.executor());
        let connection = platform.connect().await.expect("a connection to the model broker");
        let channel = connection.open_channel().await.expect("a channel");
        let publisher = connection.publisher().await.expect("a channel");
        Self { broker, platform, runner, channel, publisher, running: Mutex::default() }
    }

    /// Returns the platform of the application: its connections go to the model broker.
    pub fn platform(&self) -> P {
        self.platform.clone()
    }

    /// Returns the model broker.
    pub const fn broker(&self) -> &ModelBroker {
        &self.broker
    }

    /// Declares a durable queue.
    pub async fn queue(&self, name: &str) {
        let declared = self.channel.queue_declare(QueueDeclare::classic(name)).await;
        declared.unwrap_or_else(|error| panic!("queue {name:?}: {error}"));
    }

    /// Binds a queue to an exchange.
    pub async fn bind(&self, queue: &str, exchange: &str, routing_key: &str) {
        let bound = self.channel.queue_bind(QueueBind::new(queue, exchange, routing_key)).await;
        bound.unwrap_or_else(|error| panic!("queue {queue:?}: {error}"));
    }

    /// Runs an application as a task. Resolves when it consumes from all of its queues.
    pub async fn run<S: Clone + Send + Sync + 'static>(&self, app: App<P, S>) {
        let (stopper, shutdown) = Shutdown::manual();
        let queues = app.queues();
        let started = Level::default();
        let promise = Promise::new();
        let (ended, raise) = (promise.other(), started.clone());
        self.runner.spawn(async move {
            let result = app.on_start(raise.clone()).run(shutdown).await;
            ended.keep(result);
            raise.raise(1);
        });
        self.within("the start of the application", started.reached(1)).await;
        if let Some(ended) = promise.kept() {
            panic!("the application has not started: {ended:?}");
        }
        lock(&self.running).push(Running { queues, stopper, ended: promise });
    }

    /// Sends a value in JSON to a queue.
    pub async fn send(&self, queue: &str, value: &impl Serialize) {
        let message = Message::json(value).unwrap_or_else(|error| panic!("not sent: {error}"));
        self.send_message(message.to_queue(queue)).await;
    }

    /// Sends a message. It must reach a queue, unless it is [optional](Message::optional).
    pub async fn send_message(&self, message: Message) {
        let sent = self.publisher.publish(&message).await;
        sent.unwrap_or_else(|error| panic!("not sent: {error}"));
    }

    /// Takes the next message of a queue, acknowledges it, and resolves to its body, a value in JSON.
    pub async fn expect<T: DeserializeOwned>(&self, queue: &str) -> T {
        let delivery = self.expect_delivery(queue).await;
        let value = serde_json::from_slice(delivery.body());
        let value = value.unwrap_or_else(|error| panic!("a message in queue {queue:?}: {error}"));
        delivery.ack().expect("a delivery that is not acknowledged");
        value
    }

    /// Takes the next message of a queue. Resolves to its delivery.
    pub async fn expect_delivery(&self, queue: &str) -> Delivery {
        let taken = async {
            loop {
                // A queue that the application has not declared would close the channel.
                if self.broker.ready(queue).is_some_and(|ready| ready > 0)
                    && let Ok(Some(delivery)) = self.channel.basic_get(queue).await
                {
                    return delivery;
                }
                self.runner.sleep(Duration::from_millis(1)).await;
            }
        };
        self.within(&format!("a message in queue {queue:?}"), taken).await
    }

    /// Waits until the applications have handled everything that is in their queues.
    pub async fn all_handled(&self) {
        let are_handled = || {
            let running = lock(&self.running);
            let mut queues = running.iter().flat_map(|it| &it.queues);
            queues.all(|queue| self.broker.messages(queue).is_empty())
        };
        let handled = async {
            while !are_handled() {
                self.runner.sleep(Duration::from_millis(1)).await;
            }
        };
        self.within("the end of all work", handled).await;
    }

    /// Waits until the applications have handled everything that is in their queues, then advances the broker's clock, and
    /// waits again. Messages whose delay ends come back to their queues.
    ///
    /// A message that fails then waits for its next delay from then on: advance once for each delay.
    pub async fn advance(&self, time: Duration) {
        self.all_handled().await;
        self.broker.advance(time);
        self.all_handled().await;
    }

    /// Stops the application, and resolves to what it has done. If there are several, it is the one that was started first.
    pub async fn stop(&self) -> Report {
        let running = {
            let mut running = lock(&self.running);
            assert!(!running.is_empty(), "no application runs");
            running.remove(0)
        };
        running.stopper.stop();
        let ended = self.within("the end of the application", running.ended.wait()).await;
        ended.unwrap_or_else(|error| panic!("the application has ended: {error}"))
    }

    async fn within<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let (mut future, mut late) = (Box::pin(future), Box::pin(self.runner.sleep(TEST_PATIENCE)));
        match race(&mut future, &mut late).await {
            Either::First(output) => output,
            Either::Second(()) => panic!("{what}: nothing within {TEST_PATIENCE:?}"),
        }
    }
}
