//! What is wrong with a URI or with a setting. No text shows the URI.

use std::fmt;
use std::time::Duration;

/// Why a text is not an AMQP URI, and where.
///
/// It holds no part of the text but the name of a query parameter, or the one character that cannot be where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("{kind} (at character {position})")]
pub struct UriError {
    /// What is wrong.
    pub kind: UriErrorKind,
    /// The position of the character at fault, or of the part that begins there. Characters are counted from 1.
    pub position: usize,
}

/// What is wrong with a URI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriErrorKind {
    /// A host in a list is empty.
    #[error("a host is empty")]
    EmptyHost,
    /// A host has a character that a host name cannot have.
    #[error("the host has {}, which a host name cannot have", Shown(*.0))]
    HostCharacter(char),
    /// An IPv6 address is invalid, or has no brackets.
    #[error("an IPv6 address is written in brackets, such as [::1]")]
    Ipv6Address,
    /// An IPv6 address has a zone, such as `%eth0`.
    #[error(
        "an IPv6 address cannot have a zone here: name the host, or connect the stream yourself \
         (dial_with)"
    )]
    Ipv6Zone,
    /// There is a user but no password. An empty password is written `user:@`.
    #[error("the user has no password: write user:@ for an empty one")]
    MissingPassword,
    /// A `%` is not followed by two hexadecimal digits, or the decoded text is not UTF-8.
    #[error("invalid percent-encoding in the {0}")]
    PercentEncoding(&'static str),
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// The scheme is neither `amqp` nor `amqps`.
    #[error("the scheme is neither amqp nor amqps")]
    Scheme,
    /// The path has more than one segment; a `/` within the virtual host is written `%2f`.
    #[error("the path has more than one segment; write / in the virtual host as %2f")]
    SecondPathSegment,
    /// A query parameter cannot be used.
    #[error("{0}")]
    Setting(SettingError),
    /// A character that must be percent-encoded: white space, a control character or `#` anywhere; `@`, `/` or `?` in
    /// the user or password, or behind them.
    #[error("{} in the {part} must be percent-encoded, and so must # @ / ? in user and password", Shown(*character))]
    UnencodedCharacter {
        /// The character.
        character: char,
        /// The part of the URI that seems to have it. If it ends the password early, it belongs to the password.
        part: &'static str,
    },
}

/// Why a setting cannot be used: a query parameter of a URI, or a key of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// Two settings are set, of which one replaces the other.
    #[error("{0} and {1} cannot both be set")]
    Both(&'static str, &'static str),
    /// A setting that takes a text has none.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A setting takes one of a few texts, or a text of a certain form.
    #[error("{key} takes {expected}")]
    Form {
        /// The name of the setting.
        key: String,
        /// What it takes.
        expected: &'static str,
    },
    /// The value is not a whole number within its range.
    #[error("{key} takes a number of {unit} from {low} to {high}")]
    Number {
        /// The name of the setting.
        key: &'static str,
        /// What the number counts.
        unit: &'static str,
        /// The lowest value.
        low: u64,
        /// The highest value.
        high: u64,
    },
    /// A setting appears twice.
    #[error("{0} is set twice")]
    Repeated(String),
    /// The value is not a number of seconds within its range.
    #[error(
        "{key} takes a number of seconds from {} to {}, with at most three decimals",
        low.as_secs_f64(),
        high.as_secs_f64()
    )]
    Seconds {
        /// The name of the setting.
        key: &'static str,
        /// The shortest time.
        low: Duration,
        /// The longest time.
        high: Duration,
    },
    /// A setting is not known.
    #[error("unknown setting {0}")]
    Unknown(String),
    /// A setting needs another one.
    #[error("{0} is set without {1}")]
    Without(&'static str, &'static str),
    /// `verify=verify_none`: a text cannot turn the checks of certificates off.
    #[error(
        "verify_none is refused: trust the server's certificate by cacertfile (for a test without it: \
         RustlsBuilder::danger_accept_any_certificate of amqp-tls)"
    )]
    VerifyNone,
}

impl From<SettingError> for UriErrorKind {
    fn from(error: SettingError) -> Self {
        Self::Setting(error)
    }
}

/// A character in an error. Those that cannot be seen are described.
struct Shown(char);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            space if space.is_whitespace() => f.write_str("white space"),
            control if control.is_control() => f.write_str("a control character"),
            character => write!(f, "'{character}'"),
        }
    }
}
