use core::fmt;

/// The reply codes of `connection.close`, `channel.close` and `basic.return`
/// (AMQP 0-9-1, 1.2 "constants"; RabbitMQ adds 312).
///
/// Unknown codes are kept: every `u16` is a `ReplyCode`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyCode(u16);

macro_rules! reply_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        impl ReplyCode {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// The name of the code in the specification, `None` for an unknown code.
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
    /// The content is larger than the peer accepts.
    CONTENT_TOO_LARGE = 311,
    /// A mandatory message reached no queue (RabbitMQ).
    NO_ROUTE = 312,
    /// An immediate message reached no consumer.
    NO_CONSUMERS = 313,
    /// An operator closed the connection.
    CONNECTION_FORCED = 320,
    /// The name of the virtual host is invalid.
    INVALID_PATH = 402,
    /// The user has no permission, the login is wrong, or another consumer is exclusive.
    ACCESS_REFUSED = 403,
    /// There is no such queue, exchange or virtual host.
    NOT_FOUND = 404,
    /// The queue is exclusive to another connection.
    RESOURCE_LOCKED = 405,
    /// A precondition failed, such as other arguments than in the first declaration.
    PRECONDITION_FAILED = 406,
    /// A frame could not be decoded.
    FRAME_ERROR = 501,
    /// A field held an illegal value.
    SYNTAX_ERROR = 502,
    /// The sequence of frames was invalid.
    COMMAND_INVALID = 503,
    /// A method was sent on a channel that is not open.
    CHANNEL_ERROR = 504,
    /// A frame was not expected.
    UNEXPECTED_FRAME = 505,
    /// The server lacks a resource.
    RESOURCE_ERROR = 506,
    /// The request is never allowed.
    NOT_ALLOWED = 530,
    /// The server does not implement it.
    NOT_IMPLEMENTED = 540,
    /// The server has failed.
    INTERNAL_ERROR = 541,
}

impl ReplyCode {
    /// Creates a code from its number.
    pub const fn new(code: u16) -> Self {
        Self(code)
    }

    /// The number of the code.
    pub const fn code(self) -> u16 {
        self.0
    }

    /// Whether the specification allows this code in `connection.close`.
    pub const fn is_hard(self) -> bool {
        matches!(self.0, 320 | 402 | 501..=506 | 530 | 540 | 541)
    }

    /// Whether the specification allows this code in `channel.close`.
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
