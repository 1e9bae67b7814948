//! `Fixture`: the client of a test, and the applications that it runs.

use std::sync::Mutex;

use amqp_async::{Channel, Connection, Delivery, Publisher, QueueBind, QueueDeclare};

use crate::app::{App, report::Report, shutdown::Shutdown, shutdown::Stopper};
use crate::error::Error;
use crate::limits::{TEST_PATIENCE, TEST_POLL};
use crate::message::Message;
use crate::platform::Asynchronous;
use crate::runner::Runner;
use crate::sync::{Either, Level, Promise, lock, race};

#[derive(Debug)]
pub(super) struct Fixture<P> {
    pub(super) platform: P,
    pub(super) runner: Runner,
    pub(super) connection: Connection,
    pub(super) channel: Channel,
    publisher: Publisher,
    pub(super) running: Mutex<Vec<Running>>,
}

/// An application that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) queues: Vec<String>,
    stopper: Stopper,
    ended: Promise<Result<Report, Error>>,
}

impl<P: Asynchronous> Fixture<P> {
    pub(super) async fn connect<E: std::fmt::Debug>(
        connect: impl Fn(&str) -> Result<P, E>,
        uri: &str,
    ) -> Self {
        let platform = connect(uri).expect("a connector for the URI of the broker");
        let runner = Runner::new(platform.executor());
        let connection = platform.connect().await.expect("a connection to the broker");
        let channel = connection.open_channel().await.expect("a channel");
        let publisher = connection.publisher().await.expect("a channel");
        Self { platform, runner, connection, channel, publisher, running: Mutex::default() }
    }

    pub(super) async fn queue(&self, name: &str) {
        let declared = self.channel.queue_declare(QueueDeclare::classic(name)).await;
        declared.unwrap_or_else(|error| panic!("queue {name:?}: {error}"));
    }

    pub(super) async fn bind(&self, queue: &str, exchange: &str, routing_key: &str) {
        let bound = self.channel.queue_bind(QueueBind::new(queue, exchange, routing_key)).await;
        bound.unwrap_or_else(|error| panic!("queue {queue:?}: {error}"));
    }

    pub(super) async fn run<S: Clone + Send + Sync + 'static>(&self, app: App<P, S>) {
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

    pub(super) async fn send_message(&self, message: Message) {
        let sent = self.publisher.publish(&message).await;
        sent.unwrap_or_else(|error| panic!("not sent: {error}"));
    }

    /// Takes the next message of a queue for which a function says that it has one. One that the application has not declared
    /// would close the channel.
    pub(super) async fn take(&self, queue: &str, has_one: impl AsyncFn() -> bool) -> Delivery {
        let taken = async {
            loop {
                if has_one().await
                    && let Ok(Some(delivery)) = self.channel.basic_get(queue).await
                {
                    return delivery;
                }
                self.runner.sleep(TEST_POLL).await;
            }
        };
        self.within(&format!("a message in queue {queue:?}"), taken).await
    }

    pub(super) async fn stop(&self) -> Report {
        let running = {
            let mut running = lock(&self.running);
            assert!(!running.is_empty(), "no application runs");
            running.remove(0)
        };
        running.stopper.stop();
        let ended = self.within("the end of the application", running.ended.wait()).await;
        ended.unwrap_or_else(|error| panic!("the application has ended: {error}"))
    }

    pub(super) async fn within<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let (mut future, mut late) = (Box::pin(future), Box::pin(self.runner.sleep(TEST_PATIENCE)));
        match race(&mut future, &mut late).await {
            Either::First(output) => output,
            Either::Second(()) => panic!("{what}: nothing within {TEST_PATIENCE:?}"),
        }
    }
}

/// The methods of everything that has a fixture, and a function `has_one` that returns whether a queue has a message.
macro_rules! methods {
    () => {
        /// Returns the platform of the application: its connections go to the broker of the test.
        pub fn platform(&self) -> P {
            self.fixture.platform.clone()
        }

        /// Declares a durable queue.
        pub async fn queue(&self, name: &str) {
            self.fixture.queue(name).await;
        }

        /// Binds a queue to an exchange.
        pub async fn bind(&self, queue: &str, exchange: &str, routing_key: &str) {
            self.fixture.bind(queue, exchange, routing_key).await;
        }

        /// Runs an application as a task. Resolves when it consumes from all of its queues.
        pub async fn run<S: Clone + Send + Sync + 'static>(&self, app: App<P, S>) {
            self.fixture.run(app).await;
        }

        /// Sends a value in JSON to a queue.
        pub async fn send(&self, queue: &str, value: &impl Serialize) {
            let message = Message::json(value).unwrap_or_else(|error| panic!("not sent: {error}"));
            self.send_message(message.to_queue(queue)).await;
        }

        /// Sends a message. It must reach a queue, unless it is [optional](Message::optional).
        pub async fn send_message(&self, message: Message) {
            self.fixture.send_message(message).await;
        }

        /// Takes the next message of a queue, acknowledges it, and resolves to its body, a value in JSON.
        pub async fn expect<T: DeserializeOwned>(&self, queue: &str) -> T {
            let delivery = self.expect_delivery(queue).await;
            let value = serde_json::from_slice(delivery.body());
            let value =
                value.unwrap_or_else(|error| panic!("a message in queue {queue:?}: {error}"));
            delivery.ack().expect("a delivery that is not acknowledged");
            value
        }

        /// Takes the next message of a queue. Resolves to its delivery.
        pub async fn expect_delivery(&self, queue: &str) -> Delivery {
            self.fixture.take(queue, async || self.has_one(queue).await).await
        }

        /// Stops the application, and resolves to what it has done. If there are several, it is the one that was started first.
        pub async fn stop(&self) -> Report {
            self.fixture.stop().await
        }
    };
}

pub(super) use methods;
