//! The configuration of a connection: hosts, credentials, limits and timeouts. The defaults are in [`crate::limits`].

mod credentials;
mod mechanism;
mod recovery;
mod tcp;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use amqp_proto::frame::FRAME_MIN_SIZE;
use amqp_proto::{FieldTable, FieldValue};

use crate::limits;

pub(crate) use credentials::{Choice, UserPassword};
pub use credentials::{Credentials, ProvidedCredentials, Secret};
pub use mechanism::{AuthExchange, AuthMechanism, Challenge};
pub use recovery::{Backoff, Recovery, RecoveryMode};
pub use tcp::TcpOptions;
pub use tls::TlsSettings;

/// The default port of `amqp`.
pub(crate) const PORT: u16 = 5672;

/// The configuration of a connection.
///
/// Methods are chained. A value beyond its range is set to the nearest value within. The default is
/// `amqp://guest:guest@localhost:5672/%2f`.
///
/// ```
/// use amqp_core::{Config, Credentials, Heartbeat};
/// let config = Config::from_uri("amqp://app:secret@broker/orders")?
///     .heartbeat(Heartbeat::Seconds(10))
///     .connection_name("order-service");
///
/// let same = Config::default()
///     .host("broker")
///     .credentials(Credentials::plain("app", "secret"))
///     .virtual_host("orders")
///     .heartbeat(Heartbeat::Seconds(10))
///     .connection_name("order-service");
/// assert_eq!(config, same);
/// # Ok::<(), amqp_core::errors::UriError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) credentials: Credentials,
    pub(crate) fetch_credentials: bool,
    pub(crate) virtual_host: String,
    pub(crate) tls: TlsSettings,
    pub(crate) tcp: TcpOptions,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) channel_max: u16,
    pub(crate) frame_max: u32,
    pub(crate) initial_frame_max: u32,
    pub(crate) client_properties: FieldTable,
    pub(crate) locale: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) address_timeout: Duration,
    pub(crate) connection_attempts: u16,
    pub(crate) retry_delay: Duration,
    pub(crate) host_order: HostOrder,
    pub(crate) call_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) blocked_timeout: Option<Duration>,
    pub(crate) hook_timeout: Duration,
    pub(crate) runs_hook: bool,
    pub(crate) asks_to_recover: bool,
    pub(crate) recovery: Recovery,
}

impl Config {
    /// Sets the only host: a name, or an IPv4 or IPv6 address without brackets. The default is `localhost`.
    /// The port stays as it is.
    #[must_use]
    pub fn host(self, host: impl Into<Arc<str>>) -> Self {
        self.hosts([host])
    }

