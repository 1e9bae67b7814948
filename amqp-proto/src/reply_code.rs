use core::fmt;

/// The reply codes of `connection.close`, `channel.close` and `basic.return`
/// (AMQP 0-9-1, 1.2 "constants"; RabbitMQ adds 312).
///
/// Codes that no specification names are kept: every `u16` is a `ReplyCode`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyCode(u16);

macro_rules! reply_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        impl ReplyCode {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// The code's name in the specification, for those that it names.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

reply_codes! {
    /// The method completed.
    REPLY_SUCCESS = 200,
    /// The content is larger than the peer takes.
    CONTENT_TOO_LARGE = 311,
    /// A mandatory message reached no queue (RabbitMQ).
    NO_ROUTE = 312,
    /// An immediate message reached no consumer.
    NO_CONSUMERS = 313,
    /// An operator closed the connection.
    CONNECTION_FORCED = 320,
    /// The virtual host's name is no path.
    INVALID_PATH = 402,
    /// Permission, password or exclusive consumer refused it.
    ACCESS_REFUSED = 403,
    /// No such queue, exchange or virtual host.
    NOT_FOUND = 404,
    /// The queue is exclusive to another connection.
    RESOURCE_LOCKED = 405,
    /// A precondition failed, such as equal arguments at a second declaration.
    PRECONDITION_FAILED = 406,
    /// A frame could not be read.
    FRAME_ERROR = 501,
    /// A field held an illegal value.
    SYNTAX_ERROR = 502,
    /// The sequence of frames made no sense.
    COMMAND_INVALID = 503,
    /// A method came for a channel that is not open.
    CHANNEL_ERROR = 504,
    /// A frame came that was not due.
    UNEXPECTED_FRAME = 505,
    /// The server is short of a resource.
    RESOURCE_ERROR = 506,
    /// The request is not allowed, whatever the circumstances.
    NOT_ALLOWED = 530,
    /// The server does not implement it.
    NOT_IMPLEMENTED = 540,
    /// The server failed.
    INTERNAL_ERROR = 541,
}

impl ReplyCode {
    /// The code with this number.
    pub const fn new(code: u16) -> Self {
        Self(code)
    }

    /// The number.
    pub const fn code(self) -> u16 {
        self.0
    }

    /// Whether the specification lets this code close a connection rather than one channel.
    pub const fn is_hard(self) -> bool {
        matches!(self.0, 320 | 402 | 501..=506 | 530 | 540 | 541)
    }

    /// Whether the specification lets this code close a channel alone.
    pub const fn is_soft(self) -> bool {
        matches!(self.0, 311..=313 | 403..=406)
    }
}

impl From<u16> for ReplyCode {
    fn from(code: u16) -> Self {
        Self(code)
    }
}

impl fmt::Debug for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} {name}", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}
