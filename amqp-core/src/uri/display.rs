//! A URI as text, with or without the password.

use std::fmt;
use std::net::Ipv6Addr;

use super::{AmqpUri, settings};
use crate::config::UserPassword;

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

/// A URI as text: ports and virtual host are always written.
struct Written<'a> {
    uri: &'a AmqpUri,
    with_password: bool,
}

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.uri;
        f.write_str(if uri.tls { "amqps://" } else { "amqp://" })?;
        if let Some(UserPassword { user, password }) = uri.user_password() {
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
        let mut separator = '?';
        for (key, value) in settings::all(uri) {
            write!(f, "{separator}{}={}", Encoded(&key), Encoded(&value))?;
            separator = '&';
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
