//! AMQP URIs: `amqp://user:password@host:port/vhost?key=value`
//! (<https://www.rabbitmq.com/docs/uri-spec>, <https://www.rabbitmq.com/docs/uri-query-parameters>).
//!
//! Where parsers of URIs differ, this one returns an error: a guess could send the password to another host. No
//! error shows the URI.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::config::{Config, Credentials, Endpoint, Heartbeat, PORT, TlsSettings};

/// The default port of `amqps`.
const TLS_PORT: u16 = 5671;

/// A parsed AMQP URI.
///
/// * Without a path, or with the path `/`, the virtual host is `/`. It may be written `%2f` too. A second
///   path segment is an error.
/// * User, password, host and virtual host are percent-decoded once. `+` is literal.
/// * Several hosts are separated by commas. They are tried in order.
/// * An unknown query parameter, and a repeated one, is an error that names it.
/// * `verify=verify_none` is an error: certificates are checked, whatever a URI says.
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
    /// The hosts with their ports, in the order in which they are tried. IPv6 addresses have no brackets.
    pub hosts: Vec<(String, u16)>,
    /// User and password, if the URI has them.
    pub credentials: Option<Credentials>,
    /// The virtual host.
    pub virtual_host: String,
    /// `heartbeat`: the heartbeat interval in seconds, 0 to 65,535. 0 turns heartbeats off.
    pub heartbeat: Option<u16>,
    /// `channel_max`: the maximum number of channels, 1 to 65,535.
    pub channel_max: Option<u16>,
    /// `frame_max`: the maximum size of a frame, 4,096 to 131,072 bytes.
    pub frame_max: Option<u32>,
    /// `connection_timeout`: the timeout of connecting as a whole, in milliseconds, 1 to 86,400,000 (a day).
    pub connection_timeout: Option<Duration>,
    /// `cacertfile`, `certfile`, `keyfile` and `server_name_indication`: what TLS trusts and presents. A `/` in a path
    /// need not be encoded.
    pub tls_settings: TlsSettings,
    /// `blocked_connection_timeout`: how long the broker may block publishes, in seconds, 0 to 86,400 (a day).
    pub blocked_connection_timeout: Option<Duration>,
}

impl AmqpUri {
    /// Returns the whole URI with its password: a secret. [`Display`](fmt::Display) leaves the password out.
    pub fn to_string_with_password(&self) -> String {
        Written { uri: self, with_password: true }.to_string()
    }
}

impl fmt::Display for AmqpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Written { uri: self, with_password: false }.fmt(f)
    }
}

/// Why a text is not an AMQP URI. It holds no part of the text except the name of a query parameter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// A query parameter that takes a text has none.
    #[error("the query parameter {0} is empty")]
    EmptyValue(&'static str),
    /// A host in a list is empty, or has a character that a host name cannot have.
    #[error("the host is empty, or has a character that a host name cannot have")]
    Host,
    /// There is a user but no password. An empty password is written `user:@`.
    #[error("the user has no password: write user:@ for an empty one")]
    MissingPassword,
    /// A `%` is not followed by two hexadecimal digits, or the decoded text is not UTF-8.
    #[error("invalid percent-encoding in the {0}")]
    PercentEncoding(&'static str),
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// The value of a query parameter is not a whole number within its range.
    #[error("the query parameter {key} takes a number of {unit} from {low} to {high}")]
    QueryValue {
        /// The name of the parameter.
        key: &'static str,
        /// What the number counts.
        unit: &'static str,
        /// The lowest value.
        low: u64,
        /// The highest value.
        high: u64,
    },
    /// A query parameter appears twice.
    #[error("the query parameter {0} appears twice")]
    RepeatedKey(String),
    /// The scheme is neither `amqp` nor `amqps`.
    #[error("the scheme is neither amqp nor amqps")]
    Scheme,
    /// The path has more than one segment; a `/` within the virtual host is written `%2f`.
    #[error("the path has more than one segment; write / in the virtual host as %2f")]
    SecondPathSegment,
    /// White space, a control character or `#` anywhere, or `@`, `/` or `?` in the user or password.
    #[error("a character must be percent-encoded: white space, or one of # @ / ?")]
    UnencodedCharacter,
    /// A query parameter is not known.
    #[error("unknown query parameter {0}")]
    UnknownKey(String),
    /// `verify` is neither `verify_peer` nor `verify_none`.
    #[error("the query parameter verify takes verify_peer, which is the default")]
    Verify,
    /// `verify=verify_none`: a URI cannot turn the checks of certificates off.
    #[error(
        "verify_none is refused: trust the server's certificate by cacertfile (for a test without it: \
         RustlsBuilder::danger_accept_any_certificate of amqp-tls)"
    )]
    VerifyNone,
}

