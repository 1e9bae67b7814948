//! `Connector`: how an application configures and opens connections. The connectors of all adapters use it.

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use amqp_core::{AmqpUri, CloseCause, Config, ConnectError, Endpoint, Session};
use futures_core::FusedFuture;

use crate::authentication::Authentication;
use crate::connection::Connection;
use crate::driver::Driver;
use crate::executor::Executor;
use crate::holders::ConnectionHolder;
use crate::hooks::Hooks;
use crate::over_stream::{DriverOver, Over, OverTransport};
use crate::provider::{CredentialsProvider, Plugins};
use crate::pump::Pump;
use crate::runtime::Runtime;
use crate::secure::Secure;
use crate::shared::Shared;
use crate::transport::Transport;

/// Opens connections: a configuration, and the runtime on which they run.
///
/// Methods are chained. A connector can be cloned, and opens any number of connections. Each adapter has a
/// type of this name for its runtime, such as `amqp_tokio::Connector`.
///
/// There are three ways to create one. [`new`](Self::new) takes a URI. `Connector::default()` is
/// `amqp://guest:guest@localhost:5672/%2f`, which methods can change. `Connector::from` takes a [`Config`] or
/// an [`AmqpUri`].
#[derive(Clone, Debug, Default)]
pub struct Connector<R> {
    runtime: R,
    config: Config,
    plugins: Plugins,
}

/// A connector whose streams of type `S` are created by a function: see [`Connector::dial_with`].
pub type ConnectorOver<R, S> = Connector<OverTransport<R, <R as Over<S>>::Wrapped>>;

impl<R: Runtime + Default> Connector<R> {
    /// Creates a connector for an AMQP URI. [`AmqpUri`] lists the parts of a URI.
    ///
    /// # Errors
    /// [`ConnectError::InvalidUri`], which never shows the URI.
    pub fn new(uri: &str) -> Result<Self, ConnectError> {
        Ok(Self::from(Config::from_uri(uri)?))
    }
}

impl<R: Runtime> Connector<R> {
    /// Creates a connector on a runtime, for a runtime that has no default or does not come from an adapter.
    pub const fn on(runtime: R, config: Config) -> Self {
        Self { runtime, config, plugins: Plugins::new() }
    }

    /// Returns the runtime on which connections run, for code that spawns tasks or needs timers on any runtime.
    pub const fn runtime(&self) -> &R {
        &self.runtime
    }

    /// Creates the streams of connections with a function, such as one that connects through a proxy or to a
    /// Unix socket.
    ///
    /// The function is called for each host in turn, until a connection is open. It receives the host by
    /// name: names are not looked up before. Its future must be cancel-safe, because it is dropped when the
    /// [timeout of an address](Self::address_timeout) expires. An error that it returns is reported as
    /// [`ConnectFailure::Dial`](amqp_core::errors::ConnectFailure::Dial).
    ///
    /// The connector encrypts the streams of `amqps` hosts. If the function encrypts the stream itself, use `amqp`
    /// hosts: the connector does not know about the encryption.
    pub fn dial_with<S, F>(
        self,
        dial: impl Fn(Endpoint) -> F + Send + Sync + 'static,
    ) -> ConnectorOver<R, S>
    where
        R: Over<S>,
        F: Future<Output = io::Result<S>> + Send + 'static,
    {
        let Self { runtime, config, plugins } = self;
        let wrapping = runtime.clone();
        let dial = move |endpoint| {
            let (dialling, runtime) = (dial(endpoint), wrapping.clone());
            async move { Ok(runtime.wrap(dialling.await?)) }
        };
        Connector { runtime: OverTransport::dialled_by(runtime, dial), config, plugins }
    }

    /// Changes the configuration with a function.
    #[must_use]
    pub fn configure(self, change: impl FnOnce(Config) -> Config) -> Self {
        Self { config: change(self.config), ..self }
    }

    /// Sets what encrypts the transports to `amqps` hosts, such as an `amqp_tls::Rustls` of a configuration of
    /// your own. It takes precedence over the adapter's own (its feature `tls`), and over the
    /// [files of the configuration](Self::tls_settings).
    #[must_use]
    pub fn tls(mut self, secure: impl Secure + 'static) -> Self {
        self.plugins.secure = Some(Arc::new(secure));
        self
    }

