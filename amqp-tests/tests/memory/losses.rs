//! A connection that is lost a thousand times holds what it held after a hundred losses: memory, files, threads, tasks.
//!
//! The model broker is in this process, so what it holds is counted too. It restarts at each loss, so that the topology is
//! declared again each time. A publish is in flight at each loss, and one goes to the consumer after it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amqp_async::core::{Backoff, Error};
use amqp_async::{Connection, ConnectionEvent};
use amqp_testkit::ModelBroker;
use amqp_testkit::alloc::live_bytes;
use amqp_tokio::{BasicConsume, Config, Publish, QueueBind, QueueDeclare, Recovery};

use crate::{ALLOCATOR, runtime, threads};

/// The losses after which is looked at what is held.
const LOSSES: [u32; 2] = [100, 1_000];
/// Less than five bytes for each loss: buffers keep the capacity that they once needed.
const TOLERANCE_BYTES: isize = 4 << 10;
/// How often it is looked, while threads and sockets of the last loss end.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
const LOOKS_MAX: u32 = 600;

pub(crate) fn on_every_adapter() {
    macro_rules! on {
        ($adapter:ident, $block_on:expr, $tasks:expr) => {
            $block_on(async {
                let (broker, hooked) = (ModelBroker::start().unwrap(), Hooked::default());
                let connector = $adapter::Connector::new(&broker.uri()).unwrap();
                let connector = connector.configure(recovering).on_connect(hooked.hook());
                let connection = connector.connect().await.unwrap();
                asynchronous(stringify!($adapter), &broker, connection, $tasks).await;
                hooked.assert_runs();
            })
        };
    }
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    on!(amqp_tokio, |test| runtime().block_on(test), tasks);
    on!(amqp_smol, smol::block_on, || 0);
    on!(amqp_async_std, async_std::task::block_on, || 0);
    blocking();
}

async fn asynchronous(
    adapter: &str,
    broker: &ModelBroker,
    connection: Connection,
    tasks: impl Fn() -> usize,
) {
    let mut events = connection.events();
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare(queue()).await.unwrap();
    channel.queue_bind(binding()).await.unwrap();
    let mut consumer = channel.basic_consume(consume()).await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    let mut held = Comparison::default();
    for loss in 1..=LOSSES[1] {
        let confirm = publisher.send(publish("before")).await.unwrap();
        broker.restart();
        while !is_recovered(events.next().await) {}
        confirm.await.unwrap();
        publisher.publish(publish("after")).await.unwrap();
        loop {
            let delivery = consumer.next().await.unwrap().unwrap();
            let is_last = delivery.body() == b"after";
            delivery.ack().unwrap();
            if is_last {
                break;
            }
        }
        if LOSSES.contains(&loss) {
            while !held.is_seen(adapter, tasks()) {
                smol::Timer::after(LOOK_PAUSE).await;
            }
        }
    }
    connection.close().await;
}

fn blocking() {
    let (broker, hooked) = (ModelBroker::start().unwrap(), Hooked::default());
    let runs = Arc::clone(&hooked.0);
    let connector = amqp_blocking::Connector::new(&broker.uri()).unwrap();
    let connector = connector.configure(recovering).on_connect(move |connection| {
        runs.fetch_add(1, Ordering::Relaxed);
        connection.open_channel()?.queue_declare(of_hook()).map(drop)
    });
    let connection = connector.connect().unwrap();
    let mut events = connection.events();
    let channel = connection.open_channel().unwrap();
    channel.queue_declare(queue()).unwrap();
    channel.queue_bind(binding()).unwrap();
    let mut consumer = channel.basic_consume(consume()).unwrap();
    let publisher = connection.publisher().unwrap();
    let mut held = Comparison::default();
    for loss in 1..=LOSSES[1] {
        let confirm = publisher.send(publish("before")).unwrap();
        broker.restart();
        while !is_recovered(events.next()) {}
        confirm.wait().unwrap();
        publisher.publish(publish("after")).unwrap();
        loop {
            let delivery = consumer.next().unwrap().unwrap();
            let is_last = delivery.body() == b"after";
            delivery.ack().unwrap();
            if is_last {
                break;
            }
        }
        if LOSSES.contains(&loss) {
            while !held.is_seen("amqp_blocking", 0) {
                std::thread::sleep(LOOK_PAUSE);
            }
        }
    }
    connection.close();
    hooked.assert_runs();
}

fn recovering(config: Config) -> Config {
    let backoff = Backoff::fixed(Duration::from_millis(1));
    config.recovery(Recovery::automatic().backoff(backoff).republish(true))
}

fn queue() -> QueueDeclare {
    QueueDeclare::new("lost").exclusive()
}

fn of_hook() -> QueueDeclare {
    QueueDeclare::new("of-hook").exclusive()
}

fn binding() -> QueueBind {
    QueueBind::new("lost", "amq.topic", "lost.#")
}

fn consume() -> BasicConsume {
    BasicConsume::new("lost").prefetch(10)
}

fn publish(body: &str) -> Publish<'_> {
    Publish::new("amq.topic", "lost.1", body).mandatory()
}

fn is_recovered(event: Option<ConnectionEvent>) -> bool {
    match event.unwrap() {
        ConnectionEvent::Recovered { failed } => failed.is_empty() || panic!("{failed:?}"),
        ConnectionEvent::Closed(cause) => panic!("{cause:?}"),
        _ => false,
    }
}

/// Counts the runs of a hook.
#[derive(Default)]
struct Hooked(Arc<AtomicUsize>);

impl Hooked {
    fn hook(
        &self,
    ) -> impl Fn(Connection) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> + use<>
    {
        let runs = Arc::clone(&self.0);
        move |connection| {
            runs.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                let channel = connection.open_channel().await?;
                channel.queue_declare(of_hook()).await.map(drop)
            })
        }
    }

    /// A transport that the broker ends while it is set up is one more.
    fn assert_runs(&self) {
        let runs = self.0.load(Ordering::Relaxed);
        assert!(runs > LOSSES[1] as usize, "{runs} runs of the hook");
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    bytes: isize,
    files: usize,
    threads: usize,
    tasks: usize,
}

impl Held {
    fn with(tasks: usize) -> Self {
        let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
        Self { files, threads: threads(), tasks, bytes: live_bytes(ALLOCATOR) }
    }

    const fn is_within(self, before: Self) -> bool {
        self.files <= before.files
            && self.threads <= before.threads
            && self.tasks <= before.tasks
            && self.bytes <= before.bytes + TOLERANCE_BYTES
    }
}

/// What is held after the first number of losses and after the second.
#[derive(Default)]
struct Comparison {
    before: Option<Held>,
    last: Option<Held>,
    looks: u32,
}

impl Comparison {
    /// Looks at what is held. Returns whether it has been seen: the first time, whether it has stopped to change; then,
    /// whether it is as before.
    fn is_seen(&mut self, adapter: &str, tasks: usize) -> bool {
        let held = Held::with(tasks);
        let seen = match self.before {
            None => self.last == Some(held),
            Some(before) => held.is_within(before),
        };
        self.looks += 1;
        assert!(seen || self.looks < LOOKS_MAX, "{adapter}: {held:?} after {:?}", self.before);
        if seen {
            println!("{adapter}: {held:?}");
            self.before.get_or_insert(held);
            self.looks = 0;
        }
        self.last = Some(held);
        seen
    }
}
