use core::fmt;

use crate::{EncodeError, Malformed};

/// A short string: at most 255 bytes (AMQP 0-9-1, 4.2.5.3).
///
/// The protocol says UTF-8, but RabbitMQ relays routing keys and properties that are not. So a received
/// string is bytes, and [`as_str`](Self::as_str) checks them.
///
/// ```
/// use amqp_proto::ShortStr;
///
/// let key = ShortStr::new("orders.eu")?;
/// assert_eq!(key, "orders.eu");
/// assert_eq!(key.as_str(), Ok("orders.eu"));
/// # Ok::<(), amqp_proto::EncodeError>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortStr<'a>(&'a [u8]);

impl<'a> ShortStr<'a> {
    /// The empty string.
    pub const EMPTY: Self = ShortStr(&[]);

    /// Creates a short string from text.
    ///
    /// # Errors
    /// [`EncodeError::StringTooLong`] beyond 255 bytes.
    pub const fn new(text: &'a str) -> Result<Self, EncodeError> {
        Self::from_bytes(text.as_bytes())
    }

    /// Creates a short string from bytes, which may be other than UTF-8.
    ///
    /// # Errors
    /// [`EncodeError::StringTooLong`] beyond 255 bytes.
    pub const fn from_bytes(bytes: &'a [u8]) -> Result<Self, EncodeError> {
        if bytes.len() > 255 {
            return Err(EncodeError::StringTooLong(bytes.len()));
        }
        Ok(ShortStr(bytes))
    }

    /// The bytes, without the length.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Returns the text.
    ///
    /// # Errors
    /// [`Malformed::NotUtf8`].
    pub fn as_str(self) -> Result<&'a str, Malformed> {
        core::str::from_utf8(self.0).map_err(|_| Malformed::NotUtf8)
    }

    /// Whether the string is empty.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The number of bytes, at most 255.
    pub const fn len(self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for ShortStr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match core::str::from_utf8(self.0) {
            Ok(text) => fmt::Debug::fmt(text, f),
            Err(_) => write!(f, "b\"{}\"", self.0.escape_ascii()),
        }
    }
}

impl fmt::Display for ShortStr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match core::str::from_utf8(self.0) {
            Ok(text) => f.write_str(text),
            Err(_) => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}

impl PartialEq<str> for ShortStr<'_> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for ShortStr<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<ShortStr<'_>> for str {
    fn eq(&self, other: &ShortStr<'_>) -> bool {
        self.as_bytes() == other.0
    }
}

impl PartialEq<ShortStr<'_>> for &str {
    fn eq(&self, other: &ShortStr<'_>) -> bool {
        self.as_bytes() == other.0
    }
}

impl<'a> TryFrom<&'a str> for ShortStr<'a> {
    type Error = EncodeError;

    fn try_from(text: &'a str) -> Result<Self, EncodeError> {
        Self::new(text)
    }
}
