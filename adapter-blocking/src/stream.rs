//! Streams that a connection can be over.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll};

use amqp_async::Transport;
use amqp_async::core::limits::READ_BUFFER_BYTES;
use bytes::BytesMut;
use mio::event::Source;

use crate::io_thread::Io;

/// A connected stream to be used for a connection: see [`Connector::connect_with`](crate::Connector::connect_with).
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use amqp_blocking::{Config, Connector, Stream};
/// use std::os::unix::net::UnixStream;
/// let socket = UnixStream::connect("/run/broker.sock")?;
/// let connection = Connector::from(Config::default()).connect_with(Stream::unix(socket)?)?;
/// # Ok(())
/// # }
/// ```
pub struct Stream {
    source: Box<dyn Connected>,
    /// Whether a read that leaves room has emptied it.
    tells: bool,
}

impl Stream {
    /// A TCP connection.
    ///
    /// # Errors
    /// What the system says when it is to be made non-blocking.
    pub fn tcp(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self::from(mio::net::TcpStream::from_std(stream)))
    }

    /// A Unix socket.
    ///
    /// # Errors
    /// What the system says when it is to be made non-blocking.
    #[cfg(unix)]
    pub fn unix(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = mio::net::UnixStream::from_std(stream);
        Ok(Self { source: Box::new(stream), tells: TELLS })
    }

    /// Any stream that does not block and can be polled, such as TLS over a socket. It is read and
    /// written until it says that it would block, and again when the poller tells of its source.
    pub fn new(stream: impl Read + Write + Source + Send + 'static) -> Self {
        Self { source: Box::new(Other(stream)), tells: false }
    }
}

impl From<mio::net::TcpStream> for Stream {
    fn from(stream: mio::net::TcpStream) -> Self {
        Self { source: Box::new(stream), tells: TELLS }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

/// Elsewhere the poller wants to see the socket blocked before it tells again.
const TELLS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// What a stream is made of.
trait Connected: Read + Write + Source + Send {
    /// Nothing more will be written.
    fn finish(&mut self) -> io::Result<()>;
}

impl Connected for mio::net::TcpStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

#[cfg(unix)]
impl Connected for mio::net::UnixStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

struct Other<S>(S);

impl<S: Read> Read for Other<S> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room)
    }
}

impl<S: Write> Write for Other<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<S: Source> Source for Other<S> {
    fn register(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
        interests: mio::Interest,
    ) -> io::Result<()> {
        self.0.register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
        interests: mio::Interest,
    ) -> io::Result<()> {
        self.0.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &mio::Registry) -> io::Result<()> {
        self.0.deregister(registry)
    }
}

impl<S: Read + Write + Source + Send> Connected for Other<S> {
    fn finish(&mut self) -> io::Result<()> {
        // Its end is told by dropping it.
        Ok(())
    }
}

/// A stream that the I/O thread listens to.
pub(crate) struct Socket {
    io: Arc<Io>,
    stream: Stream,
}

impl Socket {
    pub(crate) fn new(io: Arc<Io>, mut stream: Stream) -> io::Result<Self> {
        io.register(&mut *stream.source, !stream.tells)?;
        Ok(Self { io, stream })
    }

    /// One that is listened to already.
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
        // The standard library reads into memory that has a value.
        let max = max.min(READ_BUFFER_BYTES);
        input.resize(filled + max, 0);
        let Stream { source, tells } = &mut self.stream;
        let result = self.io.poll_read(&mut **source, &mut input[filled..], *tells);
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
        io.poll_write(|| stream.source.write_vectored(slices))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, stream } = self;
        io.poll_write(|| stream.source.flush())
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.source.finish())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.io.deregister(&mut *self.stream.source);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}
