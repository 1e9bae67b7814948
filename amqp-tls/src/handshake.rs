//! The TLS handshake, as a future.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use amqp_async::Transport;
use amqp_async::core::errors::{TlsError, TlsErrorKind};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::error;
use crate::transport::Tls;

/// The handshake of a transport with the server of this name.
pub(crate) fn begin<T: Transport>(
    config: Arc<ClientConfig>,
    server_name: &str,
    transport: T,
) -> Result<Handshake<T>, TlsError> {
    let name = ServerName::try_from(server_name.to_owned()).map_err(|_| {
        let detail = format!("{server_name:?} is neither a host name nor an IP address");
        TlsError::new(TlsErrorKind::Configuration, detail)
    })?;
    let presents = config.client_auth_cert_resolver.has_certs();
    let session = ClientConnection::new(config, name)
        .map_err(|failed| error::tls_error(&failed, presents, false))?;
    Ok(Handshake { tls: Some(Tls::new(session, transport, presents)) })
}

/// A handshake that is under way.
pub(crate) struct Handshake<T> {
    tls: Option<Tls<T>>,
}

impl<T: Transport> Future for Handshake<T> {
    type Output = io::Result<Tls<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(tls) = &mut self.tls else { return Poll::Pending };
        loop {
            // A server that refuses may say so before it has read everything.
            let sent = match tls.poll_send(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                sent => sent.is_ready(),
            };
            if sent && !tls.is_handshaking() {
                ready!(tls.poll_flush(cx))?;
                let Some(tls) = self.tls.take() else { return Poll::Pending };
                return Poll::Ready(Ok(tls));
            }
            if !tls.is_handshaking() {
                return Poll::Pending;
            }
            if !ready!(tls.poll_receive(cx))? {
                return Poll::Ready(Err(closed()));
            }
        }
    }
}

/// A peer that went away without a word.
fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the peer")
}
