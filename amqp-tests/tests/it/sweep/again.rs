//! Every future polled again after it has resolved: it stays pending, sends nothing and takes nothing.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use amqp_async::Connection;
use amqp_async::core::{BasicConsume, BasicGet, Publish, QueueDeclare, QueuePurge};
use futures_core::{FusedFuture, FusedStream, Stream};

use super::staged::World;

/// A world in which futures are resolved, and polled again.
struct Scene {
    world: World,
    connection: Connection,
    /// The types of futures that were.
    polled: RefCell<BTreeSet<String>>,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let connecting = world.connect();
        let connection = world.connect();
        let connection = world.block_on(connection).unwrap();
        let scene = Self { world, connection, polled: RefCell::default() };
        scene.once(connecting).unwrap();
        scene
    }

    fn once<F: FusedFuture + Unpin>(&self, mut future: F) -> F::Output {
        let name = type_name::<F>();
        assert!(!future.is_terminated(), "{name}");
        let output = self.world.block_on(&mut future);
        assert!(future.is_terminated(), "{name}");
        self.world.finish();
        let before = self.connection.stats();
        let woken = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        for _ in 0..3 {
            let polled = Pin::new(&mut future).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending() && future.is_terminated(), "{name}");
            self.world.finish();
        }
        drop(future);
        self.world.finish();
        assert_eq!(self.connection.stats(), before, "{name}");
        assert_eq!(woken.0.load(Ordering::Relaxed), 0, "{name} wakes its task");
        self.polled.borrow_mut().insert(name);
        output
    }
}

/// How often a task was woken.
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The name of a type, without its path and its parameters.
fn type_name<T>() -> String {
    let name = std::any::type_name::<T>().split('<').next().unwrap();
    name.rsplit(':').next().unwrap().to_owned()
}

/// The names for which `amqp-async` implements a trait.
fn implementors(of: &str) -> BTreeSet<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../amqp-async/src");
    let files = fs::read_dir(source).unwrap().map(|file| file.unwrap().path());
    let mut names = BTreeSet::new();
    for file in files.filter(|file| file.extension().is_some_and(|it| it == "rs")) {
        for line in fs::read_to_string(file).unwrap().lines().filter(|it| it.starts_with("impl")) {
            if let Some((_, name)) = line.split_once(&format!(" {of} for ")) {
                names.insert(name.split(['<', ' ']).next().unwrap().to_owned());
            }
        }
    }
    names
}

/// A future that is in no public module cannot be named, and so not kept in a struct.
#[test]
fn every_future_has_a_public_name() {
    let exports = Path::new(env!("CARGO_MANIFEST_DIR")).join("../amqp-async/src/exports.rs");
    let exports = fs::read_to_string(exports).unwrap();
    let (_, futures) = exports.split_once("pub mod futures").unwrap();
    let futures: BTreeSet<_> = futures.split(|it: char| !it.is_alphanumeric()).collect();
    for name in implementors("Future") {
        // `Running` is the task of the hooks, which no application holds.
        let at_the_root = ["Confirm", "Driver", "Running"].contains(&&*name);
        assert!(at_the_root || futures.contains(&*name), "{name}");
    }
}

#[test]
fn every_future_polled_again_stays_pending() {
    let scene = Scene::new();
    let channel = scene.once(scene.connection.open_channel()).unwrap();
    let queue = scene.once(channel.queue_declare(QueueDeclare::new("").exclusive())).unwrap().queue;
    let publish = || Publish::new("", &queue, b"x");
    let depth = || scene.world.ready(&queue).unwrap();

    scene.once(channel.basic_publish(publish())).unwrap();
    assert_eq!(depth(), 1, "it is published once");
    let publishing = scene.world.block_on(scene.connection.open_channel()).unwrap();
    let publisher = scene.once(publishing.confirm_select()).unwrap();
    scene.once(publisher.publish(publish())).unwrap();
    assert_eq!(depth(), 2);
    let confirm = scene.once(publisher.send(publish())).unwrap();
    assert_eq!(depth(), 3);
    scene.once(confirm).unwrap();
    // One that was refused is done too.
    scene.once(publisher.send(Publish::new("", &"k".repeat(256), b""))).unwrap_err();
    scene.once(publisher.publish(Publish::new("", &"k".repeat(256), b""))).unwrap_err();
    scene.once(channel.basic_publish(Publish::new("", &"k".repeat(256), b""))).unwrap_err();
    scene.once(publisher.all_confirmed()).unwrap();
    scene.once(scene.connection.publisher()).unwrap();

    let mut consumer = scene.once(channel.basic_consume(BasicConsume::new(&queue))).unwrap();
    scene.world.finish();
    assert_eq!(depth(), 0);
    for _ in 0..3 {
        scene.once(consumer.next()).unwrap().unwrap().ack().unwrap();
    }
    assert!(!consumer.is_terminated());
    scene.once(consumer.cancel()).unwrap();
    assert!(scene.once(consumer.next()).is_none());
    assert!(consumer.is_terminated());
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..2 {
        assert!(matches!(pin!(&mut consumer).poll_next(&mut cx), Poll::Ready(None)));
    }

    drop(scene.once(scene.connection.consume(BasicConsume::new(&queue))).unwrap());
    scene.world.finish();
    for _ in 0..2 {
        scene.world.block_on(channel.basic_publish(publish())).unwrap();
    }
    scene.once(channel.basic_get(BasicGet::new(&queue))).unwrap().unwrap().ack().unwrap();
    assert_eq!(depth(), 1, "one message is got");
    scene.once(channel.no_wait(QueuePurge::new(&queue))).unwrap();
    for body in ["one", "two"] {
        let publish = Publish::new("amq.direct", "nobody", body).mandatory();
        scene.world.block_on(channel.basic_publish(publish)).unwrap();
    }
    scene.world.finish();
    for body in ["one", "two"] {
        assert_eq!(scene.once(channel.returned()).unwrap().message.body(), body.as_bytes());
    }
    let transactional = scene.world.block_on(scene.connection.open_channel()).unwrap();
    let tx = scene.once(transactional.tx_select()).unwrap();
    scene.once(tx.commit()).unwrap();
    let closed = transactional.closed();
    scene.world.block_on(transactional.close()).unwrap();
    scene.once(closed);

    let mut events = scene.connection.events();
    scene.once(scene.connection.drain(Duration::from_secs(5))).unwrap();
    let closed = scene.connection.closed();
    scene.once(scene.connection.close());
    scene.once(closed);
    assert!(!events.is_terminated());
    while scene.once(events.next()).is_some() {}
    assert!(events.is_terminated());

    // What an application cannot name is polled by its executor alone, but for the driver.
    let mut polled = scene.polled.take();
    polled.insert("Driver".into());
    let mut futures = implementors("Future");
    // The task of the hooks, which no application holds.
    assert!(futures.remove("Running"));
    assert_eq!(polled, futures, "futures that are polled again here");
    assert_eq!(implementors("FusedFuture"), futures);
    assert_eq!(implementors("FusedStream"), implementors("Stream"));
}
