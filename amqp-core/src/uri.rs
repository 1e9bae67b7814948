//! AMQP URIs: `amqp://user:password@host:port/vhost?key=value`
//! (<https://www.rabbitmq.com/docs/uri-spec>, <https://www.rabbitmq.com/docs/uri-query-parameters>).
//!
//! Where readers of URIs differ, this one refuses rather than guesses: a guess may send a password
//! to another host. Errors never show the URI.

use std::str::FromStr;
use std::time::Duration;

use crate::config::{Config, Credentials, Endpoint, Heartbeat, PORT, Secret};

/// Port of `amqps`.
const TLS_PORT: u16 = 5671;

/// A parsed AMQP URI.
///
/// * No path, or a path of `/` alone, is the virtual host `/`; so is `%2f`. A second path segment is
///   an error.
/// * User, password, host and virtual host are percent-decoded once; `+` is literal.
/// * Several hosts may be given, separated by commas: they are tried in order.
/// * Query keys: `heartbeat` (seconds, 0 = off), `frame_max` (4096..=131072 bytes), `channel_max`
///   (1..=65535), `connection_timeout` (milliseconds), `blocked_connection_timeout` (seconds). Any other key, or a repeated one, is an
///   error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqpUri {
    pub(crate) tls: bool,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) vhost: String,
    pub(crate) query: Query,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) heartbeat: Option<Heartbeat>,
    pub(crate) frame_max: Option<u32>,
    pub(crate) channel_max: Option<u16>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) blocked_timeout: Option<Duration>,
}

/// What is wrong with a URI. It never holds the URI, nor a part of it but a query key's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// The host is empty within a list, or holds what no host name holds.
    #[error("the host is not valid")]
    Host,
    /// There is a user but no password.
    #[error("there is a user without a password")]
    MissingPassword,
    /// A `%` is not followed by two hexadecimal digits, or what they make is not UTF-8.
    #[error("percent-encoding is not valid in the {0}")]
    PercentEncoding(&'static str),
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// The value of a query key is not a whole number within the key's range.
    #[error("the query key {key} takes a number of {unit} from {low} to {high}")]
    QueryValue {
        /// The key.
        key: &'static str,
        /// What the number counts.
        unit: &'static str,
        /// The lowest value.
        low: u64,
        /// The highest value.
        high: u64,
    },
    /// A query key appears twice.
    #[error("the query key {0} is repeated")]
    RepeatedKey(String),
    /// The scheme is neither `amqp` nor `amqps`.
    #[error("the scheme is neither amqp nor amqps")]
    Scheme,
    /// The path has more than one segment; a `/` within the virtual host is written `%2f`.
    #[error("the path has more than one segment; write / in the virtual host as %2f")]
    SecondPathSegment,
    /// White space, a control character, `#`, or a raw `@`, `/` or `?` in the user or password.
    #[error("a character stands where it must be percent-encoded")]
    UnencodedCharacter,
    /// A query key is not known.
    #[error("the query key {0} is not known")]
    UnknownKey(String),
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
        if query.contains(['@', '/', '?']) {
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
        Ok(Self {
            tls,
            endpoints: parse_hosts(hosts, default_port)?,
            credentials,
            vhost: parse_vhost(path)?,
            query: parse_query(query)?,
        })
    }
}

impl Default for AmqpUri {
    /// `amqp://localhost`
    fn default() -> Self {
        Self {
            tls: false,
            endpoints: vec![Endpoint::new("localhost", PORT)],
            credentials: None,
            vhost: "/".into(),
            query: Query::default(),
        }
    }
}

impl Config {
    /// A configuration from an AMQP URI; see [`AmqpUri`] for what may stand in it.
    ///
    /// # Errors
    /// [`UriError`], which never shows the URI.
    pub fn from_uri(uri: &str) -> Result<Self, UriError> {
        Ok(Self::from(uri.parse::<AmqpUri>()?))
    }
}

impl From<AmqpUri> for Config {
    fn from(uri: AmqpUri) -> Self {
        let default = Self::default();
        let query = uri.query;
        Self {
            tls: uri.tls,
            endpoints: uri.endpoints,
            credentials: uri.credentials.unwrap_or_default(),
            vhost: uri.vhost,
            heartbeat: query.heartbeat.unwrap_or(default.heartbeat),
            channel_max: query.channel_max.unwrap_or(default.channel_max),
            frame_max: query.frame_max.unwrap_or(default.frame_max),
            connect_timeout: query.connect_timeout.unwrap_or(default.connect_timeout),
            blocked_timeout: query.blocked_timeout,
            ..default
        }
    }
}

fn parse_credentials(text: &str) -> Result<Credentials, UriError> {
    let (user, password) = text.split_once(':').ok_or(UriError::MissingPassword)?;
    let user = decode(user, "user")?;
    let password = decode(password, "password")?;
    Ok(Credentials::Plain { user, password: Secret::new(password) })
}

fn parse_hosts(text: &str, default_port: u16) -> Result<Vec<Endpoint>, UriError> {
    if text.is_empty() {
        return Ok(vec![Endpoint::new("localhost", default_port)]);
    }
    text.split(',').map(|host| parse_host(host, default_port)).collect()
}

fn parse_host(text: &str, default_port: u16) -> Result<Endpoint, UriError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let (address, after) = literal.split_once(']').ok_or(UriError::Host)?;
            let address: std::net::Ipv6Addr = address.parse().map_err(|_| UriError::Host)?;
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
    Ok(Endpoint::new(host, port))
}

fn parse_vhost(path: &str) -> Result<String, UriError> {
    if path.contains('/') {
        return Err(UriError::SecondPathSegment);
    }
    if path.is_empty() { Ok("/".into()) } else { decode(path, "virtual host") }
}

fn parse_query(text: &str) -> Result<Query, UriError> {
    let mut query = Query::default();
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
        match key {
            "heartbeat" => {
                query.heartbeat =
                    Some(Heartbeat::Seconds(number("heartbeat", "seconds", 0, 65_535)? as u16));
            }
            "frame_max" => {
                query.frame_max = Some(number("frame_max", "bytes", 4096, 131_072)? as u32);
            }
            "channel_max" => {
                query.channel_max = Some(number("channel_max", "channels", 1, 65_535)? as u16);
            }
            "connection_timeout" => {
                let timeout = number("connection_timeout", "milliseconds", 1, 86_400_000)?;
                query.connect_timeout = Some(Duration::from_millis(timeout));
            }
            "blocked_connection_timeout" => {
                let timeout = number("blocked_connection_timeout", "seconds", 0, 86_400)?;
                query.blocked_timeout = Some(Duration::from_secs(timeout));
            }
            unknown => return Err(UriError::UnknownKey(unknown.into())),
        }
    }
    Ok(query)
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
