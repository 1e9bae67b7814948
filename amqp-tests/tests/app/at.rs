//! A broker, and the platform on which an application runs. Each test of the suite is compiled for every runtime.

use std::mem;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use amqp_app::prelude::*;
use amqp_app::{Asynchronous, Stopper};
use amqp_async::{Backoff, Channel, ConnectError, Connection, Publisher};
use amqp_blocking::runtime::Threads;
use amqp_testkit::{ModelBroker, RabbitMq};

/// A platform that tests can make.
pub(crate) trait Make: Asynchronous {
    fn to(uri: &str) -> Self;
}

macro_rules! make {
    ($($adapter:ident)*) => {
        $(
            impl Make for $adapter::Connector {
                fn to(uri: &str) -> Self {
                    let connector = Self::new(uri).unwrap();
                    if uri.contains("recovery=") {
                        return connector;
                    }
                    connector.recovery(amqp_async::Recovery::automatic().backoff(short()))
                }
            }
        )*
    };
}

make! { amqp_async_std amqp_smol amqp_tokio }

/// The platform of threads, whose workers run the futures of asynchronous handlers: so the tests are the same on it.
/// `threads.rs` tests handlers that are plain functions.
#[derive(Clone)]
pub(crate) struct OnThreads(amqp_blocking::Connector);

impl Platform for OnThreads {
    type Executor = Threads;
    type Connection = Connection;

    fn executor(&self) -> Threads {
        self.0.executor()
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        Platform::connect(&self.0).await
    }
}

impl Asynchronous for OnThreads {}

impl Make for OnThreads {
    fn to(uri: &str) -> Self {
        let connector = amqp_blocking::Connector::new(uri).unwrap();
        if uri.contains("recovery=") {
            return Self(connector);
        }
        Self(connector.recovery(amqp_async::Recovery::automatic().backoff(short())))
    }
}

fn short() -> Backoff {
    Backoff::fixed(Duration::from_millis(20))
}

/// A broker by its URI, and a platform.
pub(crate) struct At<P> {
    pub(crate) uri: String,
    pub(crate) platform: P,
    /// It stops with the test.
    pub(crate) model: Option<ModelBroker>,
    /// What handlers report: the state of applications.
    pub(crate) log: Log,
}

impl<P: Make> At<P> {
    /// A model broker of its own.
    pub(crate) fn model() -> Self {
        let model = ModelBroker::start().unwrap();
        let uri = model.uri();
        Self { platform: P::to(&uri), uri, model: Some(model), log: Log::default() }
    }

    pub(crate) fn rabbitmq() -> Self {
        Self::broker(rabbitmq().uri())
    }

    pub(crate) fn broker(uri: String) -> Self {
        Self { platform: P::to(&uri), uri, model: None, log: Log::default() }
    }

    pub(crate) fn app(&self) -> App<P, Log> {
        App::with_state(self.platform.clone(), self.log.clone())
    }

    /// An application that reaches the broker by another address, such as that of a proxy.
    pub(crate) fn app_at(&self, uri: &str) -> App<P, Log> {
        App::with_state(P::to(uri), self.log.clone())
    }

    /// A client beside the application.
    pub(crate) async fn client(&self) -> Client {
        let connection = self.platform.connect().await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        let publisher = connection.publisher().await.unwrap();
        Client { connection, channel, publisher }
    }

    /// The port of the broker.
    pub(crate) fn port(&self) -> u16 {
        let (_, rest) = self.uri.rsplit_once(':').unwrap();
        rest.split('/').next().unwrap().parse().unwrap()
    }
}

/// A client beside an application.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    pub(crate) channel: Channel,
    pub(crate) publisher: Publisher,
}

impl Client {
    /// Declares a durable queue with a name that no other test uses.
    pub(crate) async fn queue(&self, name: &str) -> String {
        let name = unique(name);
        self.channel.queue_declare(QueueDeclare::classic(&name)).await.unwrap();
        name
    }

    pub(crate) async fn send(&self, queue: &str, body: impl Into<String>) {
        self.publish(Message::new(body.into()).to_queue(queue)).await;
    }

    pub(crate) async fn publish(&self, message: Message) {
        self.publisher.publish(&message).await.unwrap();
    }

    /// Waits until a queue is declared.
    pub(crate) async fn declared(&self, queue: &str) {
        until("the queue", async || {
            let passive =
                async |channel: Channel| channel.queue_declare(QueueDeclare::passive(queue)).await;
            self.connection.with_channel(passive).await.is_ok()
        })
        .await;
    }

    /// The number of messages that are ready in a queue, 0 while it is not declared.
    pub(crate) async fn ready(&self, queue: &str) -> u32 {
        let looked_up = self
            .connection
            .with_channel(async |channel| channel.queue_declare(QueueDeclare::passive(queue)).await)
            .await;
        match looked_up {
            Ok(declared) => declared.message_count,
            Err(error) if error.reply_code().is_some_and(|code| code.code() == 404) => 0,
            Err(error) => panic!("{queue}: {error}"),
        }
    }

