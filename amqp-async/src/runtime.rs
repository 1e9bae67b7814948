//! What an adapter implements: a runtime's resolver and sockets, beside its clock, timers and tasks.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::BytesMut;

use crate::executor::Executor;

/// A runtime: an [`Executor`] that can reach brokers. Everything else is the same on all of them.
///
/// The futures must be dropped safely at any point: a dial that is overtaken by its timeout is.
pub trait Runtime: Executor {
    /// A connected byte stream.
    type Transport: Transport;

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

    /// Writes from the front of `slices`; returns the number of bytes written.
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