    /// Sets the hosts, in the order in which they are tried by default, all on the port that is set. An empty list
    /// is refused when connecting.
    #[must_use]
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = impl Into<Arc<str>>>) -> Self {
        let first = self.endpoints.first();
        let (port, tls) = first.map_or((PORT, false), |endpoint| (endpoint.port, endpoint.tls));
        self.endpoints = hosts.into_iter().map(|host| Endpoint::new(host, port).tls(tls)).collect();
        self
    }

    /// Sets the port of every host. The default is 5672.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.endpoints.iter_mut().for_each(|endpoint| endpoint.port = port);
        self
    }

    /// Sets the hosts with a port each, in the order in which they are tried by default. An empty list is refused
    /// when connecting.
    #[must_use]
    pub fn endpoints(mut self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        self.endpoints = endpoints.into_iter().collect();
        self
    }

    /// Sets the virtual host. The default is `/`. It is not percent-encoded.
    #[must_use]
    pub fn virtual_host(mut self, name: impl Into<String>) -> Self {
        self.virtual_host = name.into();
        self
    }

    /// Sets the authentication mechanisms, in order, and their secrets. The default is user `guest` with password
    /// `guest`, by the mechanism PLAIN.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Requests credentials from the driver for each attempt to connect, in place of those that are configured: see
    /// [`Action::FetchCredentials`](crate::Action::FetchCredentials). Connectors with a provider set it.
    #[must_use]
    pub const fn fetch_credentials(mut self, fetch: bool) -> Self {
        self.fetch_credentials = fetch;
        self
    }

    /// Sets what TLS trusts and presents, for hosts that are reached by it (`amqps`,
    /// [`Endpoint::tls`]).
    #[must_use]
    pub fn tls_settings(mut self, settings: TlsSettings) -> Self {
        self.tls = settings;
        self
    }

    /// Sets the options of TCP sockets: keepalive, buffers, the local address. By default they are those of the
    /// operating system. They do not apply to streams that the application connects itself.
    #[must_use]
    pub const fn tcp_options(mut self, options: TcpOptions) -> Self {
        self.tcp = options;
        self
    }

    /// Sets the heartbeat interval (AMQP 0-9-1, 4.2.7; <https://www.rabbitmq.com/docs/heartbeats>). The
    /// default is the broker's: 60 s.
    #[must_use]
    pub const fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Sets the maximum number of channels, 1 to 65,535. The default is 2,047. A lower limit of the broker
    /// takes precedence.
    #[must_use]
    pub fn channel_max(mut self, channels: u16) -> Self {
        self.channel_max = channels.max(1);
        self
    }

    /// Sets the maximum size of a frame, 4,096 to 131,072 bytes. The default is 131,072. A lower limit of the
    /// broker takes precedence.
    #[must_use]
    pub fn frame_max(mut self, bytes: u32) -> Self {
        self.frame_max = bytes.clamp(FRAME_MIN_SIZE, limits::FRAME_MAX_BYTES);
        self
    }

    /// Sets the maximum size of a frame before `frame_max` is negotiated: of the login, which has the client
    /// properties and the password or token. It is 4,096 to 131,072 bytes, and 16,384 by default. A broker has a
    /// limit of its own: RabbitMQ's `initial_frame_max` is 4,096 bytes, and 8,192 since RabbitMQ 4.1.
    #[must_use]
    pub fn initial_frame_max(mut self, bytes: u32) -> Self {
        self.initial_frame_max = bytes.clamp(FRAME_MIN_SIZE, limits::FRAME_MAX_BYTES);
        self
    }

    /// Sets the name that RabbitMQ's tools show for the connection. By default it has none.
    #[must_use]
    pub fn connection_name(self, name: &str) -> Self {
        self.client_property("connection_name", name)
    }

    /// Sets a client property, in place of the default of that name. `capabilities` cannot be replaced: they
    /// are what this client can do.
    #[must_use]
    pub fn client_property(mut self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.client_properties.insert(name, value);
        self
    }

    /// Sets the locale: the language of the broker's texts. The default is `en_US`, which is the only one that RabbitMQ
    /// has. A broker may ignore one that it does not offer, or close the connection.
    #[must_use]
    pub fn locale(mut self, locale: impl Into<String>) -> Self {
        self.locale = locale.into();
        self
    }

    /// Sets the order in which the hosts are tried. The default is the order of the list.
    #[must_use]
    pub const fn host_order(mut self, order: HostOrder) -> Self {
        self.host_order = order;
        self
    }

    /// Sets how often the list of hosts is tried until a connection is open: 1 to 65,535 cycles. The default is 1.
    /// Each cycle looks up the hosts again. All cycles together have the [connect timeout](Self::connect_timeout).
    #[must_use]
    pub fn connection_attempts(mut self, cycles: u16) -> Self {
        self.connection_attempts = cycles.max(1);
        self
    }

    /// Sets the delay between two cycles of [attempts](Self::connection_attempts). The default is 2 s.
    #[must_use]
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.retry_delay = delay.min(limits::TIMEOUT_MAX);
        self
    }

    /// Sets the timeout of connecting as a whole, over all hosts, addresses and cycles. The default is 30 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.min(limits::TIMEOUT_MAX);
        self
    }

    /// Sets the timeout of one address, from fetching credentials and dialling to the end of the handshake, and of
    /// looking up one host. It is at least 1 ms. The default is 10 s.
    #[must_use]
    pub fn address_timeout(mut self, timeout: Duration) -> Self {
        self.address_timeout = timeout.clamp(limits::ADDRESS_TIMEOUT_MIN, limits::TIMEOUT_MAX);
        self
    }

    /// Sets how long a call waits for its reply. The default is 30 s.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout.min(limits::TIMEOUT_MAX);
        self
    }

    /// Sets how long a close waits for the broker's reply. The default is 10 s.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout.min(limits::TIMEOUT_MAX);
        self
    }

    /// Sets how long the broker may block publishes (`connection.blocked`) before the connection ends. By
    /// default there is no limit (<https://www.rabbitmq.com/docs/connection-blocked>).
    #[must_use]
    pub fn blocked_timeout(mut self, timeout: Duration) -> Self {
        self.blocked_timeout = Some(timeout.min(limits::TIMEOUT_MAX));
        self
    }

    /// Sets the maximum time of the hook that sets up each new connection. The default is 30 s. When it expires, the
    /// attempt to connect or to recover has failed.
    #[must_use]
    pub fn hook_timeout(mut self, timeout: Duration) -> Self {
        self.hook_timeout = timeout.min(limits::TIMEOUT_MAX);
        self
    }

    /// Has the driver run a hook on each new connection, before it is used: see
    /// [`Action::RunHook`](crate::Action::RunHook). Connectors with a hook set it.
    #[must_use]
    pub const fn runs_hook(mut self, runs: bool) -> Self {
        self.runs_hook = runs;
        self
    }

    /// Has the driver decide which losses are recovered, of those that the [policy](Self::recovery) covers: see
    /// [`Action::DecideRecovery`](crate::Action::DecideRecovery). Connectors with a condition set it.
    #[must_use]
    pub const fn asks_to_recover(mut self, asks: bool) -> Self {
        self.asks_to_recover = asks;
        self
    }

    /// Sets what happens when the open connection is lost. By default every loss is recovered:
    /// [`Recovery::automatic`].
    #[must_use]
    pub fn recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }

    /// Returns what TLS trusts and presents. A session does not encrypt: its driver does.
    pub const fn tls(&self) -> &TlsSettings {
        &self.tls
    }

    /// Returns the options of TCP sockets. A session does not dial: its driver does.
    pub const fn tcp(&self) -> &TcpOptions {
        &self.tcp
    }

    /// Returns for each host whether it is to be reached over TLS.
    pub fn hosts_tls(&self) -> impl Iterator<Item = bool> {
        self.endpoints.iter().map(|endpoint| endpoint.tls)
    }

    /// Returns the credentials that are configured.
    pub const fn login(&self) -> &Credentials {
        &self.credentials
    }

    /// Returns whether any of the hosts is to be reached over TLS. A driver that does not support TLS must
    /// refuse such a configuration, because a session does not check it.
    pub fn wants_tls(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.tls)
    }

    /// Returns the client properties to send: the defaults, the application's properties over them, and the
    /// capabilities.
    pub(crate) fn sent_properties(&self) -> FieldTable {
        let mut properties = FieldTable::from([
            ("product", "amqp".into()),
            ("platform", "Rust".into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
        ]);
        for (name, value) in self.client_properties.iter() {
            properties.insert(name, value.clone());
        }
        let capabilities = [
            "authentication_failure_close",
            "basic.nack",
            "connection.blocked",
            "consumer_cancel_notify",
            "exchange_exchange_bindings",
            "publisher_confirms",
        ];
        let capabilities: FieldTable =
            capabilities.into_iter().map(|name| (name, FieldValue::Bool(true))).collect();
        properties.insert("capabilities", capabilities);
        properties
    }
}

