//! Hooks: what the application runs when a connection opens, is lost, is blocked or closes.
//!
//! Nothing of it runs under the lock, or where a panic would end the driver. Hooks for a connection that opens are a
//! task for each transport ([`Running`]). Until it is done, the session waits: see
//! [`Action::RunHook`](amqp_core::Action::RunHook). All other callbacks have one task for a connection ([`watch`]), which
//! reads its events.
//!
//! The connections that they get do not keep the connection open.

use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use amqp_core::errors::TransportError;
use amqp_core::{Attempt, CloseCause};

use crate::connection::Connection;
use crate::events::Events;
use crate::holders::ConnectionHolder;
use crate::listeners::ConnectionEvent;
use crate::shared::Shared;

type BoxError = Box<dyn Error + Send + Sync>;
type Hooking = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
type OnConnect = dyn Fn(Connection) -> Hooking + Send + Sync;
type Condition = dyn Fn(&CloseCause) -> bool + Send + Sync;
type OnEvent = dyn Fn(&Connection, &ConnectionEvent) + Send + Sync;

/// What an application runs when something happens to a connection. Connectors have methods of the same names.
#[derive(Clone, Default)]
pub struct Hooks {
    on_connect: Vec<Arc<OnConnect>>,
    on_event: Vec<Arc<OnEvent>>,
    recover_if: Option<Arc<Condition>>,
}

impl Hooks {
    /// Creates hooks that do nothing.
    pub const fn new() -> Self {
        Self { on_connect: Vec::new(), on_event: Vec::new(), recover_if: None }
    }

    /// Adds a hook that runs when a transport is connected: see
    /// [`Connector::on_connect`](crate::Connector::on_connect).
    pub fn on_connect<F, E>(&mut self, hook: impl Fn(Connection) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.on_connect.push(Arc::new(move |connection| {
            let hooking = hook(connection);
            Box::pin(async move { hooking.await.map_err(E::into) })
        }));
    }

    /// Sets which losses are recovered: see [`Connector::recover_if`](crate::Connector::recover_if).
    pub fn recover_if(&mut self, recovers: impl Fn(&CloseCause) -> bool + Send + Sync + 'static) {
        self.recover_if = Some(Arc::new(recovers));
    }

    /// Adds a callback for the loss of a connection: see [`Connector::on_error`](crate::Connector::on_error).
    pub fn on_error(&mut self, call: impl Fn(&Connection, &CloseCause) + Send + Sync + 'static) {
        self.on_event(move |connection, event| match event {
            ConnectionEvent::Lost(cause) => call(connection, cause),
            ConnectionEvent::Closed(cause) if !is_asked_for(cause) => call(connection, cause),
            _ => {}
        });
    }

    /// Adds a callback for the end of a connection: see [`Connector::on_close`](crate::Connector::on_close).
    pub fn on_close(&mut self, call: impl Fn(&Connection, &CloseCause) + Send + Sync + 'static) {
        self.on_event(move |connection, event| {
            if let ConnectionEvent::Closed(cause) = event {
                call(connection, cause);
            }
        });
    }

    /// Adds a callback for a broker that blocks publishes: see
    /// [`Connector::on_blocked`](crate::Connector::on_blocked).
    pub fn on_blocked(&mut self, call: impl Fn(&Connection, &str) + Send + Sync + 'static) {
        self.on_event(move |connection, event| {
            if let ConnectionEvent::Blocked(reason) = event {
                call(connection, reason);
            }
        });
    }

    /// Adds a callback for a broker that accepts publishes again: see
    /// [`Connector::on_unblocked`](crate::Connector::on_unblocked).
    pub fn on_unblocked(&mut self, call: impl Fn(&Connection) + Send + Sync + 'static) {
        self.on_event(move |connection, event| {
            if let ConnectionEvent::Unblocked = event {
                call(connection);
            }
        });
    }

