//! Transports over the traits of `futures-io`, for all runtimes whose streams implement these.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::limits::READ_BUFFER_BYTES;
use bytes::BytesMut;
use futures_io::{AsyncRead, AsyncWrite};

use crate::transport::Transport;

/// A stream that implements the traits of `futures-io`, as a [`Transport`].
#[derive(Debug)]
pub struct FuturesIo<S>(S);

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> FuturesIo<S> {
    /// Creates a transport from a stream.
    pub const fn new(stream: S) -> Self {
        Self(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for FuturesIo<S> {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        let filled = input.len();
        // These traits read into initialized memory.
        let max = max.min(READ_BUFFER_BYTES);
        input.resize(filled + max, 0);
        let result = Pin::new(&mut self.0).poll_read(cx, &mut input[filled..]);
        let count = if let Poll::Ready(Ok(count)) = result { count.min(max) } else { 0 };
        input.truncate(filled + count);
        result.map_ok(|_| count)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}
