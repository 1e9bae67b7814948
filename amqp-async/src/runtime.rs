//! What an adapter brings: a runtime's clock, resolver, sockets, timers and tasks.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;

/// A monotonic clock.
pub trait Clock: Send + Sync {
    /// The present moment, on the clock that the runtime's [`Timer`] follows: a driver whose timer fires
    /// before its clock has come to the deadline would spin.
    fn now(&self) -> Instant;
}

/// One runtime's way to reach the world. Everything else is the same on all of them.
///
/// The futures must be dropped safely at any point: a dial that is overtaken by its time-out is.
pub trait Runtime: Clock + Clone + Unpin + 'static {
    /// A connected byte stream.
    type Transport: Transport;
    /// A timer.
    type Timer: Timer;

    /// Checks that a connection can be driven where this is called; the error names what is missing. By
    /// default nothing is.
    ///
    /// # Errors
    /// What the runtime lacks.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }

    /// Looks up the addresses of a host, in the order in which they are to be tried.
    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static;

    /// Connects to an address. `server_name` is the host that was asked for.
    fn dial(
        &self,
        address: SocketAddr,
        server_name: &str,
    ) -> impl Future<Output = io::Result<Self::Transport>> + Send + 'static;

    /// The clock by itself. Handles keep it for as long as they live, and with it what it holds: by default
    /// the runtime.
    fn clock(&self) -> Box<dyn Clock> {
        Box::new(self.clone())
    }

    /// A timer that is not set.
    fn timer(&self) -> Self::Timer;

    /// Has the task of `cx` polled again, once other tasks had their turn and the system was asked for
    /// what has happened. By default it is woken at once, which some schedulers take for urgent.
    fn reschedule(&self, cx: &mut Context<'_>) {
        cx.waker().wake_by_ref();
    }

    /// Runs a task in the background.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);
}

/// Dials a TCP socket: awaits `connecting`, switches Nagle's algorithm off, and makes a transport of the
/// socket. For implementations of [`Runtime::dial`].
///
/// # Errors
/// Those of `connecting` and of `set_nodelay`.
pub async fn dial_tcp<S, T>(
    connecting: impl Future<Output = io::Result<S>>,
    set_nodelay: impl FnOnce(&S, bool) -> io::Result<()>,
    wrap: impl FnOnce(S) -> T,
) -> io::Result<T> {
    let socket = connecting.await?;
    // Output is gathered before it is written: to wait for more would only delay it.
    set_nodelay(&socket, true)?;
    Ok(wrap(socket))
}

/// A timer that can be moved.
pub trait Timer: Send + Unpin {
    /// Ready once `deadline` has come, never before. Each call replaces the deadline.
    fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()>;
}

/// A connected byte stream. Each method registers the task for the one reason for which it is
/// pending.
pub trait Transport: Send + Unpin + 'static {
    /// Appends what has arrived to `input`, up to about `max` bytes; 0 means that the peer has
    /// closed.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        max: usize,
    ) -> Poll<io::Result<usize>>;

    /// Writes from the front of `slices`; gives the number of bytes written.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>>;

    /// Sends on what a layer below has buffered.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Tells the peer that nothing more will be written.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}