    /// Fetches credentials with a function, such as a token from an OAuth 2 server, in place of those that are
    /// configured. The function is called for each attempt to connect.
    ///
    /// If what it returns [expires](amqp_core::ProvidedCredentials::valid_for), it is called again when four fifths of that time
    /// have passed, and the broker is sent the new secret (`connection.update-secret`;
    /// <https://www.rabbitmq.com/docs/oauth2>). If that fails, it is tried again, and
    /// [`ConnectionEvent::CredentialsNotRenewed`](crate::ConnectionEvent::CredentialsNotRenewed) says so.
    ///
    /// The guide has an example ([TLS and authentication](crate::guide::tls)).
    ///
    /// For attempts, an error is reported as
    /// [`ConnectFailure::Credentials`](amqp_core::errors::ConnectFailure::Credentials), and the next address is tried.
    #[must_use]
    pub fn credentials_provider(mut self, provider: impl CredentialsProvider + 'static) -> Self {
        self.plugins.credentials = Some(Arc::new(provider));
        self
    }

    /// Adds a hook, which runs each time a transport is connected: for the first connection, and whenever the
    /// connection is recovered. It declares what the application needs, or checks that it is there.
    ///
    /// It gets a [`Connection`], on which it opens channels. Everything else waits until it returns: the future of
    /// [`connect`](Self::connect) and, while the connection is being recovered, the application's channels. What it declares
    /// and consumes is not [recovered](Self::recovery), for the hook runs again. Its channels end with the transport,
    /// and a task that it spawns may use the connection until then. The connection that it gets does not keep the
    /// connection open.
    ///
    /// A hook that returns an error or panics fails the attempt. For the first connection that is an error of
    /// [`connect`](Self::connect); otherwise the connection is tried again after a delay. So does one that takes longer
    /// than [`hook_timeout`](Self::hook_timeout): its future is dropped. It is dropped too when the transport is lost.
    /// Hooks run as a task, one after the other, in the order in which they were added.
    ///
    /// ```
    /// # use amqp_async::{Connection, Connector, Error, QueueDeclare, Runtime};
    /// # fn example<R: Runtime>(connector: Connector<R>) -> Connector<R> {
    /// connector.on_connect(|connection: Connection| async move {
    ///     let channel = connection.open_channel().await?;
    ///     channel.queue_declare(QueueDeclare::quorum("orders")).await?;
    ///     Ok::<_, Error>(())
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn on_connect<F, E>(
        mut self,
        hook: impl Fn(Connection) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.plugins.hooks.on_connect(hook);
        self
    }

    /// Sets which losses are recovered, of those that the [policy](Self::recovery) covers: those for which `recovers`
    /// returns true. Otherwise the connection ends with this cause. It is called for each loss, also for one that
    /// interrupts a recovery, but not for attempts to connect that fail. It must not block. If it panics, the
    /// connection ends.
    ///
    /// ```
    /// # use amqp_async::{CloseCause, Connector, ReplyCode, Runtime};
    /// # fn example<R: Runtime>(connector: Connector<R>) -> Connector<R> {
    /// // A close for an error of this client would be repeated: the connection ends.
    /// connector.recover_if(|cause| match cause {
    ///     CloseCause::ByBroker(error) => error.code == ReplyCode::CONNECTION_FORCED,
    ///     _ => true,
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn recover_if(
        mut self,
        recovers: impl Fn(&CloseCause) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.plugins.hooks.recover_if(recovers);
        self
    }

    /// Adds a callback for each loss of the connection, whether or not it is recovered. It gets the reason. It is not
    /// called when the application closes the connection, or when [`connect`](Self::connect) fails.
    ///
    /// Callbacks run as a task, one at a time, and get a [`Connection`] that does not keep the connection open. They
    /// must not block. They read the [events](Connection::events) of the connection: one that falls 256 events behind
    /// misses some. A panic ends neither the connection nor other callbacks.
    ///
    /// ```
    /// # use amqp_async::{Connector, Runtime};
    /// # fn example<R: Runtime>(connector: Connector<R>) -> Connector<R> {
    /// connector
    ///     .on_error(|_, cause| eprintln!("connection lost: {cause}"))
    ///     .on_blocked(|_, reason| eprintln!("publishes wait: {reason}"))
    ///     .on_unblocked(|_| eprintln!("publishes continue"))
    ///     .on_close(|_, cause| eprintln!("connection closed: {cause}"))
    /// # }
    /// ```
    #[must_use]
    pub fn on_error(
        mut self,
        call: impl Fn(&Connection, &CloseCause) + Send + Sync + 'static,
    ) -> Self {
        self.plugins.hooks.on_error(call);
        self
    }

