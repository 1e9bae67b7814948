//! `Runtime` and `Transport`: the resolver and the sockets of a runtime, which an adapter implements.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use amqp_core::Target;
use bytes::BytesMut;

use crate::executor::Executor;

/// An [`Executor`] that can reach brokers. Everything else is the same on all runtimes.
///
/// Its futures must be cancel-safe: they are dropped when a timeout expires.
pub trait Runtime: Executor {
    /// The transport type: a connected byte stream.
    type Transport: Transport;

    /// Looks up the addresses of a host, in the order in which they are tried.
    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static;

    /// Connects a transport to a target.
    fn dial(
        &self,
        target: Target,
    ) -> impl Future<Output = io::Result<Self::Transport>> + Send + 'static;

    /// Returns whether host names are looked up before they are dialled; `true` by default. Otherwise
    /// [`resolve`](Self::resolve) is not called, and targets have no address.
    fn resolves(&self) -> bool {
        true
    }

    /// Returns whether [`dial`](Self::dial) encrypts transports to targets that ask for TLS; `false` by
    /// default. Without support, connectors refuse such hosts with
    /// [`ConnectError::TlsUnsupported`](amqp_core::ConnectError::TlsUnsupported).
    fn supports_tls(&self) -> bool {
        false
    }
}

/// Dials a TCP socket: connects to the address of the target, disables Nagle's algorithm (`TCP_NODELAY`), and
/// creates a transport from the socket. It is for implementations of [`Runtime::dial`].
///
/// # Errors
/// Those of `connect` and of `set_nodelay`; [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) for a
/// target without an address.
pub async fn dial_tcp<S, T, F: Future<Output = io::Result<S>>>(
    target: Target,
    connect: impl FnOnce(SocketAddr) -> F,
    set_nodelay: impl FnOnce(&S, bool) -> io::Result<()>,
    wrap: impl FnOnce(S) -> T,
) -> io::Result<T> {
    let address = target.address.ok_or(io::ErrorKind::AddrNotAvailable)?;
    let socket = connect(address).await?;
    // Output is collected before it is written, so that waiting for more would only add latency.
    set_nodelay(&socket, true)?;
    Ok(wrap(socket))
}

/// A connected byte stream. Each method that returns `Pending` registers the task for the event that it waits
/// for.
pub trait Transport: Send + Unpin + 'static {
    /// Appends the bytes that have arrived to `input`, up to about `max`. Returns their number; 0 means that
    /// the peer has closed the stream.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        max: usize,
    ) -> Poll<io::Result<usize>>;

    /// Writes from the front of `slices`. Returns the number of bytes written.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>>;

    /// Flushes the buffers of the layers below.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Closes the writing side: the peer sees the end of the stream.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}
