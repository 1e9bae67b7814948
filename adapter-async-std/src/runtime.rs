//! Async-std as the runtime of connections, and the types of drivers and connectors, which programs seldom name.

use std::fmt;
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
use async_io::Async;
use async_std::net::{TcpStream, ToSocketAddrs};
use async_std::task;
use futures_io::{AsyncRead, AsyncWrite};

#[doc(inline)]
pub use amqp_async::{ConnectorOver, DriverOver, Over, Secure, Securing, Transport};

/// The driver of a connection on async-std, as [`Connector::driver`](crate::Connector::driver) returns it.
pub type Driver = amqp_async::Driver<AsyncStd>;

/// Async-std as a runtime of `amqp-async`. Tasks are spawned on its global executor.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AsyncStd;

impl Clock for AsyncStd {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

impl Executor for AsyncStd {
    type Timer = Timer;

    fn timer(&self) -> Timer {
        Timer(None)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        task::spawn(task);
    }

    fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        task::spawn_blocking(work);
    }
}

impl Runtime for AsyncStd {
    type Transport = FuturesIo<TcpStream>;

    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static {
        let host = host.to_owned();
        async move { Ok((host.as_str(), port).to_socket_addrs().await?.collect()) }
    }

    fn dial(
        &self,
        target: Target,
    ) -> impl Future<Output = io::Result<Self::Transport>> + Send + 'static {
        dial_tcp(target, |stream| async {
            let stream = Async::new(stream)?;
            stream.writable().await?;
            let stream = stream.into_inner()?;
            stream.take_error()?.map_or(Ok(FuturesIo::new(TcpStream::from(stream))), Err)
        })
    }

    #[cfg(feature = "tls")]
    fn secure(&self, settings: &TlsSettings) -> Result<Arc<dyn Secure>, ConnectError> {
        Ok(Arc::new(amqp_tls::Rustls::from_settings(settings)?))
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Over<S> for AsyncStd {
    type Wrapped = FuturesIo<S>;

    fn wrap(&self, stream: S) -> FuturesIo<S> {
        FuturesIo::new(stream)
    }
}

/// A deadline on async-std's timer. That timer cannot be changed, so it is replaced.
pub struct Timer(Option<(Instant, Sleep)>);

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

impl amqp_async::Timer for Timer {
    fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if self.0.as_ref().is_none_or(|(at, _)| *at != deadline) {
            let left = deadline.saturating_duration_since(Instant::now());
            self.0 = Some((deadline, Box::pin(task::sleep(left))));
        }
        let Some((_, sleep)) = &mut self.0 else { return Poll::Pending };
        sleep.as_mut().poll(cx).map(|()| self.0 = None)
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timer").field(&self.0.as_ref().map(|(at, _)| at)).finish()
    }
}
