use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use amqp_async::core::{AmqpUri, CloseCause, Config, ConnectError, Endpoint, ProvidedCredentials};
use amqp_async::{OverTransport, Plugins, Runtime, Secure};

use crate::connection::Connection;
use crate::io_runtime::IoRuntime;
use crate::io_thread::{Driver, Io, not_started};
use crate::stream::{Socket, Stream};
use crate::wait::wait;
use crate::work_pool;

/// Opens a connection to the broker that an AMQP URI names. For settings that are not in the URI, see
/// [`Connector`].
///
/// # Errors
/// [`ConnectError`], within 30 s unless the URI sets `connection_timeout`.
pub fn connect(uri: &str) -> Result<Connection, ConnectError> {
    Connector::new(uri)?.connect()
}

/// Opens connections: a configuration, for any number of them.
///
/// Methods are chained. There are three ways to create a connector. [`new`](Self::new) takes a URI.
/// `Connector::default()` is `amqp://guest:guest@localhost:5672/%2f`, which methods can change.
/// `Connector::from` takes a [`Config`] or an [`AmqpUri`].
///
/// ```no_run
/// # fn example() -> Result<(), amqp_blocking::ConnectError> {
/// use amqp_blocking::{Connector, Heartbeat};
/// let connection = Connector::new("amqp://app:secret@h1,h2/orders")?
///     .heartbeat(Heartbeat::Seconds(10))
///     .connection_name("order-service")
///     .connect()?;
/// # Ok(())
/// # }
/// ```
///
/// Settings that are not a URI:
///
/// ```no_run
/// # fn example(password: String) -> Result<(), amqp_blocking::ConnectError> {
/// use amqp_blocking::{Connector, Credentials};
/// let connection = Connector::default()
///     .hosts(["h1", "h2"])
///     .port(5673)
///     .virtual_host("orders")
///     .credentials(Credentials::plain("app", password))
///     .connect()?;
/// # Ok(())
/// # }
/// ```
///
/// Streams that a function creates, here Unix sockets:
///
/// ```no_run
/// # fn example() -> Result<(), amqp_blocking::ConnectError> {
/// use amqp_blocking::{Connector, Stream};
/// use std::os::unix::net::UnixStream;
/// let connection = Connector::default()
///     .dial_with(|_| Stream::unix(UnixStream::connect("/run/broker.sock")?))
///     .connect()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Connector {
    config: Config,
    dial: Option<Arc<Dial>>,
    plugins: Plugins,
}

type Dial = dyn Fn(Endpoint) -> io::Result<Stream> + Send + Sync;

impl Connector {
    /// Creates a connector for an AMQP URI. [`AmqpUri`] lists the parts of a URI.
    ///
    /// # Errors
    /// [`ConnectError::InvalidUri`], which never shows the URI.
    pub fn new(uri: &str) -> Result<Self, ConnectError> {
        Ok(Self::from(Config::from_uri(uri)?))
    }

    /// Creates the streams of connections with a function, such as one that connects through a proxy or to a
    /// Unix socket.
    ///
    /// The function is called for each host in turn, until a connection is open. It receives the host by
    /// name: names are not looked up before. It may block. It runs on one of at most
    /// [`CONNECT_THREADS_MAX`](crate::limits::CONNECT_THREADS_MAX) threads of the process. If it returns
    /// after the [timeout of an address](Self::address_timeout), its stream is dropped. It cannot be
    /// interrupted, so it should have a timeout itself. An error that it returns is reported as
    /// [`ConnectFailure::Dial`](crate::errors::ConnectFailure::Dial).
    ///
    /// The connector encrypts the streams of `amqps` hosts. If the function encrypts the stream itself, use `amqp`
    /// hosts: the connector does not know about the encryption.
    #[must_use]
    pub fn dial_with(
        self,
        dial: impl Fn(Endpoint) -> io::Result<Stream> + Send + Sync + 'static,
    ) -> Self {
        Self { dial: Some(Arc::new(dial)), ..self }
    }

