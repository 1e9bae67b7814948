//! Parses a URI from the left to the right. Every part knows where it begins, so that errors have a position.

use std::net::Ipv6Addr;
use std::str::FromStr;

use zeroize::Zeroize as _;

use super::error::{SettingError, UriError, UriErrorKind};
use super::{AmqpUri, TLS_PORT, settings};
use crate::config::{Credentials, PORT};

impl FromStr for AmqpUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        parse(text).map_err(|Fault { at, kind }| {
            let before = text.get(..at).unwrap_or(text);
            UriError { kind, position: before.chars().count() + 1 }
        })
    }
}

/// What is wrong, and at which byte.
pub(super) struct Fault {
    at: usize,
    pub(super) kind: UriErrorKind,
}

/// A part of a URI.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    text: &'a str,
    /// The byte at which it begins.
    at: usize,
}

impl<'a> Part<'a> {
    pub(super) const fn whole(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// What is before the first `delimiter`, and behind it.
    fn split(self, delimiter: &str) -> Option<(Self, Self)> {
        let (before, behind) = self.text.split_once(delimiter)?;
        let at = self.at + before.len() + delimiter.len();
        Some((Self { text: before, ..self }, Self { text: behind, at }))
    }

    /// The parts between all delimiters.
    fn split_all(self, delimiter: &'static str) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let part = rest?;
            let (next, behind) =
                part.split(delimiter).map_or((part, None), |(next, behind)| (next, Some(behind)));
            rest = behind;
            Some(next)
        })
    }

    fn end(self) -> Self {
        Self { text: "", at: self.at + self.text.len() }
    }

    /// An error at the beginning of this part.
    fn fault(self, kind: impl Into<UriErrorKind>) -> Fault {
        self.fault_at(0, kind)
    }

    fn fault_at(self, offset: usize, kind: impl Into<UriErrorKind>) -> Fault {
        Fault { at: self.at + offset, kind: kind.into() }
    }

    /// An error if it has such a character.
    fn refuse(self, part: &'static str, refused: impl Fn(char) -> bool) -> Result<(), Fault> {
        match self.text.char_indices().find(|(_, character)| refused(*character)) {
            Some((offset, character)) => {
                Err(self.fault_at(offset, UriErrorKind::UnencodedCharacter { character, part }))
            }
            None => Ok(()),
        }
    }

    /// Where the byte is encoded that has this offset in the decoded text.
    fn encoded_offset(self, decoded: usize) -> usize {
        let mut offset = 0;
        for _ in 0..decoded {
            let encoded = self.text.as_bytes().get(offset) == Some(&b'%');
            offset += if encoded { 3 } else { 1 };
        }
        offset
    }

    /// The text without its percent-encoding.
    fn decode(self, part: &'static str) -> Result<String, Fault> {
        let fault = |offset| self.fault_at(offset, UriErrorKind::PercentEncoding(part));
        let mut bytes = self.text.bytes().enumerate();
        // It does not move while it is filled, and becomes the text: a password leaves no copy.
        let mut decoded = Vec::with_capacity(self.text.len());
        while let Some((offset, byte)) = bytes.next() {
            if byte != b'%' {
                decoded.push(byte);
                continue;
            }
            let mut digit = || bytes.next().and_then(|(_, byte)| char::from(byte).to_digit(16));
            match (digit(), digit()) {
                (Some(high), Some(low)) => decoded.push((high * 16 + low) as u8),
                _ => {
                    decoded.zeroize();
                    return Err(fault(offset));
                }
            }
        }
        String::from_utf8(decoded).map_err(|error| {
            let invalid = error.utf8_error().valid_up_to();
            error.into_bytes().zeroize();
            fault(self.encoded_offset(invalid))
        })
    }
}

fn parse(text: &str) -> Result<AmqpUri, Fault> {
    let whole = Part::whole(text);
    let (scheme, rest) = whole.split("://").ok_or_else(|| whole.fault(UriErrorKind::Scheme))?;
    let tls = match scheme.text.to_ascii_lowercase().as_str() {
        "amqp" => false,
        "amqps" => true,
        _ => return Err(whole.fault(UriErrorKind::Scheme)),
    };
    rest.refuse("URI", |it| it.is_whitespace() || it.is_control() || it == '#')?;
    let (rest, query) = rest.split("?").unwrap_or_else(|| (rest, rest.end()));
    // A raw `?` in a password would end the authority early and leave the rest in the query.
    query.refuse("query", |it| matches!(it, '@' | '?'))?;
    let (authority, path) = rest.split("/").unwrap_or_else(|| (rest, rest.end()));
    // A raw `/` in a password would end the authority early and leave an `@` in the path.
    path.refuse("path", |it| it == '@')?;
    let (credentials, hosts) = match authority.split("@") {
        Some((user, hosts)) => {
            hosts.refuse("hosts", |it| it == '@')?;
            (Some(parse_credentials(user)?), hosts)
        }
        None => (None, authority),
    };
    let mut uri = AmqpUri {
        tls,
        hosts: parse_hosts(hosts, if tls { TLS_PORT } else { PORT })?,
        credentials,
        virtual_host: parse_virtual_host(path)?,
        ..AmqpUri::default()
    };
    parse_query(query, &mut uri)?;
    Ok(uri)
}

