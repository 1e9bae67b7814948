//! `Transport`: a connected byte stream, which an adapter or a TLS library implements.

use std::io;
use std::task::{Context, Poll};

use bytes::BytesMut;

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

impl Transport for Box<dyn Transport> {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        (**self).poll_read(cx, input, max)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        (**self).poll_write(cx, slices)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_close(cx)
    }
}
