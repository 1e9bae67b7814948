//! Tokio as the runtime of connections, and the types of drivers and connectors, which programs seldom name.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

#[cfg(feature = "tls")]
use amqp_async::core::{ConnectError, TlsSettings};
use amqp_async::{Clock, Executor, Runtime, Target, Timer, dial_tcp};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::Sleep;

#[doc(inline)]
pub use amqp_async::{ConnectorOver, DriverOver, Over, Secure, Securing, Transport};

/// The driver of a connection on tokio, as [`Connector::driver`](crate::Connector::driver) returns it.
pub type Driver = amqp_async::Driver<Tokio>;

/// Tokio as a runtime of `amqp-async`. Tasks are spawned on the current tokio runtime.
///
/// Timeouts and heartbeats use tokio's clock, so tests can pause time (`tokio::time::pause`). On a thread
/// outside of the runtime, tokio's clock is the system's. If time is paused, enter the runtime's `Handle`
/// before you use a connection on such a thread.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tokio;

impl Clock for Tokio {
    fn now(&self) -> Instant {
        // The clock of the timer, which a test may have paused.
        tokio::time::Instant::now().into_std()
    }
}

impl Executor for Tokio {
    type Timer = TokioTimer;

    fn check(&self) -> io::Result<()> {
        if Handle::try_current().is_err() {
            return Err(missing(
                "no tokio runtime: connect within one, or enter its handle before",
            ));
        }
        // Tokio reports a missing runtime or timer only with a panic.
        catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO)))
            .map_err(|_| missing("the tokio runtime has no timer: build it with enable_time()"))
    }

    fn timer(&self) -> TokioTimer {
        TokioTimer(None)
    }

    fn reschedule(&self, cx: &mut Context<'_>) {
        // It returns `Pending` once, and wakes the task after the scheduler has run all others.
        let _ = pin!(tokio::task::yield_now()).poll(cx);
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        tokio::task::spawn_blocking(work);
    }
}

impl Runtime for Tokio {
    type Transport = Stream<TcpStream>;

    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static {
        let host = host.to_owned();
        async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }
    }

    fn dial(
        &self,
        target: Target,
    ) -> impl Future<Output = io::Result<Self::Transport>> + Send + 'static {
        dial_tcp(target, |stream| async {
            let mut connecting = pin!(async {
                let stream = TcpStream::from_std(stream)?;
                stream.writable().await?;
                Ok(stream)
            });
            let stream = poll_fn(|cx| poll_io(|| connecting.as_mut().poll(cx))).await?;
            stream.take_error()?.map_or(Ok(Stream::tcp(stream)), Err)
        })
    }

    #[cfg(feature = "tls")]
    fn secure(&self, settings: &TlsSettings) -> Result<Arc<dyn Secure>, ConnectError> {
        Ok(Arc::new(amqp_tls::Rustls::from_settings(settings)?))
    }
}

/// Polls a future that panics if the runtime has no I/O. Tokio reports it in no other way.
fn poll_io<T>(poll: impl FnOnce() -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    catch_unwind(AssertUnwindSafe(poll)).unwrap_or_else(|_| {
        Poll::Ready(Err(missing("the tokio runtime has no I/O: build it with enable_io()")))
    })
}

fn missing(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

/// A deadline on tokio's timer.
#[derive(Debug)]
pub struct TokioTimer(Option<Pin<Box<Sleep>>>);

impl Timer for TokioTimer {
    fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let deadline = deadline.into();
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Over<S> for Tokio {
    type Wrapped = Stream<S>;

    fn wrap(&self, stream: S) -> Stream<S> {
        Stream { stream, poll_readable: |_, _| Poll::Ready(Ok(())) }
    }
}

/// A stream that implements tokio's traits.
#[derive(Debug)]
pub struct Stream<S> {
    stream: S,
    /// Ready when there may be something to read, if the stream can report that.
    poll_readable: fn(&S, &mut Context<'_>) -> Poll<io::Result<()>>,
}

impl Stream<TcpStream> {
    fn tcp(stream: TcpStream) -> Self {
        Self { stream, poll_readable: TcpStream::poll_read_ready }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for Stream<S> {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        // No memory is reserved for a read before there is something to read.
        ready!((self.poll_readable)(&self.stream, cx))?;
        input.reserve(max);
        // `read_buf` keeps no state between polls. If a read from a TCP socket leaves space in the buffer, it
        // takes the socket for empty, unlike `try_read_buf`. So the next read asks only the reactor.
        pin!(self.stream.read_buf(input)).poll(cx)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
