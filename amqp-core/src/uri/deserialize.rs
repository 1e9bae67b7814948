//! Configurations of any self-describing format of serde: a map whose keys are the settings of URIs, or a URI.
//!
//! Every value becomes a text and takes the way of a query parameter, so that units, ranges and errors are the same.
//! No error shows a value: it may be a password.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroize as _;

use super::error::{SettingError, UriError, UriErrorKind};
use super::parse::{Part, parse_host};
use super::{AmqpUri, TLS_PORT, settings};
use crate::config::{Config, Credentials, PORT};

/// From a string.
impl<'de> Deserialize<'de> for AmqpUri {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Value::Text(uri) = Value::deserialize(deserializer)? else {
            return Err(D::Error::custom("a URI is a string"));
        };
        uri.parse().map_err(D::Error::custom)
    }
}

/// From a map with the settings of [`AmqpUri`] by their names, in their units, or from a URI as a string. In a map, these
/// are the other parts of a URI:
///
/// * `host`, or `hosts`: a host or a list of hosts. Each may have a port, as in a URI.
/// * `port`: the port of the hosts that have none.
/// * `tls`: `true` for TLS.
/// * `user`, `password` and `virtual_host`, without percent-encoding.
/// * `uri`: a whole URI, in place of all other keys.
///
/// `auth_mechanism` may be a list, and `tcp_options` and `client_properties` may be maps. An unknown key is an error.
/// Values are never part of an error, but a format may quote the line of its file.
///
/// ```
/// let json = r#"{"hosts": ["h1", "h2:5673"], "user": "app", "password": "secret", "heartbeat": 10}"#;
/// let config: amqp_core::Config = serde_json::from_str(json)?;
/// let same = amqp_core::Config::from_uri("amqp://app:secret@h1,h2:5673?heartbeat=10")?;
/// assert_eq!(config, same);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Text(uri) => Self::from_uri(&uri).map_err(D::Error::custom),
            Value::Map(settings) => {
                let mut draft = Draft::default();
                for (key, value) in settings {
                    draft.set(&key, value).map_err(D::Error::custom)?;
                }
                draft.finish().map(Self::from).map_err(D::Error::custom)
            }
            Value::Decimal(_) | Value::List(_) => {
                Err(D::Error::custom("a configuration is a map of settings, or a URI"))
            }
        }
    }
}

/// What a map has said so far.
#[derive(Default)]
struct Draft {
    /// The settings that have the same name in a URI.
    uri: AmqpUri,
    hosts: Option<Vec<String>>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    whole: Option<Result<AmqpUri, UriError>>,
    seen: Vec<String>,
}

impl Draft {
    fn set(&mut self, key: &str, value: Value) -> Result<(), UriErrorKind> {
        if self.seen.iter().any(|seen| seen == key) {
            return Err(SettingError::Repeated(key.into()).into());
        }
        self.seen.push(key.into());
        match (key, value) {
            ("host" | "hosts", _) if self.hosts.is_some() => {
                return Err(SettingError::Both("host", "hosts").into());
            }
            ("host" | "hosts", Value::Text(host)) => self.hosts = Some(vec![host]),
            ("hosts", Value::List(hosts)) => self.hosts = Some(texts(key, hosts)?),
            ("port", Value::Text(port)) => {
                let port = port.parse().ok().filter(|port| *port != 0);
                self.port = Some(port.ok_or(UriErrorKind::Port)?);
            }
            ("tls", Value::Text(tls)) => {
                self.uri.tls = tls.parse().map_err(|_| form(key, "true or false"))?;
            }
            ("user", Value::Text(user)) => self.user = Some(user),
            ("password", Value::Text(password)) => self.password = Some(password),
            ("virtual_host", Value::Text(name)) if name.is_empty() => {
                return Err(SettingError::Empty("virtual_host").into());
            }
            ("virtual_host", Value::Text(name)) => self.uri.virtual_host = name,
            ("uri", Value::Text(mut uri)) => {
                self.whole = Some(uri.parse());
                uri.zeroize();
            }
            (settings::CLIENT_PROPERTIES | settings::TCP_OPTIONS, Value::Map(nested)) => {
                for (name, value) in nested {
                    self.set(&format!("{key}.{name}"), value)?;
                }
            }
            (settings::CLIENT_PROPERTIES | settings::TCP_OPTIONS, _) => {
                return Err(form(key, "a map of settings"));
            }
            (settings::AUTH_MECHANISM, Value::List(names)) => {
                for name in texts(key, names)? {
                    settings::set(&mut self.uri, key, &name)?;
                }
            }
            (
                "host" | "hosts" | "user" | "password" | "virtual_host" | "uri",
                Value::Decimal(_),
            ) => return Err(form(key, "a text in quotes")),
            ("port", Value::Decimal(_)) => return Err(UriErrorKind::Port),
            ("tls", Value::Decimal(_)) => return Err(form(key, "true or false")),
            (_, Value::Text(value) | Value::Decimal(value)) => {
                settings::set(&mut self.uri, key, &value)?;
            }
            _ => return Err(form(key, "a single value")),
        }
        Ok(())
    }

    fn finish(self) -> Result<AmqpUri, UriErrorKind> {
        if let Some(uri) = self.whole {
            if self.seen.len() > 1 {
                return Err(SettingError::Both("uri", "another setting").into());
            }
            return uri.map_err(|error| error.kind);
        }
        let mut uri = self.uri;
        let port = self.port.unwrap_or(if uri.tls { TLS_PORT } else { PORT });
        let hosts = self.hosts.unwrap_or_else(|| vec!["localhost".into()]);
        let hosts = hosts.iter().map(|host| parse_host(Part::whole(host), port));
        uri.hosts = hosts.collect::<Result<_, _>>().map_err(|fault| fault.kind)?;
        uri.credentials = match (self.user, self.password) {
            (Some(user), Some(password)) => Some(Credentials::plain(user, password)),
            (None, None) => None,
            (Some(_), None) => return Err(SettingError::Without("user", "password").into()),
            (None, Some(_)) => return Err(SettingError::Without("password", "user").into()),
        };
        Ok(uri)
    }
}

fn texts(key: &str, values: Vec<Value>) -> Result<Vec<String>, UriErrorKind> {
    let text = |value| match value {
        Value::Text(text) => Ok(text),
        _ => Err(form(key, "a list of texts")),
    };
    values.into_iter().map(text).collect()
}

fn form(key: &str, expected: &'static str) -> UriErrorKind {
    SettingError::Form { key: key.into(), expected }.into()
}

/// A value of any format. Everything that is not a list or a map is a text, so that no error of serde shows a value.
enum Value {
    Text(String),
    /// A number with decimals, or one too large for an integer. What was written is not known exactly.
    Decimal(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number, a list or a map")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Text(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Text(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Text(value.to_string()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Text(value.to_string()))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Text(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Decimal(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}
