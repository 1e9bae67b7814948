//! Connections over a stream that is connected already.

use std::future::ready;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::task::Context;
use std::time::Instant;

use crate::driver::Driver;
use crate::executor::{Clock, Executor};
use crate::runtime::{Runtime, Transport};

/// An executor on which a connection can be over streams of the type `S`.
pub trait Over<S>: Executor {
    /// The stream as a transport.
    type Wrapped: Transport;

    /// Makes a transport of the stream.
    fn wrap(&self, stream: S) -> Self::Wrapped;
}

/// The driver of a connection over a stream of the type `S`.
pub type DriverOver<R, S> = Driver<OverTransport<R, <R as Over<S>>::Wrapped>>;

/// A runtime that reaches nothing, for a connection that has a transport already.
#[derive(Debug)]
pub struct OverTransport<R, T> {
    runtime: R,
    transport: PhantomData<fn() -> T>,
}

impl<R, T> OverTransport<R, T> {
    pub(crate) const fn new(runtime: R) -> Self {
        Self { runtime, transport: PhantomData }
    }
}

impl<R: Clone, T> Clone for OverTransport<R, T> {
    fn clone(&self) -> Self {
        Self { runtime: self.runtime.clone(), transport: self.transport }
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

    fn dial(&self, _: SocketAddr, _: &str) -> impl Future<Output = io::Result<T>> + Send + 'static {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
