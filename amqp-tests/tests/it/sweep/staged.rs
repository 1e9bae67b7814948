//! A world of one thread in which the model broker's answers arrive one frame at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use amqp_async::futures::Connecting;
use amqp_async::{Clock, Executor, Plugins, Runtime, Target, Timer, Transport};
use amqp_core::{Config, Recovery};
use amqp_proto::frame::{self, FrameKind, FrameLimits, Peek};
use amqp_proto::method::MethodId;
use amqp_testkit::model::{Broker, ConnectionId, Held};
use bytes::BytesMut;

/// The world, and the runtime of the clients in it.
#[derive(Clone)]
pub(crate) struct World {
    inner: Arc<Mutex<Inner>>,
    woken: Arc<Woken>,
    begun: Instant,
}

struct Inner {
    broker: Broker,
    pipes: BTreeMap<ConnectionId, Pipe>,
    tasks: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// The methods that clients have sent.
    sent: BTreeSet<String>,
}

#[derive(Default)]
struct Pipe {
    /// What the broker has sent and the client cannot read yet.
    staged: Vec<u8>,
    readable: VecDeque<u8>,
    reader: Option<Waker>,
    /// What the client has sent, for the names of its methods.
    written: Vec<u8>,
}

/// Somebody was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let inner = Inner {
            broker: Broker::new(),
            pipes: BTreeMap::new(),
            tasks: Vec::new(),
            sent: BTreeSet::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            woken: Arc::new(Woken(AtomicBool::new(false))),
            begun: Instant::now(),
        }
    }

    pub(crate) fn connect(&self) -> Connecting {
        let config = Config::default().recovery(Recovery::never());
        let (connecting, driver) =
            amqp_async::connect(self.clone(), config, Plugins::default()).unwrap();
        self.inner.lock().unwrap().tasks.push(Box::pin(driver));
        connecting
    }

    /// What clients hold of the broker.
    pub(crate) fn held(&self) -> Held {
        self.inner.lock().unwrap().broker.held()
    }

    pub(crate) fn ready(&self, queue: &str) -> Option<usize> {
        self.inner.lock().unwrap().broker.ready(queue)
    }

    pub(crate) fn sent(&self) -> BTreeSet<String> {
        self.inner.lock().unwrap().sent.clone()
    }

    /// Polls the drivers until none of them can continue.
    pub(crate) fn run_until_idle(&self) {
        let waker = Waker::from(Arc::clone(&self.woken));
        loop {
            self.woken.0.store(false, Ordering::Relaxed);
            let mut tasks = std::mem::take(&mut self.inner.lock().unwrap().tasks);
            tasks.retain_mut(|task| {
                task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
            });
            self.inner.lock().unwrap().tasks.append(&mut tasks);
            if !self.woken.0.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Lets one more frame of every connection arrive; whether there was one.
    pub(crate) fn release_frame(&self) -> bool {
        let mut inner = self.inner.lock().unwrap();
        let inner = &mut *inner;
        let mut any = false;
        for (id, pipe) in &mut inner.pipes {
            pipe.staged.extend(inner.broker.take_output(*id));
            let length = match frame::peek(&pipe.staged, FrameLimits::default()) {
                Ok(Peek::Complete(frame)) => frame.frame_len(),
                _ => continue,
            };
            any = true;
            pipe.readable.extend(pipe.staged.drain(..length));
            if let Some(reader) = pipe.reader.take() {
                reader.wake();
            }
        }
        any
    }

    /// Lets everything arrive and have its effect.
    pub(crate) fn finish(&self) {
        loop {
            self.run_until_idle();
            if !self.release_frame() {
                return;
            }
        }
    }

    /// Runs a future to its end.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let waker = Waker::from(Arc::clone(&self.woken));
        for _ in 0..10_000 {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return value;
            }
            self.run_until_idle();
            self.release_frame();
            self.run_until_idle();
        }
        panic!("a future does not end");
    }
}

impl Inner {
    fn write(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.broker.receive(id, bytes);
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        pipe.written.extend_from_slice(bytes);
        if pipe.written.starts_with(b"AMQP") {
            pipe.written.drain(..8);
        }
        while let Ok(Peek::Complete(found)) = frame::peek(&pipe.written, FrameLimits::default()) {
            if found.kind == FrameKind::Method {
                let (method, _) = MethodId::split(found.payload).unwrap();
                self.sent.insert(format!("{method:?}"));
            }
            let length = found.frame_len();
            pipe.written.drain(..length);
        }
    }
}

impl Clock for World {
    fn now(&self) -> Instant {
        self.begun
    }
}

impl Executor for World {
    type Timer = Never;

    fn timer(&self) -> Never {
        Never
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.lock().unwrap().tasks.push(Box::pin(task));
    }

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
        let inner = Arc::clone(&self.inner);
        async move {
            let id = {
                let mut inner = inner.lock().unwrap();
                let id = inner.broker.connect();
                inner.pipes.insert(id, Pipe::default());
                id
            };
            Ok(Line { inner, id })
        }
    }
}

/// Time stands still.
pub(crate) struct Never;

impl Timer for Never {
    fn poll_until(&mut self, _: &mut Context<'_>, _: Instant) -> Poll<()> {
        Poll::Pending
    }
}

/// A client's end of a pipe.
pub(crate) struct Line {
    inner: Arc<Mutex<Inner>>,
    id: ConnectionId,
}

impl Transport for Line {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.inner.lock().unwrap();
        let finished = inner.broker.is_finished(self.id);
        let Some(pipe) = inner.pipes.get_mut(&self.id) else { return Poll::Ready(Ok(0)) };
        let count = pipe.readable.len().min(max);
        if count == 0 {
            if finished && pipe.staged.is_empty() {
                return Poll::Ready(Ok(0));
            }
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        input.extend(pipe.readable.drain(..count));
        Poll::Ready(Ok(count))
    }

    fn poll_write(
        &mut self,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.inner.lock().unwrap();
        for slice in slices {
            inner.write(self.id, slice);
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut inner = self.inner.lock().unwrap();
        inner.broker.disconnect(self.id);
        inner.pipes.remove(&self.id);
    }
}
