//! AMQP URIs: `amqp://user:password@host:port/vhost?key=value`
//! (<https://www.rabbitmq.com/docs/uri-spec>, <https://www.rabbitmq.com/docs/uri-query-parameters>).
//!
//! Where parsers of URIs differ, this one returns an error: a guess could send the password to another host. No
//! error shows the URI.

#[cfg(feature = "serde")]
mod deserialize;
mod display;
mod error;
mod parse;
mod settings;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{
    Backoff, Choice, Config, Credentials, Endpoint, Heartbeat, HostOrder, PORT, Recovery,
    RecoveryMode, TcpOptions, TlsSettings, UserPassword,
};

pub use error::{SettingError, UriError, UriErrorKind};

/// The default port of `amqps`.
const TLS_PORT: u16 = 5671;

/// A parsed AMQP URI.
///
/// * Without a path, or with the path `/`, the virtual host is `/`. It may be written `%2f` too. A second
///   path segment is an error.
/// * User, password, host, virtual host and the values of query parameters are percent-decoded once. `+` is literal.
/// * Several hosts are separated by commas. They are tried in order, unless `host_order` says otherwise.
/// * An unknown query parameter, and a repeated one, is an error that names it.
/// * `verify=verify_none` is an error: a URI cannot turn the checks of certificates off.
///
/// The query parameters are those of [RabbitMQ](https://www.rabbitmq.com/docs/uri-query-parameters), those of pika,
/// and a few more. Each field says what its parameter takes. A number of seconds may have three decimals.
///
/// `Display` leaves the password out, so that a URI can be logged:
///
/// ```
/// use amqp_core::AmqpUri;
/// let mut uri: AmqpUri = "amqp://app:secret@h1,h2:5673/orders?heartbeat=10".parse()?;
/// assert_eq!(uri.hosts[1], ("h2".to_owned(), 5673));
/// assert_eq!(uri.to_string(), "amqp://app@h1:5672,h2:5673/orders?heartbeat=10");
///
/// uri.virtual_host = "returns".to_owned();
/// assert_eq!(uri.to_string_with_password(), "amqp://app:secret@h1:5672,h2:5673/returns?heartbeat=10");
/// # Ok::<(), amqp_core::errors::UriError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AmqpUri {
    /// Whether the scheme is `amqps`.
    pub tls: bool,
    /// The hosts with their ports. IPv6 addresses have no brackets.
    pub hosts: Vec<(String, u16)>,
    /// User and password, if the URI has them. `Display` shows the user of PLAIN or AMQPLAIN.
    pub credentials: Option<Credentials>,
    /// `auth_mechanism`: `plain`, `amqplain` or `external`. It may be repeated: the first that the broker offers is
    /// used. Without one, it is PLAIN.
    pub auth_mechanisms: Vec<UriMechanism>,
    /// The virtual host.
    pub virtual_host: String,
    /// `heartbeat`: the heartbeat interval in seconds, 0 to 65,535. 0 turns heartbeats off.
    pub heartbeat: Option<u16>,
    /// `channel_max`: the maximum number of channels, 1 to 65,535.
    pub channel_max: Option<u16>,
    /// `frame_max`: the maximum size of a frame, 4,096 to 131,072 bytes.
    pub frame_max: Option<u32>,
    /// `initial_frame_max`: the maximum size of the login's frame, 4,096 to 131,072 bytes.
    pub initial_frame_max: Option<u32>,
    /// `connection_timeout`: the timeout of connecting as a whole, in milliseconds, 1 to 86,400,000 (a day). Pika calls
    /// it `stack_timeout`, in seconds, 0.001 to 86,400. A URI has one of the two.
    pub connection_timeout: Option<Duration>,
    /// `socket_timeout`: the timeout of one address, in seconds, 0.001 to 86,400. See [`Config::address_timeout`].
    pub socket_timeout: Option<Duration>,
    /// `connection_attempts`: how often the list of hosts is tried, 1 to 65,535.
    pub connection_attempts: Option<u16>,
    /// `retry_delay`: the delay between two attempts at the list of hosts, in seconds, 0 to 86,400.
    pub retry_delay: Option<Duration>,
    /// `host_order`: `listed` or `shuffled`.
    pub host_order: Option<HostOrder>,
    /// `blocked_connection_timeout`: how long the broker may block publishes, in seconds, 0 to 86,400 (a day).
    pub blocked_connection_timeout: Option<Duration>,
    /// `call_timeout`: how long a call waits for its reply, in seconds, 0.001 to 86,400.
    pub call_timeout: Option<Duration>,
    /// `close_timeout`: how long a close waits for the broker's reply, in seconds, 0.001 to 86,400.
    pub close_timeout: Option<Duration>,
    /// `hook_timeout`: the maximum time of the hook that sets up each new connection, in seconds, 0.001 to 86,400.
    pub hook_timeout: Option<Duration>,
    /// `recovery`: which losses of the open connection are recovered, `automatic`, `never` or
    /// `unless_closed_by_broker`. See [`Recovery`].
    pub recovery: Option<RecoveryMode>,
    /// `recovery_delay`: the delay before the first attempt to recover, in seconds, 0.001 to 86,400. The delays double
    /// from it. See [`Backoff`].
    pub recovery_delay: Option<Duration>,
    /// `recovery_max_delay`: the maximum delay between attempts to recover, in seconds, 0.001 to 86,400.
    pub recovery_max_delay: Option<Duration>,
    /// `recovery_attempts`: the number of failed attempts to recover after which the connection ends, 1 to
    /// 4,294,967,295.
    pub recovery_attempts: Option<u32>,
    /// `locale`: the language of the broker's texts. RabbitMQ has `en_US` alone.
    pub locale: Option<String>,
    /// `client_properties.NAME`: a client property of any name, which is a text. RabbitMQ's tools show
    /// `client_properties.connection_name`.
    pub client_properties: BTreeMap<String, String>,
    /// `cacertfile`, `certfile`, `keyfile` and `server_name_indication`: what TLS trusts and presents. A `/` in a path
    /// need not be encoded.
    pub tls_settings: TlsSettings,
    /// The options of TCP sockets, as pika names them: `tcp_options.TCP_KEEPIDLE` and `tcp_options.TCP_KEEPINTVL` in
    /// seconds, 1 to 32,767; `tcp_options.TCP_KEEPCNT`, 1 to 127 probes; `tcp_options.TCP_USER_TIMEOUT` in
    /// milliseconds, 0 to 86,400,000; `tcp_options.SO_SNDBUF` and `tcp_options.SO_RCVBUF` in bytes, 1 to
    /// 2,147,483,647; `tcp_options.local_address`, an IP address.
    pub tcp_options: TcpOptions,
}

