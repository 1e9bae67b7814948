//! The I/O thread as a runtime: the clock, timer, resolver and sockets of the driver of one connection.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Instant;

use amqp_async::{Clock, Executor, Runtime, Target, Timer, dial_tcp};
#[cfg(feature = "tls")]
use amqp_async::{
    Secure,
    core::{ConnectError, TlsSettings},
};
use mio::net::TcpStream;

use crate::io_thread::Io;
use crate::stream::{Socket, Stream};
use crate::threads::Threads;
use crate::wait::wait;
use crate::work_pool::{self, Working};

/// The I/O thread as a runtime of `amqp-async`.
#[derive(Clone, Debug)]
pub(crate) struct IoRuntime(Arc<Io>);

impl IoRuntime {
    pub(crate) const fn new(io: Arc<Io>) -> Self {
        Self(io)
    }
}

impl Clock for IoRuntime {
    fn now(&self) -> Instant {
        Threads.now()
    }
}

impl Executor for IoRuntime {
    type Timer = Deadline;

    fn clock(&self) -> Box<dyn Clock> {
        // Handles must not keep the poller, which uses two file descriptors.
        Box::new(Threads)
    }

    fn timer(&self) -> Deadline {
        Deadline(Arc::clone(&self.0))
    }

    /// A task that gets no thread is dropped. It is a hook, which then counts as failed, or the application's callbacks.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let _ = thread::Builder::new().name("amqp-hook".into()).spawn(|| wait(task));
    }

    fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        Threads.spawn_blocking(work);
    }
}

impl Runtime for IoRuntime {
    type Transport = Socket;

    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static {
        match host.parse::<IpAddr>() {
            Ok(address) => Working::ready(Ok(vec![SocketAddr::new(address, port)])),
            Err(_) => {
                let host = host.to_owned();
                work_pool::run(move || Ok((host.as_str(), port).to_socket_addrs()?.collect()))
            }
        }
    }

    fn dial(&self, target: Target) -> impl Future<Output = io::Result<Socket>> + Send + 'static {
        let io = Arc::clone(&self.0);
        dial_tcp(target, |stream| {
            let mut stream = TcpStream::from_std(stream);
            let registered = io.register(&mut stream, false).map(|()| stream);
            Dialling { io, dialled: Some(registered) }
        })
    }

    #[cfg(feature = "tls")]
    fn secure(&self, settings: &TlsSettings) -> Result<Arc<dyn Secure>, ConnectError> {
        Ok(Arc::new(amqp_tls::Rustls::from_settings(settings)?))
    }
}

/// A socket that is being connected. It is polled after every report of the poller.
struct Dialling {
    io: Arc<Io>,
    dialled: Option<io::Result<TcpStream>>,
}

impl Future for Dialling {
    type Output = io::Result<Socket>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(dialled) = self.dialled.take() else { return Poll::Pending };
        let stream = dialled?;
        if let Some(error) = stream.take_error()? {
            return Poll::Ready(Err(error));
        }
        if let Err(error) = stream.peer_addr() {
            if error.kind() != io::ErrorKind::NotConnected {
                return Poll::Ready(Err(error));
            }
            self.dialled = Some(Ok(stream));
            return Poll::Pending;
        }
        Poll::Ready(Ok(Socket::registered(Arc::clone(&self.io), Stream::from(stream))))
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        if let Some(Ok(stream)) = &mut self.dialled {
            self.io.deregister(stream);
        }
    }
}

/// A deadline of the poller.
#[derive(Debug)]
pub(crate) struct Deadline(Arc<Io>);

impl Timer for Deadline {
    fn poll_until(&mut self, _: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if self.0.has_passed(deadline) { Poll::Ready(()) } else { Poll::Pending }
    }
}