    /// Takes the next message of a queue, which may not be declared yet.
    pub(crate) async fn expect(&self, queue: &str) -> Delivery {
        within("a message", async {
            loop {
                if self.ready(queue).await > 0
                    && let Some(delivery) = self.channel.basic_get(queue).await.unwrap()
                {
                    return delivery;
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// Takes the bodies of this many messages of a queue, in order, and acknowledges them.
    pub(crate) async fn bodies(&self, queue: &str, count: usize) -> Vec<String> {
        let mut bodies = Vec::new();
        while bodies.len() < count {
            let delivery = self.expect(queue).await;
            bodies.push(text(&delivery));
            delivery.ack().unwrap();
        }
        bodies
    }
}

pub(crate) fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.body().to_vec()).unwrap()
}

/// A header as text.
pub(crate) fn header(delivery: &Delivery, name: &str) -> Option<String> {
    let value = delivery.header(name).unwrap()?;
    Some(value.as_str().map_or_else(|| format!("{value:?}"), str::to_owned))
}

pub(crate) fn number(delivery: &Delivery, name: &str) -> Option<i64> {
    delivery.header(name).unwrap()?.as_i64()
}

/// Runs an application beside a script, and stops it after the script.
pub(crate) async fn beside<P: Make, S: Clone + Send + Sync + 'static>(
    app: App<P, S>,
    script: impl AsyncFnOnce(&Stopper),
) -> Report {
    let (stopper, shutdown) = Shutdown::manual();
    let running = async {
        // In a box: a runtime copies what it blocks on from frame to frame, and a test has a small stack.
        let ended = Box::pin(app.run(shutdown)).await;
        ended.unwrap_or_else(|error| panic!("the application has ended: {error}"))
    };
    let script = async {
        Box::pin(script(&stopper)).await;
        stopper.stop();
    };
    let both = Box::pin(smol::future::zip(running, script));
    let (report, ()) = within("the application", both).await;
    report
}

/// A source whose messages are parked at the first failure.
pub(crate) fn source(queue: impl Into<Consume>) -> Consume {
    Consume::new(queue).on_failure(Retry::none())
}

/// What handlers report to their test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the lines, and removes them.
    pub(crate) fn take(&self) -> Vec<String> {
        mem::take(&mut self.0.lock().unwrap())
    }

    /// Waits until there is this line.
    pub(crate) async fn find(&self, line: &str) {
        while !self.lines().iter().any(|it| it == line) {
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until there are this many lines.
    pub(crate) async fn reach(&self, count: usize) -> Vec<String> {
        within(&format!("{count} lines"), async {
            while self.0.lock().unwrap().len() < count {
                sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        self.lines()
    }
}

/// The RabbitMQ that all tests share.
pub(crate) fn rabbitmq() -> &'static RabbitMq {
    static NODE: LazyLock<RabbitMq> =
        LazyLock::new(|| RabbitMq::start().unwrap_or_else(|error| panic!("{error}")));
    &NODE
}

/// A name that no other test uses.
pub(crate) fn unique(name: &str) -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// Sleeps, on any runtime.
pub(crate) async fn sleep(time: Duration) {
    smol::Timer::after(time).await;
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !holds().await {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Fails the test if `future` takes longer than anything should.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let late = async {
        sleep(Duration::from_secs(60)).await;
        None
    };
    let output = smol::future::or(async { Some(future.await) }, late).await;
    output.unwrap_or_else(|| panic!("{what}: nothing within 60 s"))
}

pub(crate) fn on_tokio_current_thread(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(test);
}

pub(crate) fn on_tokio_multi_thread(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap().block_on(test);
}

/// Turns each `async fn name<P: Make>(at: At<P>)` into tests on the model broker, one for each runtime.
macro_rules! on_model {
    ($($name:ident)*) => {
        crate::at::tests! { model $($name)* }
    };
}

/// Turns each `async fn name<P: Make>(at: At<P>)` into tests on RabbitMQ, one for each runtime.
macro_rules! on_rabbitmq {
    ($($name:ident)*) => {
        crate::at::tests! { rabbitmq $($name)* }
    };
}

/// Turns each `async fn name<P: Make>(at: At<P>)` into tests on the model broker and on RabbitMQ, one for each runtime.
macro_rules! on_both {
    ($($name:ident)*) => {
        crate::at::tests! { model $($name)* }
        crate::at::tests! { rabbitmq $($name)* }
    };
}

macro_rules! tests {
    ($broker:ident $($name:ident)*) => {
        mod $broker {
            mod tokio_current_thread {
                $(#[test] fn $name() {
                    let at = crate::at::At::<amqp_tokio::Connector>::$broker();
                    crate::at::on_tokio_current_thread(super::super::$name(at));
                })*
            }
            mod tokio_multi_thread {
                $(#[test] fn $name() {
                    let at = crate::at::At::<amqp_tokio::Connector>::$broker();
                    crate::at::on_tokio_multi_thread(super::super::$name(at));
                })*
            }
            mod smol {
                $(#[test] fn $name() {
                    let at = crate::at::At::<amqp_smol::Connector>::$broker();
                    smol::block_on(super::super::$name(at));
                })*
            }
            mod threads {
                $(#[test] fn $name() {
                    let at = crate::at::At::<crate::at::OnThreads>::$broker();
                    amqp_blocking::runtime::Threads.block_on(super::super::$name(at));
                })*
            }
            mod async_std {
                $(#[test] fn $name() {
                    let at = crate::at::At::<amqp_async_std::Connector>::$broker();
                    async_std::task::block_on(super::super::$name(at));
                })*
            }
        }
    };
}

pub(crate) use {on_both, on_model, on_rabbitmq, tests};
