//! X3: nothing of the user's runs under the lock. Wakers and bodies that call back into the API when
//! they are woken, replaced or dropped would otherwise wait for themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use amqp_async::Connection;
use amqp_async::core::{BasicConsume, BasicGet, Publish, QueueDeclare};
use bytes::Bytes;

use super::staged::World;

/// Calls back when it is woken and when it is dropped.
struct CallsBack {
    connection: Connection,
    called: Arc<AtomicUsize>,
}

impl CallsBack {
    fn call(&self) {
        let _ = self.connection.stats();
        drop(self.connection.events());
        self.called.fetch_add(1, Ordering::Relaxed);
    }
}

impl Wake for CallsBack {
    fn wake(self: Arc<Self>) {
        self.call();
    }
}

impl Drop for CallsBack {
    fn drop(&mut self) {
        self.call();
    }
}

/// The bytes of a body.
struct Body {
    bytes: Vec<u8>,
    _calls: CallsBack,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Fails where `scenario` waits for itself.
fn does_not_deadlock(scenario: impl FnOnce() -> usize + Send + 'static) {
    let (done, finished) = channel();
    std::thread::spawn(move || done.send(scenario()));
    let called = finished.recv_timeout(Duration::from_secs(60)).expect("a deadlock, or a panic");
    assert!(called > 0, "nobody called back");
}

struct Scene {
    world: World,
    connection: Connection,
    called: Arc<AtomicUsize>,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let connection = world.block_on(world.connect()).unwrap();
        Self { world, connection, called: Arc::default() }
    }

    fn calls_back(&self) -> CallsBack {
        CallsBack { connection: self.connection.clone(), called: Arc::clone(&self.called) }
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::new(self.calls_back()))
    }

    /// Polls with one waker, then with another in its place, then lets the answer come.
    fn poll_twice<F: Future + Unpin>(&self, mut future: F) -> Poll<F::Output> {
        for _ in 0..2 {
            let waker = self.waker();
            let polled = std::pin::Pin::new(&mut future).poll(&mut Context::from_waker(&waker));
            if polled.is_ready() {
                return polled;
            }
        }
        self.world.finish();
        std::pin::Pin::new(&mut future).poll(&mut Context::from_waker(&self.waker()))
    }

    fn called(&self) -> usize {
        self.called.load(Ordering::Relaxed)
    }
}

#[test]
fn wakers_may_call_back() {
    does_not_deadlock(|| {
        let scene = Scene::new();
        let Poll::Ready(channel) = scene.poll_twice(scene.connection.open_channel()) else {
            panic!()
        };
        let channel = channel.unwrap();
        let Poll::Ready(queue) =
            scene.poll_twice(channel.queue_declare(QueueDeclare::new("").exclusive()))
        else {
            panic!()
        };
        let queue = queue.unwrap().queue;
        let publishing = scene.world.block_on(scene.connection.open_channel()).unwrap();
        let publisher = scene.world.block_on(publishing.confirm_select()).unwrap();
        let publish = || Publish::new("", &queue, b"x");
        assert!(scene.poll_twice(publisher.publish(publish())).is_ready());
        assert!(scene.poll_twice(channel.basic_get(BasicGet::new(&queue))).is_ready());
        let consuming = channel.basic_consume(BasicConsume::new(&queue));
        let mut consumer = scene.world.block_on(consuming).unwrap();
        assert!(scene.poll_twice(consumer.next()).is_pending());
        assert!(scene.poll_twice(channel.returned()).is_pending());
        assert!(scene.poll_twice(scene.connection.closed()).is_pending());
        assert!(scene.poll_twice(scene.connection.events().next()).is_pending());
        // One that waits is dropped, and one that waits is woken by the end of the connection.
        let mut waiting = publisher.publish(publish());
        let _ = std::pin::Pin::new(&mut waiting).poll(&mut Context::from_waker(&scene.waker()));
        drop(waiting);
        let mut closed = scene.connection.closed();
        let _ = std::pin::Pin::new(&mut closed).poll(&mut Context::from_waker(&scene.waker()));
        scene.connection.abort();
        scene.world.finish();
        scene.called()
    });
}

#[test]
fn bodies_may_call_back() {
    does_not_deadlock(|| {
        let scene = Scene::new();
        let channel = scene.world.block_on(scene.connection.open_channel()).unwrap();
        let body = |size: usize| {
            Bytes::from_owner(Body { bytes: vec![0; size], _calls: scene.calls_back() })
        };
        let publish = |key, size| {
            let publishing = channel.basic_publish(Publish::new("amq.direct", key, body(size)));
            scene.world.block_on(publishing)
        };
        // Copied, passed by reference, cut into frames.
        for size in [10, 10_000, 1_000_000] {
            publish("nobody", size).unwrap();
        }
        scene.world.finish();
        let sent = scene.called();
        assert_eq!(sent, 3, "bodies are let go once they are written");
        // Refused, abandoned with their channel, lost with the connection.
        assert!(publish(&"x".repeat(256), 10_000).is_err());
        let dropped = scene.world.block_on(scene.connection.open_channel()).unwrap();
        for size in [10_000, 1_000_000] {
            let publish = Publish::new("no such exchange", "k", body(size));
            let mut publishing = dropped.basic_publish(publish);
            let polled =
                std::pin::Pin::new(&mut publishing).poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_ready());
        }
        scene.world.finish();
        let mut publishing = channel.basic_publish(Publish::new("", "k", body(3_000_000)));
        let polled =
            std::pin::Pin::new(&mut publishing).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready());
        drop(publishing);
        scene.connection.abort();
        scene.world.finish();
        scene.called()
    });
}
