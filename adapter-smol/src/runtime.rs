//! Smol as the runtime of connections, and the types of drivers and connectors, which programs seldom name.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

#[cfg(feature = "tls")]
use amqp_async::core::{ConnectError, TlsSettings};
use amqp_async::{Clock, Executor, FuturesIo, Runtime, Target, dial_tcp};
use futures_io::{AsyncRead, AsyncWrite};
use smol::net::TcpStream;

#[doc(inline)]
pub use amqp_async::{ConnectorOver, DriverOver, Over, Secure, Securing, Transport};

/// The driver of a connection on smol, as [`Connector::driver`](crate::Connector::driver) returns it.
pub type Driver = amqp_async::Driver<Smol>;

/// Smol as a runtime of `amqp-async`. Tasks are spawned on its global executor.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Smol;

impl Clock for Smol {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

impl Executor for Smol {
    type Timer = Timer;

    fn timer(&self) -> Timer {
        Timer(None)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        smol::spawn(task).detach();
    }

    fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        smol::unblock(work).detach();
    }
}

impl Runtime for Smol {
    type Transport = FuturesIo<TcpStream>;

    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static {
        smol::net::resolve((host.to_owned(), port))
    }

    fn dial(
        &self,
        target: Target,
    ) -> impl Future<Output = io::Result<Self::Transport>> + Send + 'static {
        dial_tcp(target, |stream| async {
            let stream = smol::Async::new(stream)?;
            stream.writable().await?;
            let error = stream.get_ref().take_error()?;
            error.map_or(Ok(FuturesIo::new(TcpStream::from(stream))), Err)
        })
    }

    #[cfg(feature = "tls")]
    fn secure(&self, settings: &TlsSettings) -> Result<Arc<dyn Secure>, ConnectError> {
        Ok(Arc::new(amqp_tls::Rustls::from_settings(settings)?))
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Over<S> for Smol {
    type Wrapped = FuturesIo<S>;

    fn wrap(&self, stream: S) -> FuturesIo<S> {
        FuturesIo::new(stream)
    }
}

/// A deadline on smol's timer.
#[derive(Debug)]
pub struct Timer(Option<(Instant, smol::Timer)>);

impl amqp_async::Timer for Timer {
    fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let (at, timer) = self.0.get_or_insert_with(|| (deadline, smol::Timer::at(deadline)));
        if *at != deadline {
            timer.set_at(deadline);
            *at = deadline;
        }
        Pin::new(timer).poll(cx).map(|_| self.0 = None)
    }
}
