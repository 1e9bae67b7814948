//! Dialling a target: connecting a transport, then encrypting it if the target is to be reached over TLS.

use std::future::ready;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use amqp_core::Target;
use amqp_core::errors::{TlsError, TlsErrorKind};
use bytes::BytesMut;

use crate::runtime::Runtime;
use crate::secure::{Secure, Securing};
use crate::transport::Transport;

/// A transport as it was dialled, or encrypted.
pub(crate) enum Secured<T> {
    Plain(T),
    Encrypted(Box<dyn Transport>),
}

impl<T: Transport> Transport for Secured<T> {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(transport) => transport.poll_read(cx, input, max),
            Self::Encrypted(transport) => transport.poll_read(cx, input, max),
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(transport) => transport.poll_write(cx, slices),
            Self::Encrypted(transport) => transport.poll_write(cx, slices),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(transport) => transport.poll_flush(cx),
            Self::Encrypted(transport) => transport.poll_flush(cx),
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(transport) => transport.poll_close(cx),
            Self::Encrypted(transport) => transport.poll_close(cx),
        }
    }
}

/// What becomes of a target: it is dialled, and then encrypted if it asks for TLS.
pub(crate) struct Dialling<T> {
    step: Step<T>,
    /// What encrypts, and the name that the server's certificate must have.
    secure: Option<(Arc<dyn Secure>, Arc<str>)>,
}

enum Step<T> {
    Dial(Pin<Box<dyn Future<Output = io::Result<T>> + Send>>),
    Secure(Securing),
}

/// What came of polling a dial.
pub(crate) enum Dialled<T> {
    /// The transport is connected, and is being encrypted.
    Securing,
    /// The transport can be used.
    Done(io::Result<Secured<T>>),
}

impl<T: Transport> Dialling<T> {
    pub(crate) fn new<R: Runtime<Transport = T>>(
        runtime: &R,
        target: Target,
        secure: Option<&Arc<dyn Secure>>,
    ) -> Self {
        let tls = target.endpoint.tls.then(|| Arc::clone(&target.server_name));
        let step = match (&tls, secure) {
            // Never in plain text what was to be encrypted.
            (Some(_), None) => Step::Dial(Box::pin(ready(Err(io::ErrorKind::Unsupported.into())))),
            _ => Step::Dial(Box::pin(runtime.dial(target))),
        };
        Self { step, secure: secure.cloned().zip(tls) }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Dialled<T>> {
        match &mut self.step {
            Step::Dial(dialling) => {
                let transport = match ready!(dialling.as_mut().poll(cx)) {
                    Ok(transport) => transport,
                    Err(error) => return Poll::Ready(Dialled::Done(Err(error))),
                };
                let Some((secure, server_name)) = self.secure.take() else {
                    return Poll::Ready(Dialled::Done(Ok(Secured::Plain(transport))));
                };
                self.step = Step::Secure(secure.secure(&server_name, Box::new(transport)));
                Poll::Ready(Dialled::Securing)
            }
            Step::Secure(securing) => {
                let secured = ready!(securing.as_mut().poll(cx));
                Poll::Ready(Dialled::Done(secured.map(Secured::Encrypted).map_err(as_tls)))
            }
        }
    }
}

/// An error of a TLS handshake that says so. What the socket reports stays as it is.
fn as_tls(error: io::Error) -> io::Error {
    let of_library = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::Other);
    if !of_library || error.get_ref().is_some_and(|inner| inner.is::<TlsError>()) {
        return error;
    }
    TlsError::new(TlsErrorKind::Protocol, error.to_string()).into()
}