/// An authentication mechanism that a URI can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UriMechanism {
    /// PLAIN, with the URI's user and password.
    Plain,
    /// AMQPLAIN, with the URI's user and password.
    AmqPlain,
    /// EXTERNAL: the broker takes the user from the client's certificate.
    External,
}

impl AmqpUri {
    /// The user and the password, if there are any.
    fn user_password(&self) -> Option<&UserPassword> {
        self.credentials.as_ref()?.choices().iter().find_map(|choice| match choice {
            Choice::Plain(login) | Choice::AmqPlain(login) => Some(login),
            Choice::External | Choice::Mechanism(..) => None,
        })
    }

    /// The credentials for the mechanisms that are named.
    fn login(&self) -> Option<Credentials> {
        if self.auth_mechanisms.is_empty() {
            return self.credentials.clone();
        }
        let guest = || UserPassword::new("guest".into(), "guest".into());
        let login = self.user_password().cloned().unwrap_or_else(guest);
        let credentials = |mechanism: &UriMechanism| match mechanism {
            UriMechanism::Plain => Credentials::of(Choice::Plain(login.clone())),
            UriMechanism::AmqPlain => Credentials::of(Choice::AmqPlain(login.clone())),
            UriMechanism::External => Credentials::external(),
        };
        self.auth_mechanisms.iter().map(credentials).reduce(Credentials::or)
    }