    fn on_event(&mut self, call: impl Fn(&Connection, &ConnectionEvent) + Send + Sync + 'static) {
        self.on_event.push(Arc::new(call));
    }

    /// Whether something runs when a transport is connected.
    pub(crate) const fn has_on_connect(&self) -> bool {
        !self.on_connect.is_empty()
    }

    /// Whether something decides which losses are recovered.
    pub(crate) const fn has_condition(&self) -> bool {
        self.recover_if.is_some()
    }

    /// Whether this loss is recovered. If the function panics, it is not; the panic hook reports it.
    pub(crate) fn recovers(&self, cause: &CloseCause) -> bool {
        self.recover_if.as_ref().is_none_or(|recovers| {
            catch_unwind(AssertUnwindSafe(|| recovers(cause))).unwrap_or(false)
        })
    }

    /// Creates the task of a connection's callbacks, if there are any.
    pub(crate) fn watch(&self, shared: &Arc<Shared>) -> Option<Watching> {
        if self.on_event.is_empty() {
            return None;
        }
        Some(Box::pin(watch(Arc::clone(shared), Events::new(shared), self.on_event.clone())))
    }

    /// Creates the task of the hooks for a transport.
    pub(crate) fn run(&self, shared: &Arc<Shared>, attempt: Attempt) -> Running {
        let connection = Connection::new(Arc::new(ConnectionHolder::setup(shared, attempt)));
        let hooks = self.on_connect.clone();
        let hooking: Hooking = Box::pin(async move {
            for hook in hooks {
                hook(connection.clone()).await?;
            }
            Ok(())
        });
        Running { shared: Arc::clone(shared), attempt, hooking: Some(hooking) }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("on_connect", &self.on_connect.len())
            .field("on_event", &self.on_event.len())
            .field("recover_if", &self.recover_if.is_some())
            .finish()
    }
}

/// Whether the application has ended the connection.
const fn is_asked_for(cause: &CloseCause) -> bool {
    matches!(cause, CloseCause::Aborted | CloseCause::ByClient | CloseCause::ByClientForced)
}

/// The task of a connection's callbacks.
pub(crate) type Watching = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn watch(shared: Arc<Shared>, mut events: Events, callbacks: Vec<Arc<OnEvent>>) {
    let connection = Connection::new(Arc::new(ConnectionHolder::weak(&shared)));
    while let Some(event) = events.next().await {
        // The connector returns the error of a connection that was never open.
        if !shared.with(|state| state.session.was_opened()) {
            continue;
        }
        for callback in &callbacks {
            // The panic hook reports it. The other callbacks still run.
            let _ = catch_unwind(AssertUnwindSafe(|| callback(&connection, &event)));
        }
    }
}

/// The task of the hooks for one transport. They run one after the other, until one fails.
///
/// A hook is dropped when its transport is lost, or when its timeout has expired. If the task is dropped before it is
/// done, the hook counts as failed.
pub(crate) struct Running {
    shared: Arc<Shared>,
    attempt: Attempt,
    /// `None` when the task is done.
    hooking: Option<Hooking>,
}

impl Running {
    fn done(&self, result: Result<(), TransportError>) {
        let now = self.shared.now();
        self.shared.with(|state| state.hook_done(now, self.attempt, result));
    }
}

impl Future for Running {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { shared, attempt, hooking } = &mut *self;
        let Some(running) = hooking else { return Poll::Ready(()) };
        if !shared.with(|state| state.continues_hook(*attempt, cx.waker())) {
            *hooking = None;
            return Poll::Ready(());
        }
        let polled = catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(cx)));
        let result = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => result.map_err(|error| io::Error::other(error).into()),
            Err(_) => Err(io::Error::other("a hook panicked").into()),
        };
        *hooking = None;
        self.done(result);
        Poll::Ready(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.hooking.is_some() {
            self.done(Err(io::Error::other("a hook was dropped").into()));
        }
    }
}