impl FromStr for AmqpUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let (scheme, rest) = text.split_once("://").ok_or(UriError::Scheme)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(UriError::Scheme),
        };
        if rest.chars().any(|letter| letter.is_whitespace() || letter.is_control() || letter == '#')
        {
            return Err(UriError::UnencodedCharacter);
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A raw `?` in a password would end the authority early and leave the rest in the query.
        if query.contains(['@', '?']) {
            return Err(UriError::UnencodedCharacter);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A raw `/` in a password would end the authority early and leave an `@` in the path.
        if path.contains('@') {
            return Err(UriError::UnencodedCharacter);
        }
        let (credentials, hosts) = match authority.split_once('@') {
            Some((_, hosts)) if hosts.contains('@') => return Err(UriError::UnencodedCharacter),
            Some((user, hosts)) => (Some(parse_credentials(user)?), hosts),
            None => (None, authority),
        };
        let default_port = if tls { TLS_PORT } else { PORT };
        let mut uri = Self {
            tls,
            hosts: parse_hosts(hosts, default_port)?,
            credentials,
            virtual_host: parse_virtual_host(path)?,
            ..Self::default()
        };
        parse_query(query, &mut uri)?;
        Ok(uri)
    }
}

impl Default for AmqpUri {
    /// `amqp://localhost`
    fn default() -> Self {
        Self {
            tls: false,
            hosts: vec![("localhost".into(), PORT)],
            credentials: None,
            virtual_host: "/".into(),
            heartbeat: None,
            channel_max: None,
            frame_max: None,
            connection_timeout: None,
            tls_settings: TlsSettings::default(),
            blocked_connection_timeout: None,
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
        let endpoint = |(host, port): (String, u16)| Endpoint::new(host, port).tls(uri.tls);
        let mut config = Self::default()
            .endpoints(uri.hosts.into_iter().map(endpoint))
            .virtual_host(uri.virtual_host)
            .tls_settings(uri.tls_settings);
        if let Some(credentials) = uri.credentials {
            config = config.credentials(credentials);
        }
        if let Some(seconds) = uri.heartbeat {
            config = config.heartbeat(Heartbeat::Seconds(seconds));
        }
        if let Some(channels) = uri.channel_max {
            config = config.channel_max(channels);
        }
        if let Some(bytes) = uri.frame_max {
            config = config.frame_max(bytes);
        }
        if let Some(timeout) = uri.connection_timeout {
            config = config.connect_timeout(timeout);
        }
        if let Some(timeout) = uri.blocked_connection_timeout {
            config = config.blocked_timeout(timeout);
        }
        config
    }
}

fn parse_credentials(text: &str) -> Result<Credentials, UriError> {
    let (user, password) = text.split_once(':').ok_or(UriError::MissingPassword)?;
    let user = decode(user, "user")?;
    let password = decode(password, "password")?;
    Ok(Credentials::plain(user, password))
}

fn parse_hosts(text: &str, default_port: u16) -> Result<Vec<(String, u16)>, UriError> {
    if text.is_empty() {
        return Ok(vec![("localhost".into(), default_port)]);
    }
    text.split(',').map(|host| parse_host(host, default_port)).collect()
}

fn parse_host(text: &str, default_port: u16) -> Result<(String, u16), UriError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let (address, after) = literal.split_once(']').ok_or(UriError::Host)?;
            let address: Ipv6Addr = address.parse().map_err(|_| UriError::Host)?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return Err(UriError::Host),
            };
            (address.to_string(), port)
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            let host = decode(host, "host")?.to_ascii_lowercase();
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            // `amqp://:5673` names a port of the default host.
            let host = if host.is_empty() && port.is_some() { "localhost".into() } else { host };
            if host.is_empty() || !host.bytes().all(valid) {
                return Err(UriError::Host);
            }
            (host, port)
        }
    };
    let port = match port {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0).ok_or(UriError::Port)?
        }
        Some(_) => return Err(UriError::Port),
        None => default_port,
    };
    Ok((host, port))
}

fn parse_virtual_host(path: &str) -> Result<String, UriError> {
    if path.contains('/') {
        return Err(UriError::SecondPathSegment);
    }
    if path.is_empty() { Ok("/".into()) } else { decode(path, "virtual host") }
}

