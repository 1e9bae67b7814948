//! A transport that encrypts what passes through it: rustls between two buffers.
//!
//! Ciphertext that has arrived waits in `received` until rustls takes it, and rustls takes none while it holds
//! plaintext that was not read: its own buffers are small. A `read_tls` that yields nothing counts as the end of the
//! stream, so rustls is asked only with bytes at hand, or when the peer has closed.
//!
//! In the other direction rustls holds what it has encrypted, at most [`SENDABLE_BYTES_MAX`]. `poll_write` counts bytes
//! as written when rustls has taken them. A transport that is lost may therefore have sent less than was counted:
//! such a publish is reported as one whose fate is unknown, never as unsent.
//!
//! Either direction may need the other: to read, rustls may have to answer (a key update). So every read also sends
//! what is there to be sent.

use std::io::{self, BufRead, IoSlice, Write};
use std::task::{Context, Poll, ready};

use amqp_async::Transport;
use amqp_async::core::errors::{TlsError, TlsErrorKind};
use bytes::{Buf, BytesMut};
use rustls::ClientConnection;

use crate::error;

/// How many encrypted bytes are held for the transport.
const SENDABLE_BYTES_MAX: usize = 256 * 1024;

/// How many bytes are read from the transport at once.
const RECEIVED_BYTES_MAX: usize = 64 * 1024;

/// An encrypted transport over another.
#[derive(Debug)]
pub(crate) struct Tls<T> {
    session: ClientConnection,
    transport: T,
    /// Ciphertext that rustls has not taken.
    received: BytesMut,
    /// A certificate is presented to servers that ask for one.
    presents: bool,
    said_farewell: bool,
}

impl<T: Transport> Tls<T> {
    pub(crate) fn new(mut session: ClientConnection, transport: T, presents: bool) -> Self {
        session.set_buffer_limit(Some(SENDABLE_BYTES_MAX));
        Self { session, transport, received: BytesMut::new(), presents, said_farewell: false }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Sends what is encrypted. Ready when all of it is with the transport.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            let mut transport = Sending { transport: &mut self.transport, cx };
            match self.session.write_tls(&mut transport) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Has rustls take a piece of ciphertext, which may or may not make plaintext of it. Resolves with whether
    /// there was one; otherwise the peer has closed the transport.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.received.is_empty() {
            let read = self.transport.poll_read(cx, &mut self.received, RECEIVED_BYTES_MAX);
            if ready!(read)? == 0 {
                return Poll::Ready(Ok(false));
            }
        }
        self.session.read_tls(&mut (&mut self.received).reader())?;
        if let Err(failed) = self.session.process_new_packets() {
            // rustls has written an alert for the peer. Where it cannot be sent at once, nothing is lost.
            let _ = self.poll_send(cx);
            let negotiated = self.session.negotiated_cipher_suite().is_some();
            let error = error::tls_error(&failed, self.presents, negotiated);
            return Poll::Ready(Err(error.into()));
        }
        Poll::Ready(Ok(true))
    }

    /// Moves plaintext that rustls holds to `input`. `None` means that there is none, 0 that the peer has said
    /// farewell.
    fn take_plaintext(&mut self, input: &mut BytesMut, max: usize) -> io::Result<Option<usize>> {
        let mut reader = self.session.reader();
        match reader.fill_buf() {
            Ok(plaintext) => {
                let count = plaintext.len().min(max);
                input.extend_from_slice(&plaintext[..count]);
                reader.consume(count);
                Ok(Some(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl<T: Transport> Transport for Tls<T> {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        loop {
            match self.take_plaintext(input, max - taken)? {
                Some(0) => return Poll::Ready(Ok(taken)),
                Some(count) => taken += count,
                None => {}
            }
            // More of what is here already costs no call of the system.
            if taken >= max || (taken > 0 && self.received.is_empty()) {
                return Poll::Ready(Ok(taken));
            }
            let received = self.poll_receive(cx);
            // An answer of rustls itself. If the transport takes no more, the next write says so, and until then
            // there may be something to read.
            let _ = self.poll_send(cx);
            match received {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => {
                    let error = TlsError::new(TlsErrorKind::Truncated, "");
                    return Poll::Ready(Err(error.into()));
                }
                // The bytes before a fault are good. The next read finds the fault again.
                Poll::Ready(Err(_)) if taken > 0 => return Poll::Ready(Ok(taken)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let taken = self.session.writer().write_vectored(slices)?;
            let sent = self.poll_send(cx);
            if let Poll::Ready(Err(error)) = sent {
                return Poll::Ready(Err(error));
            }
            if taken > 0 || slices.iter().all(|slice| slice.is_empty()) {
                return Poll::Ready(Ok(taken));
            }
            // Rustls holds as much as it may.
            ready!(sent)?;
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        self.transport.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.said_farewell {
            self.session.send_close_notify();
            self.said_farewell = true;
        }
        ready!(self.poll_flush(cx))?;
        self.transport.poll_close(cx)
    }
}

/// The transport as rustls writes to it.
struct Sending<'a, 'cx, T> {
    transport: &'a mut T,
    cx: &'a mut Context<'cx>,
}

impl<T: Transport> Write for Sending<'_, '_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.transport.poll_write(self.cx, slices) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