impl Default for Config {
    /// `amqp://guest:guest@localhost:5672/%2f`
    fn default() -> Self {
        Self {
            endpoints: vec![Endpoint::new("localhost", PORT)],
            credentials: Credentials::default(),
            fetch_credentials: false,
            virtual_host: "/".into(),
            tls: TlsSettings::default(),
            tcp: TcpOptions::default(),
            heartbeat: Heartbeat::Server,
            channel_max: limits::CHANNEL_MAX,
            frame_max: limits::FRAME_MAX_BYTES,
            initial_frame_max: limits::INITIAL_FRAME_MAX_BYTES,
            client_properties: FieldTable::new(),
            locale: "en_US".into(),
            connect_timeout: limits::CONNECT_TIMEOUT,
            address_timeout: limits::ADDRESS_TIMEOUT,
            connection_attempts: 1,
            retry_delay: limits::RETRY_DELAY,
            host_order: HostOrder::default(),
            call_timeout: limits::CALL_TIMEOUT,
            close_timeout: limits::CLOSE_TIMEOUT,
            blocked_timeout: None,
            hook_timeout: limits::HOOK_TIMEOUT,
            runs_hook: false,
            asks_to_recover: false,
            recovery: Recovery::automatic(),
        }
    }
}

/// A host, its port, and whether it is reached by TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// A name, or an IPv4 or IPv6 address without brackets.
    pub host: Arc<str>,
    /// The port.
    pub port: u16,
    /// Whether the connection is to be encrypted (`amqps`).
    pub tls: bool,
}

impl Endpoint {
    /// A host and a port, without TLS.
    pub fn new(host: impl Into<Arc<str>>, port: u16) -> Self {
        Self { host: host.into(), port, tls: false }
    }

    /// Sets whether the connection is to be encrypted. Without a TLS implementation connecting returns
    /// [`ConnectError::TlsUnsupported`](crate::ConnectError::TlsUnsupported).
    #[must_use]
    pub const fn tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }
}

/// The order in which hosts are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostOrder {
    /// As they are listed.
    #[default]
    Listed,
    /// In a random order, another one for each cycle of attempts. Clients of a cluster spread over its nodes.
    Shuffled,
}

/// The heartbeat interval: how often each side sends something. A peer that is silent for two intervals is
/// declared dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heartbeat {
    /// The interval that the broker proposes: 60 s unless RabbitMQ is configured otherwise.
    Server,
    /// This number of seconds, whatever the broker proposes. 0 turns heartbeats off.
    Seconds(u16),
}