    /// Adds a callback for the end of the connection, for any reason, after which it is not recovered. It runs as
    /// [`on_error`](Self::on_error) says.
    #[must_use]
    pub fn on_close(
        mut self,
        call: impl Fn(&Connection, &CloseCause) + Send + Sync + 'static,
    ) -> Self {
        self.plugins.hooks.on_close(call);
        self
    }

    /// Adds a callback for a broker that blocks publishes (`connection.blocked`). It gets the broker's reason, and runs
    /// as [`on_error`](Self::on_error) says.
    #[must_use]
    pub fn on_blocked(mut self, call: impl Fn(&Connection, &str) + Send + Sync + 'static) -> Self {
        self.plugins.hooks.on_blocked(call);
        self
    }

    /// Adds a callback for a broker that accepts publishes again (`connection.unblocked`), or when a blocked connection is
    /// lost. It runs as [`on_error`](Self::on_error) says.
    #[must_use]
    pub fn on_unblocked(mut self, call: impl Fn(&Connection) + Send + Sync + 'static) -> Self {
        self.plugins.hooks.on_unblocked(call);
        self
    }

    crate::connector_settings!();

    /// Opens a connection, whose driver is spawned as a task of the runtime. Resolves to the open
    /// [`Connection`]. The addresses of all hosts are tried in order, each within its timeout, in
    /// [one cycle or several](Self::connection_attempts). If a broker refuses the login or the virtual host, nothing
    /// else is tried.
    ///
    /// When the runtime ends, it drops the driver, and unsent messages are lost. So
    /// [`close`](Connection::close) or [`drain`](Connection::drain) the connection before `main` returns (see
    /// [graceful shutdown](crate::guide::shutdown)).
    ///
    /// # Errors
    /// [`ConnectError`] with every failed attempt, within the [connect timeout](Self::connect_timeout), and the
    /// [hook timeout](Self::hook_timeout) if there are hooks. [`ConnectError::Aborted`] if a hook closes the connection.
    /// [`ConnectError::DriverNotStarted`] if there is no runtime, or if it lacks a part that a connection
    /// needs. [`ConnectError::NoClientCertificate`] if the mechanism EXTERNAL is configured without a client
    /// certificate. For an `amqps` host [`ConnectError::TlsUnsupported`] without the adapter's feature `tls` or a TLS
    /// implementation ([`tls`](Self::tls)), and [`ConnectError::Tls`] if certificates cannot be read.
    ///
    /// # Cancel safety
    /// If the future is dropped, the attempt ends, and no connection stays open.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        self.check()?;
        let (connecting, driver) = self.driver()?;
        self.runtime.spawn(driver);
        connecting.await
    }

    /// Opens a connection over a stream that is connected already, such as a Unix socket, a tunnel or an
    /// in-memory stream. Resolves to the open [`Connection`]. Errors name the first host of the
    /// configuration. The other hosts are ignored, and so is whether the host is to use TLS, because
    /// encryption is up to the stream. To create a stream for each attempt, see
    /// [`dial_with`](Self::dial_with).
    ///
    /// # Errors
    /// [`ConnectError`] with the one failed attempt, within the timeouts of an address and of connecting.
    /// [`ConnectError::DriverNotStarted`] as for [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// If the future is dropped, the attempt ends, and the stream is closed.
    pub async fn connect_with<S>(&self, stream: S) -> Result<Connection, ConnectError>
    where
        R: Over<S>,
    {
        self.check()?;
        let (connecting, driver) = self.driver_with(stream)?;
        self.runtime.spawn(driver);
        connecting.await
    }

    /// Returns a connection that is being opened, and its driver, for callers that poll or spawn the driver
    /// themselves.
    ///
    /// The driver panics where the timers of the runtime do. Unlike [`connect`](Self::connect), this does not
    /// check for a runtime.
    ///
    /// # Errors
    /// [`ConnectError::InvalidArgument`], [`ConnectError::NoClientCertificate`], [`ConnectError::TlsUnsupported`] or
    /// [`ConnectError::Tls`] if the configuration is invalid.
    pub fn driver(&self) -> Result<(Connecting, Driver<R>), ConnectError> {
        connect(self.runtime.clone(), self.config.clone(), self.plugins.clone())
    }

    /// Returns a connection over a stream that is connected already, and its driver: see
    /// [`connect_with`](Self::connect_with).
    ///
    /// # Errors
    /// [`ConnectError::InvalidArgument`] if the configuration is invalid.
    pub fn driver_with<S>(&self, stream: S) -> Result<(Connecting, DriverOver<R, S>), ConnectError>
    where
        R: Over<S>,
    {
        let transport = self.runtime.wrap(stream);
        connect_with(self.runtime.clone(), self.config.clone(), self.plugins.clone(), transport)
    }

    fn check(&self) -> Result<(), ConnectError> {
        self.runtime.check().map_err(|error| ConnectError::DriverNotStarted(error.into()))
    }
}