fn parse_query(text: &str, uri: &mut AmqpUri) -> Result<(), UriError> {
    let mut seen: Vec<&str> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if seen.contains(&key) {
            return Err(UriError::RepeatedKey(key.into()));
        }
        seen.push(key);
        let number = |key, unit, low: u64, high: u64| {
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            let number = if digits { value.parse::<u64>().ok() } else { None };
            let number = number.filter(|number| (low..=high).contains(number));
            number.ok_or(UriError::QueryValue { key, unit, low, high })
        };
        // Only a path has a `/`: elsewhere it may be the end of a password.
        let text = |key| match decode(value, "query")? {
            text if text.is_empty() => Err(UriError::EmptyValue(key)),
            text => Ok(text),
        };
        let is_path = matches!(key, "cacertfile" | "certfile" | "keyfile");
        if value.contains('/') && !is_path {
            return Err(UriError::UnencodedCharacter);
        }
        match key {
            "heartbeat" => {
                uri.heartbeat = Some(number("heartbeat", "seconds", 0, 65_535)? as u16);
            }
            "channel_max" => {
                uri.channel_max = Some(number("channel_max", "channels", 1, 65_535)? as u16);
            }
            "frame_max" => {
                uri.frame_max = Some(number("frame_max", "bytes", 4_096, 131_072)? as u32);
            }
            "connection_timeout" => {
                let timeout = number("connection_timeout", "milliseconds", 1, 86_400_000)?;
                uri.connection_timeout = Some(Duration::from_millis(timeout));
            }
            "blocked_connection_timeout" => {
                let timeout = number("blocked_connection_timeout", "seconds", 0, 86_400)?;
                uri.blocked_connection_timeout = Some(Duration::from_secs(timeout));
            }
            "cacertfile" => uri.tls_settings.ca_file = Some(text("cacertfile")?.into()),
            "certfile" => uri.tls_settings.certificate_file = Some(text("certfile")?.into()),
            "keyfile" => uri.tls_settings.key_file = Some(text("keyfile")?.into()),
            "server_name_indication" => {
                uri.tls_settings.server_name = Some(text("server_name_indication")?.into());
            }
            "verify" => match value {
                "verify_peer" => {}
                "verify_none" => return Err(UriError::VerifyNone),
                _ => return Err(UriError::Verify),
            },
            unknown => return Err(UriError::UnknownKey(unknown.into())),
        }
    }
    Ok(())
}

fn decode(text: &str, part: &'static str) -> Result<String, UriError> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => decoded.push((high * 16 + low) as u8),
            _ => return Err(UriError::PercentEncoding(part)),
        }
    }
    String::from_utf8(decoded).map_err(|_| UriError::PercentEncoding(part))
}

/// A URI as text: ports and virtual host are always written.
struct Written<'a> {
    uri: &'a AmqpUri,
    with_password: bool,
}

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.uri;
        f.write_str(if uri.tls { "amqps://" } else { "amqp://" })?;
        if let Some(Credentials::Plain { user, password }) = &uri.credentials {
            write!(f, "{}", Encoded(user))?;
            if self.with_password {
                write!(f, ":{}", Encoded(password.expose()))?;
            }
            f.write_str("@")?;
        }
        for (position, (host, port)) in uri.hosts.iter().enumerate() {
            f.write_str(if position == 0 { "" } else { "," })?;
            match host.parse::<Ipv6Addr>() {
                Ok(address) => write!(f, "[{address}]:{port}")?,
                Err(_) => write!(f, "{}:{port}", Encoded(host))?,
            }
        }
        write!(f, "/{}", Encoded(&uri.virtual_host))?;
        let parameters = [
            ("heartbeat", uri.heartbeat.map(u128::from)),
            ("channel_max", uri.channel_max.map(u128::from)),
            ("frame_max", uri.frame_max.map(u128::from)),
            ("connection_timeout", uri.connection_timeout.map(|it| it.as_millis())),
            (
                "blocked_connection_timeout",
                uri.blocked_connection_timeout.map(|it| it.as_secs().into()),
            ),
        ];
        let mut separator = '?';
        for (name, value) in parameters {
            if let Some(value) = value {
                write!(f, "{separator}{name}={value}")?;
                separator = '&';
            }
        }
        let settings = &uri.tls_settings;
        let texts = [
            ("cacertfile", settings.ca_file.as_deref().map(Path::to_string_lossy)),
            ("certfile", settings.certificate_file.as_deref().map(Path::to_string_lossy)),
            ("keyfile", settings.key_file.as_deref().map(Path::to_string_lossy)),
            ("server_name_indication", settings.server_name.as_deref().map(Into::into)),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                write!(f, "{separator}{name}={}", Encoded(&value))?;
                separator = '&';
            }
        }
        Ok(())
    }
}

/// Percent-encodes everything but the characters that RFC 3986 calls unreserved.
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02x}")?;
            }
        }
        Ok(())
    }
}
