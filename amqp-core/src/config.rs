//! The configuration of a connection: endpoints, credentials, limits. Defaults stand in
//! [`crate::limits`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use amqp_proto::{FieldTable, FieldValue};

use crate::limits;

/// Port of `amqp`.
pub(crate) const PORT: u16 = 5672;

/// The configuration of a connection.
///
/// ```
/// use amqp_core::{Config, Heartbeat};
/// let config = Config::from_uri("amqp://app:secret@broker/orders")?
///     .heartbeat(Heartbeat::Seconds(10))
///     .connection_name("order-service");
/// # Ok::<(), amqp_core::UriError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub(crate) tls: bool,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) credentials: Credentials,
    pub(crate) vhost: String,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) channel_max: u16,
    pub(crate) frame_max: u32,
    pub(crate) client_properties: FieldTable,
    pub(crate) connect_timeout: Duration,
    pub(crate) address_timeout: Duration,
    pub(crate) call_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) blocked_timeout: Option<Duration>,
}

impl Config {
    /// The mechanism and its secrets.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// The interval of heartbeats (AMQP 0-9-1, 4.2.7; <https://www.rabbitmq.com/docs/heartbeats>).
    #[must_use]
    pub const fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// The maximum number of channels. The broker's limit counts if it is lower. 0 is taken as 1.
    #[must_use]
    pub fn channel_max(mut self, channels: u16) -> Self {
        self.channel_max = channels.max(1);
        self
    }

    /// The maximum size of a frame in bytes. The broker's limit counts if it is lower. Clamped to
    /// 4,096..=131,072.
    #[must_use]
    pub fn frame_max(mut self, bytes: u32) -> Self {
        self.frame_max = bytes.clamp(amqp_proto::frame::FRAME_MIN_SIZE, limits::FRAME_MAX_BYTES);
        self
    }

    /// The name that RabbitMQ's tools show for the connection.
    #[must_use]
    pub fn connection_name(self, name: &str) -> Self {
        self.client_property("connection_name", name)
    }

    /// One client property, in place of the default of that name. `capabilities` cannot be replaced:
    /// they say what this client can do.
    #[must_use]
    pub fn client_property(mut self, name: &str, value: impl Into<FieldValue>) -> Self {
        self.client_properties.insert(name, value);
        self
    }

    /// The timeout for connecting as a whole; 30 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.min(limits::TIMEOUT_MAX);
        self
    }

    /// The timeout for one address, that is dialling and the handshake; 10 s by default.
    #[must_use]
    pub fn address_timeout(mut self, timeout: Duration) -> Self {
        self.address_timeout = timeout.min(limits::TIMEOUT_MAX);
        self
    }

    /// The timeout of a call; 30 s by default.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout.min(limits::TIMEOUT_MAX);
        self
    }

    /// How long a close waits for the broker; 10 s by default.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout.min(limits::TIMEOUT_MAX);
        self
    }

    /// How long the broker may block publishes (`connection.blocked`) before the connection ends; no limit by
    /// default (<https://www.rabbitmq.com/docs/connection-blocked>).
    #[must_use]
    pub fn blocked_timeout(mut self, timeout: Duration) -> Self {
        self.blocked_timeout = Some(timeout.min(limits::TIMEOUT_MAX));
        self
    }

    /// Whether the URI asked for TLS.
    pub const fn wants_tls(&self) -> bool {
        self.tls
    }

    /// The virtual host.
    pub fn virtual_host(&self) -> &str {
        &self.vhost
    }

    /// The hosts, in the order in which they are tried.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// What is sent as client properties: the application's, over the defaults, and the capabilities.
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
            tls: false,
            endpoints: vec![Endpoint::new("localhost", PORT)],
            credentials: Credentials::default(),
            vhost: "/".into(),
            heartbeat: Heartbeat::Server,
            channel_max: limits::CHANNEL_MAX,
            frame_max: limits::FRAME_MAX_BYTES,
            client_properties: FieldTable::new(),
            connect_timeout: limits::CONNECT_TIMEOUT,
            address_timeout: limits::ADDRESS_TIMEOUT,
            call_timeout: limits::CALL_TIMEOUT,
            close_timeout: limits::CLOSE_TIMEOUT,
            blocked_timeout: None,
        }
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// A name, or an IPv4 or IPv6 address.
    pub host: Arc<str>,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    /// A host and a port.
    pub fn new(host: impl Into<Arc<str>>, port: u16) -> Self {
        Self { host: host.into(), port }
    }
}

/// The interval of heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heartbeat {
    /// As the broker proposes: 60 s unless RabbitMQ is configured otherwise.
    Server,
    /// This many seconds, whatever the broker proposes; 0 turns heartbeats off.
    Seconds(u16),
}

/// How to log in (<https://www.rabbitmq.com/docs/access-control#mechanisms>).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// The mechanism PLAIN.
    Plain {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
}

impl Credentials {
    /// User and password, sent by the mechanism PLAIN.
    pub fn plain(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Plain { user: user.into(), password: Secret::new(password) }
    }
}

impl Default for Credentials {
    /// RabbitMQ's default user `guest`, which may log in from the broker's own host only.
    fn default() -> Self {
        Self::plain("guest", "guest")
    }
}

/// A secret text. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().into_boxed_str())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
