//! Errors of decoding and encoding.

/// Received bytes that are not valid AMQP 0-9-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A frame does not end with the octet 0xCE (AMQP 0-9-1, 4.2.3).
    #[error("frame ends with {0:#04x} instead of 0xce")]
    BadFrameEnd(u8),
    /// A frame is larger than the limit for its kind.
    #[error("frame payload of {size} bytes is over the limit of {limit}")]
    FrameTooLarge {
        /// The payload size that the frame's head announces, in bytes.
        size: u32,
        /// The limit for this kind of frame, in bytes.
        limit: u32,
    },
    /// A heartbeat frame carries a payload.
    #[error("heartbeat frame with a payload")]
    HeartbeatPayload,
    /// A string is not UTF-8.
    #[error("string is not UTF-8")]
    NotUtf8,
    /// Tables or arrays are nested deeper than the limit.
    #[error("tables nested deeper than {} levels", crate::TABLE_DEPTH_MAX)]
    TooDeep,
    /// Bytes remain after the last field.
    #[error("bytes left over after the last field")]
    TrailingBytes,
    /// A field ends beyond the bytes that contain it.
    #[error("field cut short")]
    Truncated,
    /// The type octet of a field value is unknown.
    #[error("unknown field type {0:#04x}")]
    UnknownFieldType(u8),
    /// The type octet of a frame is unknown.
    #[error("unknown frame type {0}")]
    UnknownFrameType(u8),
    /// The class id and method id of a method are unknown.
    #[error("unknown method {class}.{method}")]
    UnknownMethod {
        /// The class id.
        class: u16,
        /// The method id.
        method: u16,
    },
    /// The flags of a content header have bits that stand for no property.
    #[error("unknown property flags {0:#06x}")]
    UnknownPropertyFlags(u16),
}

/// A value that cannot be sent: the wire format has no place for it, or RabbitMQ refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// NaN or an infinity: RabbitMQ ends the connection on them.
    #[error("a floating-point number in a table is not finite")]
    NotFinite,
    /// An unsigned number over [`i64::MAX`]: integers in tables are signed.
    #[error("{0} in a table is over the maximum of a signed 64-bit integer")]
    NotSigned(u64),
    /// A short string has more than 255 bytes.
    #[error("string of {0} bytes is over the limit of 255 of a short string")]
    StringTooLong(usize),
    /// Tables or arrays are nested deeper than [`crate::TABLE_DEPTH_MAX`].
    #[error("tables nested deeper than {} levels", crate::TABLE_DEPTH_MAX)]
    TooDeep,
    /// A table, array or long string has more than 2^32 - 1 bytes.
    #[error("{0} bytes are over the limit of a table, array or long string")]
    TooLarge(usize),
}