    /// The policy with the changes of the settings that are set.
    fn changed_recovery(&self, mut recovery: Recovery) -> Recovery {
        if let Some(mode) = self.recovery {
            recovery.mode = mode;
        }
        if self.recovery_delay.is_some() || self.recovery_max_delay.is_some() {
            recovery.backoff = Backoff::between(self.recovery_delay, self.recovery_max_delay);
        }
        recovery.attempts = self.recovery_attempts.or(recovery.attempts);
        recovery
    }
}

impl Default for AmqpUri {
    /// `amqp://localhost`
    fn default() -> Self {
        Self {
            tls: false,
            hosts: vec![("localhost".into(), PORT)],
            credentials: None,
            auth_mechanisms: Vec::new(),
            virtual_host: "/".into(),
            heartbeat: None,
            channel_max: None,
            frame_max: None,
            initial_frame_max: None,
            connection_timeout: None,
            socket_timeout: None,
            connection_attempts: None,
            retry_delay: None,
            host_order: None,
            blocked_connection_timeout: None,
            call_timeout: None,
            close_timeout: None,
            hook_timeout: None,
            recovery: None,
            recovery_delay: None,
            recovery_max_delay: None,
            recovery_attempts: None,
            locale: None,
            client_properties: BTreeMap::new(),
            tls_settings: TlsSettings::default(),
            tcp_options: TcpOptions::default(),
        }
    }
}

impl Config {
    /// Parses an AMQP URI: see [`AmqpUri`] for its parts.
    ///
    /// # Errors
    /// [`UriError`], which never shows the URI.
    pub fn from_uri(uri: &str) -> Result<Self, UriError> {
        Ok(Self::from(uri.parse::<AmqpUri>()?))
    }
}

impl From<AmqpUri> for Config {
    /// What the URI leaves out has its default.
    fn from(uri: AmqpUri) -> Self {
        let login = uri.login();
        let endpoint = |(host, port): (String, u16)| Endpoint::new(host, port).tls(uri.tls);
        let default = Self::default();
        let recovery = uri.changed_recovery(default.recovery.clone());
        let mut config = default
            .recovery(recovery)
            .endpoints(uri.hosts.into_iter().map(endpoint))
            .virtual_host(uri.virtual_host)
            .tls_settings(uri.tls_settings)
            .tcp_options(uri.tcp_options);
        for (name, value) in &uri.client_properties {
            config = config.client_property(name, value.as_str());
        }
        config = set_if(config, login, Self::credentials);
        config = set_if(config, uri.initial_frame_max, Self::initial_frame_max);
        config = set_if(config, uri.heartbeat.map(Heartbeat::Seconds), Self::heartbeat);
        config = set_if(config, uri.channel_max, Self::channel_max);
        config = set_if(config, uri.frame_max, Self::frame_max);
        config = set_if(config, uri.connection_timeout, Self::connect_timeout);
        config = set_if(config, uri.socket_timeout, Self::address_timeout);
        config = set_if(config, uri.connection_attempts, Self::connection_attempts);
        config = set_if(config, uri.retry_delay, Self::retry_delay);
        config = set_if(config, uri.host_order, Self::host_order);
        config = set_if(config, uri.blocked_connection_timeout, Self::blocked_timeout);
        config = set_if(config, uri.call_timeout, Self::call_timeout);
        config = set_if(config, uri.hook_timeout, Self::hook_timeout);
        config = set_if(config, uri.close_timeout, Self::close_timeout);
        set_if(config, uri.locale, Self::locale)
    }
}

/// Sets a value if there is one.
fn set_if<T>(config: Config, value: Option<T>, set: impl FnOnce(Config, T) -> Config) -> Config {
    match value {
        Some(value) => set(config, value),
        None => config,
    }
}
