//! What an adapter implements: a runtime's resolver and sockets, beside its clock, timers and tasks.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use amqp_core::Target;
use bytes::BytesMut;

use crate::executor::Executor;

/// A runtime: an [`Executor`] that can reach brokers. Everything else is the same on all of them.
///
/// The futures must be dropped safely at any point: a dial that is overtaken by its timeout is.
pub trait Runtime: Executor {
    /// A connected byte stream.
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

    /// Returns whether [`dial`](Self::dial) encrypts transports to targets that ask for TLS; `false` by default.
    /// Without support, connectors refuse such hosts with
    /// [`ConnectError::TlsUnsupported`](amqp_core::ConnectError::TlsUnsupported).
    fn supports_tls(&self) -> bool {
        false
    }
}

/// Dials a TCP socket: connects to the target's address, switches Nagle's algorithm off, and makes a transport
/// of the socket. For implementations of [`Runtime::dial`].
///
/// # Errors
/// Those of `connect` and of `set_nodelay`; [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) for a target
/// without an address.
pub async fn dial_tcp<S, T, F: Future<Output = io::Result<S>>>(
    target: Target,
    connect: impl FnOnce(SocketAddr) -> F,
    set_nodelay: impl FnOnce(&S, bool) -> io::Result<()>,
    wrap: impl FnOnce(S) -> T,
) -> io::Result<T> {
    let address = target.address.ok_or(io::ErrorKind::AddrNotAvailable)?;
    let socket = connect(address).await?;
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