fn parse_credentials(part: Part<'_>) -> Result<Credentials, Fault> {
    let missing = || part.end().fault(UriErrorKind::MissingPassword);
    let (user, password) = part.split(":").ok_or_else(missing)?;
    Ok(Credentials::plain(user.decode("user")?, password.decode("password")?))
}

fn parse_hosts(part: Part<'_>, default_port: u16) -> Result<Vec<(String, u16)>, Fault> {
    if part.text.is_empty() {
        return Ok(vec![("localhost".into(), default_port)]);
    }
    part.split_all(",").map(|host| parse_host(host, default_port)).collect()
}

/// A host name, an IPv4 address or an IPv6 address in brackets, and a port behind a colon.
pub(super) fn parse_host(part: Part<'_>, default_port: u16) -> Result<(String, u16), Fault> {
    let (host, port) = if part.text.starts_with('[') {
        parse_ipv6(part)?
    } else if part.text.parse::<Ipv6Addr>().is_ok() {
        return Err(part.fault(UriErrorKind::Ipv6Address));
    } else {
        let (host, port) = part.split(":").map_or((part, None), |(host, port)| (host, Some(port)));
        // `amqp://:5673` names a port of the default host.
        let is_default = host.text.is_empty() && port.is_some();
        (if is_default { "localhost".into() } else { parse_name(host)? }, port)
    };
    let port = match port {
        Some(port) => parse_number(port.text)
            .and_then(|number| u16::try_from(number).ok())
            .filter(|number| *number != 0)
            .ok_or_else(|| port.fault(UriErrorKind::Port))?,
        None => default_port,
    };
    Ok((host, port))
}

fn parse_ipv6(part: Part<'_>) -> Result<(String, Option<Part<'_>>), Fault> {
    let fault = || part.fault(UriErrorKind::Ipv6Address);
    let (literal, behind) = part.split("]").ok_or_else(fault)?;
    let (_, literal) = literal.split("[").ok_or_else(fault)?;
    if let Some(zone) = literal.text.find('%') {
        return Err(literal.fault_at(zone, UriErrorKind::Ipv6Zone));
    }
    let address: Ipv6Addr =
        literal.text.parse().map_err(|_| literal.fault(UriErrorKind::Ipv6Address))?;
    let port = match behind.split(":") {
        Some((before, port)) if before.text.is_empty() => Some(port),
        _ => None,
    };
    match behind.text.chars().next() {
        Some(character) if port.is_none() => {
            Err(behind.fault(UriErrorKind::HostCharacter(character)))
        }
        _ => Ok((address.to_string(), port)),
    }
}

fn parse_name(part: Part<'_>) -> Result<String, Fault> {
    let name = part.decode("host")?.to_ascii_lowercase();
    if name.is_empty() {
        return Err(part.fault(UriErrorKind::EmptyHost));
    }
    let valid = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '.' | '_');
    match name.char_indices().find(|(_, character)| !valid(*character)) {
        Some((offset, character)) => {
            // In an encoded name, the character is elsewhere.
            let offset = if part.text.contains('%') { 0 } else { offset };
            Err(part.fault_at(offset, UriErrorKind::HostCharacter(character)))
        }
        None => Ok(name),
    }
}

fn parse_virtual_host(path: Part<'_>) -> Result<String, Fault> {
    if let Some(second) = path.text.find('/') {
        return Err(path.fault_at(second, UriErrorKind::SecondPathSegment));
    }
    if path.text.is_empty() { Ok("/".into()) } else { path.decode("virtual host") }
}

fn parse_query(query: Part<'_>, uri: &mut AmqpUri) -> Result<(), Fault> {
    let mut seen: Vec<String> = Vec::new();
    for pair in query.split_all("&").filter(|pair| !pair.text.is_empty()) {
        let (key, value) = pair.split("=").unwrap_or_else(|| (pair, pair.end()));
        let name = key.decode("query")?;
        if seen.contains(&name) && name != settings::AUTH_MECHANISM {
            return Err(key.fault(SettingError::Repeated(name)));
        }
        // Only a path has a `/`: elsewhere it may be the end of a password.
        if !settings::is_path(&name) {
            value.refuse("query", |it| it == '/')?;
        }
        settings::set(uri, &name, &value.decode("query")?).map_err(|error| match error {
            SettingError::Unknown(_) | SettingError::Both(..) => key.fault(error),
            error => value.fault(error),
        })?;
        seen.push(name);
    }
    Ok(())
}

/// A number without sign and decimals.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
