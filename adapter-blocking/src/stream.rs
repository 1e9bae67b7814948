//! The streams that a connection can use.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::limits::READ_BUFFER_BYTES;
use amqp_async::Transport;
use bytes::BytesMut;
use mio::event::Source;

use crate::io_thread::Io;

/// A connected stream for a connection: see [`Connector::connect_with`](crate::Connector::connect_with).
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use amqp_blocking::{Connector, Stream};
/// use std::os::unix::net::UnixStream;
/// let socket = UnixStream::connect("/run/broker.sock")?;
/// let connection = Connector::default().connect_with(Stream::unix(socket)?)?;
/// # Ok(())
/// # }
/// ```
pub struct Stream(Kind);

enum Kind {
    Tcp(mio::net::TcpStream),
    #[cfg(unix)]
    Unix(mio::net::UnixStream),
    Other(Box<dyn Connected>),
}

/// The traits of every type of stream.
trait Connected: Read + Write + Source + Send {}

impl<S: Read + Write + Source + Send> Connected for S {}

impl Stream {
    /// Creates a stream from a TCP connection.
    ///
    /// # Errors
    /// The error of the operating system if it cannot be made non-blocking.
    pub fn tcp(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self::from(mio::net::TcpStream::from_std(stream)))
    }

    /// Creates a stream from a Unix socket.
    ///
    /// # Errors
    /// The error of the operating system if it cannot be made non-blocking.
    #[cfg(unix)]
    pub fn unix(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(Kind::Unix(mio::net::UnixStream::from_std(stream))))
    }

    /// Creates a stream from any non-blocking stream that can be polled, such as TLS over a socket. It is
    /// read and written until it would block, and again when the poller reports its source.
    pub fn new(stream: impl Read + Write + Source + Send + 'static) -> Self {
        Self(Kind::Other(Box::new(stream)))
    }

    fn source(&mut self) -> &mut dyn Connected {
        match &mut self.0 {
            Kind::Tcp(stream) => stream,
            #[cfg(unix)]
            Kind::Unix(stream) => stream,
            Kind::Other(stream) => &mut **stream,
        }
    }

    /// Returns whether a read that leaves space in its buffer has emptied the stream. On systems other than
    /// Linux, the poller reports a socket again only after a read would have blocked.
    const fn short_read_empties(&self) -> bool {
        cfg!(any(target_os = "linux", target_os = "android")) && !matches!(self.0, Kind::Other(_))
    }

    /// Closes the writing side: the peer sees the end of the stream.
    fn finish(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Tcp(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(unix)]
            Kind::Unix(stream) => stream.shutdown(Shutdown::Write),
            // The peer sees it when the stream is dropped.
            Kind::Other(_) => Ok(()),
        }
    }
}

impl From<mio::net::TcpStream> for Stream {
    fn from(stream: mio::net::TcpStream) -> Self {
        Self(Kind::Tcp(stream))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

/// A stream that is registered with the I/O thread.
pub(crate) struct Socket {
    io: Arc<Io>,
    stream: Stream,
}

impl Socket {
    pub(crate) fn new(io: Arc<Io>, mut stream: Stream) -> io::Result<Self> {
        let coupled = matches!(stream.0, Kind::Other(_));
        io.register(stream.source(), coupled)?;
        Ok(Self { io, stream })
    }

    /// Creates a socket from a stream that is registered already.
    pub(crate) const fn registered(io: Arc<Io>, stream: Stream) -> Self {
        Self { io, stream }
    }
}

impl Transport for Socket {
    fn poll_read(
        &mut self,
        _: &mut Context<'_>,
        input: &mut BytesMut,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        if !self.io.may_read() {
            return Poll::Pending;
        }
        let filled = input.len();
        // The standard library reads into initialized memory.
        let max = max.min(READ_BUFFER_BYTES);
        input.resize(filled + max, 0);
        let empties = self.stream.short_read_empties();
        let result = self.io.poll_read(self.stream.source(), &mut input[filled..], empties);
        let count = if let Poll::Ready(Ok(count)) = result { count.min(max) } else { 0 };
        input.truncate(filled + count);
        result.map_ok(|_| count)
    }

    fn poll_write(
        &mut self,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { io, stream } = self;
        io.poll_write(|| stream.source().write_vectored(slices))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, stream } = self;
        io.poll_write(|| stream.source().flush())
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.finish())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.io.deregister(self.stream.source());
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}