impl<R: Default> From<Config> for Connector<R> {
    fn from(config: Config) -> Self {
        Self { config, ..Self::default() }
    }
}

impl<R: Default> From<AmqpUri> for Connector<R> {
    fn from(uri: AmqpUri) -> Self {
        Self::from(Config::from(uri))
    }
}

/// Returns a connection that is being opened, and its driver. Applications use the connector of an adapter,
/// which calls this.
///
/// # Errors
/// Those of [`Connector::driver`].
pub fn connect<R: Runtime>(
    runtime: R,
    config: Config,
    mut plugins: Plugins,
) -> Result<(Connecting, Driver<R>), ConnectError> {
    if plugins.secure.is_none() && config.wants_tls() {
        plugins.secure = Some(runtime.secure(config.tls())?);
    }
    let authentication = Authentication::new(&runtime, &config, &plugins)?;
    let config = plugins.apply(config);
    let (config, now) = (Arc::new(config), runtime.now());
    let seed = RandomState::new().hash_one(0);
    let session = if runtime.resolves() {
        Session::new(config, now, seed)
    } else {
        Session::dialling_by_name(config, now, seed)
    };
    Ok(driven(runtime, session?, authentication, plugins.secure, plugins.hooks))
}

/// Returns a connection over a transport that is connected already, and its driver.
///
/// # Errors
/// [`ConnectError::InvalidArgument`] if the configuration is invalid.
pub fn connect_with<R: Executor, T: Transport>(
    runtime: R,
    config: Config,
    plugins: Plugins,
    transport: T,
) -> Result<(Connecting, Driver<OverTransport<R, T>>), ConnectError> {
    let (config, hooks) = (plugins.apply(config), plugins.hooks.clone());
    let authentication = Authentication::over_stream(plugins);
    let (session, attempt) = Session::connected(Arc::new(config), runtime.now())?;
    let runtime = OverTransport::connected(runtime);
    let (connecting, driver) = driven(runtime, session, authentication, None, hooks);
    Ok((connecting, driver.with_transport(attempt, transport)))
}

fn driven<R: Runtime>(
    runtime: R,
    session: Session,
    authentication: Authentication,
    secure: Option<Arc<dyn Secure>>,
    hooks: Hooks,
) -> (Connecting, Driver<R>) {
    let shared = Arc::new(Shared::new(session, runtime.clock()));
    let pump = Pump::new(Arc::clone(&shared));
    let driver = Driver::new(runtime, pump, authentication, secure, hooks);
    let holder = Arc::new(ConnectionHolder::new(shared));
    (Connecting { inner: Some(holder), ticket: None }, driver)
}

/// A connection that is being opened. Resolves to the open [`Connection`].
///
/// # Errors
/// [`ConnectError`] with every failed attempt, within the connect timeout (30 s by default).
///
/// # Cancel safety
/// If the future is dropped, the attempt ends, and the transport is closed.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Connecting {
    inner: Option<Arc<ConnectionHolder>>,
    ticket: Option<u64>,
}

impl Future for Connecting {
    type Output = Result<Connection, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { inner, ticket } = &mut *self;
        let Some(connection) = inner else { return Poll::Pending };
        let result = connection.shared.with(|state| {
            match state.session.cause() {
                // It may be lost again: its handles report that.
                _ if state.session.was_opened() => Poll::Ready(Ok(())),
                None => {
                    state.lifecycle.wait(ticket, cx.waker(), &mut state.released);
                    Poll::Pending
                }
                Some(CloseCause::Connect(error)) => Poll::Ready(Err((**error).clone())),
                // A hook has closed it.
                Some(_) => Poll::Ready(Err(ConnectError::Aborted)),
            }
        });
        let Poll::Ready(result) = result else { return Poll::Pending };
        connection.shared.with(|state| state.lifecycle.leave(ticket, &mut state.released));
        match (result, inner.take()) {
            (Ok(()), Some(inner)) => Poll::Ready(Ok(Connection::new(inner))),
            (Err(error), _) => Poll::Ready(Err(error)),
            (Ok(()), None) => Poll::Pending,
        }
    }
}

impl FusedFuture for Connecting {
    fn is_terminated(&self) -> bool {
        self.inner.is_none()
    }
}
