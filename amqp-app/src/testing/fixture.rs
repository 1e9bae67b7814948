//! `Fixture`: the client of a test, and the applications that it runs.

use std::sync::Mutex;
use std::time::Duration;

use amqp_async::{
    Channel, Connection, Delivery, Error as ClientError, Publisher, QueueBind, QueueDeclare,
};

use crate::app::{App, report::Report, shutdown::Shutdown, shutdown::Stopper};
use crate::error::Error;
use crate::message::Message;
use crate::platform::Platform;
use crate::runner::Runner;
use crate::sync::{Level, Promise, lock};

#[derive(Debug)]
pub(super) struct Fixture<P> {
    pub(super) platform: P,
    pub(super) runner: Runner,
    pub(super) connection: Connection,
    pub(super) channel: Channel,
    publisher: Publisher,
    pub(super) running: Mutex<Vec<Running>>,
    pace: Pace,
}

/// How long a step waits for what it expects, and how often it looks for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) patience: Duration,
    pub(super) poll: Duration,
}

/// An application that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) queues: Vec<String>,
    stopper: Stopper,
    ended: Promise<Result<Report, Error>>,
}

impl<P: Platform> Fixture<P> {
    pub(super) async fn connect<E: std::fmt::Debug>(
        connect: impl Fn(&str) -> Result<P, E>,
        uri: &str,
        pace: Pace,
    ) -> Self {
        let platform = connect(uri).expect("a connector for the URI of the broker");
        let runner = Runner::new(platform.executor());
        let connection = platform.connect().await.expect("a connection to the broker");
        let channel = connection.open_channel().await.expect("a channel");
        let publisher = connection.publisher().await.expect("a channel");
        Self { platform, runner, connection, channel, publisher, running: Mutex::default(), pace }
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
            let result = app.on_start(raise.clone()).run_to_the_end(shutdown).await;
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
    pub(super) async fn take(
        &self,
        queue: &str,
        has_one: impl AsyncFn() -> Result<bool, ClientError>,
    ) -> Delivery {
        let last = Mutex::new(None);
        let look = async || {
            if has_one().await? { self.channel.basic_get(queue).await } else { Ok(None) }
        };
        let taken = async {
            loop {
                match look().await {
                    Ok(Some(delivery)) => return delivery,
                    Ok(None) => *lock(&last) = None,
                    Err(error) => *lock(&last) = Some(error),
                }
                self.poll().await;
            }
        };
        if let Some(delivery) = self.in_time(taken).await {
            return delivery;
        }
        let last = lock(&last).take().map(|error| format!(": {error}"));
        let (patience, last) = (self.pace.patience, last.unwrap_or_default());
        panic!("a message in queue {queue:?}: nothing within {patience:?}{last}")
    }

    /// Waits before the next look.
    pub(super) async fn poll(&self) {
        self.runner.sleep(self.pace.poll).await;
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
        let output = self.in_time(future).await;
        output.unwrap_or_else(|| panic!("{what}: nothing within {:?}", self.pace.patience))
    }

    async fn in_time<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.runner.until(self.runner.now().checked_add(self.pace.patience), future).await
    }
}

/// The methods of everything that has a fixture, and a function `has_one` that returns whether a queue has a message. It takes
/// the types of the platform and of deliveries, the macro that waits, and `async` if the methods are asynchronous.
macro_rules! methods {
    ($platform:ty, $delivery:ty, $wait:ident $(, $asynchronous:tt)?) => {
        /// Declares a durable queue.
        pub $($asynchronous)? fn queue(&self, name: &str) {
            $wait!(self.fixture.queue(name));
        }

        /// Binds a queue to an exchange.
        pub $($asynchronous)? fn bind(&self, queue: &str, exchange: &str, routing_key: &str) {
            $wait!(self.fixture.bind(queue, exchange, routing_key));
        }

        /// Runs an application beside the test, and waits until it consumes from all of its queues.
        pub $($asynchronous)? fn run<S: Clone + Send + Sync + 'static>(&self, app: App<$platform, S>) {
            $wait!(self.fixture.run(app));
        }

        /// Sends a value in JSON to a queue.
        pub $($asynchronous)? fn send(&self, queue: &str, value: &impl Serialize) {
            let message = Message::json(value).unwrap_or_else(|error| panic!("not sent: {error}"));
            $wait!(self.fixture.send_message(message.to_queue(queue)));
        }

        /// Sends a message. It must reach a queue, unless it is [optional](Message::optional).
        pub $($asynchronous)? fn send_message(&self, message: Message) {
            $wait!(self.fixture.send_message(message));
        }

        /// Takes the next message of a queue, and acknowledges it. The result is its body, a value in JSON.
        pub $($asynchronous)? fn expect<T: DeserializeOwned>(&self, queue: &str) -> T {
            let delivery = $wait!(self.fixture.take(queue, async || self.has_one(queue).await));
            let value = serde_json::from_slice(delivery.body());
            let value =
                value.unwrap_or_else(|error| panic!("a message in queue {queue:?}: {error}"));
            delivery.ack().expect("a delivery that is not acknowledged");
            value
        }

        /// Takes the next message of a queue. The result is its delivery.
        pub $($asynchronous)? fn expect_delivery(&self, queue: &str) -> $delivery {
            $wait!(self.fixture.take(queue, async || self.has_one(queue).await)).into()
        }

        /// Stops the application, and waits for its end. The result is what it has done. If there are several, it is the one
        /// that was started first.
        pub $($asynchronous)? fn stop(&self) -> Report {
            $wait!(self.fixture.stop())
        }
    };
}

/// Waits for a future as asynchronous functions do.
macro_rules! awaited {
    ($future:expr) => {
        $future.await
    };
}

/// Waits for a future on the calling thread.
#[cfg(feature = "threads")]
macro_rules! blocked {
    ($future:expr) => {
        amqp_blocking::runtime::Threads.block_on($future)
    };
}

#[cfg(feature = "threads")]
pub(super) use blocked;
pub(super) use {awaited, methods};