    /// Changes the configuration with a function.
    #[must_use]
    pub fn configure(self, change: impl FnOnce(Config) -> Config) -> Self {
        Self { config: change(self.config), ..self }
    }

    /// Sets what encrypts the transports to `amqps` hosts, such as an `amqp_tls::Rustls` of a configuration of
    /// your own. It takes precedence over the crate's own (its feature `tls`), and over the
    /// [files of the configuration](Self::tls_settings).
    #[must_use]
    pub fn tls(mut self, secure: impl Secure + 'static) -> Self {
        self.plugins.secure = Some(Arc::new(secure));
        self
    }

    /// Fetches credentials with a function, such as a token from an OAuth 2 server, in place of those that are
    /// configured. The function is called for each attempt to connect. It may block. It runs on one of at most
    /// [`CONNECT_THREADS_MAX`](crate::limits::CONNECT_THREADS_MAX) threads of the process.
    ///
    /// If what it returns [expires](ProvidedCredentials::valid_for), it is called again when four fifths of that time
    /// have passed, and the broker is sent the new secret (`connection.update-secret`;
    /// <https://www.rabbitmq.com/docs/oauth2>). If that fails, it is tried again, and
    /// [`ConnectionEvent::CredentialsNotRenewed`](crate::ConnectionEvent::CredentialsNotRenewed) says so.
    ///
    /// The guide has an example ([TLS and authentication](crate::guide::tls)).
    ///
    /// For attempts, an error is reported as
    /// [`ConnectFailure::Credentials`](crate::errors::ConnectFailure::Credentials), and the next address is tried. It is
    /// shown and logged, so it must not hold a secret.
    #[must_use]
    pub fn credentials_provider<P, E>(
        mut self,
        provider: impl Fn() -> Result<P, E> + Send + Sync + 'static,
    ) -> Self
    where
        P: Into<ProvidedCredentials>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let provider = Arc::new(provider);
        self.plugins.credentials = Some(Arc::new(move || {
            let provider = Arc::clone(&provider);
            work_pool::run(move || provider().map(P::into).map_err(io::Error::other))
        }));
        self
    }

    /// Adds a hook, which runs each time a transport is connected: for the first connection, and whenever the
    /// connection is recovered. It declares what the application needs, or checks that it is there.
    ///
    /// It gets a [`Connection`], on which it opens channels. Everything else waits until it returns:
    /// [`connect`](Self::connect) and, while the connection is being recovered, the application's channels. What it declares
    /// and consumes is not [recovered](Self::recovery), for the hook runs again. Its channels end with the transport,
    /// and a thread that it starts may use the connection until then. The connection that it gets does not keep the
    /// connection open.
    ///
    /// A hook that returns an error or panics fails the attempt. For the first connection that is an error of
    /// [`connect`](Self::connect); otherwise the connection is tried again after a delay. So does one that takes longer
    /// than [`hook_timeout`](Self::hook_timeout): its calls return errors then, as they do when the transport is lost.
    /// Hooks run on a thread for this transport, one after the other, in the order in which they were added. They may
    /// block.
    ///
    /// ```
    /// # use amqp_blocking::{Connector, QueueDeclare};
    /// let connector = Connector::default().on_connect(|connection| {
    ///     let channel = connection.open_channel()?;
    ///     channel.queue_declare(QueueDeclare::quorum("orders")).map(|_| ())
    /// });
    /// ```
    #[must_use]
    pub fn on_connect<E>(
        mut self,
        hook: impl Fn(&Connection) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self
    where
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let hook = Arc::new(hook);
        self.plugins.hooks.on_connect(move |connection| {
            let hook = Arc::clone(&hook);
            // The task has a thread of its own.
            async move { hook(&Connection::new(connection)) }
        });
        self
    }

    /// Sets which losses are recovered, of those that the [policy](Self::recovery) covers: those for which `recovers`
    /// returns true. Otherwise the connection ends with this cause. It is called for each loss, also for one that
    /// interrupts a recovery, but not for attempts to connect that fail. It must not block, for it runs on the thread of the connection. If it panics, the
    /// connection ends.
    ///
    /// ```
    /// # use amqp_blocking::{CloseCause, Connector, ReplyCode};
    /// // A close for an error of this client would be repeated: the connection ends.
    /// let connector = Connector::default().recover_if(|cause| match cause {
    ///     CloseCause::ByBroker(error) => error.code == ReplyCode::CONNECTION_FORCED,
    ///     _ => true,
    /// });
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
    /// Callbacks run one at a time, on a thread that the connection has for them, and get a [`Connection`] that does not
    /// keep the connection open. They may block. They read the [events](Connection::events) of the connection: one that
    /// falls 256 events behind misses some. A panic ends neither the connection nor other callbacks.
    ///
    /// ```
    /// # use amqp_blocking::Connector;
    /// let connector = Connector::default()
    ///     .on_error(|_, cause| eprintln!("connection lost: {cause}"))
    ///     .on_blocked(|_, reason| eprintln!("publishes wait: {reason}"))
    ///     .on_unblocked(|_| eprintln!("publishes continue"))
    ///     .on_close(|_, cause| eprintln!("connection closed: {cause}"));
    /// ```
    #[must_use]
    pub fn on_error(
        mut self,
        call: impl Fn(&Connection, &CloseCause) + Send + Sync + 'static,
    ) -> Self {
        self.plugins.hooks.on_error(move |connection, cause| call(&weak(connection), cause));
        self
    }

    /// Adds a callback for the end of the connection, for any reason, after which it is not recovered. It runs as
    /// [`on_error`](Self::on_error) says.
    #[must_use]
    pub fn on_close(
        mut self,
        call: impl Fn(&Connection, &CloseCause) + Send + Sync + 'static,
    ) -> Self {
        self.plugins.hooks.on_close(move |connection, cause| call(&weak(connection), cause));
        self
    }

    /// Adds a callback for a broker that blocks publishes (`connection.blocked`). It gets the broker's reason, and runs
    /// as [`on_error`](Self::on_error) says.
    #[must_use]
    pub fn on_blocked(mut self, call: impl Fn(&Connection, &str) + Send + Sync + 'static) -> Self {
        self.plugins.hooks.on_blocked(move |connection, reason| call(&weak(connection), reason));
        self
    }

    /// Adds a callback for a broker that accepts publishes again (`connection.unblocked`), or when a blocked connection is
    /// lost. It runs as [`on_error`](Self::on_error) says.
    #[must_use]
    pub fn on_unblocked(mut self, call: impl Fn(&Connection) + Send + Sync + 'static) -> Self {
        self.plugins.hooks.on_unblocked(move |connection| call(&weak(connection)));
        self
    }

    amqp_async::connector_settings!();

    /// Opens a connection, and spawns a thread as its driver, which ends when the connection does. Waits
    /// until the connection is open. The addresses of all hosts are tried in order, each within its timeout,
    /// in [one cycle or several](Self::connection_attempts). If a broker refuses the login or the virtual host,
    /// nothing else is tried.
    ///
    /// Names are looked up on at most [`CONNECT_THREADS_MAX`](crate::limits::CONNECT_THREADS_MAX) threads of
    /// the process. If all are busy, the lookup waits for one, and that time counts towards the connect
    /// timeout.
    ///
    /// # Errors
    /// [`ConnectError`] with every failed attempt, within the [connect timeout](Self::connect_timeout), and the
    /// [hook timeout](Self::hook_timeout) if there are hooks. [`ConnectError::Aborted`] if a hook closes the connection.
    /// [`ConnectError::NoClientCertificate`] if the mechanism EXTERNAL is configured without a client certificate. For an
    /// `amqps` host [`ConnectError::TlsUnsupported`] without the feature `tls` or a TLS implementation
    /// ([`tls`](Self::tls)), and [`ConnectError::Tls`] if certificates cannot be read.
    pub fn connect(&self) -> Result<Connection, ConnectError> {
        let (connecting, driver) = self.driver()?;
        driver.spawn()?;
        connecting.wait()
    }

    /// Opens a connection over a stream that is connected already, such as a Unix socket or a tunnel, and
    /// waits until it is open. Errors name the first host of the configuration. The other hosts are ignored,
    /// and so is whether the host is to use TLS, because encryption is up to the stream. To create a stream
    /// for each attempt, see [`dial_with`](Self::dial_with).
    ///
    /// # Errors
    /// [`ConnectError`] with the one failed attempt, within the timeouts of an address and of connecting.
    pub fn connect_with(&self, stream: Stream) -> Result<Connection, ConnectError> {
        let (connecting, driver) = self.driver_with(stream)?;
        driver.spawn()?;
        connecting.wait()
    }

    /// Returns a connection that is being opened, and its driver, which the caller runs on a thread of its
    /// choice.
    ///
    /// # Errors
    /// [`ConnectError::InvalidArgument`], [`ConnectError::TlsUnsupported`] or [`ConnectError::Tls`] if the
    /// configuration is invalid. [`ConnectError::DriverNotStarted`] if the system has no poller for it.
    pub fn driver(&self) -> Result<(Connecting, Driver), ConnectError> {
        match &self.dial {
            Some(dial) => self.driver_on(|io| {
                let (dial, sockets) = (Arc::clone(dial), Arc::clone(&io));
                OverTransport::dialled_by(IoRuntime::new(io), move |endpoint| {
                    let (dial, io) = (Arc::clone(&dial), Arc::clone(&sockets));
                    let dialling = work_pool::run(move || dial(endpoint));
                    async move { Socket::new(io, dialling.await?) }
                })
            }),
            None => self.driver_on(IoRuntime::new),
        }
    }

    /// Returns a connection over a stream that is connected already, and its driver: see
    /// [`connect_with`](Self::connect_with).
    ///
    /// # Errors
    /// [`ConnectError::InvalidArgument`] if the configuration is invalid. [`ConnectError::DriverNotStarted`]
    /// if the stream cannot be polled.
    pub fn driver_with(&self, stream: Stream) -> Result<(Connecting, Driver), ConnectError> {
        Driver::new(|io| {
            let socket = Socket::new(Arc::clone(&io), stream).map_err(not_started)?;
            let (connecting, driver) = amqp_async::connect_with(
                IoRuntime::new(io),
                self.config.clone(),
                self.plugins.clone(),
                socket,
            )?;
            Ok((Connecting(connecting), driver))
        })
    }

    fn driver_on<R: Runtime>(
        &self,
        runtime: impl FnOnce(Arc<Io>) -> R,
    ) -> Result<(Connecting, Driver), ConnectError> {
        Driver::new(|io| {
            let (connecting, driver) =
                amqp_async::connect(runtime(io), self.config.clone(), self.plugins.clone())?;
            Ok((Connecting(connecting), driver))
        })
    }
}

/// The handle of a callback, which does not keep the connection open.
fn weak(connection: &amqp_async::Connection) -> Connection {
    Connection::new(connection.clone())
}

impl From<Config> for Connector {
    fn from(config: Config) -> Self {
        Self { config, ..Self::default() }
    }
}

impl From<AmqpUri> for Connector {
    fn from(uri: AmqpUri) -> Self {
        Self::from(Config::from(uri))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A connection that a driver is opening.
///
/// If it is dropped, the attempt ends.
#[must_use = "when it is dropped, the attempt ends"]
#[derive(Debug)]
pub struct Connecting(amqp_async::futures::Connecting);

impl Connecting {
    /// Waits until the connection is open. The driver must run on another thread meanwhile.
    ///
    /// # Errors
    /// [`ConnectError`] with every failed attempt, within the connect timeout (30 s by default) once the
    /// driver runs.
    pub fn wait(self) -> Result<Connection, ConnectError> {
        wait(self.0).map(Connection::new)
    }
}
