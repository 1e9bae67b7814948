//! Connections over streams that the application creates: a stream that is connected already, or streams that
//! a function dials.

use std::fmt;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use amqp_core::{ConnectError, Endpoint, Target, TlsSettings};

use crate::driver::Driver;
use crate::executor::{Clock, Executor};
use crate::runtime::Runtime;
use crate::secure::Secure;
use crate::transport::Transport;

/// An executor that supports connections over streams of type `S`.
pub trait Over<S>: Executor {
    /// The transport over such a stream.
    type Wrapped: Transport;

    /// Creates a transport from a stream.
    fn wrap(&self, stream: S) -> Self::Wrapped;
}

/// The driver of a connection over a stream of type `S`.
pub type DriverOver<R, S> = Driver<OverTransport<R, <R as Over<S>>::Wrapped>>;

/// A runtime whose transports are created elsewhere: by a function, or before the connection.
pub struct OverTransport<R, T> {
    runtime: R,
    dial: Option<Dial<T>>,
    secure: Option<SecureBy<R>>,
}

/// The runtime's own way to encrypt.
type SecureBy<R> = fn(&R, &TlsSettings) -> Result<Arc<dyn Secure>, ConnectError>;

type Dial<T> = Arc<dyn Fn(Endpoint) -> Dialling<T> + Send + Sync>;
type Dialling<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl<R, T> OverTransport<R, T> {
    /// Creates transports with a function, which receives each host by name.
    pub fn dialled_by<F>(runtime: R, dial: impl Fn(Endpoint) -> F + Send + Sync + 'static) -> Self
    where
        R: Runtime,
        F: Future<Output = io::Result<T>> + Send + 'static,
    {
        let dial: Dial<T> = Arc::new(move |endpoint| Box::pin(dial(endpoint)));
        Self { runtime, dial: Some(dial), secure: Some(R::secure) }
    }

    /// Uses the one transport that is connected already.
    pub(crate) const fn connected(runtime: R) -> Self {
        Self { runtime, dial: None, secure: None }
    }
}

impl<R: Clone, T> Clone for OverTransport<R, T> {
    fn clone(&self) -> Self {
        Self { runtime: self.runtime.clone(), dial: self.dial.clone(), secure: self.secure }
    }
}

impl<R: fmt::Debug, T> fmt::Debug for OverTransport<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OverTransport").field("runtime", &self.runtime).finish_non_exhaustive()
    }
}

impl<R: Clock, T> Clock for OverTransport<R, T> {
    fn now(&self) -> Instant {
        self.runtime.now()
    }
}

impl<R: Executor, T: 'static> Executor for OverTransport<R, T> {
    type Timer = R::Timer;

    fn check(&self) -> io::Result<()> {
        self.runtime.check()
    }

    fn clock(&self) -> Box<dyn Clock> {
        self.runtime.clock()
    }

    fn timer(&self) -> R::Timer {
        self.runtime.timer()
    }

    fn reschedule(&self, cx: &mut Context<'_>) {
        self.runtime.reschedule(cx);
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        self.runtime.spawn_blocking(work);
    }
}

impl<R: Executor, T: Transport> Runtime for OverTransport<R, T> {
    type Transport = T;

    fn resolve(
        &self,
        _: &str,
        _: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn dial(&self, target: Target) -> impl Future<Output = io::Result<T>> + Send + 'static {
        match &self.dial {
            Some(dial) => dial(target.endpoint),
            None => Box::pin(ready(Err(io::ErrorKind::Unsupported.into()))),
        }
    }

    fn resolves(&self) -> bool {
        false
    }

    fn may_encrypt(&self) -> bool {
        true
    }

    fn secure(&self, settings: &TlsSettings) -> Result<Arc<dyn Secure>, ConnectError> {
        self.secure
            .map_or(Err(ConnectError::TlsUnsupported), |secure| secure(&self.runtime, settings))
    }
}
