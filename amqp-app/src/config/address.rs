//! Where brokers are: the section `[connection]`, and the URLs of pools.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::Ipv6Addr;

use amqp_async::{AmqpUri, Credentials};

use super::document::Node;
use super::error::ConfigError;
use super::read::{Section, name, number, text, time, wrong};
use super::schema::Secrets;
use crate::limits::{RECOVER_AFTER_MAX, SECRET_FILE_BYTES};

/// The URI of a broker. Its `Debug` shows no password.
#[derive(Clone, Debug, Default)]
pub(crate) struct Address(AmqpUri);

impl Address {
    /// The URI with its password, for a connector.
    pub(crate) fn with_password(&self) -> String {
        self.0.to_string_with_password()
    }
}

const KEYS: [&str; 10] = [
    "heartbeat",
    "hostname",
    "password",
    "password_file",
    "port",
    "recover_after",
    "url",
    "url_file",
    "username",
    "virtual_host",
];

pub(crate) fn connection(node: Node, secrets: Secrets<'_>) -> Result<Address, ConfigError> {
    let mut section = Section::open("connection", node, &KEYS)?;
    let times = [section.take("heartbeat"), section.take("recover_after")];
    let mut uri = match url(&mut section, secrets)? {
        Some(uri) => {
            for key in ["hostname", "port", "username", "password", "password_file", "virtual_host"]
            {
                if let Some(node) = section.take(key) {
                    let text = format!(
                        "connection.{key} and a URL cannot both be set: the URL has the host, the user, the password \
                         and the virtual host"
                    );
                    return Err(ConfigError::new(&node.key_at, text));
                }
            }
            uri
        }
        None => parts(&mut section, secrets)?,
    };
    let [heartbeat, recover_after] = times;
    if let Some(node) = heartbeat {
        once(&node, "heartbeat", "heartbeat", uri.heartbeat.is_some())?;
        uri.heartbeat = Some(number(0, u16::MAX)(&node, "connection.heartbeat")?);
    }
    if let Some(node) = recover_after {
        once(&node, "recover_after", "recovery_delay", uri.recovery_delay.is_some())?;
        let key = "connection.recover_after";
        let delay = time(std::time::Duration::from_millis(1))(&node, key)?;
        if delay > RECOVER_AFTER_MAX {
            return Err(wrong(&node, key, "a time of at most a day"));
        }
        uri.recovery_delay = Some(delay);
    }
    Ok(Address(uri))
}

/// The URL of a pool, if it has one.
pub(crate) fn pool(
    section: &mut Section,
    secrets: Secrets<'_>,
) -> Result<Option<Address>, ConfigError> {
    Ok(url(section, secrets)?.map(Address))
}

/// An error if the URL has a setting too.
fn once(node: &Node, key: &str, parameter: &str, is_set: bool) -> Result<(), ConfigError> {
    if !is_set {
        return Ok(());
    }
    let text =
        format!("connection.{key} and the parameter {parameter} of the URL cannot both be set");
    Err(ConfigError::new(&node.key_at, text))
}

fn url(section: &mut Section, secrets: Secrets<'_>) -> Result<Option<AmqpUri>, ConfigError> {
    let (direct, file) = (section.take("url"), section.take("url_file"));
    let (node, url) = match (direct, file) {
        (None, None) => return Ok(None),
        (Some(_), Some(file)) => return Err(both(section, &file, "url", "url_file")),
        (Some(node), None) => {
            let url = text(&node, &section.key("url"))?;
            (node, url)
        }
        (None, Some(node)) => match secret(&node, &section.key("url_file"), secrets)? {
            Some(url) => (node, url),
            None => return Ok(Some(AmqpUri::default())),
        },
    };
    let invalid = |error| ConfigError::new(&node.at, format!("the URL is invalid: {error}"));
    url.parse().map(Some).map_err(invalid)
}

/// A URI of its parts.
fn parts(section: &mut Section, secrets: Secrets<'_>) -> Result<AmqpUri, ConfigError> {
    let mut uri = AmqpUri::default();
    if let Some(host) = section.read("hostname", host)? {
        uri.hosts[0].0 = host;
    }
    if let Some(port) = section.read("port", number(1, u16::MAX))? {
        uri.hosts[0].1 = port;
    }
    if let Some(virtual_host) = section.read("virtual_host", name)? {
        uri.virtual_host = virtual_host;
    }
    let user = section.take("username");
    let (direct, file) = (section.take("password"), section.take("password_file"));
    let password = match (direct, file) {
        (Some(_), Some(file)) => return Err(both(section, &file, "password", "password_file")),
        (None, None) => None,
        (Some(node), None) => {
            let password = text(&node, &section.key("password"))?;
            Some((node, password))
        }
        (None, Some(node)) => {
            let password = secret(&node, &section.key("password_file"), secrets)?;
            Some((node, password.unwrap_or_default()))
        }
    };
    uri.credentials = match (user, password) {
        (None, None) => None,
        (Some(user), Some((_, password))) => {
            Some(Credentials::plain(text(&user, "connection.username")?, password))
        }
        (Some(node), None) => return Err(alone(&node, "username", "password or password_file")),
        (None, Some((node, _))) => return Err(alone(&node, "a password", "username")),
    };
    Ok(uri)
}

fn alone(node: &Node, has: &str, lacks: &str) -> ConfigError {
    let text = format!("connection has {has} without {lacks}: set both, or neither for guest");
    ConfigError::new(&node.key_at, text)
}

fn both(section: &Section, node: &Node, one: &str, other: &str) -> ConfigError {
    let (one, other) = (section.key(one), section.key(other));
    ConfigError::new(&node.key_at, format!("{one} and {other} cannot both be set"))
}

fn host(node: &Node, key: &str) -> Result<String, ConfigError> {
    let host = text(node, key)?;
    let is_name = || {
        let parsed = format!("amqp://{host}/").parse::<AmqpUri>();
        parsed.is_ok_and(|uri| matches!(&uri.hosts[..], [(name, _)] if *name == host))
    };
    if !host.is_empty() && (host.parse::<Ipv6Addr>().is_ok() || is_name()) {
        return Ok(host);
    }
    Err(wrong(node, key, "a host name, or an IP address without brackets and port"))
}

/// Reads a secret from a file, without the line break at its end. `None` if secrets are not read.
fn secret(node: &Node, key: &str, secrets: Secrets<'_>) -> Result<Option<String>, ConfigError> {
    let file = name(node, key)?;
    if !secrets.read {
        return Ok(None);
    }
    let failed = |why: String| ConfigError::new(&node.at, format!("{key} cannot be read: {why}"));
    let path = secrets.folder.join(&file);
    let mut bytes = Vec::new();
    let read = File::open(&path)
        .and_then(|file| file.take(SECRET_FILE_BYTES as u64 + 1).read_to_end(&mut bytes))
        .and_then(|read| {
            let large = || io::Error::other(format!("it has more than {SECRET_FILE_BYTES} bytes"));
            if read > SECRET_FILE_BYTES { Err(large()) } else { Ok(()) }
        });
    read.map_err(|error| failed(format!("{}: {error}", path.display())))?;
    let mut text = String::from_utf8(bytes)
        .map_err(|_| failed(format!("{}: it is not text in UTF-8", path.display())))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(Some(text))
}
